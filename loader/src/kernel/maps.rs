//! Pinned maps, opened by path: what `dump` needs when nothing else is alive.

use super::{
    KernelError, diag, io_error, object,
    pod::{P, Plain},
    policy_maps::PolicyMaps,
};
use abi::{
    Flow, HEIR_SENT, HeirKey, LearnedAddr, LearnedAddrKey, LearnedName, LearnedNameKey, LiveFlow,
    SlotConfig, SlotInfo, SlotMetrics, close, maps, programs,
};
use aya::maps::{Array, HashMap, Map, MapData};
use nix::fcntl::{Flock, FlockArg};
use std::{
    collections::HashMap as StdHashMap,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};
use zerocopy::{FromBytes as _, FromZeros as _};

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

/// What the iterators tell of sockets.
#[derive(Debug)]
pub struct Sockets {
    /// Live flows.
    pub live: Vec<LiveFlow>,
    /// Cookies and slots of TCP sockets whose flow was cut and that still have a connection: what they
    /// hold would leave as soon as the programs are gone.
    pub cut: StdHashMap<u64, u32>,
}

fn destroy(wanted: impl Fn(u64, u64) -> bool) -> Result<(), KernelError> {
    diag::destroy(wanted).map_err(|source| KernelError::Call {
        what: "cannot destroy the connections that are left",
        source,
    })
}

/// Name of the attachment to a cgroup, where an instance guards several.
#[must_use]
pub fn link_name(cgroup_id: u64) -> String {
    format!("{LINKS_OF}{cgroup_id}")
}

/// The cgroup of an attachment, by its name.
#[must_use]
pub fn linked_cgroup(name: &str) -> Option<u64> {
    name.strip_prefix(LINKS_OF)?.parse().ok()
}

/// In front of a cgroup's id.
const LINKS_OF: &str = "cgroup-";

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

    /// Directory of the links to a cgroup, where an instance guards several.
    #[must_use]
    pub fn links_of(&self, cgroup_id: u64) -> PathBuf {
        self.dir.join("links").join(link_name(cgroup_id))
    }

    pub(super) fn map(&self, name: &'static str) -> Result<MapData, KernelError> {
        let path = self.map_path(name);
        MapData::from_pin(&path).map_err(|e| KernelError::pin("open map", path, io_error(e)))
    }

    pub(super) fn hash<K: Plain, V: Plain>(
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

    /// Writes a row of identity.
    pub fn set_info(&self, index: u32, info: &SlotInfo) -> Result<(), KernelError> {
        let mut array: Array<_, P<SlotInfo>> =
            Array::try_from(Map::Array(self.map(maps::SLOT_INFO)?))
                .map_err(|e| KernelError::map("open", maps::SLOT_INFO, io_error(e)))?;
        array
            .set(index, P(*info), 0)
            .map_err(|e| KernelError::map("write", maps::SLOT_INFO, io_error(e)))
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
        object::configuration(&self.map(maps::SLOT)?, cgroup_id)
    }

    /// Replaces the configuration of an attached cgroup in one step.
    pub fn configure(&self, cgroup_id: u64, config: &SlotConfig) -> Result<(), KernelError> {
        let (slots, copies) = (self.map(maps::SLOT)?, self.map(maps::CONFIGS)?);
        object::configure(&slots, &copies, cgroup_id, config)
    }

    /// Takes a slot's marks back, before its programs are detached: guard and backstop pass nothing any
    /// more of sockets that only they have judged.
    pub fn retire(&self, index: u32) -> Result<(), KernelError> {
        let nobody = SlotConfig {
            index,
            ..SlotConfig::new_zeroed()
        };
        object::copy(&self.map(maps::CONFIGS)?, &nobody)
    }

    /// Every live flow; see [`Pins::sockets`].
    pub fn live(&self) -> Result<Vec<LiveFlow>, KernelError> {
        Ok(self.sockets()?.live)
    }

    /// What is on the sockets: a plain read of the pinned iterators. Datagram flows that have been idle
    /// for their time end on the way.
    pub fn sockets(&self) -> Result<Sockets, KernelError> {
        let (mut live, cut) = self.tcp()?;
        live.extend(self.rows(programs::ITER_DGRAM)?);
        Ok(Sockets { live, cut })
    }

    fn tcp(&self) -> Result<(Vec<LiveFlow>, StdHashMap<u64, u32>), KernelError> {
        let rows = self.rows(programs::ITER_TCP)?.into_iter();
        let (live, cut): (_, Vec<_>) = rows.partition(|l| l.tail.close == u64::from(close::LIVE));
        Ok((live, cut.iter().map(|l| (l.cookie, l.flow.slot)).collect()))
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

    /// Destroys TCP sockets by cookie, so that nothing they hold leaves when the programs go.
    pub fn destroy(&self, cut: &StdHashMap<u64, u32>) -> Result<(), KernelError> {
        if cut.is_empty() {
            return Ok(());
        }
        destroy(|cookie, _| cut.contains_key(&cookie))
    }

    /// Destroys every TCP socket that was made in these cgroups or whose flow was cut. Returns how many
    /// of the cut ones resist, because they live in another network namespace.
    pub fn destroy_all(&self, cgroups: &[u64]) -> Result<usize, KernelError> {
        let (_, cut) = self.tcp()?;
        destroy(|cookie, cgroup| cut.contains_key(&cookie) || cgroups.contains(&cgroup))?;
        Ok(self.tcp()?.1.len())
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

    /// Adds what another set of programs has learned; how many names and addresses were new.
    pub(super) fn learn(&self, more: &Learned) -> Result<(u64, u64), KernelError> {
        let mut names = self.hash::<LearnedNameKey, LearnedName>(maps::LEARNED_NAMES)?;
        let mut addrs = self.hash::<LearnedAddrKey, LearnedAddr>(maps::LEARNED_ADDRS)?;
        let (mut n, mut m) = (0, 0);
        for (key, name) in &more.names {
            n += u64::from(added(
                names.insert(P(*key), P(*name), NEW),
                maps::LEARNED_NAMES,
            )?);
        }
        for (key, addr) in &more.addrs {
            m += u64::from(added(
                addrs.insert(P(*key), P(*addr), NEW),
                maps::LEARNED_ADDRS,
            )?);
        }
        Ok((n, m))
    }

    /// Lets flows of another set of programs go on when their sockets are met. What finds no room is
    /// judged as if the socket were older than the firewall. `over` what an earlier reading has found.
    pub fn inherit(&self, flows: &[(HeirKey, Flow)], over: bool) -> Result<(), KernelError> {
        let mut heirs = self.hash::<HeirKey, Flow>(maps::HEIRS)?;
        let flags = if over { ANY } else { NEW };
        for (key, flow) in flows {
            added(heirs.insert(P(*key), P(*flow), flags), maps::HEIRS)?;
        }
        Ok(())
    }

    /// Forgets who was sent to while flows were handed over.
    pub fn forget_sent(&self) -> Result<(), KernelError> {
        let mut notes = self.hash::<HeirKey, Flow>(maps::HEIR_NOTES)?;
        for (key, _) in entries(&notes, maps::HEIR_NOTES)? {
            if key.kind == HEIR_SENT {
                removed(notes.remove(&P(key)), maps::HEIR_NOTES)?;
            }
        }
        Ok(())
    }

    /// The policy maps.
    pub fn policy(&self) -> Result<PolicyMaps, KernelError> {
        PolicyMaps::open(self)
    }

    /// Holds off every other process that changes the policy of a slot, until the answer is dropped. Two
    /// at once would write their rules under one id.
    pub fn hold(&self) -> Result<Flock<File>, KernelError> {
        let path = self.dir.join("maps");
        let dir = File::open(&path).map_err(|e| KernelError::pin("open", &path, e))?;
        Flock::lock(dir, FlockArg::LockExclusive)
            .map_err(|(_, e)| KernelError::pin("lock", &path, e))
    }
}

pub(super) fn entries<K: Plain, V: Plain>(
    map: &HashMap<MapData, P<K>, P<V>>,
    name: &'static str,
) -> Result<Vec<(K, V)>, KernelError> {
    let all: Result<Vec<_>, _> = map.iter().map(|r| r.map(|(k, v)| (k.0, v.0))).collect();
    all.map_err(|e| KernelError::map("read", name, io_error(e)))
}

/// `BPF_NOEXIST`.
const NEW: u64 = 1;
/// `BPF_ANY`.
const ANY: u64 = 0;

/// Whether an entry is new. One that is there already, or finds no room, is no error.
fn added(r: Result<(), aya::maps::MapError>, name: &'static str) -> Result<bool, KernelError> {
    match r.map_err(io_error) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EEXIST | libc::E2BIG)) => Ok(false),
        Err(e) => Err(KernelError::map("write", name, e)),
    }
}

pub(super) fn removed(
    r: Result<(), aya::maps::MapError>,
    name: &'static str,
) -> Result<(), KernelError> {
    match r.map_err(io_error) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::map("remove from", name, e))
        }
        _ => Ok(()),
    }
}
