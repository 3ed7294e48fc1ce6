//! The policy file on disk: read, checked, and told about.

use policy::{Diagnostic, Policy, Severity};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

/// Why a policy file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error("cannot read policy {path}: {source}")]
    Read {
        /// Name of the file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It has mistakes; all of them, rendered.
    #[error("{report}{summary}")]
    Mistakes {
        /// The mistakes with their places.
        report: String,
        /// How many.
        summary: String,
    },
}

/// A policy file that can be used.
#[derive(Debug)]
pub struct PolicyFile {
    /// Name as given.
    pub name: String,
    /// Its text.
    pub source: String,
    /// Its meaning.
    pub policy: Policy,
    /// Warnings; there are no errors.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a policy file. `color`: the report is for a terminal.
pub fn load(path: &Path, color: bool) -> Result<PolicyFile, PolicyFileError> {
    let bytes = File::open(path).and_then(read).map_err(unreadable(path))?;
    check(path, bytes, color)
}

/// Checks what a policy file holds. `color`: the report is for a terminal.
pub fn check(path: &Path, bytes: Vec<u8>, color: bool) -> Result<PolicyFile, PolicyFileError> {
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(io::Error::other);
    let source = text.map_err(unreadable(path))?;
    let parsed = Policy::parse(&source);
    match parsed.policy {
        Some(policy) => Ok(PolicyFile {
            name,
            source,
            policy,
            warnings: parsed.diagnostics,
        }),
        None => Err(PolicyFileError::Mistakes {
            report: policy::render(&parsed.diagnostics, &name, &source, color),
            summary: policy::summary(&parsed.diagnostics),
        }),
    }
}

/// Reads a policy file as somebody has left it; nothing while it is open for writing, when it may be half
/// of what it is going to be.
pub fn read_written(path: &Path) -> Result<Option<Vec<u8>>, PolicyFileError> {
    let meta = fs::metadata(path).map_err(unreadable(path))?;
    // What is no file is not even opened: that can wait for ever or have effects.
    if !meta.is_file() {
        return Err(unreadable(path)(io::Error::other("it is not a file")));
    }
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    match opened {
        Ok(file) if leased(&file) => read(file).map(Some).map_err(unreadable(path)),
        Ok(_) => Ok(None),
        // Somebody else has a lease for writing.
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(unreadable(path)(e)),
    }
}

/// `include/uapi/asm-generic/fcntl.h`.
const F_SETSIG: libc::c_int = 10;

/// Takes a read lease (`fcntl(2)`, `F_SETLEASE`), which is refused while the file is open for writing and
/// makes a new writer wait until the file is closed. Where there are no leases nobody is known to write.
fn leased(file: &File) -> bool {
    let fd = file.as_raw_fd();
    // SAFETY: plain integers. A broken lease signals; SIGURG is ignored unless somebody handles it, the
    // default SIGIO would end the process.
    let r = unsafe {
        libc::fcntl(fd, F_SETSIG, libc::SIGURG);
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK)
    };
    r == 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = policy::MAX_SOURCE as u64;
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let what = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> PolicyFileError {
    let path = path.display().to_string();
    move |source| PolicyFileError::Read {
        path: path.clone(),
        source,
    }
}

impl PolicyFile {
    /// The warnings as text, empty when there are none.
    #[must_use]
    pub fn report(&self, color: bool) -> String {
        if self.warnings.is_empty() {
            return String::new();
        }
        policy::render(&self.warnings, &self.name, &self.source, color)
    }

    /// Whether anything is worth a warning.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.warnings
            .iter()
            .any(|d| d.severity == Severity::Warning)
    }
}
