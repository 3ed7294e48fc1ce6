//! Taking over from programs of another version: their slots go on as ours, their last records are handed
//! out, and their pins go when it is known what has become of these.

use super::{adopt::owner, book::Book, rules::Rules};
use crate::{
    enrol,
    instance::{InstanceError, OldNames, Remains, Retired, Root, Seat, Successor},
    kernel::Engine,
    record::{Context, Owner, Record},
    resolvers::Place,
    session::{Debt, Flows, Session},
};
use abi::{FlowEvent, FoldKey, FoldRow, SlotConfig, SlotInfo, SlotMetrics};
use std::{
    collections::{BTreeSet, HashMap},
    io,
};
use zerocopy::FromZeros as _;

/// Stands for slot 0 of the old set, the flows of cgroups that were not enrolled: it is none of ours.
const NOBODYS: u32 = u32::MAX;

fn known_as(slot: u32) -> u32 {
    if slot == 0 { NOBODYS } else { slot }
}

/// What records call the slot with this number of ours.
pub(super) fn told_as(slot: u32) -> u32 {
    if slot == NOBODYS { 0 } else { slot }
}

/// Whether flows under this number are of no slot.
pub(super) fn is_nobodys(slot: u32) -> bool {
    slot == 0 || slot == NOBODYS
}

/// The loader that takes over.
pub(super) struct Heir<'a> {
    root: &'a Root,
    rules: &'a mut Rules,
    session: &'a mut Session,
    book: &'a Book,
    /// For whom records of old slots are made.
    contexts: HashMap<u32, Context>,
    /// Policies that cgroups were put under.
    pub(super) placed: HashMap<u64, u32>,
}

impl<'a> Heir<'a> {
    pub(super) fn new(
        root: &'a Root,
        rules: &'a mut Rules,
        session: &'a mut Session,
        book: &'a Book,
    ) -> Self {
        Self {
            root,
            rules,
            session,
            book,
            contexts: HashMap::new(),
            placed: HashMap::new(),
        }
    }

    /// Says whose the old slots are.
    pub(super) fn meet(&mut self, seats: &[Seat]) {
        let owners = seats.iter().map(|seat| {
            let slot = seat.info.slot;
            (slot, owner(&seat.info, self.book.of_slot(slot)))
        });
        for (slot, owner) in owners.chain([(NOBODYS, Owner::default())]) {
            let context = self.session.admit_old(slot, owner);
            self.contexts.insert(slot, context);
        }
    }

    fn inherit(
        &mut self,
        slot: u32,
        verdict: u8,
        flows: u64,
        record: impl FnOnce(&Context) -> Record,
    ) {
        let slot = known_as(slot);
        let session = &mut *self.session;
        // A slot that its own table does not have: a row that was just freed.
        let context = self
            .contexts
            .entry(slot)
            .or_insert_with(|| session.admit_old(slot, Owner::default()));
        let debt = Debt {
            slot,
            verdict,
            flows,
        };
        let record = record(context);
        self.session.inherit(record, debt);
    }
}

impl Successor for Heir<'_> {
    fn seat(
        &mut self,
        engine: &Engine,
        old: &Seat,
    ) -> Result<Option<(SlotInfo, SlotConfig)>, InstanceError> {
        let owner = owner(&old.info, self.book.of_slot(old.info.slot));
        let theirs = old.config.unwrap_or_else(SlotConfig::new_zeroed);
        let place = Place::of(&theirs);
        let pins = engine.pins();
        let used = BTreeSet::new();
        let placed = match self.rules.place(&pins, &owner, place, &used) {
            Ok(placed) => placed,
            // Never more than it might have had; the engine's list brings another try.
            Err(_) => {
                let nothing = self.rules.place_nothing(&pins, &used);
                nothing.map_err(|e| InstanceError::Slot(io::Error::other(e.to_string())))?
            }
        };
        let slot = self.root.draw_slot()?;
        let (compiled, resolvers) = (&placed.compiled, &placed.resolvers);
        let config = SlotConfig {
            bypass_until: theirs.bypass_until,
            ..enrol::Way::of(&theirs).lead(enrol::config(
                (slot, old.index),
                placed.id,
                compiled,
                resolvers,
                place,
            ))
        };
        self.placed.insert(old.info.cgroup_id, placed.id);
        let info = SlotInfo {
            loader: std::process::id(),
            ..enrol::under_file(&old.info, self.rules.name())
        };
        Ok(Some((info, config)))
    }

    fn ended(&mut self, event: &FlowEvent, names: &mut OldNames<'_>) -> bool {
        let flow = &event.flow;
        self.inherit(flow.slot, flow.verdict, 1, |c| c.ended(event, names));
        // That will be known later.
        false
    }

    fn folded(&mut self, key: &FoldKey, row: &FoldRow, names: &mut OldNames<'_>) -> bool {
        self.inherit(key.slot, key.verdict, row.count, |c| {
            c.folded(key, row, names)
        });
        false
    }
}

/// A set that was taken over from, as long as its last records are on their way.
pub(super) struct Old {
    remains: Remains,
    books: Vec<SlotMetrics>,
}

impl Old {
    pub(super) fn new(remains: Remains, what: Retired, session: &mut Session) -> Self {
        let mut books = what.books;
        for (at, row) in books.iter_mut().enumerate() {
            if at == 0 {
                row.slot = NOBODYS;
            }
        }
        books.retain(|row| row.slot != 0);
        // A row that was just freed belongs to nobody who was met, and may have flows to be declared.
        for row in &books {
            if !session.is_read(row.slot) {
                session.admit_old(row.slot, Owner::default());
            }
        }
        Self { remains, books }
    }

    /// What its own books say there is a record of.
    pub(super) fn recorded(&self) -> impl Iterator<Item = (u32, Flows)> + '_ {
        self.books.iter().map(|row| (row.slot, row.recorded))
    }

    /// Flows that are in no record and will be in none.
    pub(super) fn lost(
        &self,
        session: &Session,
        held: impl Fn(u32) -> Flows,
    ) -> Vec<(u32, Owner, Flows)> {
        let lost = self.books.iter().map(|row| {
            let of = session.lost_of_old(row.slot, row.ended, held(row.slot));
            (row.slot, session.owner(row.slot), of)
        });
        lost.collect()
    }

    /// Whether it is known what has become of all its records, and of what was declared lost.
    pub(super) fn is_told(&self, session: &Session) -> bool {
        self.books.iter().all(|row| session.is_settled(row.slot))
    }

    /// Removes what is left of it.
    pub(super) fn remove(self, session: &mut Session) -> Result<(), InstanceError> {
        for row in &self.books {
            session.dismiss_old(row.slot);
        }
        self.remains.remove()
    }
}
