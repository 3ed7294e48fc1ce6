//! Names below one registered domain become one rule, where nothing below it was denied.

use super::Observation;
use super::ways::{Place, Use, Way, Ways, one_icmp};
use crate::cover::includes_name;
use crate::decide::names;
use crate::destination::Name;
use std::collections::{BTreeMap, BTreeSet};

/// Denied names that are kept; with more, nothing is grouped.
const MAX_REFUSED: usize = 1 << 16;
/// Names that make it worth a group.
const ENOUGH: usize = 2;

/// Names that were denied something.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused {
    /// This protocol and port.
    flows: BTreeSet<(Name, u8, u16)>,
    /// The look-up itself.
    queries: BTreeSet<Name>,
    /// Some did not fit.
    overflow: bool,
}

impl Refused {
    pub(super) fn add(&mut self, seen: &Observation<'_>) {
        if self.flows.len() + self.queries.len() >= MAX_REFUSED {
            self.overflow = true;
            return;
        }
        if let Some(proto) = seen.proto {
            let ways = names(seen.hosts).into_iter();
            let ways = ways.map(|name| (name, one_icmp(proto), seen.port));
            self.flows.extend(ways);
        }
        self.queries
            .extend(seen.qname.and_then(|name| Name::parse(name).ok()));
    }
}

/// What one group is about.
type Key = (Name, u8, u16);

/// Replaces the ways to names of one registered domain. A name that leads to private addresses stays
/// alone: nobody should answer with such addresses for every name of a domain.
pub(super) fn group(ways: &mut Ways, refused: &Refused) {
    if refused.overflow {
        return;
    }
    let mut groups: BTreeMap<Key, Vec<Name>> = BTreeMap::new();
    for (way, used) in &ways.taken {
        if let Place::Name(name) = &way.place
            && let Some(domain) = registered(name).filter(|_| !used.private)
        {
            let key = (domain, way.proto, way.port);
            groups.entry(key).or_default().push(name.clone());
        }
    }
    groups.retain(|_, names| names.len() >= ENOUGH);
    for ((domain, proto, port), names) in groups {
        let itself = names.contains(&domain);
        let place = Place::Domain(domain, itself);
        if denies(refused, ways, &place, proto, port) {
            continue;
        }
        let mut sum = Use::default();
        for name in names {
            let shown = name.as_str().to_owned();
            let place = Place::Name(name);
            if let Some(used) = ways.taken.remove(&Way { place, proto, port }) {
                sum.absorb(used);
                sum.names.extend([shown].into_iter().collect());
            }
        }
        ways.taken
            .entry(Way { place, proto, port })
            .or_default()
            .absorb(sum);
    }
}

/// Whether something was denied that the group would allow and no way of its own does.
fn denies(refused: &Refused, ways: &Ways, place: &Place, proto: u8, port: u16) -> bool {
    let dst = place.destination();
    let below = |name: &Name| includes_name(&dst, name.as_str());
    let taken = |name: &Name| {
        let place = Place::Name(name.clone());
        ways.taken.contains_key(&Way { place, proto, port })
    };
    let mut flows = refused.flows.iter();
    let flows =
        flows.any(|(name, p, at)| (*p, *at) == (proto, port) && below(name) && !taken(name));
    flows || refused.queries.iter().any(below)
}

/// The registered domain of a name, where its suffix is on the public list.
fn registered(name: &Name) -> Option<Name> {
    let domain = psl::domain(name.as_str().as_bytes())?;
    let known = domain.suffix().is_known();
    let text = std::str::from_utf8(domain.as_bytes())
        .ok()
        .filter(|_| known)?;
    Name::parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registered_domains_of_known_suffixes_group() {
        for (name, domain) in [
            ("a.b.example.com", Some("example.com")),
            ("example.com", Some("example.com")),
            ("x.shop.example.co.uk", Some("example.co.uk")),
            ("co.uk", None),
            ("a.user.github.io", Some("user.github.io")),
            ("github.io", None),
            ("db.internal", None),
            ("host", None),
        ] {
            let found = registered(&Name::parse(name).unwrap());
            assert_eq!(found.as_ref().map(Name::as_str), domain, "{name}");
        }
    }
}
