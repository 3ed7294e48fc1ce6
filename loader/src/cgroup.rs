//! Cgroups: where version 2 is mounted, and one directory in it.

use crate::machine::advice;
mod delegation;

pub use delegation::{Delegation, delegate, has_borders};

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Directory of our cgroups below the mount.
pub const OURS: &str = "clawker";

/// What can go wrong with cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Version 2 is not mounted anywhere.
    #[error(
        "no cgroup v2 file system is mounted: boot with systemd.unified_cgroup_hierarchy=1, or mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`"
    )]
    NotMounted,
    /// A file or directory of the cgroup file system resists.
    #[error("cannot {what} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl CgroupError {
    fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source,
        }
    }
}

/// One line of `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`), as far as it is of interest.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// Options of the file system itself, which all its mounts share.
    pub options: Vec<String>,
}

/// Reads mount lines. Lines that are not understood are passed over: none of them is what we look for.
#[must_use]
pub fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?;
            let kind = right.split(' ').next()?;
            let options = right.split(' ').nth(2).unwrap_or_default();
            Some(Mount {
                point: unescape(point).into(),
                kind: kind.to_owned(),
                options: options.split(',').map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// Undoes the octal escapes of mountinfo: blank, tab, newline and backslash.
fn unescape(s: &str) -> String {
    s.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}

/// Every mount of this process.
pub fn mounts() -> Result<Vec<Mount>, CgroupError> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(|e| CgroupError::io("read", path, e))?;
    Ok(parse_mounts(&text))
}

/// Mount point of cgroup v2, alone or beside version 1 (hybrid).
pub fn root() -> Result<PathBuf, CgroupError> {
    mounts()?
        .into_iter()
        .find(|m| m.kind == "cgroup2")
        .map(|m| m.point)
        .ok_or(CgroupError::NotMounted)
}

/// One cgroup.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A cgroup that exists (or did).
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Makes a cgroup, and its parents.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, CgroupError> {
        let path = path.into();
        // Another instance may just have removed the empty directory above: then once more.
        let made = fs::create_dir_all(&path).or_else(|_| fs::create_dir_all(&path));
        made.map_err(|e| CgroupError::io("create cgroup", &path, e))?;
        Ok(Self { path })
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory, for attaching programs and for `CLONE_INTO_CGROUP`.
    pub fn open(&self) -> Result<File, CgroupError> {
        File::open(&self.path).map_err(|e| CgroupError::io("open cgroup", &self.path, e))
    }

    /// The kernel's id of the cgroup, which is its inode number.
    pub fn id(&self) -> Result<u64, CgroupError> {
        let meta = fs::metadata(&self.path)
            .map_err(|e| CgroupError::io("look at cgroup", &self.path, e))?;
        Ok(meta.ino())
    }

    /// The ids of it and of every cgroup below it; those that are gone have none.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.children().flat_map(|c| c.ids()).collect();
        ids.extend(self.id());
        ids
    }

    /// The cgroup with this id: itself or one below it.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<Self> {
        if self.id().is_ok_and(|here| here == id) {
            return Some(self.clone());
        }
        self.children().find_map(|child| child.find(id))
    }

    fn children(&self) -> impl Iterator<Item = Self> {
        let below = fs::read_dir(&self.path).into_iter().flatten().flatten();
        below
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| Self::at(e.path()))
    }

    /// Whether a process lives in it or below. A cgroup that is gone has none.
    pub fn populated(&self) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.events");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().any(|l| l == "populated 1")),
            Err(e)
                if e.kind() == io::ErrorKind::NotFound
                    || e.raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(false)
            }
            Err(e) => Err(CgroupError::io("read", path, e)),
        }
    }

    /// Kills every process in it and below (`cgroup.kill`, kernel ≥ 5.14).
    pub fn kill(&self) -> Result<(), CgroupError> {
        let path = self.path.join("cgroup.kill");
        fs::write(&path, "1").map_err(|e| CgroupError::io("write", path, e))
    }

    /// Removes it and the cgroups that were made below it, and the one above if that is ours and empty
    /// now. One that is gone already is no error.
    pub fn remove(&self) -> Result<(), CgroupError> {
        remove_tree(&self.path)?;
        if let Some(parent) = self.path.parent()
            && parent.file_name().is_some_and(|n| n == OURS)
        {
            // Another instance may live there: then it is not empty, and stays.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

fn remove_tree(path: &Path) -> Result<(), CgroupError> {
    let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    match fs::read_dir(path) {
        Ok(entries) => {
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    remove_tree(&entry.path())?;
                }
            }
        }
        Err(e) if gone(&e) => return Ok(()),
        Err(e) => return Err(CgroupError::io("read cgroup", path, e)),
    }
    match fs::remove_dir(path) {
        Err(e) if !gone(&e) => Err(CgroupError::io("remove cgroup", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_beside_version_1() {
        let text = "25 30 0:22 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n\
                    26 30 0:23 / /sys/fs/cgroup/my\\040place rw - cgroup2 none rw,nsdelegate\n\
                    broken line\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(
            mounts[1],
            Mount {
                point: "/sys/fs/cgroup/my place".into(),
                kind: "cgroup2".into(),
                options: vec!["rw".into(), "nsdelegate".into()],
            }
        );
    }
}
