//! What stands beside the programs of the agents' own cgroups: the guard of a parent cgroup, and the
//! backstops at the host's ends of the agents' interfaces.

use super::{Fleet, FleetError, engine, roll::Life};
use crate::{
    cgroup::{self, Cgroup, CgroupError},
    docker::{self, Weakness},
    kernel::{KernelError, host_sides, link_name},
    sink::Sink,
};
use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// What is to be guarded, and how far that has come.
#[derive(Debug, Default)]
pub(super) struct Ward {
    /// Parents of agents' cgroups, below the mount of cgroup v2.
    parents: Vec<PathBuf>,
    guarded: BTreeSet<PathBuf>,
    /// Socket of the engine.
    engine: Option<PathBuf>,
    /// Agents whose backstops could not be put up.
    unstopped: HashSet<Life>,
    /// The kernel has no hook at interfaces.
    no_tcx: bool,
}

impl Ward {
    /// Of containers with these `--cgroup-parent`, of this engine.
    pub(super) fn new(parents: &[String], engine: Option<&Path>) -> Self {
        let mut all: Vec<PathBuf> = parents.iter().flat_map(|p| docker::parents(p)).collect();
        all.dedup();
        Self {
            parents: all,
            engine: engine.map(Path::to_owned),
            ..Self::default()
        }
    }

    pub(super) fn forget(&mut self, life: Life) {
        self.unstopped.remove(&life);
    }
}

/// A name for pins: the file system takes no dots.
fn pin_name(parent: &Path) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    parent.to_string_lossy().chars().map(plain).collect()
}

/// The cgroup of a process, below the mount; nothing when it has none that we see.
fn cgroup_of(pid: &str) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?;
    (!path.starts_with("..")).then(|| PathBuf::from(path))
}

impl Fleet {
    /// Guards the parents that there are. Those of the cgroupfs driver are made; slices come with systemd.
    /// Whoever lives in one beside the agents has no network any more, so our own is refused.
    pub(super) fn guard_parents(&mut self) -> Result<(), FleetError> {
        let missing = |parent: &&PathBuf| !self.ward.guarded.contains(*parent);
        let missing: Vec<PathBuf> = self.ward.parents.iter().filter(missing).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let ours = cgroup_of("self").unwrap_or_default();
        for parent in missing {
            // Commands under `run` have theirs below a name of ours.
            if ours.starts_with(&parent) || parent == Path::new(cgroup::OURS) {
                return Err(FleetError::OwnParent(parent));
            }
            let path = self.mount.join(&parent);
            let is_slice = parent.extension().is_some_and(|e| e == "slice");
            if !path.exists() && is_slice {
                continue;
            }
            let dir = Cgroup::create(path)?.open()?;
            self.engine.guard(&dir, &pin_name(&parent))?;
            self.ward.guarded.insert(parent);
        }
        Ok(())
    }

    /// Removes the guards of parents that nobody names any more.
    pub(super) fn lift_guards(&self) -> Result<(), FleetError> {
        let wanted: Vec<String> = self.ward.parents.iter().map(|p| pin_name(p)).collect();
        for guard in self.instance.pins.guards()? {
            if !wanted.contains(&guard.name) {
                self.instance.pins.unguard(&guard.name)?;
            }
        }
        Ok(())
    }

    /// Lets the backstops pass what the engine sends out of containers' namespaces: questions of its
    /// resolver.
    pub(super) fn exempt_engine(&self) -> Result<(), FleetError> {
        let Some(socket) = &self.ward.engine else {
            return Ok(());
        };
        let pids = engine::processes(socket).map_err(|source| CgroupError::Io {
            what: "find the processes of",
            path: socket.clone(),
            source,
        });
        let cgroups = pids?.into_iter().filter_map(|pid| {
            let path = cgroup_of(&pid.to_string())?;
            Cgroup::at(self.mount.join(path)).id().ok()
        });
        let cgroups: BTreeSet<u64> = cgroups.collect();
        if !cgroups.is_empty() {
            let all: Vec<u64> = cgroups.into_iter().collect();
            self.instance.pins.exempt(&all)?;
        }
        Ok(())
    }

    /// Sees to it that there is a backstop at each interface of an agent, and none where it had one.
    pub(super) fn stop_at_interfaces(&mut self, life: Life, sink: &mut Sink) {
        match self.try_stop(life) {
            Ok(()) => {
                self.ward.unstopped.remove(&life);
            }
            Err(FleetError::Kernel(KernelError::NoTcx)) => {
                if !std::mem::replace(&mut self.ward.no_tcx, true) {
                    sink.complain_once(&KernelError::NoTcx.to_string());
                }
            }
            Err(e) => {
                self.ward.unstopped.insert(life);
                sink.complain_once(&format!("no backstop: {e}; trying again"));
            }
        }
    }

    /// Goes on with what could not be done.
    pub(super) fn watch_over(&mut self, sink: &mut Sink) {
        if let Err(e) = self.guard_parents() {
            sink.complain_once(&e.to_string());
        }
        for life in self.ward.unstopped.clone() {
            self.stop_at_interfaces(life, sink);
        }
    }

    fn try_stop(&mut self, life: Life) -> Result<(), FleetError> {
        let (Some(m), Some(config)) = (self.roll.get(life), self.config(life)?) else {
            self.ward.unstopped.remove(&life);
            return Ok(());
        };
        let c = &m.container;
        let borrowed = |w: &Weakness| matches!(w, Weakness::HostNetwork | Weakness::SharedNetwork);
        let (Some(guard), false, false) = (
            self.guards.get(&life),
            self.ward.no_tcx,
            m.newborn || c.pid == 0 || c.weaknesses.iter().any(borrowed),
        ) else {
            return Ok(());
        };
        let name = link_name(guard.cgroup_id);
        let addresses = c.addresses.clone();
        let there = self.interfaces(c.pid, c.netns)?;
        for old in self.instance.pins.backstops(&name)? {
            if !old.attached || !there.contains(&old.interface) {
                self.instance.pins.lift(&name, old.interface)?;
            }
        }
        for interface in there {
            self.engine
                .backstop(&name, &config, interface, &addresses)?;
        }
        Ok(())
    }

    /// Our ends of a container's interfaces; none if its first process has another namespace by now.
    fn interfaces(&self, pid: u32, netns: Option<u64>) -> Result<Vec<u32>, FleetError> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let Ok(file) = File::open(&path) else {
            // It has ended.
            return Ok(Vec::new());
        };
        let looked = file.metadata().map_err(|source| CgroupError::Io {
            what: "look at",
            path: path.clone(),
            source,
        });
        if Some(looked?.ino()) != netns {
            return Ok(Vec::new());
        }
        Ok(host_sides(&file)?)
    }

    /// Removes the backstops of an attachment, in the maps as well.
    pub(super) fn lift_backstops(&self, cgroup_id: u64) -> Result<(), FleetError> {
        let name = link_name(cgroup_id);
        for old in self.instance.pins.backstops(&name)? {
            self.instance.pins.lift(&name, old.interface)?;
        }
        Ok(())
    }
}
