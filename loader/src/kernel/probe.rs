//! What this kernel can do, found out by asking it rather than by its version.

use super::{KernelError, Sizes, btf, object, query, sys};
use abi::programs;
use aya::{
    Btf,
    maps::MapType,
    programs::{ProgramError, ProgramType},
    sys::{BpfHelper, is_helper_supported, is_map_supported},
};
use aya_obj::{btf::BtfKind, generated::bpf_attach_type};
use std::{fs::File, io, os::fd::AsRawFd as _, path::Path};

/// Something that a kernel has or lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Helper `bpf_loop` (5.17).
    Loop,
    /// `CGROUP_STORAGE` with a `u64` key (5.9).
    SlotMap,
    /// Socket storage (5.2).
    SocketStorage,
    /// Iterators over socket storage (5.10).
    Iterator,
    /// Ring buffer (5.8).
    RingBuffer,
    /// Every cgroup hook that we attach to.
    Hooks,
    /// `membarrier` with a grace period for all processors.
    GracePeriod,
    /// Programs at the traffic control hook of an interface (6.6).
    Tcx,
}

/// All of them, in the order they are told.
pub const FEATURES: [Feature; 8] = [
    Feature::Loop,
    Feature::SlotMap,
    Feature::SocketStorage,
    Feature::Iterator,
    Feature::RingBuffer,
    Feature::Hooks,
    Feature::GracePeriod,
    Feature::Tcx,
];

/// Index of the loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// Whether the kernel has a feature. `cgroup`: some cgroup, for asking about hooks.
pub fn has(feature: Feature, cgroup: Option<&Path>) -> io::Result<bool> {
    match feature {
        Feature::Loop => {
            is_helper_supported(ProgramType::CgroupSkb, BpfHelper::BPF_FUNC_loop).map_err(reason)
        }
        Feature::SlotMap => known(sys::make_slot_map()),
        Feature::SocketStorage => is_map_supported(MapType::SkStorage).map_err(|e| e.io_error),
        Feature::RingBuffer => is_map_supported(MapType::RingBuf).map_err(|e| e.io_error),
        Feature::Iterator => {
            let types = Btf::from_sys_fs().map_err(io::Error::other)?;
            Ok(types
                .id_by_type_name_kind("bpf_iter_bpf_sk_storage_map", BtfKind::Func)
                .is_ok())
        }
        Feature::Hooks => {
            let path = cgroup.ok_or_else(|| io::Error::other("there is no cgroup to ask about"))?;
            let cgroup = File::open(path)?;
            for hook in programs::CGROUP {
                let hook = query::attach_type(hook).map_err(io::Error::other)?;
                if !known(sys::prog_query(cgroup.as_raw_fd() as u32, hook, 0).map(drop))? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Feature::GracePeriod => sys::has_grace_period(),
        Feature::Tcx => {
            known(sys::prog_query(LOOPBACK, bpf_attach_type::BPF_TCX_INGRESS, 0).map(drop))
        }
    }
}

/// What a kernel does not know it calls an invalid argument.
fn known(r: io::Result<()>) -> io::Result<bool> {
    match r {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}

fn reason(e: ProgramError) -> io::Error {
    match e {
        ProgramError::SyscallError(e) => e.io_error,
        other => io::Error::other(other),
    }
}

/// Whether the kernel's type information can be used.
pub fn types() -> Result<(), KernelError> {
    btf::offsets().map(drop).map_err(KernelError::from)
}

/// Loads every program as `run` and `serve` would, attaches and pins nothing, and lets them go again.
pub fn trial() -> Result<(), KernelError> {
    let mut ebpf = object::open(object(), Sizes::default(), &[])?;
    [programs::GUARD, programs::BACKSTOP]
        .into_iter()
        .try_for_each(|name| object::load_program(&mut ebpf, name))
}
