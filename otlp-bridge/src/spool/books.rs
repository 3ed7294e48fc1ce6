//! Sums by data stream, kept beside the records and changed in the same transactions.

use crate::incoming::Weight;
use std::collections::BTreeMap;

/// What a record costs beside its own bytes and its id: keys, rows, the share of a page that stays empty.
const OVERHEAD: u64 = 128;

/// What goes first when there is no room, and what never goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tier(pub(super) u8);

impl Tier {
    /// How many there are.
    pub(super) const ALL: usize = 4;
    /// Those that may be thrown away, first ones first.
    pub(super) const SHEDDABLE: [Self; 3] = [Self(0), Self(1), Self(2)];
    /// Declarations of loss. They are few, and without them records would vanish unsaid.
    pub(super) const DECLARED: Self = Self(3);

    pub(super) fn index(self) -> usize {
        usize::from(self.0).min(Self::ALL - 1)
    }
}

impl From<Weight> for Tier {
    fn from(weight: Weight) -> Self {
        match weight {
            Weight::Allowed => Self(0),
            Weight::Other => Self(1),
            Weight::Kept => Self(2),
        }
    }
}

/// What a record takes of the bound.
pub(super) fn size(id: &str, bytes: &[u8]) -> u64 {
    // The id is in the row and in the index of ids.
    bytes.len() as u64 + 2 * id.len() as u64 + OVERHEAD
}

/// Sums of one data stream. `kept = delivered + shed + pending + set aside`, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Book {
    /// Records ever taken.
    pub(super) kept: u64,
    /// Records that the receiver has.
    pub(super) delivered: u64,
    /// Records thrown away, and declared.
    pub(super) shed: u64,
    /// Records ever set aside.
    pub(super) aside_ever: u64,
    /// Records that wait, by tier.
    pub(super) records: [u64; Tier::ALL],
    /// What they take of the bound, by tier.
    pub(super) bytes: [u64; Tier::ALL],
    /// Records that are set aside now.
    pub(super) aside_records: u64,
    /// What they take of the bound.
    pub(super) aside_bytes: u64,
}

impl Book {
    /// Numbers in a row of the store.
    pub(super) const NUMBERS: usize = 6 + 2 * Tier::ALL;

    pub(super) fn numbers(&self) -> [u64; Self::NUMBERS] {
        let ([r0, r1, r2, r3], [b0, b1, b2, b3]) = (self.records, self.bytes);
        [
            self.kept,
            self.delivered,
            self.shed,
            self.aside_ever,
            self.aside_records,
            self.aside_bytes,
            r0,
            r1,
            r2,
            r3,
            b0,
            b1,
            b2,
            b3,
        ]
    }

    pub(super) fn pending(&self) -> u64 {
        self.records.iter().sum()
    }

    /// All that it takes of the bound.
    pub(super) fn total(&self) -> u64 {
        self.bytes.iter().sum::<u64>() + self.aside_bytes
    }

    pub(super) fn enter(&mut self, tier: Tier, size: u64) {
        self.kept += 1;
        self.records[tier.index()] += 1;
        self.bytes[tier.index()] += size;
    }

    /// One that was set aside waits again.
    pub(super) fn wait_again(&mut self, tier: Tier, size: u64) {
        self.aside_records = self.aside_records.saturating_sub(1);
        self.aside_bytes = self.aside_bytes.saturating_sub(size);
        self.records[tier.index()] += 1;
        self.bytes[tier.index()] += size;
    }

    pub(super) fn leave(&mut self, tier: Tier, size: u64) {
        let (records, bytes) = (
            &mut self.records[tier.index()],
            &mut self.bytes[tier.index()],
        );
        *records = records.saturating_sub(1);
        *bytes = bytes.saturating_sub(size);
    }
}

impl From<[u64; Book::NUMBERS]> for Book {
    fn from(n: [u64; Self::NUMBERS]) -> Self {
        let [
            kept,
            delivered,
            shed,
            aside_ever,
            aside_records,
            aside_bytes,
            r0,
            r1,
            r2,
            r3,
            b0,
            b1,
            b2,
            b3,
        ] = n;
        Self {
            kept,
            delivered,
            shed,
            aside_ever,
            records: [r0, r1, r2, r3],
            bytes: [b0, b1, b2, b3],
            aside_records,
            aside_bytes,
        }
    }
}

/// The sums of all data streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    /// Place of the next record.
    pub(super) next: u64,
    /// By data stream.
    pub(super) streams: BTreeMap<String, Book>,
    /// Losses that no record declares yet.
    pub(super) undeclared: u64,
}

impl Books {
    pub(super) fn book(&mut self, stream: &str) -> &mut Book {
        self.streams.entry(stream.to_owned()).or_default()
    }

    /// What everything takes of the bound.
    pub(super) fn total(&self) -> u64 {
        self.streams.values().map(Book::total).sum()
    }
}
