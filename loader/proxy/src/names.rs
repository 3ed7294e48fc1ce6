//! The parts of the name space that an agent's rules tell apart.
//!
//! Within one part every name is under the same rules, so asking for one name of it answers for all.

use ipnet::IpNet;
use policy::{Destination, Rule};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The address of a network that is one.
pub(crate) fn single(net: &IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// A part of the name space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Region {
    /// One name.
    Exact(String),
    /// Everything below a name, but for the parts that are listed themselves.
    Below(String),
    /// One address, written as a host.
    Address(IpAddr),
    /// Everything else.
    Rest,
}

/// The parts that some rules tell apart, [`Region::Rest`] last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions {
    exact: BTreeSet<String>,
    below: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Regions {
    pub(crate) fn of<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Self {
        let mut regions = Self::default();
        for rule in rules {
            match &rule.dst {
                Destination::Exact(name) => {
                    regions.exact.insert(name.as_str().to_owned());
                }
                Destination::Below(name) => {
                    regions.below.insert(name.as_str().to_owned());
                }
                Destination::Tree(name) => {
                    regions.exact.insert(name.as_str().to_owned());
                    regions.below.insert(name.as_str().to_owned());
                }
                Destination::Network(net) => regions.addresses.extend(single(net)),
            }
        }
        regions
    }

    /// Every part.
    pub(crate) fn all(&self) -> Vec<Region> {
        let exact = self.exact.iter().cloned().map(Region::Exact);
        let below = self.below.iter().cloned().map(Region::Below);
        let addresses = self.addresses.iter().copied().map(Region::Address);
        let named = exact.chain(below).chain(addresses);
        named.chain([Region::Rest]).collect()
    }

    /// Every name that stands in a rule, alone or with what is below it.
    pub(crate) fn bases(&self) -> impl Iterator<Item = &str> {
        self.exact.union(&self.below).map(String::as_str)
    }

    /// A name below `base` that no rule is about in particular.
    pub(crate) fn stranger(&self, base: &str) -> String {
        let mut label = String::from("w");
        loop {
            let name = format!("{label}.{base}");
            if !self.exact.contains(&name) && !self.below.contains(&name) {
                return name;
            }
            label.push('w');
        }
    }

    /// One name that stands for a part; none for an address.
    pub(crate) fn stand_in(&self, region: &Region) -> Option<String> {
        match region {
            Region::Exact(name) => Some(name.clone()),
            Region::Below(base) => Some(self.stranger(base)),
            Region::Address(_) => None,
            // No rule can be about everything below the top: a pattern has a name.
            Region::Rest => Some(self.unnamed()),
        }
    }

    /// A name that no rule is about at all.
    fn unnamed(&self) -> String {
        let mut name = String::from("w");
        while self.bases().any(|base| base == name) {
            name.push('w');
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Policy;

    fn regions(source: &str) -> Regions {
        let policy = Policy::parse(source).policy.unwrap();
        Regions::of(policy.select(None, None).rules().iter().copied())
    }

    #[test]
    fn a_stranger_is_in_no_other_part() {
        let regions = regions("domains: [.a.example, w.a.example, '*.ww.a.example', w]");
        assert_eq!(regions.stranger("a.example"), "www.a.example");
        assert_eq!(regions.stand_in(&Region::Rest).as_deref(), Some("ww"));
        let exact: Vec<&str> = regions.bases().collect();
        assert_eq!(exact, ["a.example", "w", "w.a.example", "ww.a.example"]);
    }

    #[test]
    fn a_tree_is_two_parts() {
        let all = regions("rules: [{dst: .a.example}, {dst: 192.0.2.7, proto: http}]").all();
        let expected = [
            Region::Exact("a.example".to_owned()),
            Region::Below("a.example".to_owned()),
            Region::Address("192.0.2.7".parse().unwrap()),
            Region::Rest,
        ];
        assert_eq!(all, expected);
    }
}
