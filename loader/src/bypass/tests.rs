use super::*;
use crate::{audit::BypassEvent, enrol::Identity};
use proptest::prelude::*;
use zerocopy::FromZeros as _;

fn actor(cgroup: Option<&str>) -> Actor {
    Actor {
        actor: Some("alice".to_owned()),
        actor_uid: 1000,
        actor_pid: 7,
        actor_comm: "sh".to_owned(),
        actor_login: None,
        cgroup: cgroup.map(ToOwned::to_owned),
    }
}

fn lift(for_ms: u64, reason: &str) -> Order {
    Order::Lift(Lift {
        agent: Some("reviewer".to_owned()),
        project: None,
        for_ms,
        reason: reason.to_owned(),
    })
}

fn restore(reason: Option<&str>) -> Order {
    Order::Restore(Restore {
        agent: Some("reviewer".to_owned()),
        project: None,
        reason: reason.map(ToOwned::to_owned),
    })
}

fn info() -> SlotInfo {
    Identity {
        agent: Some("reviewer".to_owned()),
        cgroup: "docker/3f2a".to_owned(),
        ..Identity::default()
    }
    .info(7, 1)
}

fn config(bypass_until: u64) -> SlotConfig {
    SlotConfig {
        slot: 7,
        generation: u32::MAX,
        bypass_until,
        ..SlotConfig::new_zeroed()
    }
}

#[test]
fn orders_have_bounds() {
    let day = 24 * 60 * 60 * 1000;
    for (for_ms, reason, good) in [
        (1000, "x", true),
        (day, "x", true),
        (999, "x", false),
        (day + 1, "x", false),
        (u64::MAX, "x", false),
        (1000, " ", false),
        (1000, "", false),
        (1000, "two\nlines", false),
        (1000, &"x".repeat(MAX_REASON), true),
        (1000, &"x".repeat(MAX_REASON + 1), false),
    ] {
        assert_eq!(
            lift(for_ms, reason).check().is_ok(),
            good,
            "{for_ms} {reason:?}"
        );
    }
    assert!(restore(None).check().is_ok() && restore(Some("done")).check().is_ok());
    assert!(restore(Some("")).check().is_err());
}

#[test]
fn nobody_under_the_firewall_lifts_it() {
    for (cgroup, guarded) in [
        (Some("docker/3f2a"), true),
        (Some("docker/3f2a/below"), true),
        (Some("docker/3f2ab"), false),
        (Some("docker"), false),
        (Some(""), false),
        // Who cannot be placed could be anywhere.
        (None, true),
    ] {
        assert_eq!(is_guarded(&actor(cgroup), &info()), guarded, "{cgroup:?}");
    }
}

#[test]
fn a_bypass_is_begun_changed_and_ended() {
    let me = actor(Some(""));
    let order = lift(300_000, "debug npm");
    let (row, new, change) = plan("run-1", (&info(), &config(0)), &order, &me).unwrap();
    let left = Duration::from_nanos(new.bypass_until - boot_now());
    assert!(left <= Duration::from_secs(300) && left > Duration::from_secs(290));
    assert_eq!(new.generation, 0, "live flows are judged again");
    assert_eq!(enrol::text(&row.bypass_reason), "debug npm");
    assert_eq!(
        (change.event_name, change.replaced_until),
        (BypassEvent::Begun, None)
    );
    assert_eq!(change.actor.as_ref(), Some(&me));
    let lasts = change.bypass_until.duration_since(change.bypass_from);
    assert!((lasts.as_secs() - 300).abs() <= 1, "{change:?}");

    let again = plan("run-1", (&row, &new), &lift(1000, "less"), &me).unwrap();
    assert!(again.1.bypass_until < new.bypass_until);
    assert!(again.2.replaced_until.is_some());

    let (_, off, change) = plan("run-1", (&row, &new), &restore(Some("done")), &me).unwrap();
    assert_eq!((off.bypass_until, off.generation), (0, 1));
    assert_eq!(change.event_name, BypassEvent::Ended);
    assert_eq!(change.bypass_by, "alice, uid 1000");
    assert_eq!(change.bypass_reason, "debug npm");
    assert_eq!(change.message.as_deref(), Some("done"));
    assert!(plan("run-1", (&row, &off), &restore(None), &me).is_none());
    assert!(
        plan("run-1", (&row, &config(1)), &restore(None), &me).is_none(),
        "long over"
    );
}

#[test]
fn an_end_by_time_is_told_once() {
    let (new, change) = expired("run-1", &info(), &config(1)).unwrap();
    assert_eq!(
        (new.bypass_until, change.event_name),
        (0, BypassEvent::Ended)
    );
    assert_eq!((change.time, change.actor), (change.bypass_until, None));
    assert!(expired("run-1", &info(), &new).is_none());
    assert!(
        expired("run-1", &info(), &config(u64::MAX)).is_none(),
        "it runs"
    );
}

proptest! {
    #[test]
    fn an_order_changes_the_end_and_the_generation_and_nothing_else(
        until in any::<u64>(), generation in any::<u32>(), for_ms in 1000u64..86_400_000, off in any::<bool>(),
    ) {
        let old = SlotConfig { generation, policy: 5, mode: 1, flags: 7, index: 3, ..config(until) };
        let order = if off { restore(None) } else { lift(for_ms, "x") };
        if let Some((row, new, _)) = plan("i", (&info(), &old), &order, &actor(Some(""))) {
            let same = SlotConfig { bypass_until: until, generation, ..new };
            prop_assert_eq!(same, old);
            prop_assert_eq!(new.generation, generation.wrapping_add(1));
            prop_assert!(new.bypass_until <= boot_now() + for_ms * 1_000_000);
            prop_assert_eq!((row.slot, row.cgroup, row.agent), (7, info().cgroup, info().agent));
        } else {
            prop_assert!(off && until <= boot_now());
        }
    }

    #[test]
    fn the_time_of_day_of_now_is_now(off in -1_000_000_000_000i64..1_000_000_000_000) {
        let at = boot_now().saturating_add_signed(off);
        let told = wall(at).duration_since(Timestamp::now()).as_nanos();
        prop_assert!((told - i128::from(off)).abs() < 2_000_000_000 || at == 0);
    }
}
