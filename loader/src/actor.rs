//! Who gives an order: what the kernel says of the process that asks.

use serde::{Deserialize, Serialize};
use std::{fmt, fs, io};

/// `loginuid` of a process that nobody logged in for (`audit_get_loginuid`).
const NO_LOGIN: u32 = u32::MAX;

/// A process that gives an order, with the field names of audit records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// User name, as far as `/etc/passwd` knows one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// User id.
    pub actor_uid: u32,
    /// Process id.
    pub actor_pid: u32,
    /// Command name of the process.
    pub actor_comm: String,
    /// Whoever logged in, before `sudo` or `su`; by name, else by number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_login: Option<String>,
    /// Its cgroup, below the root as seen from here.
    #[serde(skip)]
    pub cgroup: Option<String>,
}

impl Actor {
    /// What there is to know of a process. It must be alive, which is for the caller to make sure of:
    /// afterwards, because a number can be another process's at any time.
    pub fn of(uid: u32, pid: u32) -> io::Result<Self> {
        let read = |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}"));
        let cgroup = below_root(&read("cgroup")?);
        // Kernels without auditing have no such file.
        let login = read("loginuid").ok().and_then(|t| t.trim().parse().ok());
        let login = login.filter(|id| *id != NO_LOGIN && *id != uid);
        // Not through the C library: its modules may ask the network.
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Ok(Self {
            actor: name_of(&users, uid),
            actor_uid: uid,
            actor_pid: pid,
            actor_comm: read("comm")?.trim_end().to_owned(),
            actor_login: login.map(|id| name_of(&users, id).unwrap_or_else(|| id.to_string())),
            cgroup,
        })
    }

    /// This process.
    pub fn me() -> io::Result<Self> {
        Self::of(nix::unistd::getuid().as_raw(), std::process::id())
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.actor {
            write!(f, "{name}, ")?;
        }
        write!(f, "uid {}", self.actor_uid)?;
        match &self.actor_login {
            Some(login) => write!(f, ", logged in as {login}"),
            None => Ok(()),
        }
    }
}

/// Path in a `/proc/PID/cgroup`, without the first slash; nothing when it names none of version 2.
fn below_root(text: &str) -> Option<String> {
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
    Some(path.to_owned())
}

/// A user's name in a `passwd(5)`.
fn name_of(users: &str, uid: u32) -> Option<String> {
    let is = |line: &&str| line.split(':').nth(2).and_then(|id| id.parse().ok()) == Some(uid);
    let name = users.lines().find(is)?.split(':').next()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_names_that_the_file_gives_them() {
        let users = "root:x:0:0::/root:/bin/sh\n+::::::\nbroken\nalice:x:1000:100::/:/bin/sh\n";
        for (uid, name) in [(0, Some("root")), (1000, Some("alice")), (100, None)] {
            assert_eq!(name_of(users, uid).as_deref(), name, "{uid}");
        }
    }

    #[test]
    fn a_process_is_told_by_user_and_login() {
        let mut a = Actor {
            actor: Some("root".to_owned()),
            actor_uid: 0,
            actor_pid: 7,
            actor_comm: "ebpf-manager".to_owned(),
            actor_login: Some("alice".to_owned()),
            cgroup: None,
        };
        assert_eq!(a.to_string(), "root, uid 0, logged in as alice");
        (a.actor, a.actor_login) = (None, None);
        assert_eq!(a.to_string(), "uid 0");
    }

    #[test]
    fn the_cgroup_is_that_of_version_2() {
        for (text, path) in [
            ("0::/clawker/run-1\n", Some("clawker/run-1")),
            ("12:cpu:/x\n0::/a/b\n", Some("a/b")),
            ("0::/", Some("")),
            ("1:name=systemd:/x\n", None),
            ("", None),
        ] {
            assert_eq!(below_root(text).as_deref(), path, "{text:?}");
        }
    }

    #[test]
    fn this_process_is_found() {
        let me = Actor::me().unwrap();
        assert_eq!(me.actor_pid, std::process::id());
        assert!(!me.actor_comm.is_empty());
        assert!(Actor::of(0, u32::MAX).is_err());
    }
}
