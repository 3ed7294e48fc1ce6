//! Rules from ways: one for each destination and word, in an order, with what their comments say.

use super::own::{self, Own};
use super::ways::{Place, Use, Ways};
use super::words::Words;
use super::{Form, more};
use crate::compile::MAX_COVERING;
use crate::destination::Destination;
use crate::diagnostic::counted;
use crate::line::{Line, word};
use crate::rule::{PortRange, Proto, Rule};
use crate::values::merged;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

/// Port ranges of one destination; twice as many fit, a wildcard around it included.
const MAX_RANGES: usize = MAX_COVERING / 2 - 1;
/// Between what a comment says of a rule.
const AND: &str = "; ";
const SAME: &str = "same address as ";
const FOR: &str = "for ";
const OWN: &str = "ports of its own";

/// Words in the order of their rules.
const ORDER: [Proto; 6] = [
    Proto::Https,
    Proto::Http,
    Proto::Ssh,
    Proto::Tcp,
    Proto::Udp,
    Proto::Icmp,
];

/// Where a destination stands: names first, by their labels from the right, so that those of one
/// domain are together; then addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    address: Option<IpAddr>,
    labels: Vec<String>,
    /// The name itself before what is around it.
    kind: u8,
}

impl Rank {
    fn of(dst: &Destination) -> Self {
        let (name, kind) = match dst {
            Destination::Exact(name) => (name.as_str(), 0),
            Destination::Tree(name) => (name.as_str(), 1),
            Destination::Below(name) => (name.as_str(), 2),
            Destination::Network(_) => ("", 3),
        };
        Self {
            address: dst.address(),
            labels: name.rsplit('.').map(str::to_owned).collect(),
            kind,
        }
    }
}

/// What tells a rule from others; a rule for private addresses stands behind one for public ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    rank: Rank,
    proto: usize,
    private: bool,
}

/// One rule, but for what its key says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Learnt {
    dst: Destination,
    proto: Proto,
    ports: Vec<PortRange>,
    used: Use,
}

/// The rules of a learned policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(BTreeMap<Key, Learnt>);

impl Rules {
    pub(super) fn from_ways(ways: Ways, own: &Own) -> Self {
        let mut rules = Self::default();
        for (way, used) in ways.taken {
            // Every way is of a protocol that has a word.
            let Some(proto) = word(way.proto, way.port) else {
                continue;
            };
            let addr = match &way.place {
                Place::Addr(addr) => Some(*addr),
                Place::Name(_) | Place::Domain(..) => None,
            };
            let private = used.private && addr.is_none();
            let ports = addr
                .and_then(|addr| own.ports(addr, &way))
                .unwrap_or(PortRange {
                    lo: way.port,
                    hi: way.port,
                });
            let rule = Learnt {
                dst: way.place.destination(),
                proto,
                ports: vec![proto.default_ports().unwrap_or(ports)],
                used,
            };
            rules.join(rule, private);
        }
        rules.settle();
        rules
    }

    /// A rule of the file that `run --learn` keeps, with its line.
    pub(super) fn read(&mut self, rule: &Rule, line: &str) {
        let comment = line.split_once(" # ").map_or("", |(_, comment)| comment);
        let mut used = Use::default();
        for part in comment.split(AND).filter(|part| !part.is_empty()) {
            match part.strip_prefix(SAME) {
                Some(words) => used.with = Words::read(words),
                None if part == OWN => {}
                None => used.comms = Words::read(part),
            }
        }
        let read = Learnt {
            dst: rule.dst.clone(),
            proto: rule.proto,
            ports: rule.ports.clone(),
            used,
        };
        self.join(read, rule.private);
    }

    /// Adds the rules of another.
    pub(super) fn merge(&mut self, other: Self) {
        for (key, rule) in other.0 {
            self.join(rule, key.private);
        }
        self.settle();
    }

    fn join(&mut self, rule: Learnt, private: bool) {
        let place = ORDER.iter().position(|word| *word == rule.proto);
        let key = Key {
            rank: Rank::of(&rule.dst),
            proto: place.unwrap_or(ORDER.len()),
            private,
        };
        match self.0.entry(key) {
            Entry::Vacant(place) => {
                place.insert(rule);
            }
            Entry::Occupied(mut place) => {
                let old = place.get_mut();
                old.ports.extend(rule.ports);
                old.used.absorb(rule.used);
            }
        }
    }

    /// Ranges that touch become one, and what a rule with `private: true` has is not said twice.
    fn settle(&mut self) {
        let mut private = Vec::new();
        for (key, rule) in &mut self.0 {
            rule.ports = merged(std::mem::take(&mut rule.ports));
            if key.private {
                let public = Key {
                    private: false,
                    ..key.clone()
                };
                private.push((public, rule.ports.clone()));
            }
        }
        for (key, taken) in private {
            if let Some(rule) = self.0.get_mut(&key) {
                rule.ports = without(&rule.ports, &taken);
            }
        }
        self.0.retain(|_, rule| !rule.ports.is_empty());
    }

    /// Takes out the rules of destinations with more ports than a policy can hold, and returns those
    /// destinations with their flows.
    pub(super) fn take_crowded(&mut self) -> BTreeMap<String, u64> {
        let mut ranges: BTreeMap<Rank, usize> = BTreeMap::new();
        for (key, rule) in &self.0 {
            *ranges.entry(key.rank.clone()).or_default() += rule.ports.len();
        }
        let mut crowded: BTreeMap<String, u64> = BTreeMap::new();
        self.0.retain(|key, rule| {
            let fits = ranges.get(&key.rank).is_none_or(|n| *n <= MAX_RANGES);
            if !fits {
                let flows = crowded.entry(rule.dst.to_string()).or_default();
                more(flows, rule.used.flows);
            }
            fits
        });
        crowded
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The rules as items of a list, in their order.
    pub(super) fn lines(&self, form: Form) -> impl Iterator<Item = String> {
        self.0.iter().map(move |(key, rule)| {
            let line = Line {
                dst: &rule.dst,
                proto: rule.proto,
                ports: &rule.ports,
                private: key.private,
            };
            match rule.comment(form).as_str() {
                "" => format!("- {line}"),
                comment => format!("- {line} # {comment}"),
            }
        })
    }
}

impl Learnt {
    fn comment(&self, form: Form) -> String {
        let Use {
            flows,
            comms,
            names,
            with,
            ..
        } = &self.used;
        let flows = counted(usize::try_from(*flows).unwrap_or(usize::MAX), "flow");
        let who = match (form, comms.is_empty()) {
            (Form::Kept, _) => comms.to_string(),
            (Form::Printed, true) => flows,
            (Form::Printed, false) => format!("{flows}: {comms}"),
        };
        let mut parts: Vec<String> = Vec::new();
        parts.extend(Some(who).filter(|who| !who.is_empty()));
        parts.extend(own::handed_out(&self.ports).then(|| OWN.to_owned()));
        for (what, words) in [(FOR, names), (SAME, with)] {
            parts.extend((!words.is_empty()).then(|| format!("{what}{words}")));
        }
        parts.join(AND)
    }
}

/// `ports` less `taken`.
fn without(ports: &[PortRange], taken: &[PortRange]) -> Vec<PortRange> {
    let mut left = ports.to_vec();
    for gone in taken {
        let cut = |range: PortRange| {
            let before = (range.lo < gone.lo).then(|| PortRange {
                lo: range.lo,
                hi: range.hi.min(gone.lo - 1),
            });
            let after = (range.hi > gone.hi).then(|| PortRange {
                lo: range.lo.max(gone.hi + 1),
                hi: range.hi,
            });
            before.into_iter().chain(after)
        };
        left = left.into_iter().flat_map(cut).collect();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(pairs: &[(u16, u16)]) -> Vec<PortRange> {
        pairs
            .iter()
            .map(|(lo, hi)| PortRange { lo: *lo, hi: *hi })
            .collect()
    }

    #[test]
    fn ranges_are_cut_where_others_are() {
        let all = ranges(&[(1, 10), (20, 30)]);
        for (taken, left) in [
            (&[(40, 50)][..], &[(1, 10), (20, 30)][..]),
            (&[(1, 10)], &[(20, 30)]),
            (&[(5, 25)], &[(1, 4), (26, 30)]),
            (&[(2, 2), (4, 4)], &[(1, 1), (3, 3), (5, 10), (20, 30)]),
            (&[(0, u16::MAX)], &[]),
        ] {
            assert_eq!(without(&all, &ranges(taken)), ranges(left));
        }
    }
}
