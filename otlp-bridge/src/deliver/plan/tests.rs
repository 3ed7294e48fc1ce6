use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Id = u32;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record(String);

impl Named for Record {
    fn id(&self) -> &str {
        &self.0
    }
}

const LIMITS: Limits = Limits {
    requests: 4,
    batches: 16,
};
const BATCH: usize = 10;

fn refusal(message: &str) -> Outcome {
    Outcome::Refused(Failure::Status {
        code: "500".to_owned(),
        message: message.to_owned(),
    })
}

fn nobody() -> Outcome {
    Outcome::Retry {
        after: None,
        failure: Failure::Connect("refused".to_owned()),
    }
}

fn silence() -> Outcome {
    Outcome::Retry {
        after: None,
        failure: Failure::Timeout(Duration::from_secs(1)),
    }
}

fn record(id: Id) -> Record {
    Record(id.to_string())
}

/// A queue, a plan, and a receiver that answers at once.
struct World {
    plan: Plan<Record>,
    queue: BTreeSet<Id>,
    delivered: BTreeMap<Id, u32>,
    aside: BTreeSet<Id>,
    now: Instant,
}

impl World {
    fn new(records: Id) -> Self {
        Self {
            plan: Plan::new(LIMITS),
            queue: (0..records).collect(),
            delivered: BTreeMap::new(),
            aside: BTreeSet::new(),
            now: Instant::now(),
        }
    }

    /// Does what the plan wants, for so many requests. False when it wants nothing any more.
    fn step(&mut self, random: f64, mut answer: impl FnMut(&[Id]) -> Outcome) -> bool {
        // Every request is answered before the next is asked for, but for those of one round.
        let mut round = Vec::new();
        loop {
            match self.plan.next(self.now, !self.queue.is_empty()) {
                Next::Send(ticket) => round.push(ticket),
                Next::More => {
                    let ids: Vec<Id> = self.queue.iter().copied().take(BATCH).collect();
                    self.queue.retain(|id| !ids.contains(id));
                    self.plan.add(ids.into_iter().map(record).collect());
                }
                Next::Probe => {
                    let at = (self.queue.len() as f64 * random) as usize;
                    let id = self.queue.iter().nth(at).copied();
                    self.queue.retain(|q| Some(*q) != id);
                    self.plan.add_probe(id.map(record));
                }
                Next::Rest(until) if round.is_empty() => match until {
                    None => return false,
                    Some(until) => {
                        assert!(until > self.now, "it does not spin");
                        self.now = until;
                    }
                },
                Next::Rest(_) => break,
            }
        }
        // What rests has its turn some time, however much comes.
        self.now += Duration::from_millis(50);
        for ticket in round {
            let ids: Vec<Id> = self.ids(ticket);
            assert!(!ids.is_empty(), "an empty request");
            let fates = self.plan.answered(ticket, answer(&ids), self.now);
            self.fulfil(fates);
        }
        true
    }

    fn ids(&self, ticket: Ticket) -> Vec<Id> {
        let records = self.plan.records(ticket).iter();
        records.map(|r| r.0.parse().unwrap()).collect()
    }

    fn fulfil(&mut self, fates: Vec<Fate<Record>>) {
        for fate in fates {
            match fate {
                Fate::Delivered(records) => {
                    for r in records {
                        *self.delivered.entry(r.0.parse().unwrap()).or_default() += 1;
                    }
                }
                Fate::Aside(r, _) => assert!(self.aside.insert(r.0.parse().unwrap())),
                Fate::Back(records) => {
                    self.queue
                        .extend(records.iter().map(|r| r.0.parse::<Id>().unwrap()));
                }
            }
        }
    }
}

#[test]
fn everything_arrives_once_where_nothing_fails() {
    let mut w = World::new(95);
    while w.step(0.5, |_| Outcome::Delivered) {}
    assert_eq!(w.delivered, (0..95).map(|id| (id, 1)).collect());
}

#[test]
fn a_poison_record_is_found_and_the_others_arrive() {
    let mut w = World::new(200);
    let poison = |ids: &[Id]| match ids.contains(&77) {
        true => refusal("mapper_parsing_exception"),
        false => Outcome::Delivered,
    };
    while w.aside.is_empty() && w.step(0.5, poison) {
        // Others keep coming, as they do.
        let next = 1000 + w.delivered.len() as Id;
        w.queue.insert(next);
    }
    assert_eq!(w.aside, BTreeSet::from([77]));
    while w.step(0.5, poison) {}
    assert!((0..200).all(|id| id == 77 || w.delivered.contains_key(&id)));
}

#[test]
fn an_outage_blames_no_record_however_long_it_is() {
    for outage in [nobody, silence, || refusal("flush: connection refused")] {
        let mut w = World::new(300);
        for n in 0..500 {
            w.step(f64::from(n) / 500.0, |_| outage());
        }
        assert!(w.delivered.is_empty() && w.aside.is_empty());
        assert!(w.plan.trouble().is_some());
        while w.step(0.5, |_| Outcome::Delivered) {}
        assert_eq!(w.delivered, (0..300).map(|id| (id, 1)).collect());
        assert_eq!(w.plan.trouble(), None);
    }
}

#[test]
fn tries_grow_rare_in_an_outage() {
    let mut w = World::new(300);
    let (begin, mut tries) = (w.now, 0);
    while w.now < begin + Duration::from_secs(3600) {
        w.step(0.5, |_| {
            tries += 1;
            nobody()
        });
    }
    assert!((120..400).contains(&tries), "{tries} tries in an hour");
}

#[test]
fn a_flood_of_poison_does_not_keep_a_stream_back_for_ever() {
    // More than there is room for in memory, all of it before the first good one.
    let poison = |ids: &[Id]| match ids.iter().any(|id| *id < 400) {
        true => refusal("mapper_parsing_exception"),
        false => Outcome::Delivered,
    };
    let mut w = World::new(450);
    let mut random = 0.0;
    for _ in 0..20_000 {
        random = (random + 0.618) % 1.0;
        if !w.step(random, poison) {
            break;
        }
        // The stream goes on.
        if w.queue.len() < 5 {
            let next = 10_000 + w.delivered.len() as Id;
            w.queue.insert(next);
        }
    }
    assert!((400..450).all(|id| w.delivered.contains_key(&id)));
    // The poison takes its time, as nothing else is held up by it.
    assert!(w.aside.len() > 100 && w.aside.iter().all(|id| *id < 400));
}

#[test]
fn what_the_store_has_already_is_delivered() {
    let mut w = World::new(3);
    let known =
        "[version_conflict_engine_exception] [1]: version conflict, document already exists";
    let mut first = true;
    let seen = std::cell::RefCell::new(Vec::new());
    while w.step(0.5, |ids| {
        seen.borrow_mut().push(ids.to_vec());
        match std::mem::take(&mut first) {
            true => refusal(known),
            false => Outcome::Delivered,
        }
    }) {}
    assert_eq!(*seen.borrow(), [vec![0, 1, 2], vec![0, 2]]);
    assert_eq!(w.delivered, (0..3).map(|id| (id, 1)).collect());
}

#[test]
fn a_receiver_that_asks_for_a_rest_gets_it() {
    let mut w = World::new(10);
    let busy = |_: &[Id]| Outcome::Retry {
        after: Some(Duration::from_secs(90)),
        failure: Failure::Timeout(Duration::ZERO),
    };
    assert!(w.step(0.5, busy));
    let Next::Rest(Some(until)) = w.plan.next(w.now, true) else {
        panic!("it does not rest");
    };
    assert!(until >= w.now + Duration::from_secs(90));
}

proptest! {
    /// Whatever is poison and whenever the receiver is away or silent: no record is lost, no good record is
    /// set aside, and when the receiver is back, everything good arrives. A receiver that answers with
    /// errors now and then, for whole requests that are good, can have a good record set aside.
    #[test]
    fn no_good_record_is_set_aside_or_kept_back(
        poison in prop::collection::btree_set(0u32..120, 0..6),
        outages in prop::collection::vec((0u32..80, 1u32..30, 0u8..2), 0..4),
        randoms in prop::collection::vec(0.0f64..1.0, 50),
    ) {
        let mut w = World::new(120);
        let mut tick = 0;
        for round in 0..5000u32 {
            let random = randoms[round as usize % randoms.len()];
            w.step(random, |ids| {
                tick += 1;
                let outage = outages.iter().find(|(at, long, _)| (*at..at + long).contains(&tick));
                match outage {
                    Some((.., 0)) => nobody(),
                    Some(_) => silence(),
                    None if ids.iter().any(|id| poison.contains(id)) => refusal("mapper_parsing_exception"),
                    None => Outcome::Delivered,
                }
            });
            let good = (0..120).filter(|id| !poison.contains(id));
            if tick > 120 && good.clone().all(|id| w.delivered.contains_key(&id)) && w.aside == poison {
                break;
            }
            // What goes on coming is good.
            if w.queue.is_empty() && round % 3 == 0 {
                w.queue.insert(1000 + round);
            }
        }
        prop_assert!(w.aside.iter().all(|id| poison.contains(id)), "{:?}", w.aside);
        let missing: Vec<Id> = (0..120)
            .filter(|id| !w.delivered.contains_key(id) && !w.aside.contains(id))
            .collect();
        prop_assert!(missing.is_empty(), "{missing:?}");
    }
}
