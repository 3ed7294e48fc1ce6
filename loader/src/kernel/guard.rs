//! The guard of a parent cgroup (`docs/architecture.md`, "Guarded parent"): below it only what enrolled
//! cgroups' programs have judged leaves.

use super::{
    Engine, KernelError, Pins,
    attach::attach_one,
    object::load_program,
    query::{self, Link, Target},
    sys,
};
use abi::programs;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Directory of the guards' pins.
const GUARDS: &str = "guard";

/// A guard that is pinned.
#[derive(Debug)]
pub struct Guard {
    /// Its name.
    pub name: String,
    /// What is behind its pin.
    pub link: Result<Link, KernelError>,
}

impl Engine {
    /// Guards a parent cgroup under a name of the caller's choice: from now on no packet of a socket
    /// made in it or below leaves, unless a cgroup of this instance that the socket was made in (or
    /// below) is enrolled. What is enrolled already goes on. The link is pinned and outlives us; one that
    /// is there already stays.
    ///
    /// Cgroups of other instances below the parent have no packet passed either: give agents a parent
    /// of their own, which holds nothing else.
    pub fn guard(&mut self, parent: &File, name: &str) -> Result<(), KernelError> {
        let dir = self.dir.join(GUARDS).join(name);
        fs::create_dir_all(&dir).map_err(|e| KernelError::pin("create", &dir, e))?;
        let path = dir.join(programs::GUARD);
        if query::link(&path).is_ok_and(|l| is_at(&l, parent)) {
            return Ok(());
        }
        sys::unpin(&path).map_err(|e| KernelError::pin("detach", &path, e))?;
        load_program(&mut self.ebpf, programs::GUARD)?;
        let link = attach_one(&mut self.ebpf, programs::GUARD, parent)?;
        let pinned = link.pin(&path);
        pinned
            .map(drop)
            .map_err(|e| KernelError::pin("pin link", path, io::Error::other(e)))
    }
}

impl Pins {
    /// The guards, by name.
    pub fn guards(&self) -> Result<Vec<Guard>, KernelError> {
        let names = names_in(&self.dir().join(GUARDS))?;
        let guard = |name: String| Guard {
            link: query::link(&self.guard_path(&name)),
            name,
        };
        Ok(names.into_iter().map(guard).collect())
    }

    /// Path of the pinned link of a guard.
    #[must_use]
    pub fn guard_path(&self, name: &str) -> PathBuf {
        self.dir().join(GUARDS).join(name).join(programs::GUARD)
    }

    /// Takes a guard away. One that is not there is no error.
    pub fn unguard(&self, name: &str) -> Result<(), KernelError> {
        let path = self.guard_path(name);
        sys::unpin(&path).map_err(|e| KernelError::pin("detach", path, e))?;
        let dir = self.dir().join(GUARDS).join(name);
        match fs::remove_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(KernelError::pin("remove", dir, e))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a link is attached to this cgroup.
fn is_at(link: &Link, cgroup: &File) -> bool {
    let here = cgroup.metadata().map(|m| m.ino());
    matches!(link.target, Target::Cgroup { id, .. } if here.is_ok_and(|here| here == id))
}

/// Names in a directory of pins, sorted; none when it does not exist.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>, KernelError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        r => r.map_err(|e| KernelError::pin("read", dir, e))?,
    };
    let names = entries
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}
