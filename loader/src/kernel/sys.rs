//! The few bpf(2) calls that aya does not make, and `membarrier`.

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};
use std::{
    ffi::CString,
    io,
    mem::{size_of, zeroed},
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `MEMBARRIER_CMD_GLOBAL` (`include/uapi/linux/membarrier.h`).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: `attr` is a whole `bpf_attr`; every pointer in it was taken from a live reference by the
    // callers below, with the length that the map or the call demands.
    let r = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            cmd as u32,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(r)
    }
}

fn element(map: BorrowedFd<'_>, key: &[u8], value: *mut u8) -> bpf_attr {
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value as u64;
    attr
}

/// `BPF_MAP_UPDATE_ELEM`. `key` and `value` must have the map's sizes.
pub(super) fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_UPDATE_ELEM,
        &mut element(map, key, value.as_ptr().cast_mut()),
    )
    .map(drop)
}

/// `BPF_MAP_LOOKUP_ELEM`. `key` and `value` must have the map's sizes.
pub(super) fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_LOOKUP_ELEM,
        &mut element(map, key, value.as_mut_ptr()),
    )
    .map(drop)
}

/// `BPF_LINK_CREATE` for an iterator over the elements of one map. aya's `Iter::attach` has no way to
/// name the map.
pub(super) fn iter_link(prog: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // `union bpf_iter_link_info`: the map's descriptor, then room for the other members.
    let mut info = [0u32; 4];
    info[0] = map.as_raw_fd() as u32;
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = prog.as_raw_fd() as u32;
    attr.link_create.attach_type = bpf_attach_type::BPF_TRACE_ITER as u32;
    attr.link_create.__bindgen_anon_3.__bindgen_anon_1.iter_info = info.as_mut_ptr() as u64;
    attr.link_create
        .__bindgen_anon_3
        .__bindgen_anon_1
        .iter_info_len = size_of_val(&info) as u32;
    let fd = bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// `BPF_OBJ_PIN`.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = fd.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Waits until every program run that began before the call has ended (`synchronize_rcu`).
pub(super) fn grace_period() -> io::Result<()> {
    // SAFETY: no pointers.
    let r = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
