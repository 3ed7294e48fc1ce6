//! The rendered configuration on disk. Each file is put in its place by a rename, so that a proxy reads
//! the old one or the new one; listeners come last, for they name what is in the others.

use crate::ca::{Authority, CaError};
use jiff::Zoned;
use proxy::envoy;
use serde_json::Value;
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
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
