//! Instances: one pin directory each, below one root. Pins outlive the process that made them, so the
//! root also tells the living from the dead: a living loader holds a lock on its directory.

use crate::{
    cgroup::{self, Cgroup, CgroupError},
    kernel::{KernelError, Pins},
    machine::advice,
};
use abi::ABI_VERSION;
use aya::maps::{Array, Map, MapData};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

mod bequest;
mod hand_over;
mod successor;
mod take_over;

pub use hand_over::{Predecessor, Remains};
pub use successor::{OldNames, Retired, Successor};
pub use take_over::{Seat, Taken};

/// Where the BPF file system is expected.
pub const BPFFS: &str = "/sys/fs/bpf";
/// Pinned counter from which slot numbers are drawn.
const NEXT_SLOT: &str = "next_slot";

/// What can go wrong with instances.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// No BPF file system.
    #[error(
        "no BPF file system at {BPFFS} and mounting one failed ({0}): run as root, or `mount -t bpf bpf {BPFFS}`"
    )]
    NoBpffs(io::Error),
    /// The root for pins is on another file system.
    #[error("{} is not on a BPF file system: choose a directory below {BPFFS}", .0.display())]
    NotBpffs(PathBuf),
    /// A file or directory resists.
    #[error("cannot {what} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no such instance.
    #[error("no instance {id}; there {}", known(.instances))]
    Unknown {
        /// The one asked for.
        id: String,
        /// Those there are.
        instances: Vec<String>,
    },
    /// Connections that were cut live on where they cannot be destroyed.
    #[error(
        "{0} connection(s) that were cut still hold data in another network namespace: the firewall stays on them"
    )]
    Resists(usize),
    /// Another loader has it.
    #[error("instance {id} has a loader that is running: end that one first")]
    Busy {
        /// Its name.
        id: String,
    },
    /// Sets of programs of several other versions.
    #[error(
        "instance {id} is pinned in several versions ({}): start the build of the latest of them first", versions.join(", ")
    )]
    Several {
        /// Its name.
        id: String,
        /// Directories of the versions.
        versions: Vec<String>,
    },
    /// Pins of which some are missing, under a firewall that may be in use.
    #[error(
        "the pins of instance {id} are not whole, and something is attached: `ebpf-manager detach --instance {id}` removes it"
    )]
    Damaged {
        /// Its name.
        id: String,
    },
    /// Slot numbers cannot be drawn.
    #[error("cannot draw a slot number: {0}")]
    Slot(io::Error),
    /// See [`KernelError`].
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// See [`CgroupError`].
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

fn known(instances: &[String]) -> String {
    match instances {
        [] => "is none".to_owned(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

impl InstanceError {
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source: source.into(),
        }
    }
}

/// The directory below which every instance pins.
#[derive(Clone, Debug)]
pub struct Root {
    /// Shared by loaders of every ABI.
    base: PathBuf,
    dir: PathBuf,
}

/// An instance that this process owns, until it is dropped or the process dies.
#[derive(Debug)]
pub struct Instance {
    /// Its name.
    pub id: String,
    /// Its pins.
    pub pins: Pins,
    _alive: Flock<File>,
}

/// An instance as found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its name.
    pub id: String,
    /// Its pins.
    pub pins: Pins,
    /// Whether its loader is running.
    pub alive: bool,
}

impl Root {
    /// A root below the BPF file system. Nothing is touched yet.
    #[must_use]
    pub fn new(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            dir: base.join(format!("v{ABI_VERSION}")),
        }
    }

    /// Directory of the pins of every instance.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Mounts the BPF file system if there is none, and makes the root.
    pub fn prepare(&self) -> Result<(), InstanceError> {
        if self.dir.starts_with(BPFFS) && !on_bpffs(Path::new(BPFFS)) {
            mount(
                Some("bpf"),
                BPFFS,
                Some("bpf"),
                MsFlags::empty(),
                None::<&str>,
            )
            .map_err(|e| InstanceError::NoBpffs(e.into()))?;
        }
        // Before anything is made, or a mistyped root would leave directories wherever it points.
        if !on_bpffs(self.nearest()) {
            return Err(InstanceError::NotBpffs(self.dir.clone()));
        }
        fs::create_dir_all(&self.dir).map_err(|e| InstanceError::io("create", &self.dir, e))
    }

    /// The nearest directory at or above the root that exists.
    #[must_use]
    pub fn nearest(&self) -> &Path {
        let existing = self.dir.ancestors().find(|d| d.exists());
        existing.unwrap_or(Path::new("/"))
    }

    /// Holds off every other process that changes what is below the root.
    fn lock(&self) -> Result<Flock<File>, InstanceError> {
        lock(&self.dir, FlockArg::LockExclusive)
    }

    /// Makes an instance with a fresh name that begins with `kind`. `taken`: names that are no fresh ones, whatever the
    /// pins say.
    pub fn create(
        &self,
        kind: &str,
        taken: impl Fn(&str) -> bool,
    ) -> Result<Instance, InstanceError> {
        let _guard = self.lock()?;
        let pid = std::process::id();
        for n in 0.. {
            let id = if n == 0 {
                format!("{kind}-{pid}")
            } else {
                format!("{kind}-{pid}-{n}")
            };
            if taken(&id) {
                continue;
            }
            let dir = self.dir.join(&id);
            match fs::create_dir(&dir) {
                Ok(()) => {
                    let alive = lock(&dir, FlockArg::LockExclusiveNonblock)?;
                    return Ok(Instance {
                        id,
                        pins: Pins::new(&dir),
                        _alive: alive,
                    });
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(InstanceError::io("create", dir, e)),
            }
        }
        unreachable!("a free name is found or an error returned")
    }

    /// Draws a slot number that this boot has not seen, whatever the ABI of its loaders: flow ids are
    /// made of it.
    pub fn draw_slot(&self) -> Result<u32, InstanceError> {
        let _guard = lock(&self.base, FlockArg::LockExclusive)?;
        let path = self.base.join(NEXT_SLOT);
        let other = |e: aya::maps::MapError| InstanceError::Slot(io::Error::other(e));
        if !path.exists() {
            let fresh: Array<MapData, u32> = Array::create(1, 0).map_err(other)?;
            fresh
                .pin(&path)
                .map_err(|e| InstanceError::io("pin", &path, io::Error::other(e)))?;
        }
        let map = Map::Array(MapData::from_pin(&path).map_err(other)?);
        let mut counter: Array<MapData, u32> = Array::try_from(map).map_err(other)?;
        let next = counter.get(&0, 0).map_err(other)? + 1;
        counter.set(0, next, 0).map_err(other)?;
        Ok(next)
    }

    /// Every instance, by name. A root that does not exist has none.
    pub fn list(&self) -> Result<Vec<Found>, InstanceError> {
        if !self.dir.exists() {
            return Ok(Vec::new());
        }
        // An instance in the making is not locked yet, and a look at a lock is a short hold of it.
        let _guard = self.lock()?;
        let entries =
            fs::read_dir(&self.dir).map_err(|e| InstanceError::io("read", &self.dir, e))?;
        let mut found: Vec<Found> = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| Found {
                id: e.file_name().to_string_lossy().into_owned(),
                pins: Pins::new(&e.path()),
                alive: lock(&e.path(), FlockArg::LockExclusiveNonblock).is_err(),
            })
            .collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// One instance by name.
    pub fn find(&self, id: &str) -> Result<Found, InstanceError> {
        let mut all = self.list()?;
        match all.iter().position(|f| f.id == id) {
            Some(at) => Ok(all.swap_remove(at)),
            None => {
                let instances = all.into_iter().map(|f| f.id).collect();
                Err(InstanceError::Unknown {
                    id: id.to_owned(),
                    instances,
                })
            }
        }
    }
}

/// Whether a path is on a BPF file system.
#[must_use]
pub fn on_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|s| s.filesystem_type() == BPF_FS_MAGIC)
}

fn lock(dir: &Path, how: FlockArg) -> Result<Flock<File>, InstanceError> {
    let file = File::open(dir).map_err(|e| InstanceError::io("open", dir, e))?;
    Flock::lock(file, how).map_err(|(_, e)| InstanceError::io("lock", dir, e))
}

impl Found {
    /// Cgroups that the instance is attached to.
    pub fn cgroups(&self) -> Result<Vec<Cgroup>, InstanceError> {
        let root = cgroup::root()?;
        let infos = self.pins.infos()?;
        Ok(infos
            .iter()
            .map(|(_, i)| Cgroup::at(root.join(crate::enrol::text(&i.cgroup))))
            .collect())
    }

    /// Whether nothing is left that the instance still guards: no process, no flow.
    pub fn is_over(&self) -> bool {
        let empty = self
            .cgroups()
            .is_ok_and(|all| all.iter().all(|c| !c.populated().unwrap_or(true)));
        // An instance whose loader died half-way through its making has nothing attached yet. One that
        // has, and whose pins cannot be read, may still guard somebody.
        let links = fs::read_dir(self.pins.dir().join("links"));
        let unfinished = self.pins.infos().is_err() && links.into_iter().flatten().next().is_none();
        unfinished || (empty && self.pins.live().is_ok_and(|flows| flows.is_empty()))
    }

    /// See [`let_go`]. An instance without readable pins has let nothing in.
    pub fn let_go(&self) -> Result<(), InstanceError> {
        match self.cgroups() {
            Ok(cgroups) => let_go(&self.pins, &cgroups),
            Err(_) => Ok(()),
        }
    }

    /// Detaches the programs and removes every pin and the cgroups that `run` made. A cgroup in which
    /// processes go on living without a firewall stays theirs, and a container's is the engine's.
    pub fn remove(&self) -> Result<(), InstanceError> {
        let cgroups = self.cgroups().unwrap_or_default();
        remove_pins(self.pins.dir())?;
        let parent = |c: &Cgroup| {
            c.path()
                .parent()
                .and_then(Path::file_name)
                .map(ToOwned::to_owned)
        };
        let ours = |c: &&Cgroup| parent(c).is_some_and(|name| name == cgroup::OURS);
        let empty = |c: &&Cgroup| !c.populated().unwrap_or(false);
        cgroups
            .iter()
            .filter(ours)
            .filter(empty)
            .try_for_each(|c| c.remove().map_err(Into::into))
    }

    /// Whether it is there as a whole: neither still in the making nor already going.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.pins.dir().join(abi::programs::ITER_DGRAM).exists()
    }
}

/// Destroys every connection of these cgroups, so that nothing that was cut leaves later. To be called
/// when no process is left in them and every flow has ended, before the programs are detached.
pub fn let_go(pins: &Pins, cgroups: &[Cgroup]) -> Result<(), InstanceError> {
    let ids: Vec<u64> = cgroups.iter().flat_map(Cgroup::ids).collect();
    match pins.destroy_all(&ids)? {
        0 => Ok(()),
        n => Err(InstanceError::Resists(n)),
    }
}

/// Removes the pins of an instance: links first, so that nothing runs without its maps.
pub fn remove_pins(dir: &Path) -> Result<(), InstanceError> {
    for part in [&dir.join("links"), dir] {
        match fs::remove_dir_all(part) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(InstanceError::io("remove", part, e));
            }
            _ => {}
        }
    }
    Ok(())
}
