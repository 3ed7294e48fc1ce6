//! Pinned maps, opened by path: what `dump` needs when nothing else is alive, and what every change of
//! policy goes through.

use super::{
    KernelError, diag, io_error, object,
    pod::{P, Plain},
    sys,
};
use abi::{
    AddrKey, ChainKey, LearnedAddr, LearnedAddrKey, LearnedName, LearnedNameKey, LiveFlow,
    MAX_POLICY_ENTRIES, NameKey, RuleSet, RuleText, RuleTextKey, SlotConfig, SlotInfo, SlotMetrics,
    close, maps, programs,
};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie::Key};
use policy::Compiled;
use std::{
    collections::HashSet,
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

type Trie<K, V> = LpmTrie<MapData, K, P<V>>;
type AddrData = [u8; size_of::<AddrKey>() - 4];
type NameData = [u8; size_of::<NameKey>() - 4];
type PairData = [u32; 2];

/// Policies whose rules can still be named after later ones have taken their place.
const POLICIES_NAMED: u32 = 16;
/// Above this many texts only the latest policy that went keeps its own.
const TEXTS_KEPT_BELOW: usize = MAX_POLICY_ENTRIES as usize / 8;

/// The pins of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    dir: PathBuf,
}

/// What a slot has learned from DNS.
#[derive(Debug)]
pub struct Learned {
    /// Names by hash.
    pub names: Vec<(LearnedNameKey, LearnedName)>,
    /// Addresses.
    pub addrs: Vec<(LearnedAddrKey, LearnedAddr)>,
}

impl Pins {
    /// The pins below a directory.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Directory of the pins.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn map(&self, name: &'static str) -> Result<MapData, KernelError> {
        let path = self.map_path(name);
        MapData::from_pin(&path).map_err(|e| KernelError::pin("open map", path, io_error(e)))
    }

    fn hash<K: Plain, V: Plain>(
        &self,
        name: &'static str,
    ) -> Result<HashMap<MapData, P<K>, P<V>>, KernelError> {
        HashMap::try_from(Map::HashMap(self.map(name)?))
            .map_err(|e| KernelError::map("open", name, io_error(e)))
    }

    pub(super) fn folds(
        &self,
    ) -> Result<HashMap<MapData, P<abi::FoldKey>, P<abi::FoldRow>>, KernelError> {
        self.hash(maps::FOLDS)
    }

    /// Every row of identity that is in use, by index.
    pub fn infos(&self) -> Result<Vec<(u32, SlotInfo)>, KernelError> {
        let all: Vec<SlotInfo> = self.array(maps::SLOT_INFO)?;
        Ok((0..).zip(all).filter(|(_, i)| i.slot != 0).collect())
    }

    /// Every row of the books, row 0 included.
    pub fn books(&self) -> Result<Vec<SlotMetrics>, KernelError> {
        self.array(maps::METRICS)
    }

    fn array<T: Plain>(&self, name: &'static str) -> Result<Vec<T>, KernelError> {
        let array: Array<_, P<T>> = Array::try_from(Map::Array(self.map(name)?))
            .map_err(|e| KernelError::map("open", name, io_error(e)))?;
        let rows: Result<Vec<_>, _> = array.iter().map(|r| r.map(|p| p.0)).collect();
        rows.map_err(|e| KernelError::map("read", name, io_error(e)))
    }

    /// Configuration of an attached cgroup; nothing when the cgroup is not attached any more.
    pub fn config(&self, cgroup_id: u64) -> Result<Option<SlotConfig>, KernelError> {
        let map = self.map(maps::SLOT)?;
        let mut config = SlotConfig::new_zeroed();
        match sys::map_lookup(
            map.fd().as_fd(),
            cgroup_id.as_bytes(),
            config.as_mut_bytes(),
        ) {
            Ok(()) => Ok(Some(config)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(KernelError::map("read", maps::SLOT, e)),
        }
    }

    /// Replaces the configuration of an attached cgroup in one step.
    pub fn configure(&self, cgroup_id: u64, config: &SlotConfig) -> Result<(), KernelError> {
        object::configure(&self.map(maps::SLOT)?, cgroup_id, config)
    }

    /// Every live flow: a plain read of the pinned iterators. Datagram flows that have been idle for
    /// their time end on the way.
    pub fn live(&self) -> Result<Vec<LiveFlow>, KernelError> {
        let mut flows = self.rows(programs::ITER_TCP)?;
        flows.retain(|l| l.tail.close == u64::from(close::LIVE));
        flows.extend(self.rows(programs::ITER_DGRAM)?);
        Ok(flows)
    }

    fn rows(&self, iterator: &'static str) -> Result<Vec<LiveFlow>, KernelError> {
        let path = self.dir.join(iterator);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|mut f| f.read_to_end(&mut bytes))
            .map_err(|e| KernelError::pin("read", path, e))?;
        let rows = bytes.chunks_exact(size_of::<LiveFlow>());
        Ok(rows
            .filter_map(|row| LiveFlow::read_from_bytes(row).ok())
            .collect())
    }

    /// Cookies of TCP sockets whose flow was cut and that still have a connection: what they hold
    /// would leave as soon as the programs are gone.
    fn severed(&self) -> Result<HashSet<u64>, KernelError> {
        let rows = self.rows(programs::ITER_TCP)?;
        let cut = rows
            .iter()
            .filter(|l| l.tail.close != u64::from(close::LIVE));
        Ok(cut.map(|l| l.cookie).collect())
    }

    /// Destroys every TCP socket that was made in these cgroups or whose flow was cut, so that nothing
    /// leaves when the programs go. Returns how many of the cut ones resist, because they live in
    /// another network namespace.
    pub fn destroy_sockets(&self, cgroups: &[u64]) -> Result<usize, KernelError> {
        let cut = self.severed()?;
        diag::destroy(|cookie, cgroup| cut.contains(&cookie) || cgroups.contains(&cgroup))
            .map_err(|source| KernelError::Call {
                what: "cannot destroy the connections that are left",
                source,
            })?;
        Ok(self.severed()?.len())
    }

    /// Everything learned from DNS.
    pub fn learned(&self) -> Result<Learned, KernelError> {
        let names = self.hash::<LearnedNameKey, LearnedName>(maps::LEARNED_NAMES)?;
        let addrs = self.hash::<LearnedAddrKey, LearnedAddr>(maps::LEARNED_ADDRS)?;
        Ok(Learned {
            names: entries(&names, maps::LEARNED_NAMES)?,
            addrs: entries(&addrs, maps::LEARNED_ADDRS)?,
        })
    }

    /// One learned name.
    pub fn name(&self, key: LearnedNameKey) -> Result<Option<LearnedName>, KernelError> {
        let names = self.hash::<LearnedNameKey, LearnedName>(maps::LEARNED_NAMES)?;
        match names.get(&P(key), 0) {
            Ok(n) => Ok(Some(n.0)),
            Err(aya::maps::MapError::KeyNotFound) => Ok(None),
            Err(e) => Err(KernelError::map("read", maps::LEARNED_NAMES, io_error(e))),
        }
    }

    /// Removes learned entries. Entries that are gone already are no error.
    pub fn forget(&self, gone: &Learned) -> Result<(), KernelError> {
        let mut names = self.hash::<LearnedNameKey, LearnedName>(maps::LEARNED_NAMES)?;
        let mut addrs = self.hash::<LearnedAddrKey, LearnedAddr>(maps::LEARNED_ADDRS)?;
        for (key, _) in &gone.names {
            removed(names.remove(&P(*key)), maps::LEARNED_NAMES)?;
        }
        for (key, _) in &gone.addrs {
            removed(addrs.remove(&P(*key)), maps::LEARNED_ADDRS)?;
        }
        Ok(())
    }

    /// The policy maps.
    pub fn policy(&self) -> Result<PolicyMaps, KernelError> {
        Ok(PolicyMaps {
            addrs: trie(self.map(maps::POLICY_ADDRS)?, maps::POLICY_ADDRS)?,
            names: trie(self.map(maps::POLICY_NAMES)?, maps::POLICY_NAMES)?,
            chain: trie(self.map(maps::POLICY_CHAIN)?, maps::POLICY_CHAIN)?,
            text: trie(self.map(maps::POLICY_TEXT)?, maps::POLICY_TEXT)?,
        })
    }
}

fn trie<K: aya::Pod, V: Plain>(
    map: MapData,
    name: &'static str,
) -> Result<Trie<K, V>, KernelError> {
    LpmTrie::try_from(Map::LpmTrie(map)).map_err(|e| KernelError::map("open", name, io_error(e)))
}

pub(super) fn entries<K: Plain, V: Plain>(
    map: &HashMap<MapData, P<K>, P<V>>,
    name: &'static str,
) -> Result<Vec<(K, V)>, KernelError> {
    let all: Result<Vec<_>, _> = map.iter().map(|r| r.map(|(k, v)| (k.0, v.0))).collect();
    all.map_err(|e| KernelError::map("read", name, io_error(e)))
}

fn removed(r: Result<(), aya::maps::MapError>, name: &'static str) -> Result<(), KernelError> {
    match r.map_err(io_error) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::map("remove from", name, e))
        }
        _ => Ok(()),
    }
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

    /// Removes every entry of a policy that no slot names any more. Waits for a grace period first,
    /// so that no program run is left that could still look at it. Its rules as text stay for a
    /// while: flows that it allowed are still alive and name them.
    pub fn erase(&mut self, policy: u32) -> Result<(), KernelError> {
        sys::grace_period().map_err(|source| KernelError::Call {
            what: "cannot wait for running programs",
            source,
        })?;
        let of = |head: &[u8]| head.get(..4) == Some(policy.as_bytes());
        purge(&mut self.addrs, maps::POLICY_ADDRS, |k| of(&k.data()))?;
        purge(&mut self.names, maps::POLICY_NAMES, |k| of(&k.data()))?;
        purge(&mut self.chain, maps::POLICY_CHAIN, |k| {
            k.data()[0] == policy
        })?;
        let keys = self.text.keys().filter(Result::is_ok).count();
        let kept = if keys > TEXTS_KEPT_BELOW {
            0
        } else {
            POLICIES_NAMED
        };
        purge(&mut self.text, maps::POLICY_TEXT, |k| {
            k.data()[0].saturating_add(kept) < policy
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
