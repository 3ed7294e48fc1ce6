//! The control socket of a running loader: who may speak to it, what is said, and the thread that says
//! it. `docs/control.md` has the protocol. The data path meets it in one place, the [`Tap`], which never
//! waits.

mod ask;
mod desk;
mod gate;
mod guarded;
mod guest;
mod place;
mod protocol;
mod server;
mod tap;

pub use ask::{AskError, ask};
pub use desk::{Asked, Desk};
pub use gate::{Admitted, Gate, Rank, Refused};
pub use guarded::is_guarded;
pub use place::{GROUP, group, prepare, socket_path, sockets, sweep};
pub(crate) use place::{connect_to, is_connected_to_root};
pub use protocol::{
    Live, MAX_REQUEST, Message, MessageError, Request, RequestError, Status, VERSION, Watch,
};
pub use server::Server;
pub use tap::{LIVE_MOST, Tap};

use std::{io, path::PathBuf};

/// What can go wrong around the socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file, directory or socket resists.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A directory that is not for us.
    #[error(
        "cannot read {}: permission denied; run this as root (sudo), or as a member of the control group",
        .0.display()
    )]
    Unreadable(PathBuf),
    /// Others could put sockets of their own into the directory.
    #[error(
        "{} is not root's alone (owner {owner}, mode {mode:o}): make it root's, with mode 755, or choose another --control-dir",
        path.display()
    )]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// A group that does not exist.
    #[error("there is no group {0}")]
    NoGroup(String),
    /// The group database fails.
    #[error("cannot look up group {name}: {source}")]
    Group {
        /// Name or number asked for.
        name: String,
        /// What the C library said.
        source: nix::Error,
    },
    /// No thread, no way to wake it.
    #[error("cannot start the thread of the control socket: {0}")]
    Thread(io::Error),
}

impl ControlError {
    fn io(what: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source: source.into(),
        }
    }
}
