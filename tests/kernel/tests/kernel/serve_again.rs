//! A loader takes over the agents of one that is dead.

use kernel_tests::{
    check::fields,
    fleet::{Yard, wall},
    peer::once,
};
use serde_json::{Value, json};
use std::{fs, io::Read as _};

const POLICY: &str = "rules: [{ name: all, dst: 192.0.2.0/24, proto: any }]\n";

/// One refused and one denied connection a step, until there is none.
const STEPS: &str = "while True:\n\
    \x20   step('turn')\n\
    \x20   assert tcp('192.0.2.1', 80) == 'ECONNREFUSED'\n\
    \x20   assert tcp('203.0.113.9', 80) == 'EPERM'";

fn verdicts(records: &[Value]) -> (usize, usize) {
    let of = |v: &str| records.iter().filter(|r| r["verdict"] == v).count();
    (of("ALLOWED"), of("DENIED"))
}

#[test]
fn agents_keep_slot_lease_and_every_flow_when_loaders_follow_each_other() {
    const LIVES: usize = 4;
    let mut yard = Yard::new(Some(POLICY), 2);
    let mut pod = yard.pod("c1", ("web", "shop"), STEPS);
    // Longer than what the kernel's table holds.
    let project = "p".repeat(300);
    pod.container.project = Some(project.clone());
    pod.container.addresses = vec!["172.18.0.9".parse().unwrap()];
    yard.start(&pod);
    let slot = yard.pins().infos().unwrap()[0].1.slot;
    for life in 0..LIVES {
        assert_eq!(pod.agent.go(), "turn");
        // Nobody reads these but the next loader.
        yard = yard.again(Some(POLICY));
        assert_eq!(yard.fleet.enrolled(), 1);
        assert_eq!(yard.pins().infos().unwrap()[0].1.slot, slot);
        assert_eq!(pod.agent.go(), "turn");
        // The engine may take its time.
        if life % 2 == 0 {
            yard.all(&[&pod]);
        }
    }
    assert_eq!(pod.agent.go(), "turn");
    yard.all(&[&pod]);
    yard.turn();
    let leases: Value =
        serde_json::from_str(&fs::read_to_string(yard.bench.path("leases.json")).unwrap()).unwrap();
    let mine: Vec<&Value> = leases["leases"].as_array().unwrap().iter().collect();
    assert_eq!(mine.len(), 1, "{mine:#?}");
    assert_eq!(mine[0]["until"], Value::Null, "{mine:#?}");
    yard.stop(pod);
    yard.is_empty();
    let records = yard.bench.records();
    let turns = 2 * LIVES;
    assert_eq!(verdicts(&records), (turns, turns), "{records:#?}");
    for r in &records {
        fields(
            r,
            &json!({"agent": "web", "project": project, "container_id": "c1", "container_name": "name-c1"}),
        );
    }
    assert_eq!(yard.events("taken_over").len(), LIVES);
    assert_eq!(
        (yard.events("enrolled").len(), yard.events("left").len()),
        (1, 1)
    );
    assert!(yard.events("gap").is_empty());
}

#[test]
fn a_connection_lives_on_and_is_under_the_policy_of_the_new_loader() {
    let mut yard = Yard::new(Some(POLICY), 2);
    let server = once("192.0.2.1:8080", |mut s| {
        let mut ten = [0; 10];
        s.read_exact(&mut ten).map(|()| ten)
    });
    let mut pod = yard.pod(
        "c1",
        ("web", "shop"),
        "s = dial('192.0.2.1'); s.sendall(b'12345'); step('sent')\n\
         s.sendall(b'67890'); step('more')\n\
         say(tried(lambda: dial('192.0.2.1')))",
    );
    yard.start(&pod);
    assert_eq!(pod.agent.go(), "sent");
    yard = yard.again(Some(POLICY));
    yard.all(&[&pod]);
    assert_eq!(pod.agent.go(), "more");
    // Another policy, with nobody there to see the file change.
    yard = yard.again(Some(
        "rules: [{ name: else, dst: 198.51.100.1, proto: any }]\n",
    ));
    assert_eq!(pod.agent.go(), "EPERM");
    yard.stop(pod);
    yard.is_empty();
    assert_eq!(server.join().unwrap().1.unwrap(), *b"1234567890");
    let records = yard.bench.records();
    let allowed: Vec<_> = records
        .iter()
        .filter(|r| r["verdict"] == "ALLOWED")
        .collect();
    assert_eq!(allowed.len(), 1, "{records:#?}");
    fields(
        allowed[0],
        &json!({"bytes_out": 10, "close_reason": "policy", "agent": "web"}),
    );
    let denied: Vec<_> = records
        .iter()
        .filter(|r| r["reason"] == "default")
        .collect();
    assert_eq!(denied.len(), 1, "{records:#?}");
}

#[test]
fn who_ended_while_nobody_looked_is_told_and_leaves_nothing() {
    let mut yard = Yard::new(Some(POLICY), 2);
    let mut gone = yard.pod("c1", ("web", "shop"), STEPS);
    let mut stays = yard.pod("c2", ("db", "shop"), STEPS);
    for pod in [&mut gone, &mut stays] {
        yard.start(pod);
        assert_eq!(pod.agent.go(), "turn");
        assert_eq!(pod.agent.go(), "turn");
    }
    yard = yard.while_away(Some(POLICY), || {
        kernel_tests::clear(&gone.cgroup);
        drop(gone.agent);
        gone.cgroup.remove().unwrap();
    });
    assert_eq!(yard.fleet.enrolled(), 1);
    yard.all(&[&stays]);
    yard.until("the row to be free", |y| {
        (y.pins().infos().unwrap().len() == 1).then_some(())
    });
    yard.stop(stays);
    yard.is_empty();
    assert_eq!(verdicts(&yard.bench.records()), (2, 2));
    assert_eq!(yard.events("left").len(), 2);
    assert!(yard.events("gap").is_empty());
}

#[test]
fn who_was_started_anew_meanwhile_is_enrolled_in_its_new_cgroup() {
    let mut yard = Yard::new(Some(POLICY), 2);
    let pod = yard.pod("c1", ("web", "shop"), STEPS);
    yard.start(&pod);
    let before = pod.cgroup.id().unwrap();
    // The same id, and a directory of the same name.
    let mut again = None;
    yard = yard.while_away(Some(POLICY), || {
        kernel_tests::clear(&pod.cgroup);
        drop(pod.agent);
        pod.cgroup.remove().unwrap();
    });
    let mut next = yard.pod("c1", ("web", "shop"), STEPS);
    next.container.started = wall();
    assert_ne!(next.cgroup.id().unwrap(), before);
    yard.all(&[&next]);
    assert_eq!(next.agent.go(), "turn");
    assert_eq!(next.agent.go(), "turn");
    again.replace(next);
    yard.until("the row of the first to be free", |y| {
        (y.pins().infos().unwrap().len() == 1).then_some(())
    });
    // And once more, between the taking over and the engine's list.
    yard = yard.again(Some(POLICY));
    let pod = again.unwrap();
    kernel_tests::clear(&pod.cgroup);
    drop(pod.agent);
    pod.cgroup.remove().unwrap();
    let mut last = yard.pod("c1", ("web", "shop"), STEPS);
    yard.all(&[&last]);
    assert_eq!(last.agent.go(), "turn");
    assert_eq!(last.agent.go(), "turn");
    yard.stop(last);
    yard.is_empty();
    assert_eq!(verdicts(&yard.bench.records()), (2, 2));
    assert_eq!(yard.events("left").len(), 3);
}

#[test]
fn an_attachment_without_a_slot_goes_with_its_cgroup() {
    let mut yard = Yard::new(Some(POLICY), 2);
    let rows: Vec<_> = (0..3)
        .map(|n| yard.pod(&format!("c{n}"), ("web", "shop"), STEPS))
        .collect();
    // The third finds no row: it is attached, and nothing passes.
    for pod in &rows {
        yard.start(pod);
    }
    assert_eq!((yard.fleet.enrolled(), yard.links().len()), (2, 3));
    yard = yard.again(Some(POLICY));
    assert_eq!((yard.fleet.enrolled(), yard.links().len()), (2, 3));
    let all: Vec<_> = rows.iter().collect();
    yard.all(&all);
    for pod in rows {
        yard.stop(pod);
    }
    yard.is_empty();
}

#[test]
fn a_guarded_parent_lets_nobody_out_who_is_not_enrolled_before_and_after() {
    let mut yard = Yard::guarded(Some(POLICY), 2);
    let mut agent = yard.pod("c1", ("web", "shop"), STEPS);
    let mut stranger = yard.pod(
        "c2",
        ("", ""),
        "while True: step(tried(lambda: dgram().sendto(b'x', ('192.0.2.1', 81))))",
    );
    yard.start(&agent);
    for parents in 0..3 {
        assert_eq!(agent.agent.go(), "turn");
        assert_eq!(agent.agent.go(), "turn");
        assert_eq!(stranger.agent.go(), "EPERM");
        let parent = yard.parent();
        yard = yard.again_with(Some(POLICY), &[parent]);
        assert_eq!(yard.pins().guards().unwrap().len(), 1, "{parents}");
    }
    yard.all(&[&agent]);
    yard.turn();
    let unjudged = yard.bench.records();
    let refused = unjudged.iter().filter(|r| r["reason"] == "not_enrolled");
    assert!(refused.clone().count() >= 3, "{unjudged:#?}");
    assert!(refused.clone().all(|r| r["agent"] == Value::Null));
    // A parent that nobody names any more is not guarded.
    yard = yard.again(Some(POLICY));
    assert_eq!(yard.pins().guards().unwrap().len(), 0);
    assert_eq!(stranger.agent.go(), "sent");
}
