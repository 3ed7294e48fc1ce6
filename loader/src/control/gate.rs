//! Who may speak to the loader: root and the members of one group, asked of the kernel for each
//! connection, and nobody who is under the firewall himself.

use super::guarded::is_guarded;
use crate::actor::Actor;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt},
    unistd::Gid,
};
use std::{
    io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
};

/// Why somebody is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Neither root nor a member.
    #[error("only root and members of the control group may ask")]
    Stranger,
    /// A process under the firewall.
    #[error("processes under the firewall may not ask")]
    Guarded,
    /// Whoever connected cannot be told.
    #[error("cannot tell who asks: {0}")]
    Unknown(io::Error),
}

/// Who was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Root.
    Root,
    /// A member of the group.
    Member,
}

/// Who was let in, and all that is known of them.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// By what right.
    pub rank: Rank,
    /// The process.
    pub actor: Actor,
}

/// The rule of admission.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Members of it are let in besides root.
    pub group: Option<Gid>,
}

impl Gate {
    /// Asks the kernel who connected.
    pub fn admit(&self, stream: &UnixStream) -> Result<Admitted, Refused> {
        let peer =
            getsockopt(stream, sockopt::PeerCredentials).map_err(|e| Refused::Unknown(e.into()))?;
        let is_member = |group: Gid| {
            let main = peer.gid() == group.as_raw();
            Ok(main || groups(stream)?.contains(&group.as_raw()))
        };
        let rank = if peer.uid() == 0 {
            Rank::Root
        } else if self
            .group
            .map_or(Ok(false), is_member)
            .map_err(Refused::Unknown)?
        {
            Rank::Member
        } else {
            return Err(Refused::Stranger);
        };
        // Our directory is hidden from a run's command, but `/proc/PID/root` of another process of the same
        // user leads around that; and it can be mounted into a container.
        let actor = describe(stream, peer.uid(), peer.pid()).map_err(Refused::Unknown)?;
        let Some(cgroup) = actor.cgroup.as_deref() else {
            let why = "it is in no cgroup of version 2";
            return Err(Refused::Unknown(io::Error::other(why)));
        };
        if is_guarded(cgroup).map_err(Refused::Unknown)? {
            return Err(Refused::Guarded);
        }
        Ok(Admitted { rank, actor })
    }
}

/// Supplementary groups of whoever connected, at the time of connecting.
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    // NGROUPS_MAX.
    let mut list = vec![0u32; 65536];
    // 256 KiB.
    let mut bytes = (size_of::<u32>() * list.len()) as libc::socklen_t;
    // SAFETY: the kernel writes at most `bytes` bytes into the list and says how many.
    let r = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERGROUPS,
            list.as_mut_ptr().cast(),
            std::ptr::from_mut(&mut bytes),
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    list.truncate(bytes as usize / size_of::<u32>());
    Ok(list)
}

/// Whoever connected. It must be alive: a number that is free could be another process's already.
fn describe(stream: &UnixStream, uid: u32, pid: i32) -> io::Result<Actor> {
    let process = match getsockopt(stream, sockopt::PeerPidfd) {
        Ok(fd) => fd,
        // Kernels before 6.5.
        Err(Errno::ENOPROTOOPT) => pidfd_open(pid)?,
        Err(e) => return Err(e.into()),
    };
    let actor = Actor::of(uid, u32::try_from(pid).map_err(io::Error::other)?)?;
    if has_ended(&process)? {
        return Err(Errno::ESRCH.into());
    }
    Ok(actor)
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made this descriptor for us; descriptors fit an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn has_ended(pidfd: &impl AsFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_who_connected() {
        let (near, _far) = UnixStream::pair().unwrap();
        let me = nix::unistd::getgid();
        let none = Gate { group: None };
        let mine = Gate { group: Some(me) };
        let admitted = mine.admit(&near).unwrap();
        assert_eq!(admitted.actor.actor_pid, std::process::id());
        let root = nix::unistd::geteuid().is_root();
        assert_eq!(none.admit(&near).is_ok(), root);
        let own: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .iter()
            .map(|g| g.as_raw())
            .collect();
        assert_eq!(groups(&near).unwrap(), own);
    }
}
