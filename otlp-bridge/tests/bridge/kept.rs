//! What is kept: once, in order, over restarts.

use crate::support::{all, event, find, flow, ids, open, other};
use otlp_bridge::{
    incoming::{BatchId, Held, Keeper as _, Weight},
    spool::{From, Spool, SpoolError},
};
use std::{fs, sync::Arc};
use wire::stream::{EGRESS, OVERSEER, SET_ASIDE};

const ROOM: u64 = 64 << 20;

fn batch(number: u64) -> BatchId {
    BatchId {
        sender: "loader".to_owned(),
        number,
    }
}

#[test]
fn records_come_out_in_the_order_in_which_they_came_in_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let verdicts = ["ALLOWED", "DENIED", "BYPASSED"];
    let mut sent = Vec::new();
    for n in 0..500 {
        let record = flow(1, verdicts[n as usize % 3], n);
        sent.push(record.id.clone());
        spool.keep(None, &[record]).unwrap();
    }
    let some = spool.hand_out(EGRESS, From::Oldest, 120, 1 << 20).unwrap();
    assert_eq!(ids(&some), sent[..120]);
    spool.delivered(EGRESS, &some[..100]);
    spool.close().unwrap();
    // What was handed out and not settled is handed out again.
    let spool = open(dir.path(), ROOM);
    assert_eq!(ids(&all(&spool, EGRESS)), sent[100..]);
    let state = find(&spool, EGRESS);
    assert_eq!(
        (state.kept, state.delivered, state.pending),
        (500, 100, 400)
    );
    assert!(state.oldest_ms.is_some());
}

#[test]
fn a_record_may_be_asked_for_from_anywhere_in_its_queue() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let before: Vec<_> = (0..100).map(|n| flow(1, "ALLOWED", n)).collect();
    let after: Vec<_> = (0..900)
        .map(|n| other("envoy", &format!("e-x-{n}"), Weight::Other))
        .collect();
    spool.keep(None, &before).unwrap();
    spool.keep(None, &after).unwrap();
    let probe = |part| {
        spool
            .hand_out(EGRESS, From::Part(part), 1, 1 << 20)
            .unwrap()
            .remove(0)
    };
    assert_eq!(probe(0.5).id, before[49].id);
    assert_eq!(probe(0.5).id, before[50].id, "not the same again");
    let last = probe(1.0);
    assert_eq!(last.id, before[99].id);
    spool.take_back(EGRESS, &[last]);
    // Order is kept for the others, and the one that came back is among them.
    let rest = ids(&all(&spool, EGRESS));
    let wanted = before
        .iter()
        .enumerate()
        .filter(|(n, _)| *n != 49 && *n != 50);
    assert_eq!(rest, wanted.map(|(_, r)| r.id.clone()).collect::<Vec<_>>());
}

#[test]
fn a_batch_that_comes_twice_is_kept_once_also_out_of_order_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), ROOM);
    // 3 was under way at the same time as 2 and overtook it.
    for number in [1, 3, 2, 1, 2, 3, 3] {
        let record = flow(1, "ALLOWED", number);
        spool.keep(Some(&batch(number)), &[record]).unwrap();
        spool = {
            spool.close().unwrap();
            open(dir.path(), ROOM)
        };
    }
    assert_eq!(all(&spool, EGRESS).len(), 3);
    let wanted = Held {
        slot: 1,
        verdict: "ALLOWED".to_owned(),
        flows: 3,
    };
    assert_eq!(spool.held(crate::support::BOOT).unwrap(), [wanted]);
}

#[test]
fn flows_stay_counted_when_their_records_have_left() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    let mut folded = flow(7, "DENIED", 1);
    folded.flows.as_mut().unwrap().count = 40;
    spool
        .keep(None, &[folded, flow(7, "DENIED", 2), flow(8, "ALLOWED", 1)])
        .unwrap();
    spool.delivered(EGRESS, &all(&spool, EGRESS));
    spool.flush().unwrap();
    assert_eq!(find(&spool, EGRESS).pending, 0);
    let held = spool.held(crate::support::BOOT).unwrap();
    let held: Vec<_> = held
        .iter()
        .map(|h| (h.slot, h.verdict.as_str(), h.flows))
        .collect();
    assert_eq!(held, [(7, "DENIED", 41), (8, "ALLOWED", 1)]);
    assert_eq!(spool.held("another boot").unwrap(), []);
}

#[test]
fn an_id_that_waits_is_not_kept_again_nor_are_its_flows_counted_again() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    for _ in 0..3 {
        spool
            .keep(None, &[flow(1, "DENIED", 1), flow(1, "DENIED", 1)])
            .unwrap();
    }
    assert_eq!(all(&spool, EGRESS).len(), 1);
    assert_eq!(spool.held(crate::support::BOOT).unwrap()[0].flows, 1);
}

#[test]
fn callers_at_the_same_time_all_get_what_they_were_promised() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(open(dir.path(), ROOM));
    let callers = (0..16).map(|slot| {
        let spool = Arc::clone(&spool);
        std::thread::spawn(move || {
            for n in 0..20 {
                spool.keep(None, &[flow(slot, "ALLOWED", n)]).unwrap();
            }
        })
    });
    callers
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|c| c.join().unwrap());
    let mut got = ids(&all(&spool, EGRESS));
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 320);
}

#[test]
fn a_record_that_no_receiver_takes_stays_and_is_announced_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    spool
        .keep(None, &[other("envoy", "x-acme-1", Weight::Other)])
        .unwrap();
    let poison = all(&spool, "envoy").remove(0);
    spool.set_aside("envoy", &poison, "mapper_parsing_exception");
    spool.flush().unwrap();
    spool.close().unwrap();
    let spool = open(dir.path(), ROOM);
    assert!(all(&spool, "envoy").is_empty());
    let state = find(&spool, "envoy");
    assert_eq!((state.kept, state.set_aside, state.pending), (1, 1, 0));
    let notices = all(&spool, OVERSEER);
    let (name, attributes) = event(&notices[0]);
    assert_eq!((name.as_str(), notices.len()), (SET_ASIDE, 1));
    assert_eq!(attributes["first_id"], "x-acme-1");
    assert_eq!(attributes["stream"], "envoy");
    assert_eq!(attributes["agent"], "acme");
    assert_eq!(attributes["failure"], "mapper_parsing_exception");
    // Poison in the stream of announcements is only counted.
    spool.set_aside(OVERSEER, &notices[0], "no");
    spool.flush().unwrap();
    assert!(all(&spool, OVERSEER).is_empty());
    assert_eq!(find(&spool, OVERSEER).set_aside, 1);
}

#[test]
fn two_bridges_do_not_share_a_spool() {
    let dir = tempfile::tempdir().unwrap();
    let _spool = open(dir.path(), ROOM);
    let second = Spool::open(dir.path(), crate::support::bounds(ROOM), |_| {});
    assert!(matches!(second, Err(SpoolError::InUse(_))));
    assert!(matches!(Spool::look(dir.path()), Err(SpoolError::InUse(_))));
}

/// What was done to a file.
type Damage = fn(&mut Vec<u8>);

#[test]
fn a_damaged_store_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(dir.path(), ROOM);
    for n in 0..50 {
        spool.keep(None, &[flow(1, "ALLOWED", n)]).unwrap();
    }
    spool.close().unwrap();
    let file = dir.path().join("spool.redb");
    let good = fs::read(&file).unwrap();
    let middle: Damage = |bytes| {
        for page in bytes.chunks_mut(4096).skip(1) {
            page[100..200].fill(0x5a);
        }
    };
    let damages: [(&str, Damage); 4] = [
        ("no store at all", |b| *b = b"hello".to_vec()),
        ("cut", |b| b.truncate(b.len() / 3)),
        ("its head overwritten", |b| b[..512].fill(0xff)),
        ("its pages overwritten", middle),
    ];
    for (what, damage) in damages {
        let mut bytes = good.clone();
        damage(&mut bytes);
        fs::write(&file, &bytes).unwrap();
        let opened = Spool::open(dir.path(), crate::support::bounds(ROOM), |_| {});
        let Err(e @ SpoolError::Damaged { .. }) = opened else {
            panic!("{what}: {:?}", opened.err());
        };
        assert!(e.to_string().contains("mv "), "{e}");
    }
    fs::write(&file, good).unwrap();
    assert_eq!(all(&open(dir.path(), ROOM), EGRESS).len(), 50);
}
