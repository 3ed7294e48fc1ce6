//! Births: the directories of containers' cgroups as they appear, long before the engine says that a
//! container has started.

use super::{
    look::directory,
    place::{id_in, parents},
};
use crate::machine::advice;
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The engine's full id, from the name of the directory.
    pub id: String,
    /// The directory, absolute.
    pub path: PathBuf,
    /// The kernel's id of it.
    pub cgroup_id: u64,
}

/// What has become of containers' cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there.
    Appeared(Birth),
    /// It is not there any more.
    Vanished(Birth),
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum BirthsError {
    /// No inotify.
    #[error("cannot watch for new containers by inotify: {0}; raise fs.inotify.max_user_instances")]
    Inotify(Errno),
    /// A directory cannot be watched.
    #[error("cannot watch {} for new containers: {source}{}", path.display(), advice(&(*source).into()))]
    Watch {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
}

/// Watches every directory below which containers' cgroups appear: `docker/`, all slices, and the
/// parents named by [`Births::watch`], from the moment when each of them exists.
#[derive(Debug)]
pub struct Births {
    inotify: Inotify,
    root: PathBuf,
    /// Parents relative to the root; what lies on the way to them is watched, too.
    parents: Vec<PathBuf>,
    watched: HashMap<WatchDescriptor, PathBuf>,
    /// By directory.
    alive: HashMap<PathBuf, Birth>,
    changes: Vec<Change>,
}

impl Births {
    /// Watches below the mount of cgroup v2.
    pub fn new(root: &Path) -> Result<Self, BirthsError> {
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let mut births = Self {
            inotify: Inotify::init(flags).map_err(BirthsError::Inotify)?,
            root: root.to_owned(),
            parents: parents(""),
            watched: HashMap::new(),
            alive: HashMap::new(),
            changes: Vec::new(),
        };
        births.enter(root)?;
        Ok(births)
    }

    /// Watches where containers with this `--cgroup-parent` appear, whichever the cgroup driver.
    pub fn watch(&mut self, parent: &str) -> Result<(), BirthsError> {
        let mut more = parents(parent);
        more.retain(|dir| !self.parents.contains(dir));
        if more.is_empty() {
            return Ok(());
        }
        self.parents.append(&mut more);
        self.rescan()
    }

    /// Everything that has changed since the last call; the descriptor is readable when something may
    /// have. The first call gives what was there already. An error leaves the rest watched.
    pub fn changes(&mut self) -> Result<Vec<Change>, BirthsError> {
        let mut result = Ok(());
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(BirthsError::Inotify(e)),
            };
            for event in events {
                result = result.and(self.event(&event));
            }
        }
        result.map(|()| std::mem::take(&mut self.changes))
    }

    /// Forgets what was told: the next [`Births::changes`] has everything that exists.
    pub fn again(&mut self) -> Result<(), BirthsError> {
        self.alive.clear();
        self.rescan()
    }

    fn event(&mut self, event: &InotifyEvent) -> Result<(), BirthsError> {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return self.rescan();
        }
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.watched.remove(&event.wd);
            return Ok(());
        }
        let (Some(dir), Some(name)) = (self.watched.get(&event.wd), &event.name) else {
            return Ok(());
        };
        let path = dir.join(name);
        if event.mask.contains(AddWatchFlags::IN_DELETE) {
            self.vanish(&path);
            return Ok(());
        }
        self.find(&path)
    }

    /// Takes up a directory that may be a container's, or on the way to one.
    fn find(&mut self, path: &Path) -> Result<(), BirthsError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(id_in) else {
            return if self.leads_on(path) {
                self.enter(path)
            } else {
                Ok(())
            };
        };
        // It may have gone again.
        let Ok(cgroup_id) = directory(path) else {
            return Ok(());
        };
        let birth = Birth {
            id: id.to_owned(),
            path: path.to_owned(),
            cgroup_id,
        };
        if self.alive.get(path) != Some(&birth) {
            self.vanish(path);
            self.alive.insert(path.to_owned(), birth.clone());
            self.changes.push(Change::Appeared(birth));
        }
        Ok(())
    }

    fn vanish(&mut self, path: &Path) {
        if let Some(birth) = self.alive.remove(path) {
            self.changes.push(Change::Vanished(birth));
        }
    }

    /// Whether containers appear in this directory, or in one below it.
    fn leads_on(&self, path: &Path) -> bool {
        let Ok(path) = path.strip_prefix(&self.root) else {
            return false;
        };
        let is_slice = |c: std::path::Component<'_>| {
            c.as_os_str()
                .to_str()
                .is_some_and(|name| name.ends_with(".slice"))
        };
        path.components().all(is_slice) || self.parents.iter().any(|p| p.starts_with(path))
    }

    /// Watches a directory, and finds what is in it. One that has gone is none.
    fn enter(&mut self, path: &Path) -> Result<(), BirthsError> {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        match self.inotify.add_watch(path, flags) {
            // A file of the cgroup file system may have the name of a slice.
            Err(Errno::ENOENT | Errno::ENODEV | Errno::ENOTDIR) => return Ok(()),
            Err(source) => {
                let path = path.to_owned();
                return Err(BirthsError::Watch { path, source });
            }
            Ok(wd) => self.watched.insert(wd, path.to_owned()),
        };
        // What came before the watch did tells of itself in no other way.
        let mut result = Ok(());
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                result = result.and(self.find(&entry.path()));
            }
        }
        result
    }

    /// Looks at everything again.
    fn rescan(&mut self) -> Result<(), BirthsError> {
        let is_gone = |b: &&Birth| directory(&b.path).ok() != Some(b.cgroup_id);
        let gone = self.alive.values().filter(is_gone).map(|b| b.path.clone());
        for path in gone.collect::<Vec<_>>() {
            self.vanish(&path);
        }
        self.enter(&self.root.clone())
    }
}

impl AsFd for Births {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests;
