//! A full spool: what goes first, and that all of it is declared.

use crate::support::{all, declared, event, find, flow, ids, open, other};
use otlp_bridge::{
    incoming::{Incoming, Keeper as _, Weight},
    spool::{Bounds, From, Spool, SpoolError},
};
use std::{collections::BTreeSet, time::Duration};
use wire::stream::{CLAUDE, EGRESS, GAP, OVERSEER};

const ROOM: u64 = 256 << 10;

fn envoy(n: u64) -> Incoming {
    other("envoy", &format!("envoy-acme-{n}"), Weight::Other)
}

fn numbers(all: &[String], prefix: &str) -> Vec<u64> {
    let with = all.iter().filter_map(|id| id.strip_prefix(prefix));
    with.map(|n| n.parse().unwrap()).collect()
}

#[test]
fn allowed_flows_go_first_then_other_sources_then_the_rest_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let envoy: Vec<_> = (0..100).map(envoy).collect();
    let allowed: Vec<_> = (0..100).map(|n| flow(1, "ALLOWED", n)).collect();
    let denied: Vec<_> = (0..1500).map(|n| flow(1, "DENIED", n)).collect();
    // The allowed ones are the youngest of these.
    spool.keep(None, &denied[..100]).unwrap();
    spool.keep(None, &envoy).unwrap();
    spool.keep(None, &allowed).unwrap();
    let shed = || [EGRESS, "envoy"].map(|s| find(&spool, s).shed);
    assert_eq!(shed(), [0, 0]);
    let mut seen = Vec::new();
    for some in denied[100..].chunks(35) {
        spool.keep(None, some).unwrap();
        assert!(spool.state().unwrap().bytes <= ROOM + (8 << 10));
        let [egress, other] = shed();
        assert!(other == 0 || egress >= 100, "an allowed one is left");
        assert!(
            egress <= 100 || other == 100,
            "one of another source is left"
        );
        seen.push((egress.min(100), other, egress > 100));
    }
    seen.dedup();
    assert!(
        seen.len() > 5 && seen.ends_with(&[(100, 100, true)]),
        "{seen:?}"
    );
    let waiting = ids(&all(&spool, EGRESS));
    let left = numbers(&waiting, &format!("{}-1-d", crate::support::BOOT));
    assert_eq!(left.len(), waiting.len());
    assert_eq!(
        left,
        (1500 - left.len() as u64..1500).collect::<Vec<_>>(),
        "the oldest go"
    );
    let gaps = all(&spool, OVERSEER);
    assert_eq!(declared(&gaps, EGRESS), (shed()[0], shed()[0]));
    assert_eq!(declared(&gaps, "envoy"), (100, 0));
    // Held counts do not care.
    let held = spool.held(crate::support::BOOT).unwrap();
    assert_eq!(
        held.iter().map(|h| h.flows).collect::<Vec<_>>(),
        [100, 1500]
    );
}

#[test]
fn a_gap_says_whose_records_are_missing_why_and_which() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let mut records: Vec<_> = (0..1000)
        .map(|n| flow(n as u32 % 2 + 1, "ALLOWED", n))
        .collect();
    for r in &mut records {
        r.flows.as_mut().unwrap().count = 3;
    }
    spool.keep(None, &records).unwrap();
    let waiting = ids(&all(&spool, EGRESS));
    let gaps = all(&spool, OVERSEER);
    assert_eq!(gaps.len(), 2, "one a slot");
    for (gap, slot) in gaps.iter().zip([1u64, 2]) {
        let (name, a) = event(gap);
        let of = |id: &&Incoming| id.flows.as_ref().unwrap().slot == slot as u32;
        let lost: Vec<_> = records
            .iter()
            .filter(of)
            .filter(|r| !waiting.contains(&r.id))
            .collect();
        assert_eq!(
            (name.as_str(), &a["record_id"]),
            (GAP, &gap.id.as_str().into())
        );
        assert_eq!(a["cause"], "spool_full");
        assert_eq!(a["verdict"], "ALLOWED");
        assert_eq!(a["boot"], crate::support::BOOT);
        assert_eq!(a["agent"], slot.to_string().as_str());
        assert_eq!(a["slot"], slot);
        assert_eq!(a["records"], lost.len());
        assert_eq!(a["flows"], 3 * lost.len());
        assert_eq!(a["first_id"], lost[0].id.as_str());
        assert_eq!(a["last_id"], lost[lost.len() - 1].id.as_str());
        assert!(a["first_time"].as_str() <= a["last_time"].as_str());
    }
}

#[test]
fn what_delivery_works_on_is_not_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let records: Vec<_> = (0..50).map(|n| flow(1, "ALLOWED", n)).collect();
    spool.keep(None, &records).unwrap();
    let out = spool.hand_out(EGRESS, From::Oldest, 30, 1 << 20).unwrap();
    let denied: Vec<_> = (0..2000).map(|n| flow(1, "DENIED", n)).collect();
    spool.keep(None, &denied).unwrap();
    // Those twenty have gone; the thirty are there, and may come back.
    spool.take_back(EGRESS, &out);
    let waiting = ids(&all(&spool, EGRESS));
    assert_eq!(waiting[..30], ids(&out)[..]);
    assert!(!waiting[30..].iter().any(|id| id.contains("-a")));
}

#[test]
fn losses_in_plenty_are_declared_to_the_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let mut kept = 0;
    // So many slots that not all of them can be declared at once.
    for first in (0..3000).step_by(100) {
        let slots = first..first + 100;
        let some = slots.flat_map(|s| [flow(s, "ALLOWED", 0), flow(s, "ALLOWED", 1)]);
        spool.keep(None, &some.collect::<Vec<_>>()).unwrap();
        kept += 200;
    }
    assert!(spool.state().unwrap().undeclared > 0);
    let mut gaps = Vec::new();
    while spool.state().unwrap().undeclared > 0 {
        let some = all(&spool, OVERSEER);
        spool.delivered(OVERSEER, &some);
        spool.flush().unwrap();
        gaps.extend(some);
    }
    gaps.extend(all(&spool, OVERSEER));
    let waiting = all(&spool, EGRESS).len() as u64;
    assert_eq!(declared(&gaps, EGRESS), (kept - waiting, kept - waiting));
    let unique: BTreeSet<_> = ids(&gaps).into_iter().collect();
    assert_eq!(unique.len(), gaps.len());
}

#[test]
fn what_is_too_old_goes_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Bounds {
        bytes: 1 << 30,
        age: Duration::from_millis(200),
    };
    let spool = Spool::open(dir.path(), bounds, |e| panic!("{e}")).unwrap();
    spool
        .keep(None, &[flow(1, "DENIED", 1), flow(1, "ALLOWED", 1)])
        .unwrap();
    crate::support::eventually("age", || (find(&spool, EGRESS).pending == 0).then_some(()));
    let gaps = all(&spool, OVERSEER);
    assert_eq!(declared(&gaps, EGRESS), (2, 2));
    assert!(gaps.iter().all(|g| event(g).1["cause"] == "spool_age"));
}

#[test]
fn records_set_aside_have_a_bound_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let records: Vec<_> = (0..200).map(envoy).collect();
    spool.keep(None, &records).unwrap();
    for p in all(&spool, "envoy") {
        spool.set_aside("envoy", &p, "no");
    }
    spool.flush().unwrap();
    let state = find(&spool, "envoy");
    assert!(state.bytes <= ROOM / 16, "{state:?}");
    assert_eq!(state.set_aside + state.shed, 200);
    assert_eq!(declared(&all(&spool, OVERSEER), "envoy"), (state.shed, 0));
}

fn claude(n: u64) -> Incoming {
    other(CLAUDE, &format!("claude-acme-{n}"), Weight::Other)
}

#[test]
fn a_flood_of_the_agents_lane_is_put_off_and_takes_nobodys_flows_away() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let allowed: Vec<_> = (0..200).map(|n| flow(1, "ALLOWED", n)).collect();
    spool.keep(None, &allowed).unwrap();
    let flood: Vec<_> = (0..2000).map(claude).collect();
    // Several at a time, as the entrance does it: they share transactions.
    let send = |part: &[Incoming]| {
        let (mut taken, mut put_off) = (Vec::new(), 0);
        for some in part.chunks(20) {
            match spool.keep(None, some) {
                Ok(()) => taken.extend(some.iter().map(|r| r.id.clone())),
                Err(SpoolError::AgentsFull(_)) => put_off += some.len(),
                Err(e) => panic!("{e}"),
            }
        }
        (taken, put_off)
    };
    let (mut taken, mut put_off) = (BTreeSet::new(), 0);
    std::thread::scope(|scope| {
        let parts = flood.chunks(250);
        let senders: Vec<_> = parts.map(|part| scope.spawn(|| send(part))).collect();
        for sender in senders {
            let (some, refused) = sender.join().unwrap();
            taken.extend(some);
            put_off += refused;
        }
    });
    assert!(!taken.is_empty() && put_off > 0);
    let (lane, flows) = (find(&spool, CLAUDE), find(&spool, EGRESS));
    assert_eq!((flows.shed, flows.pending), (0, 200));
    assert!(lane.bytes <= ROOM / 4, "{lane:?}");
    // What was answered is there to the last record, and nothing else.
    assert_eq!((lane.kept, lane.shed), (taken.len() as u64, 0));
    let waiting = all(&spool, CLAUDE);
    assert_eq!(ids(&waiting).into_iter().collect::<BTreeSet<_>>(), taken);
    // The others have their room, and the lane has its own again once something has left.
    spool
        .keep(None, &[envoy(1), flow(1, "ALLOWED", 999)])
        .unwrap();
    spool.delivered(CLAUDE, &waiting);
    spool.flush().unwrap();
    spool.keep(None, &flood[1980..]).unwrap();
}

#[test]
fn a_request_larger_than_the_part_of_the_agents_lane_is_not_put_off_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let large: Vec<_> = (0..300).map(claude).collect();
    spool.keep(None, &large).unwrap();
    assert!(find(&spool, CLAUDE).bytes > ROOM / 4);
    let more = spool.keep(None, &[claude(300)]);
    assert!(matches!(more, Err(SpoolError::AgentsFull(_))), "{more:?}");
}
