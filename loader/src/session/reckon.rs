//! What a loader that was killed has lost: flows that it had taken out of the kernel, and that nobody has
//! on record.
//!
//! Of each slot and verdict `ended = held + lost + taken + left`: what is on record of the loader before,
//! what is lost, what this process has taken out of the kernel, and what is still in it. `ended` is read
//! before the kernel is emptied and afterwards; what ends in between makes the two differ, and some turns
//! close in on `lost` however much goes on.

use super::{Session, Tenant, at};
use crate::kernel::KernelError;
use abi::{SlotMetrics, VERDICTS};

/// Flows by verdict.
pub type Flows = [u64; VERDICTS];

/// What is known of the flows that were lost of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reckoning {
    held: Flows,
    least: Flows,
    most: Flows,
}

fn beyond(ended: u64, told: u64) -> u64 {
    ended.saturating_sub(told)
}

impl Reckoning {
    fn new(held: Flows) -> Self {
        Self {
            held,
            least: [0; VERDICTS],
            most: [u64::MAX; VERDICTS],
        }
    }

    /// `ended` as it was before the kernel was emptied of all that had ended by then.
    fn before(&mut self, ended: Flows, taken: Flows) {
        for v in 0..VERDICTS {
            let lost = beyond(ended[v], self.held[v].saturating_add(taken[v]));
            self.least[v] = self.least[v].max(lost);
        }
    }

    /// `ended` as it is after something was taken.
    fn after(&mut self, ended: Flows, taken: Flows) {
        for v in 0..VERDICTS {
            let lost = beyond(ended[v], self.held[v].saturating_add(taken[v]));
            self.most[v] = self.most[v].min(lost);
        }
    }

    /// How many, once there is no doubt left.
    fn lost(&self) -> Option<Flows> {
        (self.least == self.most).then_some(self.least)
    }
}

/// Books of the slots that are reckoned with, as they are before a turn.
#[derive(Debug, Default)]
pub(super) struct Before(Vec<(u32, Flows)>);

impl Session {
    /// Begins to find out what was lost of a slot that was taken over, before anything of it is read.
    /// `held`: flows of which there is a record, or a declaration that they are lost.
    pub fn reckon(&mut self, slot: u32, held: Flows) {
        if let Some(tenant) = self.tenants.get_mut(&slot) {
            tenant.reckoning = Some(Reckoning::new(held));
            if let Some(index) = tenant.index {
                self.rings.set_recorded(index, held);
            }
        }
    }

    /// What was lost of a slot whose programs are gone: its books say nothing new any more.
    #[must_use]
    pub fn lost_of_old(&self, slot: u32, ended: Flows, held: Flows) -> Flows {
        let taken = self.tenants.get(&slot).map_or([0; VERDICTS], |t| t.taken);
        std::array::from_fn(|v| beyond(ended[v], held[v].saturating_add(taken[v])))
    }

    /// Slots of which it has become clear what was lost, each once. It is owed until it is [`Session::declared`] and kept.
    pub fn reckoned(&mut self) -> Vec<(u32, Flows)> {
        let mut clear = Vec::new();
        for (slot, tenant) in &mut self.tenants {
            let Some(lost) = tenant.reckoning.and_then(|r| r.lost()) else {
                continue;
            };
            tenant.reckoning = None;
            clear.push((*slot, lost));
        }
        clear
    }

    /// To be called before the kernel is emptied.
    pub(super) fn before(&self) -> Result<Before, KernelError> {
        let reckons = |t: &&Tenant| t.reckoning.is_some();
        if !self.tenants.values().any(|t| reckons(&t)) {
            return Ok(Before::default());
        }
        let asked = self.tenants.iter().filter(|(_, t)| t.reckoning.is_some());
        let ended = asked.filter_map(|(slot, t)| Some((*slot, self.ended(t)?)));
        let before = Before(ended.collect());
        // What had ended is in a ring or folded when every program run of that time is over.
        self.rings.settle()?;
        Ok(before)
    }

    /// To be called when something was taken out of the kernel; `all`: everything that was there.
    pub(super) fn after(&mut self, before: &Before, all: bool) {
        for (slot, ended_before) in &before.0 {
            let now = self.tenants.get(slot).and_then(|t| self.ended(t));
            let Some(tenant) = self.tenants.get_mut(slot) else {
                continue;
            };
            let taken = tenant.taken;
            if let Some(r) = &mut tenant.reckoning {
                if all {
                    r.before(*ended_before, taken);
                }
                r.after(now.unwrap_or(*ended_before), taken);
            }
        }
    }

    fn ended(&self, tenant: &Tenant) -> Option<Flows> {
        let row: SlotMetrics = self.rings.books().row(tenant.index?)?;
        Some(row.ended)
    }

    /// Notes flows that have left the kernel.
    pub(super) fn note_taken(&mut self, slot: u32, verdict: u8, flows: u64) {
        if let Some(tenant) = self.tenants.get_mut(&slot) {
            tenant.taken[at(verdict)] += flows;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever ends, is taken and stays in the kernel in each turn, the answer is the truth, and
        /// there is one as soon as a turn passes in which nothing ends.
        #[test]
        fn turns_close_in_on_what_was_lost(
            held in 0..1000u64,
            lost in 0..50u64,
            turns in prop::collection::vec((0..9u64, 0..9u64, any::<bool>(), 0..9u64), 0..40),
        ) {
            let (mut ended, mut taken, mut left) = (held + lost, 0, 0);
            let mut r = Reckoning::new([held, 0, 0]);
            let all = |n| [n, 0, 0];
            let turn = |r: &mut Reckoning, ended: &mut u64, taken: &mut u64, left: &mut u64, (pre, during, whole, some): (u64, u64, bool, u64)| {
                *ended += pre;
                *left += pre;
                let before = *ended;
                // What ends during a turn may be taken in it or not.
                *ended += during;
                *left += during;
                let min = if whole { *left - during.min(*left) } else { 0 };
                let take = (min + some).min(*left);
                *left -= take;
                *taken += take;
                if whole {
                    r.before(all(before), all(*taken));
                }
                r.after(all(*ended), all(*taken));
            };
            for t in turns {
                turn(&mut r, &mut ended, &mut taken, &mut left, t);
                prop_assert!(r.least[0] <= lost && lost <= r.most[0], "{r:?}");
                if let Some(found) = r.lost() {
                    prop_assert_eq!(found, all(lost));
                }
            }
            turn(&mut r, &mut ended, &mut taken, &mut left, (3, 0, true, 0));
            prop_assert_eq!(r.lost(), Some(all(lost)));
        }
    }
}
