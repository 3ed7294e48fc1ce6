//! Any sequence of keeping, shedding, delivering and restarting, against a model.

use crate::support::{all, declared, find, flow, ids, open, other};
use otlp_bridge::{
    incoming::{BatchId, Incoming, Keeper as _, Weight},
    spool::{From, Pending, Spool},
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use wire::stream::{EGRESS, OVERSEER};

const ROOM: u64 = 48 << 10;
const STREAMS: [&str; 2] = [EGRESS, "envoy"];

#[derive(Clone, Debug)]
enum Op {
    /// Records of a kind, from a number on, maybe as a batch.
    Keep(u8, u16, u8, Option<u8>),
    HandOut(usize, usize),
    /// What became of the oldest that were handed out: 0 delivered, 1 back, 2 set aside.
    Settle(usize, u8),
    /// What was set aside waits again.
    TryAgain,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0u8..3, 0u16..600, 1u8..40, prop::option::of(1u8..20))
            .prop_map(|(kind, from, n, batch)| Op::Keep(kind, from, n, batch)),
        3 => (0usize..2, 1usize..60).prop_map(|(s, n)| Op::HandOut(s, n)),
        3 => (0usize..2, 0u8..3).prop_map(|(s, what)| Op::Settle(s, what)),
        1 => Just(Op::TryAgain),
        1 => Just(Op::Restart),
    ]
}

#[derive(Default)]
struct Model {
    batches: BTreeSet<u8>,
    kept: [u64; 2],
    delivered: [u64; 2],
    out: [Vec<Pending>; 2],
}

fn record(kind: u8, n: u16) -> (usize, Incoming) {
    match kind {
        0 => (0, flow(u32::from(n % 3), "ALLOWED", n.into())),
        1 => (0, flow(u32::from(n % 3), "DENIED", n.into())),
        _ => (1, other("envoy", &format!("e-x-{n}"), Weight::Other)),
    }
}

impl Model {
    fn keep(&mut self, spool: &Spool, kind: u8, from: u16, n: u8, batch: Option<u8>) {
        let records: Vec<_> = (from..from + u16::from(n))
            .map(|n| record(kind, n))
            .collect();
        let incoming: Vec<_> = records.iter().map(|(_, r)| r.clone()).collect();
        let id = batch.map(|number| BatchId {
            sender: "s".to_owned(),
            number: number.into(),
        });
        // What is here now, not what the model thinks: records may have been shed since.
        let before = STREAMS.map(|s| find(spool, s).kept);
        spool.keep(id.as_ref(), &incoming).unwrap();
        let repeated = batch.is_some_and(|b| !self.batches.insert(b));
        for (i, stream) in STREAMS.iter().enumerate() {
            let new = find(spool, stream).kept - before[i];
            let most = records.iter().filter(|(s, _)| *s == i).count() as u64;
            assert!(if repeated { new == 0 } else { new <= most });
            self.kept[i] += new;
        }
    }

    fn check(&self, spool: &Spool) {
        for (i, stream) in STREAMS.iter().enumerate() {
            let s = find(spool, stream);
            assert_eq!(s.kept, self.kept[i]);
            assert_eq!(s.delivered, self.delivered[i]);
            assert_eq!(s.kept, s.delivered + s.shed + s.pending + s.set_aside);
            assert_eq!(s.in_delivery, self.out[i].len() as u64);
        }
    }
}

fn run(ops: &[Op]) {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), ROOM);
    let mut m = Model::default();
    for op in ops {
        match *op {
            Op::Keep(kind, from, n, batch) => m.keep(&spool, kind, from, n, batch),
            Op::HandOut(s, n) => {
                let got = spool
                    .hand_out(STREAMS[s], From::Oldest, n, 1 << 20)
                    .unwrap();
                assert!(got.len() <= n);
                let out: BTreeSet<_> = m.out[s].iter().map(|p| &p.id).collect();
                assert!(got.iter().all(|p| !out.contains(&p.id)), "handed out twice");
                m.out[s].extend(got);
            }
            Op::Settle(s, what) => {
                let half = m.out[s].len().div_ceil(2);
                let some: Vec<_> = m.out[s].drain(..half).collect();
                match what {
                    0 => {
                        spool.delivered(STREAMS[s], &some);
                        m.delivered[s] += some.len() as u64;
                    }
                    1 => spool.take_back(STREAMS[s], &some),
                    _ => some
                        .iter()
                        .for_each(|p| spool.set_aside(STREAMS[s], p, "no")),
                }
                spool.flush().unwrap();
            }
            Op::TryAgain => {
                spool.try_again().unwrap();
                // What it makes too much goes at once, declared; nothing stays aside.
                assert!(STREAMS.iter().all(|s| find(&spool, s).set_aside == 0));
            }
            Op::Restart => {
                spool.close().unwrap();
                spool = open(dir.path(), ROOM);
                m.out = Default::default();
            }
        }
        m.check(&spool);
    }
    // A restart forgets what was handed out, and nothing else.
    spool.close().unwrap();
    let spool = open(dir.path(), ROOM);
    let mut gaps = Vec::new();
    loop {
        let some = all(&spool, OVERSEER);
        if some.is_empty() {
            break;
        }
        spool.delivered(OVERSEER, &some);
        spool.flush().unwrap();
        gaps.extend(some);
    }
    for (i, stream) in STREAMS.iter().enumerate() {
        let state = find(&spool, stream);
        let waiting = all(&spool, stream);
        let unique: BTreeSet<_> = ids(&waiting).into_iter().collect();
        assert_eq!(unique.len(), waiting.len(), "an id is there twice");
        assert_eq!(state.pending, waiting.len() as u64);
        assert_eq!(
            declared(&gaps, stream).0,
            state.shed,
            "declared is what was shed"
        );
        assert_eq!(
            m.kept[i],
            m.delivered[i] + state.pending + state.shed + state.set_aside
        );
    }
    let held: u64 = spool
        .held(crate::support::BOOT)
        .unwrap()
        .iter()
        .map(|h| h.flows)
        .sum();
    assert_eq!(held, m.kept[0], "every record of the stream is one flow");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn nothing_vanishes_unsaid(ops in prop::collection::vec(op(), 1..40)) {
        run(&ops);
    }
}
