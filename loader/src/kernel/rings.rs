//! The reading side: both rings, the folded rows, idle flush and the end of a slot.

use super::{Books, KernelError, Pins, io_error, mapped::Switches, pod::P, sys};
use abi::{FlowEvent, FoldKey, FoldRow, NO_RULE, VERDICTS, maps};
use aya::maps::{Map, MapData, RingBuf};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use zerocopy::FromBytes as _;

/// Entries of one ring that a drain hands out at most.
pub const BATCH: usize = 1 << 14;

/// What became of an entry of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Its record is kept: noted in the books at once.
    Kept,
    /// It was taken; whether it is kept will be known later, or is known not to be.
    Gone,
    /// There is no room for it: it stays in its ring, and so does what comes after it.
    Left,
}

impl From<bool> for Taken {
    fn from(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Gone }
    }
}

/// The reading end of an instance.
pub struct Rings {
    allowed: RingBuf<MapData>,
    denied: RingBuf<MapData>,
    books: Books,
    switches: Switches,
    pins: Pins,
    rows: u32,
    /// Of each row: its slot, and how many of its folded flows were drained already.
    folded: Vec<(u32, u64)>,
    /// Epochs that a reader before this one may have begun to take, and left.
    unread: u32,
}

fn ring(pins: &Pins, name: &'static str) -> Result<RingBuf<MapData>, KernelError> {
    RingBuf::try_from(Map::RingBuf(pins.map(name)?))
        .map_err(|e| KernelError::map("open", name, io_error(e)))
}

impl Rings {
    pub(super) fn open(pins: &Pins, rows: u32) -> Result<Self, KernelError> {
        let memory = |name| move |e| KernelError::map("map into memory", name, e);
        let metrics = pins.map(maps::METRICS)?;
        let control = pins.map(maps::CONTROL)?;
        Ok(Self {
            allowed: ring(pins, maps::RING_ALLOWED)?,
            denied: ring(pins, maps::RING_DENIED)?,
            books: Books::new(metrics.fd(), rows).map_err(memory(maps::METRICS))?,
            switches: Switches::new(control.fd()).map_err(memory(maps::CONTROL))?,
            pins: pins.clone(),
            rows,
            folded: vec![(0, 0); rows as usize],
            unread: 2,
        })
    }

    /// Opens the reading end of an instance whose loader is dead. The caller holds its lock, or two
    /// readers would take records from each other.
    pub fn reopen(pins: &Pins) -> Result<Self, KernelError> {
        let rows = u32::try_from(pins.books()?.len()).unwrap_or(u32::MAX);
        Self::open(pins, rows)
    }

    /// Descriptors that become readable when a ring is half full.
    #[must_use]
    pub fn wake_fds(&self) -> [BorrowedFd<'_>; 2] {
        // SAFETY: the descriptors belong to the rings, which outlive the borrow of `self`.
        let fd = |r: &RingBuf<MapData>| unsafe { BorrowedFd::borrow_raw(r.as_raw_fd()) };
        [fd(&self.allowed), fd(&self.denied)]
    }

    /// Hands every record of both rings to `each`, the ring for denied and bypassed flows first. What
    /// `each` says it has kept is noted in the books at once, and only then leaves its ring. Returns how
    /// many entries were no records: they are passed over, and the books lack them. What comes in faster
    /// than it is handed out stays for the next call: the reader has other duties.
    pub fn drain<T: Into<Taken>>(&mut self, mut each: impl FnMut(&FlowEvent) -> T) -> u64 {
        let mut malformed = 0;
        'rings: for ring in [&mut self.denied, &mut self.allowed] {
            for _ in 0..BATCH {
                let Some(item) = ring.next() else { break };
                let Ok(event) = FlowEvent::read_from_bytes(&item) else {
                    malformed += 1;
                    continue;
                };
                match each(&event).into() {
                    Taken::Kept => {
                        let flow = &event.flow;
                        self.books.recorded(flow.index, flow.slot, flow.verdict, 1);
                    }
                    Taken::Gone => {}
                    Taken::Left => {
                        // Its end would take it out of the ring.
                        std::mem::forget(item);
                        break 'rings;
                    }
                }
            }
        }
        malformed
    }

    /// Takes the folded rows, if there are any: starts a new epoch, waits until no program can write
    /// into the old one, and removes it. Each row stands for `count` flows, which are missing in the
    /// books until [`Rings::recorded`] says otherwise.
    pub fn folds(&mut self) -> Result<Vec<(FoldKey, FoldRow)>, KernelError> {
        let mut any = false;
        for index in 0..self.rows {
            let now = (self.books.owner(index), self.books.folded(index));
            if let Some(seen) = self.folded.get_mut(index as usize) {
                // A row with another owner begins at nothing.
                any |= *seen != now && now.1 != 0;
                *seen = now;
            }
        }
        any |= self.unread > 0;
        if !any {
            return Ok(Vec::new());
        }
        self.unread = self.unread.saturating_sub(1);
        let epoch = self.switches.next_epoch();
        self.settle()?;
        let mut rows = self.table(epoch)?;
        for index in 0..self.rows {
            let slot = self.books.owner(index);
            let catch_all = self.books.take_epoch(index, epoch);
            rows.extend((0..).zip(catch_all).filter(|(_, r)| r.count != 0).map(
                |(verdict, row)| {
                    (
                        FoldKey {
                            verdict,
                            ..nowhere(slot, epoch)
                        },
                        FoldRow {
                            rule: NO_RULE,
                            ..row
                        },
                    )
                },
            ));
        }
        Ok(rows)
    }

    /// Waits until every program run that is under way is over. Once nothing is attached any more, the
    /// books are final then.
    pub fn settle(&self) -> Result<(), KernelError> {
        sys::grace_period()
    }

    /// Notes that records of so many flows of a slot were kept, in its row; nowhere if the row has another
    /// owner by now.
    pub fn recorded(&self, index: u32, slot: u32, verdict: u8, flows: u64) {
        self.books.recorded(index, slot, verdict, flows);
    }

    /// Says of how many flows of a row there is a record. For whoever takes over and has asked.
    pub fn set_recorded(&self, index: u32, flows: [u64; VERDICTS]) {
        self.books.set_recorded(index, flows);
    }

    fn table(&self, epoch: u32) -> Result<Vec<(FoldKey, FoldRow)>, KernelError> {
        let mut map = self.pins.folds()?;
        let all: Result<Vec<_>, _> = map.iter().map(|r| r.map(|(k, v)| (k.0, v.0))).collect();
        let mut rows = all.map_err(|e| KernelError::map("read", maps::FOLDS, io_error(e)))?;
        // Those of earlier ones were left by a reader that died over them.
        rows.retain(|(k, _)| k.epoch != epoch.wrapping_add(1));
        for (key, _) in &rows {
            map.remove(&P(*key))
                .map_err(|e| KernelError::map("remove from", maps::FOLDS, io_error(e)))?;
        }
        Ok(rows)
    }

    /// Lets the iterators end every flow of a slot with a close reason, as long as it takes to read them
    /// once.
    pub fn end_flows(&self, slot: u32, close: u8) -> Result<(), KernelError> {
        self.switches.end_slot(slot, close);
        let r = self.pins.live().map(drop);
        self.switches.end_slot(0, 0);
        r
    }

    /// Books of the slots.
    #[must_use]
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// Forgets learned names and addresses, and gives their quota back.
    pub fn forget(&self, index: u32, gone: &super::Learned) -> Result<(), KernelError> {
        self.pins.forget(gone)?;
        self.books
            .forget(index, gone.names.len() as u64, gone.addrs.len() as u64);
        Ok(())
    }
}

/// Key of a catch-all row: no destination.
fn nowhere(slot: u32, epoch: u32) -> FoldKey {
    FoldKey {
        slot,
        epoch,
        dst: abi::Ip([0; 16]),
        port: 0,
        proto: 0,
        verdict: 0,
        reason: 0,
        direction: 0,
        flags: 0,
        pad: 0,
    }
}
