//! The file that `run --learn` keeps: looked at before the command starts, replaced after it ended.
//!
//! The command may be able to write where the file is, and runs in between. So the directory is opened
//! once and everything happens in it, links are not followed, and what the file was before the command
//! started is what is added to; a file that is another one afterwards is left alone.

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, renameat},
    sys::stat::{Mode, fchmod},
    unistd::{UnlinkatFlags, unlinkat},
};
use policy::Learned;
use std::{
    ffi::OsString,
    fs::{File, Metadata},
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown},
    },
    path::{Path, PathBuf},
};

/// A policy has at most this many bytes.
const MAX_LEN: u64 = 16 << 20;
/// Names that are tried for the new file before it gets its own.
const TRIES: u32 = 16;

/// Why the file cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LearnFileError {
    /// Not a path of a file.
    #[error("--learn {}: not the name of a file", .0.display())]
    Name(PathBuf),
    /// A link.
    #[error("--learn {}: is a symbolic link; give the name of the file itself", .0.display())]
    Link(PathBuf),
    /// There is another file under this name.
    #[error(
        "--learn {}: the file was not written by --learn, or somebody has changed it; give another name, or remove it",
        .0.display()
    )]
    NotOurs(PathBuf),
    /// It changed while the command ran.
    #[error(
        "--learn {}: the file was changed while the command ran and is left as it is; what was learned is printed above",
        .0.display()
    )]
    Changed(PathBuf),
    /// The kernel refused.
    #[error("--learn {}: cannot {what}: {source}", path.display())]
    Io {
        /// Doing what.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The file, as it was before the command started.
#[derive(Debug)]
pub struct LearnFile {
    dir: OwnedFd,
    name: OsString,
    path: PathBuf,
    before: Option<Content>,
    /// Whom a new file belongs to.
    owner: Option<(u32, u32)>,
}

#[derive(Debug)]
struct Content {
    text: String,
    meta: Metadata,
}

impl LearnFile {
    /// Looks at the file and makes sure that it can be replaced. `owner`: whom a new one belongs to.
    pub fn open(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, LearnFileError> {
        let name = path
            .file_name()
            .ok_or_else(|| LearnFileError::Name(path.to_owned()))?;
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = File::options()
            .read(true)
            .custom_flags(OFlag::O_DIRECTORY.bits())
            .open(parent.unwrap_or(Path::new(".")))
            .map_err(|source| io_error("open its directory", path, source))?;
        let mut file = Self {
            dir: dir.into(),
            name: name.to_owned(),
            path: path.to_owned(),
            before: None,
            owner,
        };
        file.before = file.read()?;
        // Better now than after the command has run.
        let (_, name) = file.create()?;
        file.remove(&name);
        Ok(file)
    }

    /// What earlier runs learned.
    pub fn earlier(&self) -> Result<Option<Learned>, LearnFileError> {
        let text = self.before.as_ref().map(|content| content.text.as_str());
        let read = text.map(|text| {
            Learned::read(text).ok_or_else(|| LearnFileError::NotOurs(self.path.clone()))
        });
        read.transpose()
    }

    /// Puts a text in the file's place, whole or not at all.
    pub fn replace(&self, text: &str) -> Result<(), LearnFileError> {
        let before = self.before.as_ref().map(|content| content.text.as_str());
        let now = self.read()?;
        if now.map(|content| content.text).as_deref() != before {
            return Err(LearnFileError::Changed(self.path.clone()));
        }
        if before == Some(text) {
            return Ok(());
        }
        let (file, name) = self.create()?;
        self.write(file, text)
            .and_then(|()| {
                renameat(
                    &self.dir,
                    name.as_os_str(),
                    &self.dir,
                    self.name.as_os_str(),
                )
                .map_err(|e| self.error("rename the new file", e.into()))
            })
            .inspect_err(|_| self.remove(&name))
    }

    fn error(&self, what: &'static str, source: io::Error) -> LearnFileError {
        io_error(what, &self.path, source)
    }

    /// The file's content; nothing if there is no file.
    fn read(&self) -> Result<Option<Content>, LearnFileError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.dir, self.name.as_os_str(), flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(LearnFileError::Link(self.path.clone())),
            opened => File::from(opened.map_err(|e| self.error("open it", e.into()))?),
        };
        let meta = file.metadata().map_err(|e| self.error("look at it", e))?;
        if !meta.is_file() {
            return Err(LearnFileError::NotOurs(self.path.clone()));
        }
        let mut bytes = Vec::new();
        file.take(MAX_LEN + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| self.error("read it", e))?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| LearnFileError::NotOurs(self.path.clone()))?;
        Ok(Some(Content { text, meta }))
    }

    /// A new file in the directory, and its name. The name is no secret: what matters is that nobody
    /// else made the file.
    fn create(&self) -> Result<(File, OsString), LearnFileError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let mut taken = Errno::EEXIST;
        for number in 0..TRIES {
            let mut name = OsString::from(".");
            name.push(&self.name);
            name.push(format!(".{}.{number}", std::process::id()));
            let mode = Mode::from_bits_truncate(0o644);
            match openat(&self.dir, name.as_os_str(), flags | OFlag::O_CLOEXEC, mode) {
                Ok(fd) => return Ok((File::from(fd), name)),
                Err(Errno::EEXIST) => {}
                Err(e) => {
                    taken = e;
                    break;
                }
            }
        }
        Err(self.error("make a new file beside it", taken.into()))
    }

    fn write(&self, mut file: File, text: &str) -> Result<(), LearnFileError> {
        file.write_all(text.as_bytes())
            .map_err(|e| self.error("write it", e))?;
        let old = self.before.as_ref().map(|content| &content.meta);
        let owner = old.map(|meta| (meta.uid(), meta.gid())).or(self.owner);
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid)).map_err(|e| self.error("give it away", e))?;
        }
        if let Some(meta) = old {
            fchmod(&file, Mode::from_bits_truncate(meta.mode() & 0o777))
                .map_err(|e| self.error("set its mode", e.into()))?;
        }
        file.sync_all().map_err(|e| self.error("write it", e))
    }

    fn remove(&self, name: &OsString) {
        // Nothing depends on it: a file that stays is in nobody's way.
        let _ = unlinkat(&self.dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> LearnFileError {
    LearnFileError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
