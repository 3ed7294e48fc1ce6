//! What is done to the kernel for one agent: attached, enrolled, moved.

use super::{
    Fleet, FleetError, Guard,
    roll::{Life, Member, Seen, Stage},
    rules::Placed,
};
use crate::{
    audit::{Event, Kind},
    cgroup::{Cgroup, CgroupError},
    docker::{Container, Weakness},
    enrol::{self, Identity, Way},
    kernel::{
        link_name,
        query::{self, Target},
    },
    resolvers::Place,
    session::boot_now,
    sink::Sink,
};
use abi::{SlotConfig, programs};
use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
};

/// In whose network namespace a container is. That of one that is being started is not known yet: the
/// machine's loopback must not be open to it meanwhile.
pub(super) fn place(m: &Member) -> Place {
    if m.newborn || m.container.weaknesses.contains(&Weakness::HostNetwork) {
        Place::Host
    } else {
        Place::Container
    }
}

impl Fleet {
    /// Somebody who is no agent.
    pub(super) fn meet(&mut self, life: Life) -> Result<(), FleetError> {
        if let Some(m) = self.roll.get(life) {
            self.book.begin(m, None)?;
        }
        Ok(())
    }

    /// Puts an agent under its policy; if there is none that could be, under one that denies everything.
    pub(super) fn enrol(&mut self, life: Life, sink: &mut Sink) -> Result<(), FleetError> {
        match self.open_slot(life, sink) {
            Ok(()) => {
                self.told.remove(&life);
                Ok(())
            }
            Err(e) => {
                self.roll.failed(life);
                // It may have ended already; then the engine will say so.
                let vanished = matches!(&e, FleetError::Cgroup(CgroupError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound);
                if !vanished {
                    self.tell_shut(life, format!("{e}; trying again"), sink);
                }
                Ok(())
            }
        }
    }

    fn open_slot(&mut self, life: Life, sink: &mut Sink) -> Result<(), FleetError> {
        let Some(member) = self.roll.get(life).cloned() else {
            return Ok(());
        };
        let Some(index) = member.index else {
            return Ok(());
        };
        let (owner, place) = (member.owner(), place(&member));
        let cgroup_id = self.attach(life, &member.container)?;
        let held = self.instance.pins.hold()?;
        let used = self.used()?;
        let placed = self.rules.place(&self.instance.pins, &owner, place, &used);
        let (placed, wrong) = match placed {
            Ok(placed) => (placed, None),
            // Never more than it might have had.
            Err(e) => {
                let nothing = self.rules.place_nothing(&self.instance.pins, &used)?;
                (nothing, Some(e.to_string()))
            }
        };
        let slot = self.root.draw_slot()?;
        let Placed {
            id,
            compiled,
            resolvers,
        } = placed;
        let config = enrol::config((slot, index), id, &compiled, &resolvers, place);
        let config = self.way(&member).lead(config);
        let identity = self.identity(&member, cgroup_id);
        // Before the first flow.
        self.session.renew_rules(id);
        self.session.admit(slot, index, owner.clone());
        let opened = self.engine.enrol(&identity.info(slot, boot_now()), &config);
        if let Err(e) = opened {
            self.rules.release(id);
            self.session.dismiss(slot, &self.instance.pins)?;
            return Err(e.into());
        }
        drop(held);
        if let Some(guard) = self.guards.get_mut(&life) {
            (guard.policy, guard.current) = (Some(id), id);
        }
        self.roll.enrolled(life, slot);
        self.announce(life, slot, wrong, sink)
    }

    /// Tells of an enrolled agent, and opens its lease.
    fn announce(
        &mut self,
        life: Life,
        slot: u32,
        wrong: Option<String>,
        sink: &mut Sink,
    ) -> Result<(), FleetError> {
        let Some(m) = self.roll.get(life) else {
            return Ok(());
        };
        let owner = m.owner();
        let message = if self.rules.name().is_empty() {
            "observed only, there is no policy".to_owned()
        } else {
            String::new()
        };
        sink.tell(&Event::now(&owner, Kind::Enrolled { slot, message }));
        if let Some(message) = wrong {
            let message = anstream::adapter::strip_str(&message).to_string();
            sink.tell(&Event::now(&owner, Kind::Shut { message }));
        }
        self.acquaint(life, sink)
    }

    /// Tells what weakens an agent, and opens its lease, once the engine has described it.
    fn acquaint(&mut self, life: Life, sink: &mut Sink) -> Result<(), FleetError> {
        let (Some(m), Some(guard)) = (self.roll.get(life), self.guards.get_mut(&life)) else {
            return Ok(());
        };
        if m.newborn || guard.met {
            return Ok(());
        }
        guard.met = true;
        let cgroup_id = guard.cgroup_id;
        if let Some(index) = m.index {
            let identity = self.identity(m, cgroup_id);
            enrol::describe(&self.instance.pins, index, &identity)?;
        }
        for w in &m.container.weaknesses {
            sink.tell(&Event::now(&m.owner(), Kind::weakness(*w)));
        }
        self.book.begin(m, Some(cgroup_id))?;
        self.stop_at_interfaces(life, sink);
        Ok(())
    }

    /// Attaches the programs to a container's cgroup, as far as they are not. Nothing passes until there is a
    /// slot; what an attempt that fails has attached stays, for the next one to complete. Returns the kernel's id of the cgroup.
    fn attach(&mut self, life: Life, c: &Container) -> Result<u64, FleetError> {
        let inside = c.cgroup.starts_with(&self.mount) && c.cgroup != self.mount;
        let dotted = c.cgroup.components().any(|part| part.as_os_str() == "..");
        if !inside || dotted {
            return Err(FleetError::Elsewhere {
                path: c.cgroup.clone(),
                root: self.mount.clone(),
            });
        }
        let cgroup = Cgroup::at(&c.cgroup);
        let dir = cgroup.open()?;
        // Of the directory that is open, not of the one that has its name by now.
        let id = dir.metadata().map_err(|source| CgroupError::Io {
            what: "look at cgroup",
            path: c.cgroup.clone(),
            source,
        });
        let cgroup_id = id?.ino();
        // Before anything is attached: whatever comes of it, somebody removes the links.
        let guard = self.guards.entry(life).or_insert(Guard {
            cgroup_id,
            policy: None,
            current: 0,
            met: false,
        });
        guard.cgroup_id = cgroup_id;
        self.engine.attach(&dir, &link_name(cgroup_id))?;
        Ok(cgroup_id)
    }

    /// An agent for whom there is no row: attached, and nothing passes.
    pub(super) fn shut(&mut self, life: Life, sink: &mut Sink) -> Result<(), FleetError> {
        let Some(container) = self.roll.get(life).map(|m| m.container.clone()) else {
            return Ok(());
        };
        let why = "as many agents are enrolled as --max-agents allows";
        self.tell_shut(life, why.to_owned(), sink);
        self.attach(life, &container).map(drop)
    }

    fn identity(&self, m: &Member, cgroup_id: u64) -> Identity {
        let below = m.container.cgroup.strip_prefix(&self.mount);
        Identity {
            agent: m.container.agent.clone(),
            project: m.container.project.clone(),
            command: m.container.name.clone(),
            policy_file: self.rules.name().to_owned(),
            cgroup: below.map_or(String::new(), |p| p.display().to_string()),
            cgroup_id,
            container_id: Some(m.container.id.clone()),
            container_name: Some(m.container.name.clone()),
            weaknesses: m.container.weaknesses.clone(),
        }
    }

    /// Ids of policies that slots are under.
    pub(super) fn used(&self) -> Result<BTreeSet<u32>, FleetError> {
        let mut used = BTreeSet::new();
        for guard in self.guards.values() {
            let config = self.engine.config(guard.cgroup_id)?;
            used.extend(config.filter(|c| c.slot != 0).map(|c| c.policy));
        }
        Ok(used)
    }

    /// The configuration of a life's slot, if it still has it.
    pub(super) fn config(&self, life: Life) -> Result<Option<SlotConfig>, FleetError> {
        let (Some(guard), Some(m)) = (self.guards.get(&life), self.roll.get(life)) else {
            return Ok(None);
        };
        let config = self.engine.config(guard.cgroup_id)?;
        Ok(config.filter(|c| Some(c.slot) == m.slot))
    }

    /// The engine says something new of somebody.
    pub(super) fn renew(&mut self, life: Life, sink: &mut Sink) -> Result<(), FleetError> {
        let Some(m) = self.roll.get(life).cloned() else {
            return Ok(());
        };
        if self.has_another_cgroup(life, &m) {
            let steps = self.roll.again(life, boot_now());
            self.carry_out(steps, sink);
            return Ok(());
        }
        if let Some((slot, index)) = m.slot.zip(m.index) {
            self.session.admit(slot, index, m.owner());
            self.move_to(life, &m)?;
        }
        match (m.stage, self.guards.get(&life)) {
            (Stage::Bystander, _) => self.book.renew(&m)?,
            (_, Some(guard)) if guard.met => {
                self.book.renew(&m)?;
                if let Some(index) = m.index {
                    let identity = self.identity(&m, guard.cgroup_id);
                    enrol::describe(&self.instance.pins, index, &identity)?;
                }
                self.stop_at_interfaces(life, sink);
            }
            (Stage::Enrolled, Some(_)) => self.acquaint(life, sink)?,
            // A lease that was not opened yet begins with what is known then.
            _ => {}
        }
        Ok(())
    }

    /// Whether the directory of a life's cgroup is not the one that it was attached to: a container that
    /// was started anew has another one of the same name.
    fn has_another_cgroup(&self, life: Life, m: &Member) -> bool {
        let Some(guard) = self.guards.get(&life).filter(|_| m.is_alive()) else {
            return false;
        };
        let id = Cgroup::at(&m.container.cgroup).id();
        id.is_ok_and(|id| id != guard.cgroup_id)
    }

    /// The ways to the proxies: for whoever shares a network with them.
    pub(super) fn way(&self, m: &Member) -> Way {
        let near = |p: IpAddr| m.container.networks.iter().any(|n| n.contains(&p));
        Way::to(&self.lead, |p| {
            (place(m) == Place::Host && !m.newborn) || near(p)
        })
    }

    /// Sees to it that an agent is under what belongs to its network namespace and its networks.
    fn move_to(&mut self, life: Life, m: &Member) -> Result<(), FleetError> {
        let (place, way) = (place(m), self.way(m));
        let moved = |c: &SlotConfig| Place::of(c) != place || Way::of(c) != way;
        let Some(old) = self.config(life)?.filter(moved) else {
            return Ok(());
        };
        let _held = self.instance.pins.hold()?;
        self.put(life, &m.owner(), &old, place).map(drop)
    }

    pub(super) fn end(&mut self, life: Life, at: Option<i64>) {
        self.told.remove(&life);
        if let Some(m) = self.roll.get(life) {
            self.book.end(&m.container.id, at);
        }
    }

    /// What the kernel shows of everybody.
    pub(super) fn see(&mut self) -> Result<Seen, FleetError> {
        let sockets = self.session.live(&self.instance.pins)?;
        // Where the kernel cannot, they time out; nothing of them passes either way.
        let _ = self.instance.pins.destroy(&sockets.cut);
        let live = sockets.live.iter().map(|l| l.flow.slot);
        let busy: HashSet<u32> = live.chain(sockets.cut.values().copied()).collect();
        let dead = || self.roll.iter().filter(|(_, m)| !m.is_alive());
        let asked = self.roll.iter().filter(|(_, m)| m.newborn || !m.is_alive());
        let gone = asked.filter(|(life, _)| self.is_gone(*life));
        let owes = |slot: &u32| self.session.owes(*slot);
        Ok(Seen {
            gone: gone.map(|(life, _)| life).collect(),
            busy,
            owed: dead().filter_map(|(_, m)| m.slot).filter(owes).collect(),
        })
    }

    /// Whether the kernel has let go of a life's cgroup, which it does when the last socket is gone.
    pub(super) fn is_gone(&self, life: Life) -> bool {
        let Some(guard) = self.guards.get(&life) else {
            return true;
        };
        let links = self.instance.pins.links_of(guard.cgroup_id);
        let attached = programs::CGROUP.map(|program| links.join(program));
        let mut attached = attached.iter().filter(|link| link.exists());
        attached.next().is_none_or(|link| {
            let target = query::link(link).map(|l| l.target);
            matches!(target, Ok(Target::Cgroup { id: 0, .. }))
        })
    }
}
