//! The only room that touches the kernel's BPF side: loads the object, attaches it, pins what must
//! outlive us, and reads and writes the maps.

mod adopt;
mod attach;
mod backstop;
mod btf;
mod diag;
mod foreign;
mod guard;
mod mapped;
mod maps;
mod netlink;
mod object;
mod pod;
mod policy_maps;
pub mod probe;
pub mod query;
mod rings;
mod sizes;
mod sys;
mod types;
mod veth;

pub use adopt::Updated;
pub use attach::Attached;
pub use backstop::Backstop;
pub use btf::{BtfError, VMLINUX};
pub use foreign::Foreign;
pub use guard::Guard;
pub use mapped::Books;
pub use maps::{Learned, Pins, Sockets, link_name, linked_cgroup};
pub use object::{Engine, object};
pub use policy_maps::PolicyMaps;
pub use rings::{BATCH, Rings, Taken};
pub use sizes::Sizes;
pub use veth::host_sides;

use crate::machine;
use std::{io, path::PathBuf};

/// What can go wrong between us and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The binary was built without the object.
    #[error("this binary was built without its kernel object (CLAWKER_BPF_SKIP was set)")]
    NoObject,
    /// The kernel's type information cannot be used.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The object cannot be loaded.
    #[error("cannot load the kernel object: {}", reasons(.0))]
    Load(Box<aya::EbpfError>),
    /// A program was refused.
    #[error("the kernel refused program {name}: {}", reasons(source))]
    Program {
        /// Name of the program.
        name: &'static str,
        /// What the kernel said, with the verifier's log.
        source: Box<aya::programs::ProgramError>,
    },
    /// The object lacks something. A bug, not a mistake of the user.
    #[error("the kernel object has no {kind} {name}")]
    Missing {
        /// `program` or `map`.
        kind: &'static str,
        /// Which one.
        name: &'static str,
    },
    /// A map call failed.
    #[error("cannot {what} map {name}: {source}")]
    Map {
        /// What was tried.
        what: &'static str,
        /// Name of the map.
        name: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pin cannot be made, opened or removed.
    #[error("cannot {what} {}: {source}", path.display())]
    Pin {
        /// What was tried.
        what: &'static str,
        /// Which pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A call without an object of its own failed.
    #[error("{what}: {source}")]
    Call {
        /// Which call.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel has no TCX.
    #[error(
        "this kernel takes no programs at interfaces (TCX, Linux 6.6): frames of AF_PACKET and sockets made in another cgroup leave unseen"
    )]
    NoTcx,
    /// A pin is not what this build would have made.
    #[error(
        "{name} at {} has another layout than this build's, under the same version: `ebpf-manager detach` removes what is pinned, once nothing needs it",
        path.display()
    )]
    Layout {
        /// What differs.
        name: &'static str,
        /// Which pin.
        path: PathBuf,
    },
    /// A program reads its slot's configuration from elsewhere than the one that it would replace.
    #[error(
        "program {name} must not replace the one at {}: it keeps its configuration in another map", path.display()
    )]
    Storage {
        /// Name of the program.
        name: &'static str,
        /// Pin of the link.
        path: PathBuf,
    },
    /// An update stopped half-way.
    #[error(
        "cannot put the new program behind {}: {source}; {done} of {all} programs are new, the others work on as before: start again",
        path.display()
    )]
    Update {
        /// Pin of the link.
        path: PathBuf,
        /// Links that were updated.
        done: usize,
        /// Links there are.
        all: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A name is in use for another cgroup.
    #[error("{} is attached to another cgroup", path.display())]
    Elsewhere {
        /// Pin of the link.
        path: PathBuf,
    },
    /// The policy does not fit.
    #[error(
        "the policy has {entries} entries in {map} and the map holds {limit}: use wider patterns or split the policy by project"
    )]
    TooBig {
        /// Name of the map.
        map: &'static str,
        /// Entries of the policy.
        entries: usize,
        /// Entries the map holds.
        limit: usize,
    },
}

impl KernelError {
    fn map(what: &'static str, name: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Map {
            what,
            name,
            source: source.into(),
        }
    }

    fn pin(what: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Pin {
            what,
            path: path.into(),
            source: source.into(),
        }
    }
}

/// An error of aya with what lies behind it: the kernel's own words come last.
fn reasons(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut advice = "";
    let mut next = e.source();
    while let Some(e) = next {
        let reason = e.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        advice = e.downcast_ref().map_or(advice, machine::advice);
        next = e.source();
    }
    text + advice
}

/// aya's map errors as what the kernel said.
fn io_error(e: aya::maps::MapError) -> io::Error {
    match e {
        aya::maps::MapError::SyscallError(e) => e.io_error,
        aya::maps::MapError::KeyNotFound | aya::maps::MapError::ElementNotFound => {
            io::ErrorKind::NotFound.into()
        }
        other => io::Error::other(other),
    }
}
