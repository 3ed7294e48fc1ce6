//! One slot from its opening to its end: drains what the kernel hands out, turns it into records, keeps
//! the books, and says what is missing.

use crate::{
    accounting,
    control::{LIVE_MOST, Tap},
    kernel::{KernelError, Learned, Pins, Rings, Sockets},
    record::{Context, Lookup, Record},
    render::summary::Summary,
    sink::Sink,
};
use abi::{LearnedNameKey, SlotMetrics};
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Names and addresses are kept this long after they expired, for flows that are just ending.
const KEEP_EXPIRED_NS: u64 = 60_000_000_000;
/// How often the learned tables are cleaned when they fill up.
const CLEAN_EVERY: Duration = Duration::from_secs(10);

/// Reads names and rules from the pins and remembers them.
#[derive(Debug)]
pub struct Names {
    pins: Pins,
    names: HashMap<(u32, u64), String>,
    rules: HashMap<u32, HashMap<u32, String>>,
}

impl Names {
    /// Nothing looked up yet.
    #[must_use]
    pub fn new(pins: &Pins) -> Self {
        Self {
            pins: pins.clone(),
            names: HashMap::new(),
            rules: HashMap::new(),
        }
    }
}

impl Lookup for Names {
    fn name(&mut self, slot: u32, hash: u64) -> Option<String> {
        if let Some(known) = self.names.get(&(slot, hash)) {
            return Some(known.clone());
        }
        // A name that cannot be read any more is left out of the record; the flow is not.
        let found = self
            .pins
            .name(LearnedNameKey { slot, pad: 0, hash })
            .ok()
            .flatten()?;
        let len = (found.len as usize).min(found.reversed.len());
        let name: String = found.reversed[..len]
            .iter()
            .rev()
            .map(|b| char::from(*b))
            .collect();
        self.names.insert((slot, hash), name.clone());
        Some(name)
    }

    fn rule(&mut self, policy: u32, rule: u32) -> Option<String> {
        self.load_rules(policy);
        self.rules.get(&policy)?.get(&rule).cloned()
    }
}

impl Names {
    fn load_rules(&mut self, policy: u32) {
        if !self.rules.contains_key(&policy) {
            let all = self
                .pins
                .policy()
                .and_then(|p| p.rules(policy))
                .unwrap_or_default();
            let named = all
                .into_iter()
                .map(|(n, t)| (n, crate::enrol::text(&t.name)))
                .collect();
            self.rules.insert(policy, named);
        }
    }
}

/// The reader of one slot.
pub struct Session {
    rings: Rings,
    names: Names,
    context: Context,
    /// Row of the books.
    index: u32,
    /// Slot.
    slot: u32,
    /// Flows of records that the sink could not keep; it has said so itself.
    unwritten: u64,
    /// Entries of a ring that were no records.
    pub malformed: u64,
    /// Where watchers get their flows from; nobody watches until there is a server.
    pub tap: Tap,
    cleaned: u64,
}

/// The boot clock, nanoseconds.
#[must_use]
pub fn boot_now() -> u64 {
    let t = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    t.map_or(0, |t| Duration::from(t).as_nanos() as u64)
}

/// What to add to the boot clock to get the time of day.
fn wall_offset() -> i128 {
    let wall = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    i128::try_from(wall).unwrap_or(0) - i128::from(boot_now())
}

/// Boot id without dashes.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().replace('-', "")
}

/// A context for the flows of an agent.
#[must_use]
pub fn context(agent: Option<String>, project: Option<String>) -> Context {
    Context {
        agent,
        project,
        container_id: None,
        container_name: None,
        boot: boot_id(),
        wall_offset: wall_offset(),
    }
}

impl Session {
    /// Starts reading a slot.
    #[must_use]
    pub fn new(rings: Rings, pins: &Pins, context: Context, slot: u32, index: u32) -> Self {
        Self {
            rings,
            names: Names::new(pins),
            context,
            index,
            slot,
            unwritten: 0,
            malformed: 0,
            tap: Tap::default(),
            cleaned: boot_now(),
        }
    }

    /// Descriptors that become readable when a ring is half full.
    #[must_use]
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Reads everything there is. Returns how many records there were.
    pub fn pump(&mut self, sink: &mut Sink, summary: &mut Summary) -> Result<usize, KernelError> {
        self.context.wall_offset = wall_offset();
        self.tap.admit();
        let mut n = 0;
        let (context, names, unwritten) = (&self.context, &mut self.names, &mut self.unwritten);
        let tap = &mut self.tap;
        self.malformed += self.rings.drain(|event| {
            n += 1;
            let kept = deliver(&context.ended(event, names), sink, summary, tap);
            *unwritten += u64::from(!kept);
            kept
        });
        for (key, row) in self.rings.folds()? {
            let record = self.context.folded(&key, &row, &mut self.names);
            if deliver(&record, sink, summary, &mut self.tap) {
                self.rings.recorded(&key, &row);
            } else {
                self.unwritten += row.count;
            }
            n += 1;
        }
        self.tap.flush();
        Ok(n)
    }

    /// Remembers the names of a policy's rules before a later policy removes them.
    pub fn remember_rules(&mut self, policy: u32) {
        self.names.load_rules(policy);
    }

    /// Ends idle datagram flows and returns what lives on, having shown it to whoever watches.
    pub fn live(&mut self, pins: &Pins) -> Result<Sockets, KernelError> {
        let mut sockets = pins.sockets()?;
        let flows = &mut sockets.live;
        flows.retain(|l| l.flow.slot == self.slot);
        if self.tap.wants_live() {
            flows.sort_unstable_by_key(|l| {
                Reverse(l.tail.bytes_in.saturating_add(l.tail.bytes_out))
            });
            let (context, names) = (&self.context, &mut self.names);
            let shown = flows.iter().take(LIVE_MOST).map(|l| context.live(l, names));
            self.tap.live(flows.len(), shown);
            self.tap.flush();
        }
        Ok(sockets)
    }

    /// Ends every flow that is left, with this close reason.
    pub fn end_flows(&self, close: u8) -> Result<(), KernelError> {
        self.rings.end_flows(self.slot, close)
    }

    /// Books of the slot.
    #[must_use]
    pub fn books(&self) -> Option<SlotMetrics> {
        self.rings.books().row(self.index)
    }

    /// All rows of the books, row 0 first.
    #[must_use]
    pub fn all_books(&self) -> Vec<SlotMetrics> {
        let rows = (0..).map_while(|index| self.rings.books().row(index));
        rows.collect()
    }

    /// Flows of the slot that are in no record and that the sink has not complained about, once nothing
    /// of it is alive or attached any more: the accounting identity holds when this is zero.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let missing = |b: SlotMetrics| {
            let ended: u64 = accounting::unrecorded(&b).iter().sum();
            ended + accounting::astray(&b, 0)
        };
        let missing = self.books().map_or(0, missing);
        missing.saturating_sub(self.unwritten)
    }

    /// Waits until no program run is under way; see [`Rings::settle`].
    pub fn settle(&self) -> Result<(), KernelError> {
        self.rings.settle()
    }

    /// Forgets names and addresses that expired a while ago and that no live flow carries, when the slot
    /// has used a quarter of its quota.
    pub fn clean(&mut self, pins: &Pins) -> Result<(), KernelError> {
        let now = boot_now();
        if u128::from(now.saturating_sub(self.cleaned)) < CLEAN_EVERY.as_nanos() {
            return Ok(());
        }
        self.cleaned = now;
        let Some(books) = self.books() else {
            return Ok(());
        };
        let crowded = |used: u64, max: u32| used * 4 > u64::from(max);
        if !crowded(books.names_used, books.max_names)
            && !crowded(books.addrs_used, books.max_addrs)
        {
            return Ok(());
        }
        let held: HashSet<u64> = pins.live()?.iter().flat_map(|l| l.flow.names).collect();
        let gone = expired(
            pins.learned()?,
            self.slot,
            now.saturating_sub(KEEP_EXPIRED_NS),
            &held,
        );
        self.names.names.retain(|(_, hash), _| held.contains(hash));
        self.rings.forget(self.index, &gone)
    }
}

/// What expired before `limit` and is not held.
fn expired(all: Learned, slot: u32, limit: u64, held: &HashSet<u64>) -> Learned {
    let addrs: Vec<_> = all
        .addrs
        .into_iter()
        .filter(|(k, v)| k.slot == slot && v.names.iter().all(|r| r.hash == 0 || r.expires < limit))
        .collect();
    let names = all
        .names
        .into_iter()
        .filter(|(k, n)| k.slot == slot && n.expires < limit && !held.contains(&k.hash))
        .collect();
    Learned { names, addrs }
}

/// Hands a record out; whether it is kept.
fn deliver(record: &Record, sink: &mut Sink, summary: &mut Summary, tap: &mut Tap) -> bool {
    summary.add(record);
    tap.ended(record);
    sink.write(record)
}
