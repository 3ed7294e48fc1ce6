//! The rendered configuration on disk. Each file is put in its place by a rename, so that a proxy reads
//! the old one or the new one; listeners come last, for they name what is in the others.

use crate::ca::{Authority, CaError};
use jiff::Zoned;
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use proxy::envoy;
use serde_json::Value;
use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Why the files are not there.
#[derive(Debug, thiserror::Error)]
pub enum ProxyFilesError {
    /// The kernel refused.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// See [`CaError`].
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// Writes Envoy's files into a directory, which is made; with an authority, a certificate for each name.
pub fn write_envoy(
    dir: &Path,
    rendered: &envoy::Rendered,
    authority: Option<&Authority>,
) -> Result<(), ProxyFilesError> {
    make(&dir.join("certificates"))?;
    if let Some(authority) = authority {
        certificates(dir, rendered, authority)?;
    }
    put_json(dir, "bootstrap.json", &rendered.bootstrap)?;
    put_json(dir, "clusters.json", &rendered.clusters)?;
    put_json(dir, "listeners.json", &rendered.listeners)
}

fn make(dir: &Path) -> Result<(), ProxyFilesError> {
    fs::create_dir_all(dir).map_err(|source| ProxyFilesError::Write {
        path: dir.to_owned(),
        source,
    })
}

/// Makes the certificates that are not there yet, and all of them where those that are there are of another month or
/// authority: a thousand take seconds, and an agent that waits for its policy waits for them.
fn certificates(
    dir: &Path,
    rendered: &envoy::Rendered,
    authority: &Authority,
) -> Result<(), ProxyFilesError> {
    let file = dir.join("certificates/issued");
    let mark = format!("{}\n{}", issued(), authority.certificate());
    let current = fs::read(&file).is_ok_and(|there| there == mark.as_bytes());
    for name in &rendered.certificates {
        let files = envoy::certificate_files(name).map(|file| dir.join(file));
        if !current || !files.iter().all(|file| file.exists()) {
            certificate(&files, name, authority)?;
        }
    }
    if current {
        return Ok(());
    }
    put(&file, 0o644, mark.as_bytes())
}

fn certificate(
    [chain, key]: &[PathBuf; 2],
    name: &str,
    authority: &Authority,
) -> Result<(), ProxyFilesError> {
    let issued = authority.issue(name, &Zoned::now())?;
    put(key, 0o600, issued.key.as_bytes())?;
    put(chain, 0o644, issued.chain.as_bytes())
}

/// What [`proxy::Settings::issued`] is now: the month, for certificates last three of them.
#[must_use]
pub fn issued() -> String {
    Zoned::now().strftime("%Y-%m").to_string()
}

fn put_json(dir: &Path, name: &str, value: &Value) -> Result<(), ProxyFilesError> {
    put(&dir.join(name), 0o644, format!("{value}\n").as_bytes())
}

/// Tells whoever waits for it that a file has been replaced: a line in the FIFO beside it, which has the name of the
/// file with `.changed` behind it and is made. CoreDNS by itself looks at its file every two seconds, in which a new
/// agent would be nobody to it. Without a reader nothing is told.
pub fn announce(path: &Path) -> Result<(), ProxyFilesError> {
    let mut fifo = path.as_os_str().to_owned();
    fifo.push(".changed");
    let fifo = PathBuf::from(fifo);
    let told = || {
        match mkfifo(&fifo, Mode::from_bits_truncate(0o600)) {
            Err(Errno::EEXIST) => {}
            made => made?,
        }
        let mut options = OpenOptions::new();
        // For both: so nobody needs to be at the other end.
        options
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits() | OFlag::O_NOFOLLOW.bits());
        let mut file = options.open(&fifo)?;
        if !file.metadata()?.file_type().is_fifo() {
            return Err(io::Error::other("it is no FIFO"));
        }
        // Whoever reads opens it for both as well, so that it stays open between two lines. All that can be said by it
        // is that a file should be read again.
        file.set_permissions(Permissions::from_mode(0o666))?;
        match file.write_all(b"\n") {
            // It is full of lines that say the same.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            written => written,
        }
    };
    told().map_err(|source| ProxyFilesError::Write {
        path: fifo.clone(),
        source,
    })
}

/// Puts a file in its place, whole.
pub fn put(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), ProxyFilesError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = || {
        // What has this name was left behind by a run that was killed.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| ProxyFilesError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn whoever_waits_for_a_file_hears_of_it_and_nobody_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("Corefile");
        // Nobody is there.
        announce(&file).unwrap();
        let mut options = OpenOptions::new();
        let fifo = dir.path().join("Corefile.changed");
        let mut reader = options.read(true).write(true).open(&fifo).unwrap();
        // Far more than it holds.
        for _ in 0..100_000 {
            announce(&file).unwrap();
        }
        let mut line = [0; 1];
        reader.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"\n");
    }

    #[test]
    fn what_is_no_fifo_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("Corefile"), dir.path().join("other"));
        fs::write(&other, "kept").unwrap();
        let fifo = dir.path().join("Corefile.changed");
        fs::write(&fifo, "kept").unwrap();
        assert!(announce(&file).is_err());
        fs::remove_file(&fifo).unwrap();
        std::os::unix::fs::symlink(&other, &fifo).unwrap();
        assert!(announce(&file).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "kept");
    }
}
