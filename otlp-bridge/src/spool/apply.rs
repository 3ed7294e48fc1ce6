//! What one transaction does: keeps batches, settles what was delivered, throws away what has no room,
//! and declares it.

use super::{
    again::{self, Returned},
    books::{Books, Tier, size},
    handed::Handed,
    notice::{self, Cause},
    shed,
    tables::{Key, Tables},
};
use crate::incoming::{BatchId, Flows, Incoming};
use jiff::Timestamp;
use redb::{Error, ReadableTable as _, ReadableTableMetadata as _};
use std::{collections::BTreeMap, sync::Mutex};
use wire::stream;

/// Senders that are remembered. Each is one run of a loader.
const SENDERS_MOST: u64 = 1024;
/// Boots whose flows are remembered: the counts of the kernel end with the boot.
const BOOTS_MOST: u64 = 8;

/// What became of a record that was handed out.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    pub(super) stream: String,
    pub(super) tier: Tier,
    pub(super) place: u64,
    /// Set aside, with the reason; delivered without.
    pub(super) aside: Option<String>,
}

/// A batch to keep.
#[derive(Debug)]
pub(super) struct Keep {
    pub(super) batch: Option<BatchId>,
    pub(super) records: Vec<Incoming>,
}

/// What a transaction must stay within.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within {
    pub(super) bytes: u64,
    /// What it means that this is exceeded.
    pub(super) cause: Cause,
    /// What may be thrown away then, first ones first.
    pub(super) tiers: &'static [Tier],
    /// Set-aside records may take this much.
    pub(super) aside_bytes: u64,
    /// Records older than this go (ms since 1970).
    pub(super) oldest: u64,
}

/// One transaction in the making.
pub(super) struct Apply<'a, 't> {
    pub(super) tables: &'a mut Tables<'t>,
    pub(super) books: Books,
    pub(super) handed: &'a Mutex<Handed>,
    pub(super) now: Timestamp,
    held: BTreeMap<(String, u32, String), u64>,
}

/// Milliseconds since 1970.
pub(super) fn millis(t: Timestamp) -> u64 {
    u64::try_from(t.as_millisecond()).unwrap_or(0)
}

impl<'a, 't> Apply<'a, 't> {
    pub(super) fn new(
        tables: &'a mut Tables<'t>,
        books: &Books,
        handed: &'a Mutex<Handed>,
        now: Timestamp,
    ) -> Self {
        Self {
            tables,
            books: books.clone(),
            handed,
            now,
            held: BTreeMap::new(),
        }
    }

    /// Does all of it, and returns the sums afterwards, and which records wait again because what was set
    /// aside is to be tried `again`.
    pub(super) fn run(
        mut self,
        before: &Books,
        (keeps, again): (&[Keep], bool),
        settled: &[Settled],
        within: Within,
    ) -> Result<(Books, Vec<Returned>), Error> {
        let mut returned = Vec::new();
        if again {
            returned = again::put_back(&mut self)?;
        }
        for s in settled {
            self.settle(s)?;
        }
        for keep in keeps {
            self.keep(keep)?;
        }
        self.count_held()?;
        shed::shed(&mut self, within)?;
        shed::declare(&mut self)?;
        self.tables.save(before, &self.books)?;
        Ok((self.books, returned))
    }

    fn keep(&mut self, keep: &Keep) -> Result<(), Error> {
        if let Some(batch) = &keep.batch
            && !self.first_time(batch)?
        {
            return Ok(());
        }
        for record in &keep.records {
            self.enter(record, Tier::from(record.weight))?;
        }
        Ok(())
    }

    /// Takes a record in, unless its id is here already.
    pub(super) fn enter(&mut self, record: &Incoming, tier: Tier) -> Result<(), Error> {
        let Incoming { stream, id, .. } = record;
        if self.tables.ids.insert(id.as_str(), ())?.is_some() {
            return Ok(());
        }
        let flows = record.flows.as_ref();
        let flows_row = flows.map(|f| (f.boot.as_str(), f.slot, f.verdict.as_str(), f.count));
        let row = (
            millis(self.now),
            id.as_str(),
            flows_row,
            record.bytes.as_slice(),
        );
        let place = self.books.next;
        self.books.next += 1;
        let key: Key<'_> = (stream, tier.0, place);
        self.tables.records.insert(key, row)?;
        self.books.book(stream).enter(tier, size(id, &record.bytes));
        if let Some(f) = flows {
            self.hold(f);
        }
        Ok(())
    }

    fn hold(&mut self, f: &Flows) {
        let key = (f.boot.clone(), f.slot, f.verdict.clone());
        let held = self.held.entry(key).or_default();
        *held = held.saturating_add(f.count);
    }

    /// Notes a batch; false if it was kept before. A sender may have several under way, so they may come
    /// out of order: the last 128 are told apart, older ones count as kept.
    fn first_time(&mut self, batch: &BatchId) -> Result<bool, Error> {
        let found = self.tables.senders.get(batch.sender.as_str())?;
        let (last, window, _) = found.map_or((0, 0, 0), |row| row.value());
        let (last, window) = if batch.number > last {
            let by = u32::try_from(batch.number - last).unwrap_or(u32::MAX);
            (batch.number, window.checked_shl(by).unwrap_or(0) | 1)
        } else {
            let back = u32::try_from(last - batch.number).unwrap_or(u32::MAX);
            let bit = 1u128.checked_shl(back).unwrap_or(0);
            if bit == 0 || window & bit != 0 {
                return Ok(false);
            }
            (last, window | bit)
        };
        // One that comes back after long is not among those that are forgotten.
        let seen = self.books.next;
        let sender = batch.sender.as_str();
        let new = self
            .tables
            .senders
            .insert(sender, (last, window, seen))?
            .is_none();
        if new && self.tables.senders.len()? > SENDERS_MOST {
            let mut oldest: Option<(u64, String)> = None;
            for entry in self.tables.senders.iter()? {
                let (name, row) = entry?;
                let (seen, name) = (row.value().2, name.value());
                if name != sender && oldest.as_ref().is_none_or(|(s, _)| seen < *s) {
                    oldest = Some((seen, name.to_owned()));
                }
            }
            if let Some((_, name)) = oldest {
                self.tables.senders.remove(name.as_str())?;
            }
        }
        Ok(true)
    }

    /// Adds the flows of this transaction to those ever kept.
    fn count_held(&mut self) -> Result<(), Error> {
        let held = std::mem::take(&mut self.held);
        for ((boot, slot, verdict), count) in held {
            let key = (boot.as_str(), slot, verdict.as_str());
            let before = self.tables.held.get(key)?.map_or(0, |n| n.value());
            self.tables.held.insert(key, before.saturating_add(count))?;
            let seen = self.books.next;
            let new = self.tables.boots.insert(boot.as_str(), seen)?.is_none();
            if new && self.tables.boots.len()? > BOOTS_MOST {
                self.forget_a_boot(&boot)?;
            }
        }
        Ok(())
    }

    fn forget_a_boot(&mut self, but_not: &str) -> Result<(), Error> {
        let mut oldest: Option<(u64, String)> = None;
        for entry in self.tables.boots.iter()? {
            let (name, seen) = entry?;
            let (seen, name) = (seen.value(), name.value());
            if name != but_not && oldest.as_ref().is_none_or(|(s, _)| seen < *s) {
                oldest = Some((seen, name.to_owned()));
            }
        }
        if let Some((_, boot)) = oldest {
            self.tables.boots.remove(boot.as_str())?;
            self.tables.held.retain(|(b, _, _), _| b != boot.as_str())?;
        }
        Ok(())
    }

    fn settle(&mut self, s: &Settled) -> Result<(), Error> {
        let key: Key<'_> = (&s.stream, s.tier.0, s.place);
        let Some(row) = self.tables.records.remove(key)? else {
            return Ok(());
        };
        let (kept, id, flows, bytes) = row.value();
        let (size, book) = (size(id, bytes), self.books.book(&s.stream));
        book.leave(s.tier, size);
        let Some(text) = &s.aside else {
            book.delivered += 1;
            self.tables.ids.remove(id)?;
            return Ok(());
        };
        book.aside_ever += 1;
        book.aside_records += 1;
        book.aside_bytes += size;
        let aside = (s.tier.0, text.as_str(), (kept, id, flows, bytes));
        self.tables
            .aside
            .insert((s.stream.as_str(), s.place), aside)?;
        let notice = notice::set_aside(&s.stream, id, bytes, text, self.now);
        drop(row);
        // A stream that announced its own poison could go on for ever.
        if s.stream == stream::OVERSEER {
            return Ok(());
        }
        self.enter(&notice, Tier::from(notice.weight))
    }
}
