//! Starting a command inside its cgroup, so that its first instruction runs under the firewall, and
//! without the means to lift it: own mount and cgroup namespace with its own cgroup alone and no bpffs, no
//! inherited descriptors, a bounding set without the capabilities that could undo the rest.

use crate::{cgroup, machine::advice, user::Target};
use caps::{CapSet, Capability};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::{
        SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask,
    },
    unistd,
};
use std::{
    ffi::{CString, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    mem::{size_of, zeroed},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    process,
};

/// Capabilities that would let a process detach or rewrite what holds it, or, with CAP_NET_RAW, send
/// packets (AF_PACKET) that no cgroup hook sees.
pub const WITHHELD: [Capability; 9] = [
    Capability::CAP_NET_RAW,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_BOOT,
];

/// `CLONE_INTO_CGROUP` (kernel ≥ 5.7) and `CLONE_PIDFD`.
const CLONE_FLAGS: u64 = 0x2_0000_0000 | 0x1000;

/// Why a command did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An argument with a NUL byte.
    #[error("argument {0:?} has a NUL byte in it")]
    Argument(OsString),
    /// No new process.
    #[error("cannot start a process in the cgroup: {0}")]
    Clone(io::Error),
    /// The command cannot be run: a mistake of whoever typed it.
    #[error("cannot run {command}: {source}")]
    Exec {
        /// As typed.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step of the containment failed; the command was not started.
    #[error("cannot contain the command: {step}: {source}{}", advice(source))]
    Contain {
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pipe to the new process broke.
    #[error("lost the new process before it started: {0}")]
    Pipe(io::Error),
}

/// What to start, and how.
#[derive(Debug)]
pub struct Plan {
    /// Command and arguments.
    pub command: Vec<OsString>,
    /// Whom to become.
    pub user: Option<Target>,
    /// Capabilities of [`WITHHELD`] to leave all the same.
    pub cap_add: Vec<Capability>,
    /// Leave descriptors above 2 open.
    pub keep_fds: bool,
    /// A directory that the command must not see into: that of the control sockets.
    pub hidden: PathBuf,
}

/// A started command.
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: unistd::Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Steps of the child, for messages; the index crosses the pipe.
const STEPS: [&str; 8] = [
    "exec",
    "a mount and cgroup namespace of its own",
    "a private mount tree",
    "hiding the cgroup and BPF file systems and the control sockets",
    "closing inherited descriptors",
    "dropping capabilities",
    "changing the user",
    "resetting signals",
];

/// Starts the command in the cgroup. Returns when it has been executed, or says why not.
///
/// The process must be single-threaded: the new one is a plain copy of it.
pub fn start(plan: &Plan, cgroup: &File) -> Result<Child, StartError> {
    let argv: Vec<CString> = plan
        .command
        .iter()
        .map(c_string)
        .collect::<Result<_, _>>()?;
    let (mut from_child, to_parent) = io::pipe().map_err(StartError::Clone)?;
    let mut pidfd: i32 = -1;
    // SAFETY: all zeroes is a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { zeroed() };
    args.flags = CLONE_FLAGS;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: without CLONE_VM the child gets a copy of everything, like after fork; we have one thread,
    // so no lock is held by a thread that does not exist over there.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_mut(&mut args),
            size_of::<libc::clone_args>(),
        )
    };
    if pid < 0 {
        return Err(StartError::Clone(io::Error::last_os_error()));
    }
    if pid == 0 {
        drop(from_child);
        child(plan, &argv, to_parent);
    }
    drop(to_parent);
    // SAFETY: the kernel made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = unistd::Pid::from_raw(pid as i32);
    let mut report = Vec::new();
    from_child
        .read_to_end(&mut report)
        .map_err(StartError::Pipe)?;
    let Some((step, errno)) = decode(&report) else {
        return Ok(Child { pid, pidfd });
    };
    // It has said its word and is exiting.
    let _ = nix::sys::wait::waitpid(pid, None);
    let source = io::Error::from_raw_os_error(errno);
    Err(match step {
        0 => StartError::Exec {
            command: plan.command[0].to_string_lossy().into_owned(),
            source,
        },
        n => StartError::Contain {
            step: STEPS.get(n).copied().unwrap_or("an unknown step"),
            source,
        },
    })
}

fn c_string(a: &OsString) -> Result<CString, StartError> {
    CString::new(a.as_bytes()).map_err(|_| StartError::Argument(a.clone()))
}

fn decode(report: &[u8]) -> Option<(usize, i32)> {
    let step = *report.first()?;
    let errno = report.get(1..5)?.try_into().ok()?;
    Some((usize::from(step), i32::from_ne_bytes(errno)))
}

/// The new process: contains itself and becomes the command, or reports and exits.
fn child(plan: &Plan, argv: &[CString], mut to_parent: io::PipeWriter) -> ! {
    let (step, error) = match contain(plan, &mut to_parent) {
        Err(failed) => failed,
        Ok(()) => match unistd::execvp(&argv[0], argv) {
            Ok(never) => match never {},
            Err(e) => (0, e.into()),
        },
    };
    let mut report = vec![step];
    report.extend(error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes());
    // If the parent is gone there is nobody to tell.
    let _ = to_parent.write_all(&report);
    process::exit(1)
}

/// Every step, in order; the number of the one that failed.
fn contain(plan: &Plan, pipe: &mut io::PipeWriter) -> Result<(), (u8, io::Error)> {
    fn at<E: Into<io::Error>>(step: u8) -> impl Fn(E) -> (u8, io::Error) {
        move |e| (step, e.into())
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP).map_err(at(1))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(at(2))?;
    hide().map_err(at(3))?;
    cover(&plan.hidden).map_err(at(3))?;
    if !plan.keep_fds {
        close_others(pipe).map_err(at(4))?;
    }
    drop_capabilities(&plan.cap_add).map_err(at(5))?;
    if let Some(user) = &plan.user {
        become_user(user).map_err(at(6))?;
    }
    reset_signals().map_err(at(7))
}

/// Takes every view of bpffs away and leaves of cgroup v2 the command's own cgroup alone, as the root of
/// its cgroup namespace. Read-only mounts would not do: `BPF_OBJ_GET` and `CLONE_INTO_CGROUP` ask for no
/// writable mount, only for a path.
fn hide() -> io::Result<()> {
    let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    for m in cgroup::mounts().map_err(io::Error::other)? {
        match m.kind.as_str() {
            "bpf" => umount2(&m.point, MntFlags::MNT_DETACH)?,
            "cgroup2" => {
                umount2(&m.point, MntFlags::MNT_DETACH)?;
                // The same file system again, seen from the new namespace.
                let fresh = Some("cgroup2");
                mount(fresh, &m.point, fresh, MsFlags::MS_RDONLY, None::<&str>)?;
                mount(
                    None::<&str>,
                    &m.point,
                    None::<&str>,
                    read_only,
                    None::<&str>,
                )?;
            }
            "cgroup" => match mount(
                None::<&str>,
                &m.point,
                None::<&str>,
                read_only,
                None::<&str>,
            ) {
                // Hidden under another mount: nobody can reach it either.
                Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
                Err(e) => return Err(e.into()),
            },
            _ => {}
        }
    }
    Ok(())
}

/// Puts an empty directory over one that holds sockets. The mount belongs to the command's namespace, where
/// nobody may take it away; a namespace below it gets both as one.
fn cover(dir: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let nothing = Some("tmpfs");
    match mount(nothing, dir, nothing, flags, Some("mode=0555")) {
        // There are no sockets, then.
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => Ok(()),
        r => Ok(r?),
    }
}

/// Closes everything above 2 but the pipe, which the exec closes.
fn close_others(pipe: &mut io::PipeWriter) -> io::Result<()> {
    let keep = pipe.as_raw_fd() as u32;
    for (from, to) in [(3, keep.saturating_sub(1)), (keep.max(2) + 1, u32::MAX)] {
        if from <= to {
            // SAFETY: no Rust object of this process is used again but the pipe; it becomes another
            // program or exits.
            let r = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
            if r < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

fn drop_capabilities(keep: &[Capability]) -> io::Result<()> {
    let other = |e: caps::errors::CapsError| io::Error::other(e);
    for cap in WITHHELD.iter().filter(|c| !keep.contains(c)) {
        if caps::has_cap(None, CapSet::Bounding, *cap).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, *cap).map_err(other)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(other)?;
    caps::clear(None, CapSet::Inheritable).map_err(other)
}

fn become_user(user: &Target) -> io::Result<()> {
    unistd::initgroups(&user.name, user.gid)?;
    unistd::setgid(user.gid)?;
    unistd::setuid(user.uid)?;
    for (name, value) in &user.env {
        let (name, value) = (CString::new(*name)?, CString::new(value.as_str())?);
        // SAFETY: one thread, and nothing else of this process reads the environment any more.
        if unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What the loader blocks and what Rust ignores must not reach the command.
fn reset_signals() -> io::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_step_and_an_error_number() {
        let mut report = vec![3];
        report.extend(libc::EPERM.to_ne_bytes());
        assert_eq!(decode(&report), Some((3, libc::EPERM)));
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&report[..3]), None);
    }
}
