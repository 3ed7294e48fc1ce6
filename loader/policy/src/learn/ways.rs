//! The ways that flows took: destination, protocol and port, each once.

use super::own::Spot;
use super::words::{Words, process};
use super::{Observation, more};
use crate::builtin;
use crate::destination::{Destination, Name};
use abi::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Ways that are kept; what an agent does must not fill memory, and no policy is as long.
const MAX_WAYS: usize = 1 << 16;

/// Where a way leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// This name.
    Name(Name),
    /// What is below this registered domain; with `true` the domain too.
    Domain(Name, bool),
    /// This address.
    Addr(IpAddr),
}

impl Place {
    pub(super) fn destination(&self) -> Destination {
        match self {
            Self::Name(name) => Destination::Exact(name.clone()),
            Self::Domain(name, false) => Destination::Below(name.clone()),
            Self::Domain(name, true) => Destination::Tree(name.clone()),
            Self::Addr(addr) => Destination::Network(IpNet::from(*addr)),
        }
    }
}

/// One way. Rules do not tell the two ICMPs apart, so ICMPv6 is ICMP here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) place: Place,
    pub(super) proto: u8,
    pub(super) port: u16,
}

/// Who took a way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) flows: u64,
    pub(super) comms: Words,
    /// Other names that led to the same address.
    pub(super) with: Words,
    /// Names that a wildcard stands for.
    pub(super) names: Words,
    /// A name led to a private address.
    pub(super) private: bool,
}

impl Use {
    pub(super) fn absorb(&mut self, other: Self) {
        more(&mut self.flows, other.flows);
        self.comms.extend(other.comms);
        self.with.extend(other.with);
        self.names.extend(other.names);
        self.private |= other.private;
    }
}

/// Every way that was taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    pub(super) taken: BTreeMap<Way, Use>,
    /// Names that led to an address.
    named: BTreeMap<Spot, BTreeSet<Name>>,
    /// Flows of folded records, which have no names.
    folded: BTreeMap<Spot, u64>,
}

pub(super) fn one_icmp(proto: u8) -> u8 {
    if proto == IPPROTO_ICMPV6 {
        IPPROTO_ICMP
    } else {
        proto
    }
}

impl Ways {
    /// Notes the way of a flow. False: there is no room for another.
    pub(super) fn take(
        &mut self,
        seen: &Observation<'_>,
        proto: u8,
        addr: Option<IpAddr>,
        names: &[Name],
    ) -> bool {
        let proto = one_icmp(proto);
        match addr {
            Some(addr) if names.is_empty() && seen.folded => {
                return self.fold((addr, proto, seen.port), seen.flows);
            }
            Some(addr) if names.is_empty() => {
                return self.one(Place::Addr(addr), proto, seen, &[], false);
            }
            _ => {}
        }
        let private = addr.is_some_and(builtin::is_private);
        let mut room = true;
        for name in names {
            room &= self.one(Place::Name(name.clone()), proto, seen, names, private);
            if let Some(addr) = addr.filter(|_| room) {
                let led = self.named.entry((addr, proto, seen.port)).or_default();
                led.insert(name.clone());
            }
        }
        room
    }

    fn one(
        &mut self,
        place: Place,
        proto: u8,
        seen: &Observation<'_>,
        names: &[Name],
        private: bool,
    ) -> bool {
        let others = names
            .iter()
            .filter(|name| !matches!(&place, Place::Name(own) if own == *name))
            .map(|name| name.as_str().to_owned())
            .collect();
        let way = Way {
            place,
            proto,
            port: seen.port,
        };
        let used = Use {
            flows: seen.flows,
            comms: seen.comm.and_then(process).into_iter().collect(),
            with: others,
            names: Words::default(),
            private,
        };
        self.add(way, used)
    }

    fn add(&mut self, way: Way, used: Use) -> bool {
        if self.taken.len() >= MAX_WAYS && !self.taken.contains_key(&way) {
            return false;
        }
        self.taken.entry(way).or_default().absorb(used);
        true
    }

    fn fold(&mut self, spot: Spot, flows: u64) -> bool {
        if self.folded.len() >= MAX_WAYS && !self.folded.contains_key(&spot) {
            return false;
        }
        more(self.folded.entry(spot).or_default(), flows);
        true
    }

    /// Counts folded flows for the names that led to their address, else for the address.
    pub(super) fn unfold(&mut self) {
        for (spot, flows) in std::mem::take(&mut self.folded) {
            let (addr, proto, port) = spot;
            let places: Vec<Place> = match self.named.get(&spot) {
                Some(names) => names.iter().cloned().map(Place::Name).collect(),
                None => vec![Place::Addr(addr)],
            };
            for place in places {
                let used = Use {
                    flows,
                    ..Use::default()
                };
                self.taken
                    .entry(Way { place, proto, port })
                    .or_default()
                    .absorb(used);
            }
        }
    }
}
