//! Slots of a set of programs before this one, whose last records come all at once.

use super::{Context, Debt, Owner, Session, Tenant, hand_out::deliver};
use crate::{record::Record, render::summary::Summary, sink::Sink};

impl Session {
    /// Says whom a slot of the old set belongs to, and for whom its records are made.
    pub fn admit_old(&mut self, slot: u32, owner: Owner) -> Context {
        let context = Context {
            owner,
            ..self.nobody.clone()
        };
        let tenant = Tenant::new(context.clone(), None);
        self.tenants.insert(slot, tenant);
        context
    }

    /// Whether somebody has said whom a slot belongs to.
    #[must_use]
    pub fn is_read(&self, slot: u32) -> bool {
        self.tenants.contains_key(&slot)
    }

    /// Takes the record of a flow that the old set has ended, until there is room for it.
    pub fn inherit(&mut self, record: Record, debt: Debt) {
        self.note_taken(debt.slot, debt.verdict, debt.flows);
        self.inherited.push_back((record, debt));
    }

    /// Whether every record of an old slot was handed out, and it is known what became of it; of what was declared lost, too.
    #[must_use]
    pub fn is_settled(&self, slot: u32) -> bool {
        let waits = self.inherited.iter().any(|(_, debt)| debt.slot == slot);
        !waits && self.tenants.get(&slot).is_none_or(|t| t.open == 0)
    }

    /// Whose a slot is.
    #[must_use]
    pub fn owner(&self, slot: u32) -> Owner {
        let tenant = self.tenants.get(&slot);
        tenant.map_or_else(Owner::default, |t| t.context.owner.clone())
    }

    /// Every slot of this set of programs that is read.
    #[must_use]
    pub fn slots(&self) -> Vec<u32> {
        let ours = self.tenants.iter().filter(|(_, t)| t.index.is_some());
        ours.map(|(slot, _)| *slot).collect()
    }

    /// Forgets an old slot.
    pub fn dismiss_old(&mut self, slot: u32) {
        self.tenants.remove(&slot);
    }

    /// Hands out what waits, while there is room; how many records.
    pub(super) fn pump_inherited(
        &mut self,
        sink: &mut Sink,
        mut summary: Option<&mut Summary>,
    ) -> usize {
        let mut n = 0;
        while sink.has_room() {
            let Some((record, debt)) = self.inherited.pop_front() else {
                break;
            };
            n += 1;
            let kept = deliver(&record, debt, sink, summary.as_deref_mut(), &mut self.tap);
            if let Some(tenant) = self.tenants.get_mut(&debt.slot) {
                tenant.note(kept, debt.verdict, debt.flows);
            }
        }
        n
    }
}
