//! The lease file: the only place that touches the disk. One process publishes, any number follow.
//!
//! A file is never written in place. A new one is written beside it, brought to the disk, and takes its
//! name in one step, so whoever opens the name gets a whole file, old or new, also after a crash.

use crate::{format::FormatError, leases::Leases, time::BootId};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

/// Largest file that is read, bytes. A full book of the longest leases is smaller.
pub const MAX_FILE: u64 = 64 << 20;
/// Readable by the owner and one group: names of projects are nobody else's business.
const MODE: u32 = 0o640;

/// What can go wrong with a lease file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system resists.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else publishes there.
    #[error("another process publishes {}: stop it, or choose another file", .0.display())]
    Busy(PathBuf),
    /// A directory, a pipe, or no name at all.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// More than [`MAX_FILE`].
    #[error("{} is larger than {MAX_FILE} bytes and was not read", .0.display())]
    TooLarge(PathBuf),
    /// See [`FormatError`].
    #[error("{} is no lease file: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// Its slots and times mean nothing here.
    #[error("{} is from another boot ({found}): the loader has not written it since", path.display())]
    OtherBoot {
        /// The file.
        path: PathBuf,
        /// The boot it is from.
        found: BootId,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// The right to publish a lease file, until it is dropped or the process dies.
#[derive(Debug)]
pub struct Publisher {
    path: PathBuf,
    fresh: PathBuf,
    dir: File,
    group: Option<u32>,
    _lock: File,
}

impl Publisher {
    /// Takes the right to publish `path`. `group` may read it; without one, the group that new files in
    /// the directory get.
    pub fn open(path: &Path, group: Option<u32>) -> Result<Self, FileError> {
        let name = path
            .file_name()
            .ok_or_else(|| FileError::NotAFile(path.to_owned()))?;
        let beside = |end: &str| {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(end);
            path.with_file_name(hidden)
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let dir = File::open(parent).map_err(io_error("open directory", parent))?;
        let lock_path = beside(".lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&lock_path)
            .map_err(io_error("open", &lock_path))?;
        lock.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => FileError::Busy(path.to_owned()),
            TryLockError::Error(source) => io_error("lock", &lock_path)(source),
        })?;
        Ok(Self {
            path: path.to_owned(),
            fresh: beside(".new"),
            dir,
            group,
            _lock: lock,
        })
    }

    /// Replaces the file. When this returns, the book is on the disk and every reader that opens the
    /// file finds it; when it fails, the old file stands unless the last step, syncing the directory,
    /// is the one that failed.
    pub fn publish(&mut self, leases: &Leases) -> Result<(), FileError> {
        let written = self.write_fresh(&leases.encode()).and_then(|()| {
            fs::rename(&self.fresh, &self.path).map_err(io_error("replace", &self.path))
        });
        if let Err(e) = written {
            // The first error is the one to tell; the next attempt removes what is left now.
            let _ = fs::remove_file(&self.fresh);
            return Err(e);
        }
        self.dir
            .sync_all()
            .map_err(io_error("sync the directory of", &self.path))
    }

    fn write_fresh(&self, bytes: &[u8]) -> Result<(), FileError> {
        let path = &self.fresh;
        // Left by one who was killed: nobody else writes here while we hold the lock.
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", path)(e));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io_error("create", path))?;
        // The group before the mode: no other group can read it in between.
        if let Some(group) = self.group {
            fchown(&file, None, Some(group)).map_err(io_error("give to its group", path))?;
        }
        file.set_permissions(Permissions::from_mode(MODE))
            .map_err(io_error("set the mode of", path))?;
        file.write_all(bytes).map_err(io_error("write", path))?;
        file.sync_all().map_err(io_error("sync", path))
    }
}

/// Reads a lease file of this boot.
pub fn load(path: &Path, boot: &BootId) -> Result<Leases, FileError> {
    let mut file = open(path)?;
    read(path, &mut file, boot)
}

fn open(path: &Path) -> Result<File, FileError> {
    // Without O_NONBLOCK the open of a pipe would wait for a writer.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(io_error("open", path))
}

fn read(path: &Path, file: &mut File, boot: &BootId) -> Result<Leases, FileError> {
    let about = file.metadata().map_err(io_error("read", path))?;
    if !about.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    let leases = Leases::decode(&bytes).map_err(|source| FileError::Format {
        path: path.to_owned(),
        source,
    })?;
    if leases.boot() == boot {
        Ok(leases)
    } else {
        Err(FileError::OtherBoot {
            path: path.to_owned(),
            found: leases.boot().clone(),
        })
    }
}

/// Follows a lease file by looking at it again and again.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    boot: BootId,
    seen: Seen,
}

/// What the last look found.
#[derive(Debug)]
enum Seen {
    Nothing,
    /// The name cannot be opened.
    Resists(io::ErrorKind),
    /// This file. It is kept open: as long as it is, no other file gets its inode number.
    File {
        stamp: Stamp,
        _open: File,
    },
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &Path, file: &File) -> Result<Self, FileError> {
        let about = file.metadata().map_err(io_error("read", path))?;
        Ok(Self {
            dev: about.dev(),
            inode: about.ino(),
            size: about.size(),
            modified: (about.mtime(), about.mtime_nsec()),
        })
    }
}

impl Follower {
    /// Follows `path`, of which nothing has been seen yet. Files of other boots are errors.
    #[must_use]
    pub fn new(path: &Path, boot: BootId) -> Self {
        Self {
            path: path.to_owned(),
            boot,
            seen: Seen::Nothing,
        }
    }

    /// The book, if it is another than at the last look. On an error keep the one before; an error comes
    /// once, and again when the file has changed.
    pub fn poll(&mut self) -> Result<Option<Leases>, FileError> {
        let mut file = match open(&self.path) {
            Ok(file) => file,
            Err(e) => return self.resists(e),
        };
        let stamp = Stamp::of(&self.path, &file)?;
        if matches!(&self.seen, Seen::File { stamp: seen, .. } if *seen == stamp) {
            return Ok(None);
        }
        let leases = read(&self.path, &mut file, &self.boot);
        self.seen = Seen::File { stamp, _open: file };
        leases.map(Some)
    }

    fn resists(&mut self, error: FileError) -> Result<Option<Leases>, FileError> {
        let FileError::Io { source, .. } = &error else {
            return Err(error);
        };
        let kind = source.kind();
        if matches!(self.seen, Seen::Resists(seen) if seen == kind) {
            return Ok(None);
        }
        self.seen = Seen::Resists(kind);
        Err(error)
    }
}
