//! The few bpf(2) calls that aya does not make, and `membarrier`.

use super::KernelError;
use aya_obj::generated::{
    BPF_F_BEFORE, bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_link_info, bpf_map_info,
    bpf_map_type,
};
use std::{
    ffi::CString,
    fs, io,
    mem::{size_of, zeroed},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// `MEMBARRIER_CMD_QUERY` (`include/uapi/linux/membarrier.h`).
const MEMBARRIER_CMD_QUERY: libc::c_int = 0;
/// `MEMBARRIER_CMD_GLOBAL`.
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

/// `BPF_MAP_DELETE_ELEM`. `key` must have the map's size.
pub(super) fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_DELETE_ELEM,
        &mut element(map, key, std::ptr::null_mut()),
    )
    .map(drop)
}

/// Every key of a map whose keys have this many bytes (`BPF_MAP_GET_NEXT_KEY`). Of a map that changes
/// meanwhile a key may be missing or there twice.
pub(super) fn map_keys(map: BorrowedFd<'_>, bytes: usize) -> io::Result<Vec<Vec<u8>>> {
    let mut keys: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut next = vec![0; bytes];
        let last = keys.last().map_or(&[][..], Vec::as_slice);
        let mut attr = element(map, last, next.as_mut_ptr());
        if last.is_empty() {
            attr.__bindgen_anon_2.key = 0;
        }
        match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr) {
            Ok(_) => keys.push(next),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(keys),
            Err(e) => return Err(e),
        }
    }
}

/// `BPF_LINK_UPDATE`: puts another program behind a link. The kernel changes it in one step, and every
/// event meets the one or the other.
pub(super) fn link_update(path: &Path, program: BorrowedFd<'_>) -> io::Result<()> {
    let link = open_pin(path, Kind::Link)?;
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_update.link_fd = link.as_raw_fd() as u32;
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Type information that the kernel has, by its id.
pub(super) fn btf(id: u32) -> io::Result<Vec<u8>> {
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
    let fd = bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let mut data = Vec::new();
    loop {
        // SAFETY: plain integers.
        let mut out: bpf_btf_info = unsafe { zeroed() };
        out.btf = data.as_mut_ptr() as u64;
        out.btf_size = data.len() as u32;
        // SAFETY: type information, which it was asked for; `out` holds a buffer and its length.
        unsafe { info_into(fd.as_fd(), &mut out) }?;
        if out.btf_size as usize <= data.len() {
            data.truncate(out.btf_size as usize);
            return Ok(data);
        }
        // The first answer is the size.
        data.resize(out.btf_size as usize, 0);
    }
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

/// `BPF_LINK_CREATE` for a program at the ingress of an interface (TCX, kernel ≥ 6.6), in front of every
/// other: one that stands before ours could let packets pass without it. aya asks by name, and a name
/// may be given to another interface meanwhile.
pub(super) fn tcx_link(prog: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = prog.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    attr.link_create.attach_type = bpf_attach_type::BPF_TCX_INGRESS as u32;
    attr.link_create.flags = BPF_F_BEFORE;
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

/// What a descriptor that was opened from a pin leads to.
#[derive(Clone, Copy)]
enum Kind {
    Link,
    Map,
}

/// `BPF_OBJ_GET`, for an object of one kind: the kernel fills in whatever it has, so asking a map for
/// what a link is would read the one as the other.
fn open_pin(path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_4.pathname = name.as_ptr() as u64;
    let fd = bpf(bpf_cmd::BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let is = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let wanted = match kind {
        Kind::Link => ["anon_inode:bpf_link", "anon_inode:bpf-link"],
        Kind::Map => ["anon_inode:bpf-map", "anon_inode:bpf_map"],
    };
    if wanted.iter().any(|w| is == Path::new(w)) {
        Ok(fd)
    } else {
        let what = match kind {
            Kind::Link => "a link",
            Kind::Map => "a map",
        };
        Err(io::Error::other(format!("it is not {what}")))
    }
}

/// `BPF_OBJ_GET_INFO_BY_FD`.
///
/// # Safety
///
/// `T` is the kernel's description of the kind of object that `fd` is, for which all zeroes is valid.
unsafe fn info<T>(fd: BorrowedFd<'_>) -> io::Result<T> {
    // SAFETY: promised by the caller.
    let mut out: T = unsafe { zeroed() };
    // SAFETY: as above; without buffers of ours in it.
    unsafe { info_into(fd, &mut out) }?;
    Ok(out)
}

/// The same into a description that holds buffers of ours.
///
/// # Safety
///
/// `T` is the kernel's description of the kind of object that `fd` is; its pointers are valid for the
/// lengths beside them.
unsafe fn info_into<T>(fd: BorrowedFd<'_>, out: &mut T) -> io::Result<()> {
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.info.bpf_fd = fd.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = std::ptr::from_mut(out) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// The link behind a pin. aya's `LinkInfo` does not tell the cgroup.
pub(super) fn link_info(path: &Path) -> io::Result<bpf_link_info> {
    let fd = open_pin(path, Kind::Link)?;
    // SAFETY: a link, as `open_pin` has checked; the structure is plain integers.
    unsafe { info(fd.as_fd()) }
}

/// Detaches a pinned link (`BPF_LINK_DETACH`) and removes the pin. Without the first the kernel would
/// detach it some time later, and refuse the same program at the same place until then. A pin that is
/// not there, and a link whose place is gone, are no errors.
pub(super) fn unpin(path: &Path) -> io::Result<()> {
    let link = match open_pin(path, Kind::Link) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        r => r?,
    };
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.link_detach.link_fd = link.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr)?;
    fs::remove_file(path)
}

/// The map behind a pin. aya's `MapInfo` does not tell the type information that the map was made with.
pub(super) fn map_info(path: &Path) -> io::Result<bpf_map_info> {
    let fd = open_pin(path, Kind::Map)?;
    // SAFETY: a map, as `open_pin` has checked; the structure is plain integers.
    unsafe { info(fd.as_fd()) }
}

/// `BPF_PROG_QUERY`: ids of the programs at a cgroup (its descriptor) or an interface (its index), in
/// the order they run.
pub(super) fn prog_query(
    target: u32,
    attach_type: bpf_attach_type,
    flags: u32,
) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; 64];
    loop {
        // SAFETY: all zeroes is a valid `bpf_attr`.
        let mut attr: bpf_attr = unsafe { zeroed() };
        attr.query.__bindgen_anon_1.target_fd = target;
        attr.query.attach_type = attach_type as u32;
        attr.query.query_flags = flags;
        attr.query.prog_ids = ids.as_mut_ptr() as u64;
        attr.query.__bindgen_anon_2.prog_cnt = ids.len() as u32;
        let result = bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr);
        // SAFETY: both members of the union are the same count.
        let count = unsafe { attr.query.__bindgen_anon_2.prog_cnt } as usize;
        match result {
            Ok(_) => {
                ids.truncate(count);
                return Ok(ids);
            }
            // More came in the meantime than the answer before had room for: once more.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) && count > ids.len() => {
                ids.resize(count, 0);
            }
            Err(e) => return Err(e),
        }
    }
}

/// `BPF_MAP_CREATE` of a `CGROUP_STORAGE` map with a `u64` key; it is gone again at once.
pub(super) fn make_slot_map() -> io::Result<()> {
    // SAFETY: all zeroes is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_1.map_type = bpf_map_type::BPF_MAP_TYPE_CGROUP_STORAGE as u32;
    attr.__bindgen_anon_1.key_size = size_of::<u64>() as u32;
    attr.__bindgen_anon_1.value_size = size_of::<u64>() as u32;
    let fd = bpf(bpf_cmd::BPF_MAP_CREATE, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    Ok(())
}

fn membarrier(cmd: libc::c_int) -> io::Result<i64> {
    // SAFETY: no pointers.
    let r = unsafe { libc::syscall(libc::SYS_membarrier, cmd, 0, 0) };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(r)
    }
}

/// Waits until every program run that began before the call has ended (`synchronize_rcu`).
pub(super) fn grace_period() -> Result<(), KernelError> {
    let waited = membarrier(MEMBARRIER_CMD_GLOBAL);
    waited.map(drop).map_err(|source| KernelError::Call {
        what: "cannot wait for running programs",
        source,
    })
}

/// Whether [`grace_period`] works: kernels with processors that run without a tick refuse it.
pub(super) fn has_grace_period() -> io::Result<bool> {
    membarrier(MEMBARRIER_CMD_QUERY).map(|known| known & i64::from(MEMBARRIER_CMD_GLOBAL) != 0)
}
