//! Handing records out: folded rows, and what becomes of all of them.

use super::{Debt, Session, UNSEEN};
use crate::{
    control::Tap,
    kernel::KernelError,
    record::Record,
    render::summary::Summary,
    sink::{Kept, Sink},
};

impl Session {
    /// Hands out folded rows: those that wait, then what the kernel has. Never takes more from the kernel
    /// while some wait. Whether it has taken all, and how many rows were handed out.
    pub(super) fn pump_folds(
        &mut self,
        sink: &mut Sink,
        mut summary: Option<&mut Summary>,
    ) -> Result<(bool, usize), KernelError> {
        let takes = self.waiting.is_empty() && sink.has_room();
        if takes {
            for (key, row) in self.rings.folds()? {
                self.note_taken(key.slot, key.verdict, row.count);
                self.waiting.push_back((key, row));
            }
        }
        let mut n = 0;
        while sink.has_room() {
            let Some((key, row)) = self.waiting.pop_front() else {
                break;
            };
            n += 1;
            let tenant = self.tenants.get_mut(&key.slot);
            let (context, index) = tenant
                .as_ref()
                .map_or((&self.nobody, Some(0)), |t| (&t.context, t.index));
            let record = context.folded(&key, &row, &mut self.names);
            let debt = Debt {
                slot: key.slot,
                verdict: key.verdict,
                flows: row.count,
            };
            let kept = deliver(&record, debt, sink, summary.as_deref_mut(), &mut self.tap);
            if let (Kept::Yes, Some(index)) = (kept, index) {
                self.rings.recorded(index, key.slot, key.verdict, row.count);
            }
            if let Some(tenant) = tenant {
                tenant.note(kept, key.verdict, row.count);
            }
        }
        Ok((takes, n))
    }

    /// Notes what the receiver has confirmed since, and what it has refused.
    pub fn settle_debts(&mut self, sink: &mut Sink) {
        let Some(export) = &mut sink.export else {
            return;
        };
        let settled = export.settled();
        for d in settled.paid {
            self.record(d);
            if let Some(tenant) = self.tenants.get_mut(&d.slot) {
                tenant.paid(d);
            }
        }
        for d in settled.refused {
            if let Some(tenant) = self.tenants.get_mut(&d.slot) {
                tenant.refused(d);
            }
        }
    }

    /// Notes what has become of a record that declares flows lost. They count as recorded once it is kept.
    pub fn declared(&mut self, debt: Debt, kept: Kept) {
        if kept == Kept::Yes {
            self.record(debt);
        }
        if let Some(tenant) = self.tenants.get_mut(&debt.slot) {
            tenant.note(kept, debt.verdict, debt.flows);
        }
    }

    fn record(&self, d: Debt) {
        let tenant = self.tenants.get(&d.slot);
        let index = tenant.map_or(Some(0), |t| t.index);
        if let Some(index) = index.filter(|_| d.verdict != UNSEEN) {
            self.rings.recorded(index, d.slot, d.verdict, d.flows);
        }
    }
}

/// Hands a record out; whether it is kept.
pub(super) fn deliver(
    record: &Record,
    debt: Debt,
    sink: &mut Sink,
    summary: Option<&mut Summary>,
    tap: &mut Tap,
) -> Kept {
    if let Some(summary) = summary {
        summary.add(record);
    }
    tap.ended(record);
    sink.write(record, debt)
}
