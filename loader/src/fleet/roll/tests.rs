use super::*;
use ipnet::IpNet;
use proptest::prelude::*;
use std::{collections::HashMap, net::IpAddr};

const LINGER: Duration = Duration::from_secs(60);

fn container(id: u8, started: i64, is_agent: bool) -> Container {
    Container {
        id: format!("c{id}"),
        name: format!("name{id}"),
        is_agent,
        agent: is_agent.then(|| format!("agent{id}")),
        project: None,
        pid: 1,
        cgroup: format!("/cgroup/c{id}").into(),
        netns: None,
        addresses: Vec::new(),
        networks: Vec::new(),
        weaknesses: Vec::new(),
        started,
    }
}

fn is(id: u8, started: i64) -> News {
    News::Is(Box::new(container(id, started, true)))
}

fn born(id: u8) -> News {
    let c = container(id, 0, true);
    News::Born(Box::new(Newborn {
        id: c.id,
        name: c.name,
        is_agent: true,
        agent: c.agent,
        project: c.project,
        cgroup: c.cgroup,
        cgroup_id: 1,
        ends: Vec::new(),
    }))
}

fn life(step: Step) -> Life {
    match step {
        Step::Meet(l)
        | Step::Enrol(l)
        | Step::Shut(l)
        | Step::Renew(l)
        | Step::End { life: l, .. }
        | Step::Close(l)
        | Step::Free(l)
        | Step::Unpin(l) => l,
    }
}

#[test]
fn a_newborn_holds_its_addresses_from_when_they_are_told() {
    let mut roll = Roll::new(1, LINGER);
    let [Step::Enrol(one)] = roll.hear(born(1), 5)[..] else {
        panic!("it is enrolled")
    };
    assert_eq!(roll.get(one).unwrap().held_since, None);
    let News::Born(mut again) = born(1) else {
        unreachable!("that is what it makes")
    };
    again.ends = vec!["10.0.0.2/24".parse().unwrap()];
    assert_eq!(roll.hear(News::Born(again.clone()), 7), [Step::Renew(one)]);
    assert_eq!(roll.hear(News::Born(again), 8), [Step::Renew(one)]);
    let member = roll.get(one).unwrap();
    assert!(member.newborn && member.held_since == Some(7));
    // Until its lease is opened, the leases are not complete; for a while.
    assert_eq!(roll.held_since(9), Some(7));
    assert_eq!(roll.held_since(7 + LONG_START), None);
    let c = &member.container;
    assert_eq!(c.addresses, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(c.networks, ["10.0.0.0/24".parse::<IpNet>().unwrap()]);
    roll.hear(is(1, 9), 10);
    assert_eq!(roll.held_since(10), None);
}

#[test]
fn a_life_goes_from_start_to_end() {
    let mut roll = Roll::new(1, LINGER);
    let steps = roll.hear(is(1, 5), 0);
    let [Step::Enrol(one)] = steps[..] else {
        panic!("{steps:?}")
    };
    roll.enrolled(one, 77);
    assert_eq!(roll.hear(is(1, 5), 1), []);
    let ended = News::Ended {
        id: "c1".to_owned(),
        at: 9,
    };
    let end = Step::End {
        life: one,
        at: Some(9),
    };
    assert_eq!(roll.hear(ended.clone(), 10), [end]);
    assert_eq!(roll.hear(ended, 10), [], "an end comes once");
    let mut seen = Seen::default();
    seen.busy.insert(77);
    seen.owed.insert(77);
    assert_eq!(roll.look(&seen, 11), [], "a socket is left");
    let late = 10 + LINGER.as_nanos() as u64;
    assert_eq!(roll.look(&seen, late - 1), []);
    assert_eq!(roll.look(&seen, late), [Step::Close(one)]);
    assert_eq!(roll.look(&seen, late), [], "its records are not kept yet");
    // Meanwhile the only row is taken.
    let steps = roll.hear(is(1, 20), late);
    let [Step::Shut(two)] = steps[..] else {
        panic!("{steps:?}")
    };
    seen.owed.clear();
    assert_eq!(roll.look(&seen, late), [Step::Free(one)]);
    roll.not_free(one);
    seen.owed.insert(77);
    let later = roll.look(&seen, late);
    assert_eq!(later, [], "what it has lost is not kept yet");
    seen.owed.clear();
    assert_eq!(roll.look(&seen, late), [Step::Free(one)]);
    roll.freed(one);
    assert_eq!(roll.look(&seen, late), [Step::Enrol(two)]);
    roll.failed(two);
    assert_eq!(roll.look(&seen, late), [Step::Enrol(two)], "tried again");
    seen.gone.insert(one);
    assert_eq!(roll.look(&seen, late), [Step::Unpin(one)]);
    assert!(roll.get(one).is_none());
}

#[test]
fn a_list_ends_who_is_not_in_it_and_a_restart_ends_the_life_before() {
    let mut roll = Roll::new(4, LINGER);
    let lives: Vec<Life> = roll
        .hear(
            News::All(vec![
                container(1, 1, true),
                container(2, 1, true),
                container(3, 1, false),
            ]),
            0,
        )
        .into_iter()
        .map(life)
        .collect();
    roll.enrolled(lives[0], 1);
    roll.enrolled(lives[1], 2);
    let steps = roll.hear(News::All(vec![container(2, 8, true)]), 10);
    let end = |life, at| Step::End { life, at };
    assert_eq!(
        steps[..3],
        [
            end(lives[0], None),
            end(lives[2], None),
            end(lives[1], Some(8))
        ]
    );
    assert!(matches!(steps[3..], [Step::Enrol(_)]));
    assert_eq!(roll.hear(News::Away("gone".to_owned()), 11), []);
}

#[test]
fn a_newborn_is_enrolled_and_gets_the_rest_when_it_runs() {
    let mut roll = Roll::new(4, LINGER);
    let steps = roll.hear(born(1), 0);
    let [Step::Enrol(one)] = steps[..] else {
        panic!("{steps:?}")
    };
    roll.enrolled(one, 1);
    // Said twice: the directory may be another one by now.
    assert_eq!(roll.hear(born(1), 0), [Step::Renew(one)]);
    assert_eq!(
        roll.hear(News::All(Vec::new()), 1),
        [],
        "it is in no list yet"
    );
    assert_eq!(roll.hear(is(1, 5), 2), [Step::Renew(one)]);
    assert_eq!(roll.get(one).unwrap().container.started, 5);
    // It was restarted, and the end was missed.
    let end = Step::End {
        life: one,
        at: None,
    };
    let steps = roll.hear(born(1), 3);
    let [first, Step::Enrol(two)] = steps[..] else {
        panic!("{steps:?}")
    };
    assert_eq!(first, end);
    roll.enrolled(two, 2);
    // Its start fails.
    let seen = Seen {
        gone: HashSet::from([two]),
        ..Seen::default()
    };
    let end = Step::End {
        life: two,
        at: None,
    };
    assert!(roll.look(&seen, 4).contains(&end));
}

/// What a kernel would do with the steps, and what must hold.
#[derive(Default)]
struct Model {
    /// Row and slot of each life that has one.
    seats: HashMap<Life, (u32, u32)>,
    closed: HashSet<Life>,
    attached: HashSet<Life>,
    slots: u32,
    fails: bool,
}

impl Model {
    fn carry_out(&mut self, roll: &mut Roll, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Enrol(l) => {
                    let index = roll.get(l).unwrap().index.expect("a row is set aside");
                    assert!(
                        self.seats.values().all(|(row, _)| *row != index),
                        "a row has one owner"
                    );
                    self.attached.insert(l);
                    if self.fails {
                        roll.failed(l);
                    } else {
                        self.slots += 1;
                        assert_eq!(self.seats.insert(l, (index, self.slots)), None);
                        roll.enrolled(l, self.slots);
                    }
                }
                Step::Shut(l) => {
                    self.attached.insert(l);
                }
                Step::Close(l) => {
                    assert!(self.seats.contains_key(&l) && self.closed.insert(l));
                }
                Step::Free(l) => {
                    assert!(
                        self.closed.contains(&l),
                        "nothing is freed that may still run"
                    );
                    self.seats.remove(&l).expect("it had a row");
                    roll.freed(l);
                }
                Step::Unpin(l) => {
                    assert!(!self.seats.contains_key(&l), "its row outlives its links");
                    self.attached.remove(&l);
                }
                Step::Meet(_) | Step::Renew(_) | Step::End { .. } => {}
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Start(u8, bool),
    Born(u8),
    End(u8),
    All(Vec<u8>),
    Look { busy: bool, owed: bool, gone: bool },
    Fails(bool),
    Time(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u8..6, any::<bool>()).prop_map(|(id, agent)| Act::Start(id, agent)),
        (0u8..6).prop_map(Act::End),
        (0u8..6).prop_map(Act::Born),
        proptest::collection::vec(0u8..6, 0..6).prop_map(Act::All),
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(busy, owed, gone)| Act::Look {
            busy,
            owed,
            gone
        }),
        any::<bool>().prop_map(Act::Fails),
        (0u64..90_000_000_000).prop_map(Act::Time),
    ]
}

/// Everything that could be seen of the kernel.
fn seen(roll: &Roll, busy: bool, owed: bool, gone: bool) -> Seen {
    let slots = || roll.iter().filter_map(|(_, m)| m.slot);
    let dead = roll.iter().filter(|(_, m)| m.newborn || !m.is_alive());
    Seen {
        gone: dead.filter(|_| gone).map(|(life, _)| life).collect(),
        busy: slots().filter(|_| busy).collect(),
        owed: slots().filter(|_| owed).collect(),
    }
}

proptest! {
    #[test]
    fn whatever_happens_rows_have_one_owner_and_come_back(acts in proptest::collection::vec(act(), 0..120)) {
        const ROWS: u32 = 3;
        let (mut roll, mut model) = (Roll::new(ROWS, LINGER), Model::default());
        let (mut now, mut started) = (0u64, 0i64);
        for act in acts {
            let steps = match act {
                Act::Start(id, agent) => {
                    started += 1;
                    roll.hear(News::Is(Box::new(container(id, started, agent))), now)
                }
                Act::Born(id) => roll.hear(born(id), now),
                Act::End(id) => roll.hear(News::Ended { id: format!("c{id}"), at: started }, now),
                Act::All(ids) => {
                    let ids: BTreeSet<u8> = ids.into_iter().collect();
                    started += 1;
                    roll.hear(News::All(ids.into_iter().map(|id| container(id, started, true)).collect()), now)
                }
                Act::Look { busy, owed, gone } => {
                    let seen = seen(&roll, busy, owed, gone);
                    roll.look(&seen, now)
                }
                Act::Fails(fails) => {
                    model.fails = fails;
                    Vec::new()
                }
                Act::Time(more) => {
                    now += more;
                    Vec::new()
                }
            };
            model.carry_out(&mut roll, steps);
            for (life, m) in roll.iter().filter(|(_, m)| m.stage == Stage::Enrolled) {
                let seat = m.index.zip(m.slot);
                prop_assert_eq!(seat, model.seats.get(&life).copied());
                prop_assert!(model.attached.contains(&life));
            }
            let ids: Vec<_> = roll.iter().filter(|(_, m)| m.is_alive()).map(|(_, m)| &m.container.id).collect();
            prop_assert_eq!(ids.len(), ids.iter().collect::<HashSet<_>>().len(), "a container lives once at a time");
        }
        model.fails = false;
        let steps = roll.hear(News::All(Vec::new()), now);
        model.carry_out(&mut roll, steps);
        for _ in 0..4 {
            let seen = seen(&roll, false, false, true);
            let steps = roll.look(&seen, now);
            model.carry_out(&mut roll, steps);
        }
        prop_assert_eq!(roll.iter().count(), 0);
        prop_assert!(model.attached.is_empty() && model.seats.is_empty());
        prop_assert_eq!(roll.free.len(), ROWS as usize);
    }
}
