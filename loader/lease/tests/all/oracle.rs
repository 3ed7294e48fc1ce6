//! The book against a grid: time goes in steps, and for every step the grid says who lived and who had
//! which address. It knows no intervals and no indexes.

use crate::make::{at, book, lease};
use lease::{Answer, Hold, Lease, Leases};
use proptest::{prelude::*, sample::subsequence};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// Times at which something happens are below this.
const BUSY: u64 = 20;
/// Steps of the grid; what is there at the last one is there for ever.
const END: usize = BUSY as usize + 2;
const IPS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Open(Open),
    Close {
        container: usize,
        until: u64,
    },
    SetIps {
        container: usize,
        ips: Vec<usize>,
        at: u64,
    },
    SetNetns {
        container: usize,
        netns: u64,
    },
    Expire {
        now: u64,
        horizon: u64,
    },
}

#[derive(Clone, Debug)]
struct Open {
    container: usize,
    slot: Option<u32>,
    cgroup: u64,
    netns: Option<u64>,
    ips: Vec<usize>,
    since: u64,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let ips = || subsequence((0..IPS).collect::<Vec<_>>(), 0..=IPS);
    let open = (
        0..4usize,
        prop::option::weighted(0.7, 1..30u32),
        1..4u64,
        prop::option::weighted(0.3, 1..3u64),
        ips(),
        0..BUSY,
    );
    let open = open.prop_map(|(container, slot, cgroup, netns, ips, since)| {
        Op::Open(Open {
            container,
            slot,
            cgroup,
            netns,
            ips,
            since,
        })
    });
    let close = (0..4usize, 0..BUSY).prop_map(|(container, until)| Op::Close { container, until });
    let set_ips = (0..4usize, ips(), 0..BUSY).prop_map(|(container, ips, at)| Op::SetIps {
        container,
        ips,
        at,
    });
    let set_netns =
        (0..4usize, 1..3u64).prop_map(|(container, netns)| Op::SetNetns { container, netns });
    let expire = (0..BUSY, 0..BUSY).prop_map(|(now, horizon)| Op::Expire { now, horizon });
    let op = prop_oneof![5 => open, 4 => close, 4 => set_ips, 1 => set_netns, 1 => expire];
    prop::collection::vec(op, 0..40)
}

fn address(n: usize) -> IpAddr {
    match n {
        0 => Ipv4Addr::new(172, 18, 0, 2).into(),
        1 => Ipv4Addr::new(172, 18, 0, 3).into(),
        _ => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
    }
}

/// One lease as the grid knows it; its number is its place.
struct Life {
    open: Open,
    netns: Option<u64>,
    until: Option<u64>,
    forgotten: bool,
}

#[derive(Default)]
struct Grid {
    lives: Vec<Life>,
    alive: Vec<BTreeSet<usize>>,
    held: Vec<Vec<BTreeSet<usize>>>,
    floor: u64,
}

/// What the grid answers; a lease by its number.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Held(usize),
    Nobody,
    Ambiguous,
    Beyond,
}

impl Grid {
    fn new() -> Self {
        Self {
            alive: vec![BTreeSet::new(); END],
            held: vec![vec![BTreeSet::new(); IPS]; END],
            ..Self::default()
        }
    }

    fn open_life(&self, container: usize) -> Option<usize> {
        let is = |life: &Life| life.open.container == container && life.until.is_none();
        self.lives.iter().position(is)
    }

    /// Whether it worked.
    fn open(&mut self, open: &Open) -> bool {
        let taken =
            |life: &Life| !life.forgotten && open.slot.is_some() && life.open.slot == open.slot;
        if self.open_life(open.container).is_some() || self.lives.iter().any(taken) {
            return false;
        }
        let number = self.lives.len();
        for step in open.since as usize..END {
            self.alive[step].insert(number);
            for ip in &open.ips {
                self.held[step][*ip].insert(number);
            }
        }
        self.lives.push(Life {
            open: open.clone(),
            netns: open.netns,
            until: None,
            forgotten: false,
        });
        true
    }

    fn close(&mut self, number: usize, until: u64) {
        let until = until.max(self.lives[number].open.since);
        self.lives[number].until = Some(until);
        for step in until as usize..END {
            self.alive[step].remove(&number);
            self.held[step].iter_mut().for_each(|who| {
                who.remove(&number);
            });
        }
    }

    fn set_ips(&mut self, number: usize, ips: &[usize], at: u64) {
        let at = at.max(self.lives[number].open.since) as usize;
        for ip in 0..IPS {
            if !ips.contains(&ip) {
                for step in at..END {
                    self.held[step][ip].remove(&number);
                }
                continue;
            }
            // Held for ever: goes on. Else it begins where it last ended, or now.
            let last = (0..END).rfind(|step| self.held[*step][ip].contains(&number));
            for step in at.max(last.map_or(0, |last| last + 1))..END {
                self.held[step][ip].insert(number);
            }
        }
    }

    fn expire(&mut self, now: u64, horizon: u64) {
        let cut = now.saturating_sub(horizon);
        for life in &mut self.lives {
            if let Some(until) = life.until.filter(|until| *until < cut) {
                life.forgotten = true;
                self.floor = self.floor.max(until);
            }
        }
    }

    fn one_of(&self, from: u64, who: &BTreeSet<usize>) -> Expected {
        match who.len() {
            _ if from < self.floor => Expected::Beyond,
            0 => Expected::Nobody,
            1 => Expected::Held(*who.first().unwrap()),
            _ => Expected::Ambiguous,
        }
    }

    fn by_ip(&self, ip: usize, from: u64, to: u64) -> Expected {
        let steps = from as usize..=to as usize;
        let everybody = |rows: &[BTreeSet<usize>]| rows.iter().flatten().copied().collect();
        let holders: Vec<_> = steps
            .clone()
            .map(|step| self.held[step][ip].clone())
            .collect();
        let expected = self.one_of(from, &everybody(&holders));
        let Expected::Held(number) = expected else {
            return expected;
        };
        let living: BTreeSet<usize> = everybody(&self.alive[steps]);
        let netns = self.lives[number].netns;
        let shares = |other: &usize| *other != number && self.lives[*other].netns == netns;
        if netns.is_some() && living.iter().any(shares) {
            Expected::Ambiguous
        } else if holders.iter().all(|who| who.contains(&number)) {
            Expected::Held(number)
        } else {
            Expected::Nobody
        }
    }

    fn living(&self, step: u64, is: impl Fn(&Open) -> bool) -> Expected {
        let living = self.alive[step as usize].iter().copied();
        let who = living.filter(|n| is(&self.lives[*n].open)).collect();
        self.one_of(step, &who)
    }
}

/// Leases carry their number as their name.
fn expected(answer: Answer<'_>) -> Expected {
    match answer {
        Answer::Held(lease) => Expected::Held(lease.name.parse().unwrap()),
        Answer::Nobody => Expected::Nobody,
        Answer::Ambiguous => Expected::Ambiguous,
        Answer::Beyond => Expected::Beyond,
    }
}

fn container(n: usize) -> String {
    format!("container {n}")
}

fn to_lease(open: &Open, number: usize) -> Lease {
    let hold = |ip: &usize| Hold {
        ip: address(*ip),
        since: at(open.since),
        until: None,
    };
    Lease {
        name: number.to_string(),
        slot: open.slot,
        cgroup_id: Some(open.cgroup),
        netns: open.netns,
        ips: open.ips.iter().map(hold).collect(),
        ..lease(&container(open.container), open.since)
    }
}

/// Does the same to both; they must agree about what worked.
fn run(ops: &[Op]) -> (Leases, Grid) {
    let (mut book, mut grid) = (book(), Grid::new());
    for op in ops {
        match op {
            Op::Open(open) => {
                let opened = book.open(to_lease(open, grid.lives.len()));
                assert_eq!(opened.is_ok(), grid.open(open), "{op:?} {opened:?}");
            }
            Op::Close {
                container: c,
                until,
            } => {
                let life = grid.open_life(*c);
                let closed = book.close(&container(*c), at(*until));
                assert_eq!(closed.is_ok(), life.is_some(), "{op:?}");
                life.into_iter().for_each(|n| grid.close(n, *until));
            }
            Op::SetIps {
                container: c,
                ips,
                at: time,
            } => {
                let life = grid.open_life(*c);
                let addresses: Vec<_> = ips.iter().map(|ip| address(*ip)).collect();
                let set = book.set_ips(&container(*c), &addresses, at(*time));
                assert_eq!(set.is_ok(), life.is_some(), "{op:?} {set:?}");
                life.into_iter().for_each(|n| grid.set_ips(n, ips, *time));
            }
            Op::SetNetns {
                container: c,
                netns,
            } => {
                let life = grid.open_life(*c);
                let set = book.set_netns(&container(*c), *netns);
                assert_eq!(set.is_ok(), life.is_some(), "{op:?}");
                life.into_iter()
                    .for_each(|n| grid.lives[n].netns = Some(*netns));
            }
            Op::Expire { now, horizon } => {
                book.expire(at(*now), Duration::from_nanos(*horizon));
                grid.expire(*now, *horizon);
            }
        }
    }
    (book, grid)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_book_answers_as_the_grid_does(ops in ops()) {
        let (book, grid) = run(&ops);
        for step in 0..END as u64 {
            for ip in 0..IPS {
                for to in step..END as u64 {
                    let found = expected(book.by_ip_through(address(ip), at(to), at(step)));
                    let wanted = grid.by_ip(ip, step, to);
                    prop_assert_eq!(found, wanted, "ip {} from {} to {}", ip, step, to);
                }
                let found = expected(book.by_ip(address(ip), at(step)));
                prop_assert_eq!(found, grid.by_ip(ip, step, step), "ip {} at {}", ip, step);
            }
            for n in 0..4usize {
                let found = expected(book.by_container(&container(n), at(step)));
                let wanted = grid.living(step, |open| open.container == n);
                prop_assert_eq!(found, wanted, "container {} at {}", n, step);
                let found = expected(book.by_cgroup(n as u64, at(step)));
                let wanted = grid.living(step, |open| open.cgroup == n as u64);
                prop_assert_eq!(found, wanted, "cgroup {} at {}", n, step);
            }
        }
        for slot in 0..30 {
            let found = book.by_slot(slot).map(|lease| lease.name.parse().unwrap());
            let has = |life: &Life| !life.forgotten && life.open.slot == Some(slot);
            prop_assert_eq!(found, grid.lives.iter().position(has), "slot {}", slot);
        }
    }

    #[test]
    fn a_book_survives_its_file(ops in ops()) {
        let (book, _) = run(&ops);
        // Equal in its indexes too: what was changed step by step is what is built at once.
        prop_assert_eq!(&Leases::decode(&book.encode()).unwrap(), &book);
    }
}
