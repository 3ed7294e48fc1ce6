//! An instance with a name of its own, which outlives its loaders: made, or taken over from a dead one.

use super::{Instance, InstanceError, Predecessor, Root, hand_over, lock, remove_pins};
use crate::kernel::{Engine, Pins, Sizes, Updated};
use abi::{PHASE_ALONE, SlotConfig, SlotInfo, maps, programs};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A cgroup that is enrolled.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Its row in the books.
    pub index: u32,
    /// Who it is.
    pub info: SlotInfo,
    /// What it is under; none when the cgroup is gone.
    pub config: Option<SlotConfig>,
}

/// An instance, ready for use.
pub struct Taken {
    /// The instance, locked.
    pub instance: Instance,
    /// Its programs and maps.
    pub engine: Engine,
    /// What is enrolled already.
    pub seats: Vec<Seat>,
    /// What was done to the links of a dead loader of the same ABI; none when there was none.
    pub updated: Option<Updated>,
    /// A set of programs of another ABI that is still in force, to be taken over from.
    pub before: Option<Predecessor>,
}

impl Root {
    /// Takes over the instance of this name from a dead loader of whatever version, or makes it. What a
    /// dead loader has enrolled is enforced all the time: its links, with this build's programs behind
    /// them, work on with the maps that are there, so slots, live flows, books and what waits in the rings
    /// stay. `sizes` hold for an instance that is made; one that is taken over keeps its own.
    pub fn take_over(&self, id: &str, sizes: Sizes) -> Result<Taken, InstanceError> {
        let _guard = self.lock()?;
        let dir = self.dir.join(id);
        let (before, old) = self.other_version(id)?.unzip();
        match fs::create_dir(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(InstanceError::io("create", dir, e));
            }
            _ => {}
        }
        let instance = Instance {
            id: id.to_owned(),
            pins: Pins::new(&dir),
            _alive: alone(&dir, id)?,
        };
        if is_whole(&dir) {
            return Self::adopt(instance, before.zip(old));
        }
        clear(&dir, id)?;
        let (mut sizes, mut reused) = (sizes, Vec::new());
        if let Some(before) = &before {
            // Both sets leave and take marks by row.
            sizes.slots = hand_over::room(before)?;
            reused.push((maps::HANDLED, Pins::new(before).map_path(maps::HANDLED)));
        }
        let engine = Engine::load_object(crate::kernel::object(), &dir, sizes, &reused)?;
        let before = before
            .zip(old)
            .map(|(dir, alive)| Predecessor::open(&dir, alive, &instance.pins))
            .transpose()?;
        Ok(Taken {
            instance,
            engine,
            seats: Vec::new(),
            updated: None,
            before,
        })
    }

    fn adopt(
        instance: Instance,
        before: Option<(PathBuf, Flock<File>)>,
    ) -> Result<Taken, InstanceError> {
        let mut engine = Engine::adopt(instance.pins.dir())?;
        let updated = engine.update()?;
        let before = before
            .map(|(dir, alive)| Predecessor::open(&dir, alive, &instance.pins))
            .transpose()?;
        let mut seats = Vec::new();
        for (index, mut info) in instance.pins.infos()? {
            info.loader = std::process::id();
            instance.pins.set_info(index, &info)?;
            let mut config = instance.pins.config(info.cgroup_id)?;
            // Whoever took over before us has come to the end of it and no further.
            if let Some(c) = config.as_mut().filter(|c| c.phase != PHASE_ALONE)
                && before.is_none()
            {
                c.phase = PHASE_ALONE;
                instance.pins.configure(info.cgroup_id, c)?;
            }
            seats.push(Seat {
                index,
                info,
                config,
            });
        }
        Ok(Taken {
            instance,
            engine,
            seats,
            updated: Some(updated),
            before,
        })
    }

    /// Where another version has pinned this instance, with its lock. One that never got to attach
    /// anything is removed.
    fn other_version(&self, id: &str) -> Result<Option<(PathBuf, Flock<File>)>, InstanceError> {
        let mut found = Vec::new();
        let all = fs::read_dir(&self.base).map_err(|e| InstanceError::io("read", &self.base, e))?;
        for version in all.flatten().map(|e| e.path()) {
            let name = version.file_name().unwrap_or_default().to_string_lossy();
            let number = name.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
            let dir = version.join(id);
            if number.is_none() || version == self.dir || !dir.exists() {
                continue;
            }
            let alive = alone(&dir, id)?;
            if is_whole(&dir) {
                found.push((dir, alive));
            } else {
                clear(&dir, id)?;
                remove_pins(&dir)?;
            }
        }
        if found.len() > 1 {
            let name = |d: &PathBuf| d.display().to_string();
            return Err(InstanceError::Several {
                id: id.to_owned(),
                versions: found.iter().map(|(d, _)| name(d)).collect(),
            });
        }
        Ok(found.pop())
    }
}

/// The lock of an instance's directory, which its living loader holds.
fn alone(dir: &Path, id: &str) -> Result<Flock<File>, InstanceError> {
    lock(dir, FlockArg::LockExclusiveNonblock).map_err(|e| match e {
        InstanceError::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
            InstanceError::Busy { id: id.to_owned() }
        }
        other => other,
    })
}

/// Whether it was made to its end: the iterators are pinned last, before anything is attached.
fn is_whole(dir: &Path) -> bool {
    dir.join(programs::ITER_DGRAM).exists()
}

/// Empties the directory of an instance in which nothing has been attached yet.
fn clear(dir: &Path, id: &str) -> Result<(), InstanceError> {
    let links = fs::read_dir(dir.join("links"));
    if links.into_iter().flatten().next().is_some() {
        return Err(InstanceError::Damaged { id: id.to_owned() });
    }
    let all = fs::read_dir(dir).map_err(|e| InstanceError::io("read", dir, e))?;
    for entry in all.flatten() {
        let path = entry.path();
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(|e| InstanceError::io("remove", path, e))?;
    }
    Ok(())
}
