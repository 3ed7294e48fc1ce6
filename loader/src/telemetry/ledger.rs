//! Sums over all slots that never fall, made from books that come and go with their slots.

use abi::{SlotMetrics, VERDICTS, reason, trouble};
use std::collections::HashMap;

/// Counters of the kernel's books, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Flows that began.
    pub opened: u64,
    /// Flows that ended, by verdict.
    pub ended: [u64; VERDICTS],
    /// Flows that written records tell of, by verdict.
    pub recorded: [u64; VERDICTS],
    /// Denied flows by reason.
    pub denied: [u64; reason::COUNT],
    /// Counters of `abi::trouble`.
    pub trouble: [u64; trouble::COUNT],
    /// Flows refused in cgroups without a slot.
    pub unenrolled: u64,
}

impl Sums {
    /// Of one row of the books. Row 0 is that of cgroups without a slot.
    fn of(index: u32, row: &SlotMetrics) -> Self {
        if index == 0 {
            return Self {
                unenrolled: row.ended.iter().sum(),
                ..Self::default()
            };
        }
        Self {
            opened: row.opened,
            ended: row.ended,
            recorded: row.recorded,
            denied: row.denied,
            trouble: row.trouble,
            unenrolled: 0,
        }
    }

    /// Every counter, in one order.
    fn each(&mut self) -> impl Iterator<Item = &mut u64> {
        [&mut self.opened, &mut self.unenrolled]
            .into_iter()
            .chain(&mut self.ended)
            .chain(&mut self.recorded)
            .chain(&mut self.denied)
            .chain(&mut self.trouble)
    }

    /// Adds what has come on top since `before`.
    fn grow(&mut self, mut before: Self, mut now: Self) {
        let pairs = before.each().zip(now.each());
        for (sum, (before, now)) in self.each().zip(pairs) {
            *sum += now.saturating_sub(*before);
        }
    }
}

/// Adds up the books of slots while they exist, and keeps what they came to.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The last look at every slot that is there; slot 0 for row 0.
    seen: HashMap<u32, Sums>,
    sums: Sums,
}

/// Rows that belong to a slot, and row 0.
fn used<'r>(
    rows: impl IntoIterator<Item = (u32, &'r SlotMetrics)>,
) -> impl Iterator<Item = (u32, Sums)> {
    let used = |(index, row): &(u32, &SlotMetrics)| *index == 0 || row.slot != 0;
    let slot = |(index, row): (u32, &SlotMetrics)| {
        let slot = if index == 0 { 0 } else { row.slot };
        (slot, Sums::of(index, row))
    };
    rows.into_iter().filter(used).map(slot)
}

impl Ledger {
    /// Starts at zero where these rows of the books already count: those of an instance that was taken
    /// over from another loader.
    #[must_use]
    pub fn after<'r>(rows: impl IntoIterator<Item = (u32, &'r SlotMetrics)>) -> Self {
        Self {
            seen: used(rows).collect(),
            sums: Sums::default(),
        }
    }

    /// Takes a look at all rows of the books, by number. A slot that ends should be looked at once more
    /// before its row is freed, or its last counts are missing.
    pub fn look<'r>(&mut self, rows: impl IntoIterator<Item = (u32, &'r SlotMetrics)>) {
        let mut seen = HashMap::new();
        for (slot, now) in used(rows) {
            let before = self.seen.get(&slot).copied().unwrap_or_default();
            self.sums.grow(before, now);
            seen.insert(slot, now);
        }
        self.seen = seen;
    }

    /// The sums.
    #[must_use]
    pub fn sums(&self) -> &Sums {
        &self.sums
    }
}
