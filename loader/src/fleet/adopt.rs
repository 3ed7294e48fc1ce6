//! Going on where a loader that is dead has ended: whoever it had enrolled stays under its policy and keeps
//! its slot, and what it knew and nobody else does is declared lost.

use super::{
    Fleet, FleetError, Guard,
    heir::{Heir, Old, is_nobodys},
    held::{Answer, Asking, OnRecord},
    roll::Stage,
};
use crate::{
    audit::{Event, GapCause, Kind},
    cgroup::Cgroup,
    docker::Container,
    enrol::text,
    instance::{Predecessor, Seat},
    kernel::linked_cgroup,
    record::Owner,
    resolvers::Place,
    session::{Debt, Flows, boot_id, boot_now},
    sink::Sink,
    weakness,
};
use abi::{INFO_TEXT, SlotInfo};
use std::{
    collections::{HashMap, HashSet},
    fs, io,
};

/// What is known of flows before this process reads.
pub(super) enum Past {
    /// There is nothing to find out.
    Clear,
    /// The bridge was asked.
    Asked(Asking),
}

/// A text of the kernel's, unless it was cut.
fn whole(field: &[u8; INFO_TEXT]) -> Option<String> {
    let said = text(field);
    (!said.is_empty() && said.len() < INFO_TEXT).then_some(said)
}

/// Whose a slot is. The lease has labels that are too long for the kernel's table.
pub(super) fn owner(info: &SlotInfo, lease: Option<&lease::Lease>) -> Owner {
    match lease {
        Some(lease) => Owner {
            agent: lease.agent.clone(),
            project: lease.project.clone(),
            container_id: Some(lease.container_id.clone()),
            container_name: Some(lease.name.clone()).filter(|name| !name.is_empty()),
        },
        None => Owner {
            agent: whole(&info.agent),
            project: whole(&info.project),
            container_id: Some(text(&info.container_id)).filter(|id| !id.is_empty()),
            container_name: whole(&info.container_name),
        },
    }
}

impl Fleet {
    /// Takes over from a set of programs of another version.
    pub(super) fn take_from(
        &mut self,
        before: Predecessor,
        sink: &mut Sink,
    ) -> Result<HashMap<u64, u32>, FleetError> {
        let seats = before.seats()?;
        let mut heir = Heir::new(&self.root, &mut self.rules, &mut self.session, &self.book);
        heir.meet(&seats);
        let (retired, remains) = before.hand_over(&mut self.engine, &mut heir)?;
        let placed = heir.placed;
        self.old = Some(Old::new(remains, retired, &mut self.session));
        let message = "programs of another version were replaced".to_owned();
        self.say_taken_over(message, sink);
        Ok(placed)
    }

    fn say_taken_over(&self, message: String, sink: &mut Sink) {
        let kind = Kind::TakenOver { message };
        sink.tell(&Event::now(&Owner::default(), kind));
    }

    /// Takes over whoever is enrolled. `placed`: policies of ours that they are under already, by cgroup.
    pub(super) fn adopt(
        &mut self,
        placed: &HashMap<u64, u32>,
        sink: &mut Sink,
    ) -> Result<(), FleetError> {
        let seats = self
            .instance
            .pins
            .infos()?
            .into_iter()
            .map(|(index, info)| {
                let config = self.engine.config(info.cgroup_id)?;
                Ok::<_, FleetError>(Seat {
                    index,
                    info,
                    config,
                })
            });
        let seats = seats.collect::<Result<Vec<_>, _>>()?;
        let mut kept = HashSet::new();
        for seat in &seats {
            let stays = self.seat(seat, placed, sink)?;
            kept.extend(stays.map(|id| (id, seat.info.slot)));
        }
        self.adopt_strays()?;
        self.book.keep(&kept)?;
        let used = self.used()?;
        self.instance.pins.policy()?.keep(&used)?;
        self.operators.adopt(&self.instance.pins)?;
        if !seats.is_empty() && placed.is_empty() {
            let agents = self.enrolled();
            let message = format!("{agents} agent(s) stay under the firewall");
            self.say_taken_over(message, sink);
        }
        Ok(())
    }

    /// Takes over one of them; the container's id if it goes on.
    fn seat(
        &mut self,
        seat: &Seat,
        placed: &HashMap<u64, u32>,
        sink: &mut Sink,
    ) -> Result<Option<String>, FleetError> {
        let info = &seat.info;
        let owner = owner(info, self.book.of_slot(info.slot));
        let cgroup = Cgroup::at(self.mount.join(text(&info.cgroup)));
        let config = seat.config.filter(|c| c.slot == info.slot);
        let here = cgroup.id().is_ok_and(|id| id == info.cgroup_id);
        let container = Container {
            id: owner.container_id.clone().unwrap_or_default(),
            name: owner.container_name.clone().unwrap_or_default(),
            agent: owner.agent.clone(),
            project: owner.project.clone(),
            cgroup: cgroup.path().to_owned(),
            weaknesses: weakness::of(info.weaknesses),
            ..Container::unknown()
        };
        let stage = if here && config.is_some() {
            Stage::Enrolled
        } else {
            Stage::Ended { since: boot_now() }
        };
        let life = self.roll.adopt(container, stage, seat.index, info.slot);
        self.session.admit(info.slot, seat.index, owner.clone());
        let ours = placed.get(&info.cgroup_id).copied();
        self.guards.insert(
            life,
            Guard {
                cgroup_id: info.cgroup_id,
                policy: ours,
                current: config.map_or(0, |c| c.policy),
                met: false,
            },
        );
        if stage != Stage::Enrolled {
            return Ok(None);
        }
        if let (None, Some(old)) = (ours, config) {
            // As after a change of the file: what cannot be put into force leaves the policy before it.
            let held = self.instance.pins.hold()?;
            let put = self.put(life, &owner, &old, Place::of(&old));
            drop(held);
            let outcome = put.map_err(|e| e.to_string());
            self.tell_put(&owner, &old, outcome, "a new loader reads it", sink);
        }
        Ok(owner.container_id)
    }

    /// Links to cgroups that have no slot: not yet, or not any more. Nothing passes there; they go with
    /// their cgroups.
    fn adopt_strays(&mut self) -> Result<(), FleetError> {
        let dir = self.instance.pins.dir().join("links");
        let entries = match fs::read_dir(&dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            r => r.map_err(|e| crate::instance::InstanceError::io("read", &dir, e))?,
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(cgroup_id) = name.to_str().and_then(linked_cgroup) else {
                continue;
            };
            if self.guards.values().any(|g| g.cgroup_id == cgroup_id) {
                continue;
            }
            let life = self.roll.adopt_stray();
            self.guards.insert(
                life,
                Guard {
                    cgroup_id,
                    policy: None,
                    current: 0,
                    met: true,
                },
            );
        }
        Ok(())
    }

    /// Begins to find out what the loader before has lost; until that can be found out nothing is handed
    /// over to the bridge.
    pub(super) fn begin(&mut self, adopted: bool, sink: &mut Sink) {
        self.session.admit(0, 0, Owner::default());
        let bridge = sink.export.as_ref().and_then(crate::export::Export::bridge);
        if let (true, Some(bridge)) = (adopted, bridge) {
            match Asking::start(bridge, boot_id()) {
                Ok(asking) => {
                    self.past = Past::Asked(asking);
                    return;
                }
                Err(e) => sink.complain_once(&format!("no thread to ask the bridge: {e}")),
            }
        }
        self.clear_past(adopted.then(|| self.written()), sink);
    }

    /// What our own count says that there is a record of; it may lack the last ones.
    fn written(&self) -> OnRecord {
        let mut all = OnRecord::new();
        for row in self.session.all_books() {
            all.insert(row.slot, row.recorded);
        }
        all.extend(self.old.iter().flat_map(Old::recorded));
        all
    }

    /// Goes on with finding out. To be called in every turn.
    pub(super) fn look_back(&mut self, sink: &mut Sink) -> Result<(), FleetError> {
        if let Past::Asked(asking) = &mut self.past {
            let held = match asking.answer() {
                Answer::Waits => return Ok(()),
                Answer::Here(held) => held,
                Answer::Broken => self.written(),
            };
            self.clear_past(Some(held), sink);
        }
        for (slot, lost) in self.session.reckoned() {
            let owner = self.roll.owner_of(slot);
            self.declare(&owner, slot, lost, sink);
        }
        if self
            .old
            .as_ref()
            .is_some_and(|old| old.is_told(&self.session))
            && let Some(old) = self.old.take()
        {
            old.remove(&mut self.session)?;
        }
        Ok(())
    }

    fn clear_past(&mut self, held: Option<OnRecord>, sink: &mut Sink) {
        self.past = Past::Clear;
        if let Some(mut held) = held {
            // The bridge counts by slot, and that of cgroups that are not enrolled is none.
            let written = self.written();
            let nobodys = written.into_iter().filter(|(slot, _)| is_nobodys(*slot));
            held.extend(nobodys);
            let of = |slot: u32| held.get(&slot).copied().unwrap_or_default();
            let slots: Vec<u32> = self.session.slots();
            for slot in slots {
                self.session.reckon(slot, of(slot));
            }
            if let Some(old) = &self.old {
                for (slot, owner, lost) in old.lost(&self.session, of) {
                    self.declare(&owner, slot, lost, sink);
                }
            }
        }
        if let Some(export) = &mut sink.export {
            export.start(&self.instance.id);
        }
    }

    fn declare(&mut self, owner: &Owner, slot: u32, lost: Flows, sink: &mut Sink) {
        for (verdict, flows) in (0..).zip(lost) {
            let debt = Debt {
                slot,
                verdict,
                flows,
            };
            self.gap(owner, debt, GapCause::Killed, sink);
        }
    }
}
