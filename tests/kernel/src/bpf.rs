//! What somebody else could do with bpf(2) next to us: detach a link, attach a program of their own.

use nix::libc;
use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands, program types and attach types (`include/uapi/linux/bpf.h`).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;

/// A hook to put a program at: its program type and attach type.
#[derive(Clone, Copy)]
pub struct Hook(u32, u32);

/// `cgroup/connect4`.
pub const CONNECT4: Hook = Hook(18, 10);
/// `cgroup_skb/egress`.
pub const EGRESS: Hook = Hook(8, 1);
/// `sockops`.
pub const SOCK_OPS: Hook = Hook(13, 3);

#[repr(C)]
struct Get {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct Detach {
    link: u32,
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
    version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
struct Attach {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

fn bpf<T>(cmd: libc::c_long, attr: &T) -> i32 {
    let size = std::mem::size_of::<T>();
    // SAFETY: a whole attribute of its length; pointers in it are to values that outlive the call.
    let r = unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_ref(attr), size) };
    assert!(r >= 0, "bpf({cmd}): {}", io::Error::last_os_error());
    r as i32
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Detaches the link behind a pin; the pin stays.
pub fn detach(pin: &Path) {
    let path = CString::new(pin.as_os_str().as_bytes()).expect("a path");
    let get = Get {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    let link = owned(bpf(BPF_OBJ_GET, &get));
    bpf(
        BPF_LINK_DETACH,
        &Detach {
            link: link.as_raw_fd() as u32,
        },
    );
}

/// Attaches a program that lets everything pass, until the link is dropped.
pub fn attach(cgroup: &Path, Hook(kind, attach_type): Hook, name: &str) -> OwnedFd {
    // r0 = 1; exit
    let code: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
    let mut load = Load {
        kind,
        count: 2,
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
        version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        attach_type,
    };
    load.name[..name.len()].copy_from_slice(name.as_bytes());
    let program = owned(bpf(BPF_PROG_LOAD, &load));
    let cgroup = File::open(cgroup).expect("the cgroup is there");
    let attach = Attach {
        program: program.as_raw_fd() as u32,
        target: cgroup.as_raw_fd() as u32,
        attach_type,
        flags: 0,
    };
    owned(bpf(BPF_LINK_CREATE, &attach))
}
