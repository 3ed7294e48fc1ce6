//! What the kernel says is pinned, attached and effective. Nothing here reads what we wrote down
//! ourselves, so `doctor` can hold the one against the other.

use super::{KernelError, Pins, PolicyMaps, mapped, sys};
use abi::{FoldKey, FoldRow, maps, programs};
use aya::{maps::MapError, programs::loaded_programs};
use aya_obj::generated::{BPF_F_QUERY_EFFECTIVE, bpf_attach_type, bpf_link_type};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::AsRawFd as _,
    path::Path,
};

pub use mapped::RingFill;

/// A pinned link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Id of its program.
    pub program: u32,
    /// Where it is attached.
    pub target: Target,
}

/// Where a link is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A cgroup.
    Cgroup {
        /// The cgroup's id; 0 when the link was detached or the cgroup is gone.
        id: u64,
        /// Which of our hooks it is; none when it is another.
        hook: Option<&'static str>,
    },
    /// An iterator over the elements of a map.
    Iterator {
        /// Id of the map.
        map: u32,
    },
    /// The ingress of an interface.
    Interface {
        /// Its index; 0 when the link was detached or the interface is gone.
        index: u32,
    },
    /// Something that we never make.
    Other,
}

/// A loaded program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Name, up to 15 characters.
    pub name: String,
    /// Ids of the maps it uses.
    pub maps: Vec<u32>,
    /// Id of the type information it was loaded with.
    pub types: Option<u32>,
}

/// A pinned map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Id.
    pub id: u32,
    /// Id of the type information it was made with; 0 for none.
    pub types: u32,
    /// Elements it may hold; bytes of a ring.
    pub max_entries: u32,
}

/// Attach type of each of our hooks.
const HOOKS: [(&str, bpf_attach_type); programs::CGROUP.len()] = {
    use bpf_attach_type as at;
    [
        (programs::CONNECT4, at::BPF_CGROUP_INET4_CONNECT),
        (programs::CONNECT6, at::BPF_CGROUP_INET6_CONNECT),
        (programs::SENDMSG4, at::BPF_CGROUP_UDP4_SENDMSG),
        (programs::SENDMSG6, at::BPF_CGROUP_UDP6_SENDMSG),
        (programs::RECVMSG4, at::BPF_CGROUP_UDP4_RECVMSG),
        (programs::RECVMSG6, at::BPF_CGROUP_UDP6_RECVMSG),
        (programs::GETPEERNAME4, at::BPF_CGROUP_INET4_GETPEERNAME),
        (programs::GETPEERNAME6, at::BPF_CGROUP_INET6_GETPEERNAME),
        (programs::SOCK_CREATE, at::BPF_CGROUP_INET_SOCK_CREATE),
        (programs::SOCK_RELEASE, at::BPF_CGROUP_INET_SOCK_RELEASE),
        (programs::SOCK_OPS, at::BPF_CGROUP_SOCK_OPS),
        (programs::EGRESS, at::BPF_CGROUP_INET_EGRESS),
        (programs::INGRESS, at::BPF_CGROUP_INET_INGRESS),
    ]
};

pub(super) fn attach_type(hook: &'static str) -> Result<bpf_attach_type, KernelError> {
    let found = HOOKS.iter().find(|(name, _)| *name == hook);
    found.map(|(_, t)| *t).ok_or(KernelError::Missing {
        kind: "hook",
        name: hook,
    })
}

/// The link behind a pin.
pub fn link(path: &Path) -> Result<Link, KernelError> {
    let info = sys::link_info(path).map_err(|e| KernelError::pin("look at link", path, e))?;
    let target = match bpf_link_type::try_from(info.type_) {
        Ok(bpf_link_type::BPF_LINK_TYPE_CGROUP) => {
            // SAFETY: the member of this type of link; plain integers.
            let cgroup = unsafe { info.__bindgen_anon_1.cgroup };
            let hook = HOOKS.iter().find(|(_, t)| *t as u32 == cgroup.attach_type);
            Target::Cgroup {
                id: cgroup.cgroup_id,
                hook: hook.map(|(name, _)| *name),
            }
        }
        Ok(bpf_link_type::BPF_LINK_TYPE_ITER) => Target::Iterator {
            // SAFETY: the member of this type of link; plain integers, zero when it has no map.
            map: unsafe { info.__bindgen_anon_1.iter.__bindgen_anon_1.map.map_id },
        },
        Ok(bpf_link_type::BPF_LINK_TYPE_TCX) => Target::Interface {
            // SAFETY: the member of this type of link; plain integers.
            index: unsafe { info.__bindgen_anon_1.tcx.ifindex },
        },
        _ => Target::Other,
    };
    Ok(Link {
        program: info.prog_id,
        target,
    })
}

/// The map behind a pin.
pub fn map(path: &Path) -> Result<MapInfo, KernelError> {
    let info = sys::map_info(path).map_err(|e| KernelError::pin("look at map", path, e))?;
    Ok(MapInfo {
        id: info.id,
        types: info.btf_id,
        max_entries: info.max_entries,
    })
}

/// Name of a map, up to 15 characters.
pub fn map_name(id: u32) -> Result<String, KernelError> {
    let info = aya::maps::MapInfo::from_id(id).map_err(|e| KernelError::Call {
        what: "cannot look at a map by its id",
        source: super::io_error(e),
    })?;
    Ok(String::from_utf8_lossy(info.name()).into_owned())
}

/// Ids of the programs of one hook at a cgroup, in the order they run: those attached to the cgroup
/// itself, or with `effective` those of its ancestors as well.
pub fn programs_at(
    cgroup: &File,
    hook: &'static str,
    effective: bool,
) -> Result<Vec<u32>, KernelError> {
    let flags = if effective { BPF_F_QUERY_EFFECTIVE } else { 0 };
    sys::prog_query(cgroup.as_raw_fd() as u32, attach_type(hook)?, flags).map_err(|source| {
        KernelError::Call {
            what: "cannot ask for the programs of a cgroup",
            source,
        }
    })
}

/// What the kernel knows of these programs. One that is gone in the meantime is left out.
pub fn describe(ids: &BTreeSet<u32>) -> Result<BTreeMap<u32, ProgramInfo>, KernelError> {
    let mut found = BTreeMap::new();
    if ids.is_empty() {
        return Ok(found);
    }
    for program in loaded_programs() {
        let program = match program {
            Ok(p) if ids.contains(&p.id()) => p,
            Ok(_) => continue,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(listing(e)),
        };
        let maps = match program.map_ids() {
            Ok(maps) => maps.unwrap_or_default(),
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(listing(e)),
        };
        let name = String::from_utf8_lossy(program.name()).into_owned();
        let types = program.btf_id();
        found.insert(program.id(), ProgramInfo { name, maps, types });
    }
    Ok(found)
}

fn listing(e: aya::programs::ProgramError) -> KernelError {
    KernelError::Call {
        what: "cannot list the programs of the kernel",
        source: std::io::Error::other(e),
    }
}

fn is_gone(e: &aya::programs::ProgramError) -> bool {
    match e {
        aya::programs::ProgramError::SyscallError(e) => {
            e.io_error.kind() == std::io::ErrorKind::NotFound
        }
        _ => false,
    }
}

impl Pins {
    /// Path of a pinned map.
    #[must_use]
    pub fn map_path(&self, name: &str) -> std::path::PathBuf {
        self.dir().join("maps").join(name)
    }

    /// What tells this set of maps from every other one of this boot: the kernel's id of its books. 0 when
    /// they are not there.
    #[must_use]
    pub fn set(&self) -> u32 {
        map(&self.map_path(maps::METRICS)).map_or(0, |m| m.id)
    }

    /// How full a ring is, without taking anything out of it.
    pub fn ring_fill(&self, name: &'static str) -> Result<RingFill, KernelError> {
        let bytes = map(&self.map_path(name))?.max_entries;
        mapped::ring_fill(self.map(name)?.fd(), bytes)
            .map_err(|e| KernelError::map("map into memory", name, e))
    }

    /// Folded rows that nobody has taken yet, without taking them. Those without a destination are in
    /// the books.
    pub fn folded(&self) -> Result<Vec<(FoldKey, FoldRow)>, KernelError> {
        super::maps::entries(&self.folds()?, maps::FOLDS)
    }
}

impl PolicyMaps {
    /// Entries of each map, over all policies.
    pub fn entries(&self) -> Result<Vec<(&'static str, u64)>, KernelError> {
        Ok(vec![
            count(maps::POLICY_ADDRS, self.addrs.keys())?,
            count(maps::POLICY_NAMES, self.names.keys())?,
            count(maps::POLICY_CHAIN, self.chain.keys())?,
            count(maps::POLICY_TEXT, self.text.keys())?,
        ])
    }
}

fn count<K>(
    name: &'static str,
    mut keys: impl Iterator<Item = Result<K, MapError>>,
) -> Result<(&'static str, u64), KernelError> {
    keys.try_fold(0, |n, key| key.map(|_| n + 1))
        .map(|n| (name, n))
        .map_err(|e| KernelError::map("read", name, super::io_error(e)))
}
