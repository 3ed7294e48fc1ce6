//! What has become of flows, by slot and verdict.

use crate::session::Debt;
use std::collections::BTreeMap;

/// Flows by slot and verdict.
#[derive(Debug, Default)]
pub(super) struct Flows(BTreeMap<(u32, u8), u64>);

impl Flows {
    pub(super) fn add(&mut self, debts: &[Debt]) {
        for d in debts {
            *self.0.entry((d.slot, d.verdict)).or_default() += d.flows;
        }
    }

    pub(super) fn take(&mut self) -> Vec<Debt> {
        let all = std::mem::take(&mut self.0).into_iter();
        let debt = |((slot, verdict), flows)| Debt {
            slot,
            verdict,
            flows,
        };
        all.map(debt).collect()
    }
}

/// What has become of flows that were handed over.
#[derive(Debug, Default)]
pub struct Settlement {
    /// They are kept.
    pub paid: Vec<Debt>,
    /// They are not, and never will be.
    pub refused: Vec<Debt>,
}
