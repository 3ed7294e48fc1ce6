//! A set of programs of another ABI version, read and told what to do through its own type information:
//! what a loader needs to take over from it, without the build that made it.

mod layouts;

use super::{KernelError, Pins, io_error, mapped::ForeignBooks, sys};
use abi::{
    FlowEvent, FoldKey, FoldRow, LearnedAddr, LearnedAddrKey, LearnedName, LearnedNameKey,
    LiveFlow, RuleText, SlotConfig, SlotInfo, SlotMetrics, VERDICT_DENIED, VERDICTS, close, maps,
    programs,
};
use aya::maps::{Map, MapData, RingBuf};
use layouts::{Layouts, Raw};
use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd as _,
    path::Path,
};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes};

/// Entries of one ring that a drain hands out at most.
const BATCH: usize = 1 << 14;

/// Where the fields are that we write.
struct Fields {
    phase: usize,
    end_slot: usize,
    end_close: usize,
    recorded: usize,
    catch_all: usize,
}

/// The set of another version.
pub struct Foreign {
    pins: Pins,
    layouts: Layouts,
    fields: Fields,
    books: ForeignBooks,
    rows: u32,
    rings: [RingBuf<MapData>; 2],
    slots: Raw,
    control: Raw,
    folds: Raw,
}

impl Foreign {
    /// Opens the pins below `dir`, to be read in the layout of what is pinned below `ours`. The caller
    /// holds the instance's lock, or two readers would take records from each other.
    pub fn open(dir: &Path, ours: &Pins) -> Result<Self, KernelError> {
        let pins = Pins::new(dir);
        let layouts = Layouts::new(&pins, ours)?;
        let at = |of, field| layouts.field(of, field, &pins);
        let fields = Fields {
            phase: at("SlotConfig", "phase")?,
            end_slot: at("Control", "end_slot")?,
            end_close: at("Control", "end_close")?,
            recorded: at("SlotMetrics", "recorded")?,
            catch_all: at("SlotMetrics", "catch_all")?,
        };
        let metrics = Raw::open(&pins, maps::METRICS)?;
        let rows = super::query::map(&pins.map_path(maps::METRICS))?.max_entries;
        let row = metrics.value.next_multiple_of(8);
        let books = ForeignBooks::new(metrics.map.fd(), rows, row)
            .map_err(|e| KernelError::map("map into memory", maps::METRICS, e))?;
        let ring = |name| {
            RingBuf::try_from(Map::RingBuf(pins.map(name)?))
                .map_err(|e| KernelError::map("open", name, io_error(e)))
        };
        Ok(Self {
            rings: [ring(maps::RING_DENIED)?, ring(maps::RING_ALLOWED)?],
            slots: Raw::open(&pins, maps::SLOT)?,
            control: Raw::open(&pins, maps::CONTROL)?,
            folds: Raw::open(&pins, maps::FOLDS)?,
            pins,
            layouts,
            fields,
            books,
            rows,
        })
    }

    /// Its pins. Only what does not depend on a layout may be asked of them.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Slots that there is room for.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.rows.saturating_sub(1)
    }

    /// Who its slots are, by row.
    pub fn infos(&self) -> Result<Vec<(u32, SlotInfo)>, KernelError> {
        let map = Raw::open(&self.pins, maps::SLOT_INFO)?;
        let mut all = Vec::new();
        for index in 1..self.rows {
            let value = map.get(index.as_bytes())?;
            let info: Option<SlotInfo> = value.and_then(|v| self.layouts.info.read(&v));
            all.extend(info.filter(|i| i.slot != 0).map(|i| (index, i)));
        }
        Ok(all)
    }

    /// Configuration of a cgroup; nothing when it is gone.
    pub fn config(&self, cgroup_id: u64) -> Result<Option<SlotConfig>, KernelError> {
        let value = self.slots.get(cgroup_id.as_bytes())?;
        Ok(value.and_then(|v| self.layouts.config.read(&v)))
    }

    /// Puts a cgroup's configuration into another phase and leaves the rest as it is. Whether it is there.
    pub fn set_phase(&self, cgroup_id: u64, phase: u8) -> Result<bool, KernelError> {
        let Some(mut value) = self.slots.get(cgroup_id.as_bytes())? else {
            return Ok(false);
        };
        if let Some(at) = value.get_mut(self.fields.phase) {
            *at = phase;
        }
        self.slots.set(cgroup_id.as_bytes(), &value)?;
        Ok(true)
    }

    /// Every live flow. Datagram flows that have been idle for their time end on the way.
    pub fn live(&self) -> Result<Vec<LiveFlow>, KernelError> {
        let mut all = Vec::new();
        for iterator in [programs::ITER_TCP, programs::ITER_DGRAM] {
            let path = self.pins.dir().join(iterator);
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|mut f| f.read_to_end(&mut bytes))
                .map_err(|e| KernelError::pin("read", path, e))?;
            let (flow, tail) = (self.layouts.flow.from, self.layouts.tail.from);
            all.extend(bytes.chunks_exact(flow + tail + 8).filter_map(|row| {
                Some(LiveFlow {
                    flow: self.layouts.flow.read(&row[..flow])?,
                    tail: self.layouts.tail.read(&row[flow..flow + tail])?,
                    cookie: u64::read_from_bytes(&row[flow + tail..]).ok()?,
                })
            }));
        }
        all.retain(|l| l.tail.close == u64::from(close::LIVE));
        Ok(all)
    }

    fn switch(&self, fields: &[(usize, u32)]) -> Result<(), KernelError> {
        let key = 0u32;
        let missing = || KernelError::map("read", maps::CONTROL, io::ErrorKind::NotFound);
        let mut value = self.control.get(key.as_bytes())?.ok_or_else(missing)?;
        for (at, to) in fields {
            if let Some(field) = value.get_mut(*at..at + 4) {
                field.copy_from_slice(to.as_bytes());
            }
        }
        self.control.set(key.as_bytes(), &value)
    }

    /// Ends every flow of a slot.
    pub fn end_flows(&self, slot: u32, why: u8) -> Result<(), KernelError> {
        let (end_slot, end_close) = (self.fields.end_slot, self.fields.end_close);
        self.switch(&[(end_slot, slot), (end_close, u32::from(why))])?;
        let read = self.live();
        self.switch(&[(end_slot, 0), (end_close, 0)])?;
        read.map(drop)
    }

    /// Takes records out of both rings, and how many entries were none, which the books lack. Of those
    /// that are kept, [`Foreign::kept`] is to be told.
    pub fn drain(&mut self) -> (Vec<FlowEvent>, u64) {
        let (mut events, mut malformed) = (Vec::new(), 0);
        for ring in &mut self.rings {
            for _ in 0..BATCH {
                let Some(item) = ring.next() else { break };
                match self.layouts.event.read(&item) {
                    Some(event) => events.push(event),
                    None => malformed += 1,
                }
            }
        }
        (events, malformed)
    }

    /// Notes that the record of a flow was kept.
    pub fn kept(&self, event: &FlowEvent) {
        self.count(event.flow.index, event.flow.verdict, 1);
    }

    /// Adds to the set's own count of what records tell of. An unknown verdict counts as denied, as it
    /// does in the kernel.
    fn count(&self, index: u32, verdict: u8, flows: u64) {
        let verdict = usize::from(verdict);
        let at = if verdict < VERDICTS {
            verdict
        } else {
            usize::from(VERDICT_DENIED)
        };
        self.books.add(index, self.fields.recorded + at * 8, flows);
    }

    /// Takes every folded row. To be called when no program of the set writes any more.
    pub fn folds(&mut self) -> Result<Vec<(FoldKey, FoldRow)>, KernelError> {
        let mut rows = Vec::new();
        for key in self.folds.keys()? {
            let Some(value) = self.folds.get(&key)? else {
                continue;
            };
            let taken = sys::map_delete(self.folds.map.fd().as_fd(), &key);
            taken.map_err(|e| KernelError::map("remove from", maps::FOLDS, e))?;
            let (k, r) = (&self.layouts.fold_key, &self.layouts.fold_row);
            rows.extend(k.read(&key).zip(r.read(&value)));
        }
        for index in 0..self.rows {
            let Some(row) = self.row(index) else { continue };
            for (parity, verdicts) in row.catch_all.iter().enumerate() {
                for (verdict, sum) in (0u8..).zip(verdicts).filter(|(_, r)| r.count > 0) {
                    let mut key = FoldKey::new_zeroed();
                    (key.slot, key.verdict) = (row.slot, verdict);
                    rows.push((key, *sum));
                    self.forget_row(index, parity, verdict);
                }
            }
        }
        Ok(rows)
    }

    /// Empties a catch-all row.
    fn forget_row(&self, index: u32, parity: usize, verdict: u8) {
        let each = self.layouts.fold_row.from;
        let first = self.fields.catch_all + (parity * VERDICTS + usize::from(verdict)) * each;
        let count = self.layouts.types.field("FoldRow", "count").unwrap_or(0);
        let there = self.books.row(index).unwrap_or_default();
        if let Some(n) = there.get(first + count..first + count + 8)
            && let Ok(n) = u64::read_from_bytes(n)
        {
            self.books.add(index, first + count, n.wrapping_neg());
        }
    }

    /// Notes that the record of a folded row was kept.
    pub fn recorded(&self, key: &FoldKey, row: &FoldRow) {
        let owner = |i: &u32| self.row(*i).is_some_and(|m| m.slot == key.slot);
        let index = (0..self.rows).find(owner).unwrap_or(0);
        self.count(index, key.verdict, row.count);
    }

    /// A row of its books.
    #[must_use]
    pub fn row(&self, index: u32) -> Option<SlotMetrics> {
        self.layouts.metrics.read(&self.books.row(index)?)
    }

    /// Waits until every program run that is under way is over.
    pub fn settle(&self) -> Result<(), KernelError> {
        sys::grace_period()
    }

    /// What a slot has learned from DNS.
    pub fn learned(&self, slot: u32) -> Result<super::Learned, KernelError> {
        let l = &self.layouts;
        let mut names: Vec<(LearnedNameKey, LearnedName)> = Vec::new();
        let map = Raw::open(&self.pins, maps::LEARNED_NAMES)?;
        for key in map.keys()? {
            let value = map.get(&key)?.and_then(|v| l.name.read(&v));
            names.extend(l.name_key.read(&key).zip(value));
        }
        let mut addrs: Vec<(LearnedAddrKey, LearnedAddr)> = Vec::new();
        let map = Raw::open(&self.pins, maps::LEARNED_ADDRS)?;
        for key in map.keys()? {
            let value = map.get(&key)?.and_then(|v| l.addr.read(&v));
            addrs.extend(l.addr_key.read(&key).zip(value));
        }
        names.retain(|(k, _)| k.slot == slot);
        addrs.retain(|(k, _)| k.slot == slot);
        Ok(super::Learned { names, addrs })
    }

    /// One learned name.
    #[must_use]
    pub fn name(&self, key: &LearnedNameKey) -> Option<LearnedName> {
        let there = self.layouts.name_key_there.bytes(key.as_bytes())?;
        let map = Raw::open(&self.pins, maps::LEARNED_NAMES).ok()?;
        self.layouts.name.read(&map.get(&there).ok()??)
    }

    /// The text of a rule. The key is a prefix length and two numbers in every version.
    #[must_use]
    pub fn rule(&self, policy: u32, rule: u32) -> Option<RuleText> {
        let key = [64, policy, rule];
        let map = Raw::open(&self.pins, maps::POLICY_TEXT).ok()?;
        self.layouts.rule.read(&map.get(key.as_bytes()).ok()??)
    }
}
