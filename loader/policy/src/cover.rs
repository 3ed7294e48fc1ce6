//! Which patterns cover a destination: an index that walks from a pattern to everything broader.
//!
//! A walk costs one look-up for every prefix length in use, or for every label of a name, so a
//! policy of many rules is handled in the time of its rules. Things are kept per pattern and come
//! back from the broadest to the narrowest place, unsorted otherwise.

use crate::destination::{Destination, Name};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// One place that a look-up in the programs' tries can end at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Spot<'n> {
    /// A network.
    Net(IpNet),
    /// A name itself.
    Exact(&'n str),
    /// Everything below a name.
    Below(&'n str),
}

impl fmt::Display for Spot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) => write!(f, "{net}"),
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl Destination {
    /// The places that a destination is made of.
    pub(crate) fn spots(&self) -> impl Iterator<Item = Spot<'_>> {
        let (first, second) = match self {
            Self::Network(net) => (Spot::Net(*net), None),
            Self::Exact(name) => (Spot::Exact(name.as_str()), None),
            Self::Below(name) => (Spot::Below(name.as_str()), None),
            Self::Tree(name) => (Spot::Exact(name.as_str()), Some(Spot::Below(name.as_str()))),
        };
        std::iter::once(first).chain(second)
    }
}

/// Things by place.
#[derive(Debug)]
pub(crate) struct Cover<'n, T> {
    spots: HashMap<Spot<'n>, Vec<T>>,
    v4_bits: BTreeSet<u8>,
    v6_bits: BTreeSet<u8>,
}

impl<T> Default for Cover<'_, T> {
    fn default() -> Self {
        Self {
            spots: HashMap::new(),
            v4_bits: BTreeSet::new(),
            v6_bits: BTreeSet::new(),
        }
    }
}

impl<'n, T> Cover<'n, T> {
    /// The things kept at one place, made empty if it is new.
    pub(crate) fn at(&mut self, spot: Spot<'n>) -> &mut Vec<T> {
        match &spot {
            Spot::Net(IpNet::V4(net)) => self.v4_bits.insert(net.prefix_len()),
            Spot::Net(IpNet::V6(net)) => self.v6_bits.insert(net.prefix_len()),
            Spot::Exact(_) | Spot::Below(_) => false,
        };
        self.spots.entry(spot).or_default()
    }

    /// Every place in use; networks come before what is inside them.
    pub(crate) fn spots(&self) -> Vec<&Spot<'n>> {
        let mut spots: Vec<_> = self.spots.keys().collect();
        spots.sort_unstable();
        spots
    }

    /// Rewrites what is kept at each place.
    pub(crate) fn for_each_mut(&mut self, change: impl FnMut(&mut Vec<T>)) {
        self.spots.values_mut().for_each(change);
    }

    /// Everything that covers a place, the place itself included.
    pub(crate) fn covering<'c>(&'c self, spot: &Spot<'c>) -> Vec<&'c T> {
        let mut found = Vec::new();
        match spot {
            Spot::Net(net) => self.nets(net, &mut found),
            Spot::Exact(name) => {
                self.suffixes(parent(name), &mut found);
                self.take(&Spot::Exact(name), &mut found);
            }
            Spot::Below(name) => self.suffixes(Some(name), &mut found),
        }
        found
    }

    fn nets<'c>(&'c self, net: &IpNet, found: &mut Vec<&'c T>) {
        let lengths = match net {
            IpNet::V4(_) => &self.v4_bits,
            IpNet::V6(_) => &self.v6_bits,
        };
        for bits in lengths.range(..=net.prefix_len()) {
            let broader = match net {
                IpNet::V4(v4) => Ipv4Net::new(v4.addr(), *bits).map(|net| IpNet::V4(net.trunc())),
                IpNet::V6(v6) => Ipv6Net::new(v6.addr(), *bits).map(|net| IpNet::V6(net.trunc())),
            };
            if let Ok(broader) = broader {
                self.take(&Spot::Net(broader), found);
            }
        }
    }

    fn suffixes<'c>(&'c self, name: Option<&'c str>, found: &mut Vec<&'c T>) {
        for suffix in std::iter::successors(name, |name| parent(name)) {
            self.take(&Spot::Below(suffix), found);
        }
    }

    fn take<'c>(&'c self, spot: &Spot<'c>, found: &mut Vec<&'c T>) {
        if let Some(things) = self.spots.get(spot) {
            found.extend(things);
        }
    }
}

/// What is behind the first dot.
fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, rest)| rest)
}

/// Whether a destination includes a name.
pub(crate) fn includes_name(dst: &Destination, name: &str) -> bool {
    let below = |of: &Name| {
        name.strip_suffix(of.as_str())
            .is_some_and(|front| front.ends_with('.') && front.len() > 1)
    };
    match dst {
        Destination::Exact(own) => own.as_str() == name,
        Destination::Below(of) => below(of),
        Destination::Tree(of) => of.as_str() == name || below(of),
        Destination::Network(_) => false,
    }
}
