//! What the container engine says, as plain facts.

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
    /// What weakens its firewall, sorted.
    pub weaknesses: Vec<Weakness>,
    /// When it was started, nanoseconds of wall time, as the engine says.
    pub started: i64,
}

/// What has become of containers, in the order in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Everything that runs now; the first word after every (re)connection. What is not in it is gone.
    All(Vec<Container>),
    /// One has started, or something about it has changed: its name, its networks.
    Is(Box<Container>),
    /// One has ended.
    Ended {
        /// Its id.
        id: String,
        /// When, nanoseconds of wall time, as the engine says.
        at: i64,
    },
    /// The engine does not answer; what is known stays as it is until `All`.
    Away(String),
}
