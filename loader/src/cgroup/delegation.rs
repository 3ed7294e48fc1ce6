//! `nsdelegate`: cgroup namespaces as borders that processes cannot be moved across.
//!
//! Without it root in a command can reach another process's view of the cgroups (`/proc/PID/root`), if
//! that process has no more capabilities, and start a process in a cgroup there, out of the firewall.
//! systemd mounts with it; it belongs to the file system, not to a mount.

use super::{CgroupError, Mount, mounts};
use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

/// The option's name (`Documentation/admin-guide/cgroup-v2.rst`).
const OPTION: &CStr = c"nsdelegate";

// `include/uapi/linux/mount.h`.
const FSPICK_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

/// How things stand with `nsdelegate`.
#[derive(Debug)]
pub enum Delegation {
    /// It is on.
    On,
    /// It was off, and is on now.
    TurnedOn(PathBuf),
    /// It is off and cannot be turned on from here, because of this.
    Off(PathBuf, io::Error),
}

/// Sees to it that `nsdelegate` is on. Every other option stays.
pub fn delegate() -> Result<Delegation, CgroupError> {
    let Some(mount) = without()? else {
        return Ok(Delegation::On);
    };
    if let Err(e) = turn_on(&mount.point, &mount.options) {
        return Ok(Delegation::Off(mount.point, e));
    }
    // The kernel ignores the option when it is asked from a cgroup namespace.
    Ok(match without()? {
        None => Delegation::TurnedOn(mount.point),
        Some(still) => Delegation::Off(still.point, io::ErrorKind::Unsupported.into()),
    })
}

/// Whether `nsdelegate` is on where cgroup v2 is mounted.
#[must_use]
pub fn has_borders(mounts: &[Mount]) -> bool {
    let options = |m: &Mount| m.options.iter().any(|o| o.as_bytes() == OPTION.to_bytes());
    mounts
        .iter()
        .find(|m| m.kind == "cgroup2")
        .is_some_and(options)
}

/// The mount of cgroup v2 if it is without `nsdelegate`.
fn without() -> Result<Option<Mount>, CgroupError> {
    let all = mounts()?;
    if has_borders(&all) {
        return Ok(None);
    }
    Ok(all.into_iter().find(|m| m.kind == "cgroup2"))
}

fn turn_on(point: &Path, options: &[String]) -> io::Result<()> {
    let path = CString::new(point.as_os_str().as_bytes())?;
    // SAFETY: a path that lives through the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_fspick,
            libc::AT_FDCWD,
            path.as_ptr(),
            FSPICK_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    let fs = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // What is not named again would be turned off.
    for option in options.iter().filter(|o| *o != "rw" && *o != "ro") {
        configure(
            &fs,
            FSCONFIG_SET_FLAG,
            Some(&CString::new(option.as_str())?),
        )?;
    }
    configure(&fs, FSCONFIG_SET_FLAG, Some(OPTION))?;
    configure(&fs, FSCONFIG_CMD_RECONFIGURE, None)
}

fn configure(fs: &OwnedFd, what: u32, key: Option<&CStr>) -> io::Result<()> {
    let key = key.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the key lives through the call; neither command takes a value.
    let r = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            fs.as_raw_fd(),
            what,
            key,
            std::ptr::null::<u8>(),
            0,
        )
    };
    if r < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
