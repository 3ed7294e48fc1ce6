//! What is done to the kernel when an agent has ended: closed, freed, unpinned.

use super::{Fleet, FleetError, Guard, heir::told_as, roll::Life};
use crate::{
    audit::{Event, GapCause, Kind},
    record::{Owner, VERDICTS},
    session::{Debt, UNSEEN, boot_id},
    sink::Sink,
};
use abi::close;
use std::{fs, io};

impl Fleet {
    /// Whether another life has the same cgroup, as with a runtime that keeps it over a restart.
    fn is_shared(&self, life: Life, cgroup_id: u64) -> bool {
        let same = |(l, g): (&Life, &Guard)| *l != life && g.cgroup_id == cgroup_id;
        self.guards.iter().any(same)
    }

    /// Ends what is left of these, and takes their slots away: what they still hold passes no more.
    pub(super) fn close(&mut self, lives: &[Life]) -> Result<(), FleetError> {
        let slots: Vec<(Life, u32)> = lives
            .iter()
            .filter_map(|l| Some((*l, self.roll.get(*l)?.slot?)))
            .collect();
        let left: Vec<_> = slots.iter().filter(|(l, _)| !self.is_gone(*l)).collect();
        for (life, slot) in &left {
            self.session.end_flows(*slot, close::CONTAINER_EXIT)?;
            if let Some(guard) = self.guards.get(life)
                && !self.is_shared(*life, guard.cgroup_id)
            {
                self.engine.bar(guard.cgroup_id)?;
            }
            // Its marks go with it: neither guard nor backstop lets anything of it pass.
            if let Some(index) = self.roll.get(*life).and_then(|m| m.index) {
                self.instance.pins.retire(index)?;
            }
        }
        self.session.settle()?;
        // Flows that began in between.
        for (_, slot) in &left {
            self.session.end_flows(*slot, close::CONTAINER_EXIT)?;
        }
        Ok(())
    }

    /// Says what is in no record of an agent of whom everything else is told, and frees its row once that is kept, too: a
    /// loader that is killed before finds it there.
    pub(super) fn free(&mut self, life: Life, sink: &mut Sink) -> Result<(), FleetError> {
        let Some(m) = self.roll.get(life) else {
            return Ok(());
        };
        let (owner, Some((slot, index))) = (m.owner(), m.slot.zip(m.index)) else {
            return Ok(());
        };
        let astray = self.session.lost(slot);
        if let Some(unkept) = self.session.last_words(slot) {
            for (verdict, flows) in (0..).zip(unkept) {
                let debt = Debt {
                    slot,
                    verdict,
                    flows,
                };
                self.gap(&owner, debt, GapCause::Refused, sink);
            }
            let debt = Debt {
                slot,
                verdict: UNSEEN,
                flows: astray,
            };
            self.gap(&owner, debt, GapCause::Unseen, sink);
        }
        if self.session.owes(slot) {
            self.roll.not_free(life);
            return Ok(());
        }
        sink.tell(&Event::now(&owner, Kind::Left { slot }));
        self.count.look(&self.session);
        self.operators.left(index, sink);
        self.session.dismiss(slot, &self.instance.pins)?;
        self.instance.pins.retire(index)?;
        self.engine.free(index)?;
        let guard = self.guards.get_mut(&life);
        if let Some(policy) = guard.and_then(|g| g.policy.take()) {
            self.rules.release(policy);
        }
        self.roll.freed(life);
        Ok(())
    }

    /// Declares flows lost, if there are any.
    pub(super) fn gap(&mut self, owner: &Owner, debt: Debt, cause: GapCause, sink: &mut Sink) {
        if debt.flows > 0 {
            self.count.lost(debt.flows);
            let gap = Kind::Gap {
                boot: boot_id(),
                slot: told_as(debt.slot),
                verdict: VERDICTS.get(usize::from(debt.verdict)).copied(),
                flows: debt.flows,
                cause,
            };
            let kept = sink.declare(&Event::now(owner, gap), debt);
            self.session.declared(debt, kept);
        }
    }

    /// Removes the links of a cgroup that the kernel has let go of.
    pub(super) fn unpin(&mut self, life: Life) -> Result<(), FleetError> {
        self.told.remove(&life);
        let Some(guard) = self.guards.remove(&life) else {
            return Ok(());
        };
        if self.guards.values().any(|g| g.cgroup_id == guard.cgroup_id) {
            return Ok(());
        }
        self.ward.forget(life);
        self.lift_backstops(guard.cgroup_id)?;
        let links = self.instance.pins.links_of(guard.cgroup_id);
        match fs::remove_dir_all(&links) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(crate::instance::InstanceError::io("remove", links, e).into())
            }
            _ => Ok(()),
        }
    }
}
