//! What can go wrong with the spool, and what to do about it.

use super::tables::FORMAT_NOW;
use redb::{DatabaseError, Error};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why the spool does not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    /// A directory that cannot be made or used.
    #[error(
        "cannot use the spool's directory {}: {source}; make it, and let the bridge's user write to it",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// Two bridges, one store.
    #[error(
        "the spool {} is in use by another otlp-bridge: stop that one, or give this one a directory of its own (--spool)",
        .0.display()
    )]
    InUse(PathBuf),
    /// There is none.
    #[error("there is no spool at {}: no bridge has run with this --spool yet", .0.display())]
    Missing(PathBuf),
    /// What is there cannot be trusted.
    #[error(
        "the spool {0} is damaged ({why}): keep it for later with `mv {0} {0}.damaged` and start the bridge again with an empty one; what had not been delivered is in the file that was moved",
        path.display()
    )]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// Another version's.
    #[error(
        "the spool {} has format {found} and this otlp-bridge writes format {FORMAT_NOW}: run the version that wrote it until it is empty, or move the file away",
        path.display()
    )]
    Format {
        /// The store.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// No room on the disk.
    #[error(
        "no room for the spool {}: make room on its file system, or lower --max-bytes; nothing of this request is kept, the sender has it still",
        .0.display()
    )]
    DiskFull(PathBuf),
    /// The agents' lane has used up its part of the bound.
    #[error(
        "records of the agents' lane take their part of the spool {}: send them again when some are delivered, or raise --max-bytes; nothing of this request is kept, the sender has it still",
        .0.display()
    )]
    AgentsFull(PathBuf),
    /// Anything else that a disk can have.
    #[error(
        "cannot use the spool {}: {source}; nothing of this request is kept, the sender has it still",
        path.display()
    )]
    Store {
        /// The store.
        path: PathBuf,
        /// What the store or the kernel said.
        source: Arc<Error>,
    },
    /// It has been closed, or its thread has ended.
    #[error("the spool is closed: the bridge is stopping")]
    Closed,
}

impl SpoolError {
    /// Whether trying again is of no use until somebody does something.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Format { .. })
    }

    pub(super) fn of(path: &Path, error: Error) -> Self {
        let path = path.to_owned();
        match error {
            Error::Corrupted(why) => Self::Damaged { path, why },
            Error::TableTypeMismatch { .. } | Error::TypeDefinitionChanged { .. } => {
                let why = error.to_string();
                Self::Damaged { path, why }
            }
            Error::DatabaseAlreadyOpen => Self::InUse(path),
            Error::Io(e) if full(&e) => Self::DiskFull(path),
            source => Self::Store {
                path,
                source: Arc::new(source),
            },
        }
    }

    /// The same, while opening.
    pub(super) fn of_open(path: &Path, error: DatabaseError) -> Self {
        let damaged = |why: String| Self::Damaged {
            path: path.to_owned(),
            why,
        };
        match error.into() {
            // Not a store at all, or half of one.
            Error::Io(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                damaged(e.to_string())
            }
            Error::Io(e) if e.kind() == io::ErrorKind::NotFound => Self::Missing(path.to_owned()),
            e @ (Error::RepairAborted | Error::UpgradeRequired(_)) => damaged(e.to_string()),
            e => Self::of(path, e),
        }
    }
}

fn full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
