//! What numbers in flows stand for, read from the pins and remembered.

use crate::{kernel::Pins, record::Lookup};
use abi::LearnedNameKey;
use std::collections::{BTreeMap, HashMap};

/// Policies whose rules are remembered. Those that went first can be read again, if they are still there.
const POLICIES: usize = 64;

/// Reads names and rules from the pins and remembers them.
#[derive(Debug)]
pub struct Names {
    pins: Pins,
    names: HashMap<(u32, u64), String>,
    rules: BTreeMap<u32, HashMap<u32, String>>,
}

impl Names {
    /// Nothing looked up yet.
    #[must_use]
    pub fn new(pins: &Pins) -> Self {
        Self {
            pins: pins.clone(),
            names: HashMap::new(),
            rules: BTreeMap::new(),
        }
    }

    /// Remembers the names of a policy's rules before a later policy removes them.
    pub(super) fn load_rules(&mut self, policy: u32) {
        if self.rules.contains_key(&policy) {
            return;
        }
        let all = self
            .pins
            .policy()
            .and_then(|p| p.rules(policy))
            .unwrap_or_default();
        let named = all
            .into_iter()
            .map(|(n, t)| (n, crate::enrol::text(&t.name)))
            .collect();
        self.rules.insert(policy, named);
        if self.rules.len() > POLICIES {
            self.rules.pop_first();
        }
    }

    /// Forgets the names of a policy's rules.
    pub(super) fn drop_rules(&mut self, policy: u32) {
        self.rules.remove(&policy);
    }

    /// Forgets the names of a slot, but for those that `held` says are still needed.
    pub(super) fn forget(&mut self, slot: u32, held: impl Fn(u64) -> bool) {
        self.names.retain(|(s, hash), _| *s != slot || held(*hash));
    }
}

impl Lookup for Names {
    fn name(&mut self, slot: u32, hash: u64) -> Option<String> {
        if let Some(known) = self.names.get(&(slot, hash)) {
            return Some(known.clone());
        }
        // A name that cannot be read any more is left out of the record; the flow is not.
        let found = self
            .pins
            .name(LearnedNameKey { slot, pad: 0, hash })
            .ok()
            .flatten()?;
        let len = (found.len as usize).min(found.reversed.len());
        let name: String = found.reversed[..len]
            .iter()
            .rev()
            .map(|b| char::from(*b))
            .collect();
        self.names.insert((slot, hash), name.clone());
        Some(name)
    }

    fn rule(&mut self, policy: u32, rule: u32) -> Option<String> {
        self.load_rules(policy);
        self.rules.get(&policy)?.get(&rule).cloned()
    }
}
