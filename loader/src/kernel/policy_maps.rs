//! The maps that hold policies: what every change of policy goes through.

use super::{
    KernelError, Pins, io_error,
    maps::removed,
    pod::{P, Plain},
    sys,
};
use abi::{AddrKey, ChainKey, MAX_POLICY_ENTRIES, NameKey, RuleSet, RuleText, RuleTextKey, maps};
use aya::maps::{LpmTrie, Map, MapData, lpm_trie::Key};
use policy::Compiled;
use std::collections::BTreeSet;
use zerocopy::IntoBytes as _;

type Trie<K, V> = LpmTrie<MapData, K, P<V>>;
type AddrData = [u8; size_of::<AddrKey>() - 4];
type NameData = [u8; size_of::<NameKey>() - 4];
type PairData = [u32; 2];

/// Policies whose rules can still be named after later ones have taken their place.
const POLICIES_NAMED: u32 = 16;
/// Above this many texts only the latest policy that went keeps its own.
const TEXTS_KEPT_BELOW: usize = MAX_POLICY_ENTRIES as usize / 8;

fn trie<K: aya::Pod, V: Plain>(
    map: MapData,
    name: &'static str,
) -> Result<Trie<K, V>, KernelError> {
    LpmTrie::try_from(Map::LpmTrie(map)).map_err(|e| KernelError::map("open", name, io_error(e)))
}

/// The maps that hold policies, each entry under a policy id.
pub struct PolicyMaps {
    pub(super) addrs: Trie<AddrData, RuleSet>,
    pub(super) names: Trie<NameData, RuleSet>,
    pub(super) chain: Trie<PairData, RuleSet>,
    pub(super) text: Trie<PairData, RuleText>,
}

fn addr_key(k: &AddrKey) -> Key<AddrData> {
    let mut data = [0; size_of::<AddrData>()];
    data.copy_from_slice(&k.as_bytes()[4..]);
    Key::new(k.prefix_len, data)
}

fn name_key(k: &NameKey) -> Key<NameData> {
    let mut data = [0; size_of::<NameData>()];
    data.copy_from_slice(&k.as_bytes()[4..]);
    Key::new(k.prefix_len, data)
}

fn chain_key(k: &ChainKey) -> Key<PairData> {
    Key::new(k.prefix_len, [k.policy, k.set])
}

fn text_key(k: &RuleTextKey) -> Key<PairData> {
    Key::new(k.prefix_len, [k.policy, k.rule])
}

impl PolicyMaps {
    pub(super) fn open(pins: &Pins) -> Result<Self, KernelError> {
        Ok(Self {
            addrs: trie(pins.map(maps::POLICY_ADDRS)?, maps::POLICY_ADDRS)?,
            names: trie(pins.map(maps::POLICY_NAMES)?, maps::POLICY_NAMES)?,
            chain: trie(pins.map(maps::POLICY_CHAIN)?, maps::POLICY_CHAIN)?,
            text: trie(pins.map(maps::POLICY_TEXT)?, maps::POLICY_TEXT)?,
        })
    }

    /// Writes a policy beside those that are there. Nothing looks at it until a slot's configuration
    /// names its id. After an error the entries written so far are removed.
    pub fn write(&mut self, p: &Compiled) -> Result<(), KernelError> {
        let limit = MAX_POLICY_ENTRIES as usize;
        for (map, entries) in [
            (maps::POLICY_ADDRS, p.addrs.len()),
            (maps::POLICY_NAMES, p.names.len()),
            (maps::POLICY_CHAIN, p.chain.len()),
            (maps::POLICY_TEXT, p.texts.len()),
        ] {
            if entries > limit {
                return Err(KernelError::TooBig {
                    map,
                    entries,
                    limit,
                });
            }
        }
        self.try_write(p).inspect_err(|_| self.erase_compiled(p))
    }

    fn try_write(&mut self, p: &Compiled) -> Result<(), KernelError> {
        fill(
            &mut self.text,
            p.texts.iter().map(|(k, v)| (text_key(k), *v)),
            maps::POLICY_TEXT,
            p.texts.len(),
        )?;
        fill(
            &mut self.chain,
            p.chain.iter().map(|(k, v)| (chain_key(k), *v)),
            maps::POLICY_CHAIN,
            p.chain.len(),
        )?;
        fill(
            &mut self.names,
            p.names.iter().map(|(k, v)| (name_key(k), *v)),
            maps::POLICY_NAMES,
            p.names.len(),
        )?;
        fill(
            &mut self.addrs,
            p.addrs.iter().map(|(k, v)| (addr_key(k), *v)),
            maps::POLICY_ADDRS,
            p.addrs.len(),
        )
    }

    /// Best effort after a failed write: what cannot be removed is under an id that nothing names.
    fn erase_compiled(&mut self, p: &Compiled) {
        for (k, _) in &p.addrs {
            let _ = self.addrs.remove(&addr_key(k));
        }
        for (k, _) in &p.names {
            let _ = self.names.remove(&name_key(k));
        }
        for (k, _) in &p.chain {
            let _ = self.chain.remove(&chain_key(k));
        }
        for (k, _) in &p.texts {
            let _ = self.text.remove(&text_key(k));
        }
    }

    /// Removes every entry of a policy, unless some slot names it: those that are `used`. Waits for a
    /// grace period first, so that no program run is left that could still look at it. Its rules as text
    /// stay for a while: flows that it allowed are still alive and name them.
    pub fn erase(&mut self, policy: u32, used: &BTreeSet<u32>) -> Result<(), KernelError> {
        if used.contains(&policy) {
            return Ok(());
        }
        sys::grace_period()?;
        self.purge_rules(policy)?;
        let keys = self.text.keys().filter(Result::is_ok).count();
        let kept = if keys > TEXTS_KEPT_BELOW {
            0
        } else {
            POLICIES_NAMED
        };
        purge(&mut self.text, maps::POLICY_TEXT, |k| {
            let of = k.data()[0];
            of.saturating_add(kept) < policy && !used.contains(&of)
        })
    }

    /// Removes every policy but those that slots name. For whoever takes over and knows of no other.
    pub fn keep(&mut self, used: &BTreeSet<u32>) -> Result<(), KernelError> {
        sys::grace_period()?;
        let idle = |head: &[u8]| {
            let id = head.first_chunk().map(|b| u32::from_ne_bytes(*b));
            id.is_some_and(|id| !used.contains(&id))
        };
        purge(&mut self.addrs, maps::POLICY_ADDRS, |k| idle(&k.data()))?;
        purge(&mut self.names, maps::POLICY_NAMES, |k| idle(&k.data()))?;
        purge(&mut self.chain, maps::POLICY_CHAIN, |k| {
            !used.contains(&k.data()[0])
        })
    }

    /// Removes every entry under an id that no slot has named yet: what a writer left there that died
    /// half-way. Mixed with another policy it would open or close what that policy does not.
    pub fn discard(&mut self, policy: u32) -> Result<(), KernelError> {
        self.purge_rules(policy)?;
        purge(&mut self.text, maps::POLICY_TEXT, |k| k.data()[0] == policy)
    }

    fn purge_rules(&mut self, policy: u32) -> Result<(), KernelError> {
        let of = |head: &[u8]| head.get(..4) == Some(policy.as_bytes());
        purge(&mut self.addrs, maps::POLICY_ADDRS, |k| of(&k.data()))?;
        purge(&mut self.names, maps::POLICY_NAMES, |k| of(&k.data()))?;
        purge(&mut self.chain, maps::POLICY_CHAIN, |k| {
            k.data()[0] == policy
        })
    }

    /// The rules of a policy as text, in order.
    pub fn rules(&self, policy: u32) -> Result<Vec<(u32, RuleText)>, KernelError> {
        let all: Result<Vec<_>, _> = self.text.iter().collect();
        let mut rules: Vec<(u32, RuleText)> = all
            .map_err(|e| KernelError::map("read", maps::POLICY_TEXT, io_error(e)))?
            .into_iter()
            .filter(|(k, _)| k.data()[0] == policy)
            .map(|(k, v)| (k.data()[1], v.0))
            .collect();
        rules.sort_by_key(|(n, _)| *n);
        Ok(rules)
    }
}

fn fill<K: aya::Pod, V: Plain>(
    trie: &mut Trie<K, V>,
    entries: impl Iterator<Item = (Key<K>, V)>,
    map: &'static str,
    count: usize,
) -> Result<(), KernelError> {
    for (key, value) in entries {
        trie.insert(&key, P(value), 0).map_err(|e| {
            let e = io_error(e);
            if e.raw_os_error() == Some(libc::ENOSPC) {
                return KernelError::TooBig {
                    map,
                    entries: count,
                    limit: MAX_POLICY_ENTRIES as usize,
                };
            }
            KernelError::map("write", map, e)
        })?;
    }
    Ok(())
}

fn purge<K: aya::Pod, V: Plain>(
    trie: &mut Trie<K, V>,
    name: &'static str,
    of: impl Fn(&Key<K>) -> bool,
) -> Result<(), KernelError> {
    let keys: Result<Vec<Key<K>>, _> = trie.keys().collect();
    let keys = keys.map_err(|e| KernelError::map("read", name, io_error(e)))?;
    for key in keys.iter().filter(|k| of(k)) {
        removed(trie.remove(key), name)?;
    }
    Ok(())
}
