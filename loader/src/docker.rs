//! What the container engine says, as plain facts.
//!
//! [`Watcher`] is the way in: a thread that follows one engine over its unix socket and tells [`News`].
//! What to tell is decided by data alone (`book`), and what the engine describes is read without effects
//! (`convert`, `place`); `line` speaks to the engine, `look` to `/proc`, and `births` watches the cgroups.

pub mod births;
mod book;
mod convert;
mod line;
mod look;
mod place;
mod sockets;
mod watcher;

pub use place::{candidates, parents};
pub use watcher::{Engine, WatchError, Watcher};

use ipnet::IpNet;
use std::{net::IpAddr, path::PathBuf};

/// Something about a container's set-up that weakens the firewall around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weakness {
    /// `--privileged`.
    Privileged,
    /// The host's network namespace.
    HostNetwork,
    /// The network namespace of another container.
    SharedNetwork,
    /// The host's PID namespace.
    HostPid,
    /// The engine's socket is mounted.
    EngineSocket,
    /// A capability with which the firewall could be lifted: NET_ADMIN, SYS_ADMIN, BPF, SYS_MODULE, SYS_PTRACE.
    Capability,
}

/// A running container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The engine's full id.
    pub id: String,
    /// Name, without the slash.
    pub name: String,
    /// Whether `dev.clawker.agent` is there: such a container is enrolled, whatever the value.
    pub is_agent: bool,
    /// `dev.clawker.agent`, if it can be an attribute.
    pub agent: Option<String>,
    /// `dev.clawker.project`, if it can be an attribute.
    pub project: Option<String>,
    /// Its first process.
    pub pid: u32,
    /// Its cgroup's directory, absolute.
    pub cgroup: PathBuf,
    /// Inode number of its network namespace.
    pub netns: Option<u64>,
    /// Its addresses on all of its networks.
    pub addresses: Vec<IpAddr>,
    /// The networks that these are in.
    pub networks: Vec<IpNet>,
    /// What weakens its firewall, sorted.
    pub weaknesses: Vec<Weakness>,
    /// When it was started, nanoseconds of wall time, as the engine says.
    pub started: i64,
}

impl Container {
    /// Whether the engine has described it as it runs.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.started != 0
    }

    /// One of which nothing is known but that it is an agent's.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            is_agent: true,
            agent: None,
            project: None,
            pid: 0,
            cgroup: PathBuf::new(),
            netns: None,
            addresses: Vec::new(),
            networks: Vec::new(),
            weaknesses: Vec::new(),
            started: 0,
        }
    }
}

/// A container whose cgroup exists while the engine is still starting it: nothing of it runs yet. Its
/// process and weaknesses come with [`News::Is`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newborn {
    /// The engine's full id.
    pub id: String,
    /// Name, without the slash.
    pub name: String,
    /// Whether `dev.clawker.agent` is there.
    pub is_agent: bool,
    /// `dev.clawker.agent`, if it can be an attribute.
    pub agent: Option<String>,
    /// `dev.clawker.project`, if it can be an attribute.
    pub project: Option<String>,
    /// Its cgroup's directory, absolute.
    pub cgroup: PathBuf,
    /// The kernel's id of that directory.
    pub cgroup_id: u64,
    /// Its addresses, as far as the engine has told of them, each with the network that it is in.
    pub ends: Vec<IpNet>,
}

/// What has become of containers. Of each container it comes in the order in which it happened: perhaps
/// `Born`, then `Is` as often as something changes, then `Ended`, and so on for its next life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Everything that runs now; the first word after every (re)connection, and said again from time to
    /// time. What is not in it is gone, unless `Born` says behind it that it is being started.
    All(Vec<Container>),
    /// One is being started; said again when it gets an address. If the start fails, `Ended` follows.
    Born(Box<Newborn>),
    /// One has started, or something about it has changed: its name, its networks.
    Is(Box<Container>),
    /// One has ended.
    Ended {
        /// Its id.
        id: String,
        /// When, nanoseconds of wall time, as the engine says.
        at: i64,
    },
    /// One runs, and cannot be enrolled: the engine does not describe it, or it has no cgroup of its own.
    Unclear {
        /// Its id.
        id: String,
        /// Its name, if that is known.
        name: Option<String>,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The engine does not answer; what is known stays as it is until `All`. Once an outage.
    Away(String),
    /// What happened up to this moment (boot clock, nanoseconds) has been told before: no event of then waits, nor
    /// does a look that could change who has which address. Several times a second while the engine is followed.
    Until(u64),
}
