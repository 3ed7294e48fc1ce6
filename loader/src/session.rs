//! The reader of an instance: drains what the kernel hands out, turns it into records of the slots they
//! belong to, keeps the books, and says what is missing. `run` has one slot, `serve` has many.

mod hand_out;
mod learned;
mod names;
mod old;
mod reckon;
mod tenant;

pub use names::Names;
pub use reckon::Flows;

use crate::{
    accounting,
    control::{LIVE_MOST, Tap},
    kernel::{BATCH, KernelError, Pins, Rings, Sockets, Taken},
    record::{Context, Owner, Record},
    render::summary::Summary,
    sink::{Kept, Sink},
};
use abi::{FoldKey, FoldRow, SlotMetrics, VERDICT_DENIED, VERDICTS};
use hand_out::deliver;
use learned::{expired, is_crowded};
use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet, VecDeque},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tenant::Tenant;

/// Names and addresses are kept this long after they expired, for flows that are just ending.
const KEEP_EXPIRED_NS: u64 = 60_000_000_000;
/// How often the learned tables are cleaned when they fill up.
const CLEAN_EVERY: Duration = Duration::from_secs(10);

/// Stands for the verdict of flows whose end was not seen: the books count none of them as ended.
pub const UNSEEN: u8 = u8::MAX;

/// Flows of one slot and verdict that a record stands for, or declares lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debt {
    /// Slot.
    pub slot: u32,
    /// `abi::VERDICT_*`; [`UNSEEN`] of flows whose end was not seen.
    pub verdict: u8,
    /// How many.
    pub flows: u64,
}

/// The reader of an instance.
pub struct Session {
    rings: Rings,
    names: Names,
    tenants: HashMap<u32, Tenant>,
    /// For slots that nobody has, the zero of a cgroup that is not enrolled among them.
    nobody: Context,
    /// Folded rows that were taken from the kernel and for which there was no room yet.
    waiting: VecDeque<(FoldKey, FoldRow)>,
    /// The same for records of a set of programs before this one.
    inherited: VecDeque<(Record, Debt)>,
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
pub(crate) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().replace('-', "")
}

/// A context for the flows of somebody.
#[must_use]
pub fn context(owner: Owner) -> Context {
    Context {
        owner,
        boot: boot_id(),
        wall_offset: wall_offset(),
        set: 0,
    }
}

/// Where a verdict is counted: an unknown one as denied, like in the kernel's books.
fn at(verdict: u8) -> usize {
    let verdict = usize::from(verdict);
    if verdict < VERDICTS {
        verdict
    } else {
        usize::from(VERDICT_DENIED)
    }
}

impl Session {
    /// Starts reading an instance, of which no slot is known yet.
    #[must_use]
    pub fn new(rings: Rings, pins: &Pins) -> Self {
        Self {
            rings,
            names: Names::new(pins),
            tenants: HashMap::new(),
            nobody: Context {
                set: pins.set(),
                ..context(Owner::default())
            },
            waiting: VecDeque::new(),
            inherited: VecDeque::new(),
            malformed: 0,
            tap: Tap::default(),
            cleaned: boot_now(),
        }
    }

    /// Says whom a slot belongs to, and which row of the books it has; again when that has changed.
    pub fn admit(&mut self, slot: u32, index: u32, owner: Owner) {
        let context = Context {
            owner,
            ..self.nobody.clone()
        };
        match self.tenants.get_mut(&slot) {
            Some(tenant) => tenant.context = context,
            None => {
                self.tenants.insert(slot, Tenant::new(context, Some(index)));
            }
        }
    }

    /// Forgets a slot whose flows are all told, and what it has learned.
    pub fn dismiss(&mut self, slot: u32, pins: &Pins) -> Result<(), KernelError> {
        self.tenants.remove(&slot);
        self.names.forget(slot, |_| false);
        let mut all = pins.learned()?;
        all.names.retain(|(k, _)| k.slot == slot);
        all.addrs.retain(|(k, _)| k.slot == slot);
        pins.forget(&all)
    }

    /// The reading ends.
    #[must_use]
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// Reads everything there is and for which the sink has room. Returns how many records there were.
    pub fn pump(
        &mut self,
        sink: &mut Sink,
        mut summary: Option<&mut Summary>,
    ) -> Result<usize, KernelError> {
        self.settle_debts(sink);
        let offset = wall_offset();
        self.nobody.wall_offset = offset;
        for tenant in self.tenants.values_mut() {
            tenant.context.wall_offset = offset;
        }
        self.tap.admit();
        let before = self.before()?;
        let mut n = self.pump_inherited(sink, summary.as_deref_mut());
        let mut left = false;
        let (tenants, names, tap) = (&mut self.tenants, &mut self.names, &mut self.tap);
        let nobody = &self.nobody;
        let malformed = self.rings.drain(|event| {
            if !sink.has_room() {
                left = true;
                return Taken::Left;
            }
            n += 1;
            let flow = &event.flow;
            let debt = Debt {
                slot: flow.slot,
                verdict: flow.verdict,
                flows: 1,
            };
            let mut tenant = tenants.get_mut(&flow.slot);
            let context = tenant.as_ref().map_or(nobody, |t| &t.context);
            let record = context.ended(event, names);
            let kept = deliver(&record, debt, sink, summary.as_deref_mut(), tap);
            if let Some(tenant) = &mut tenant {
                tenant.taken[at(flow.verdict)] += 1;
                tenant.note(kept, flow.verdict, 1);
            }
            Taken::from(kept == Kept::Yes)
        });
        self.malformed += malformed;
        let all = !left && n as u64 + malformed < BATCH as u64;
        let (folded, rows) = self.pump_folds(sink, summary)?;
        n += rows;
        self.after(&before, all && folded);
        self.tap.flush();
        Ok(n)
    }

    /// Flows of a slot that have ended and are neither recorded nor told as lost, by verdict.
    #[must_use]
    pub fn owed(&self, slot: u32) -> Flows {
        let tenant = self.tenants.get(&slot);
        tenant.map_or([0; VERDICTS], |t| t.owed(self.books(slot).as_ref()))
    }

    /// Whether something of a slot is still to be recorded or confirmed, declarations that flows are lost included.
    #[must_use]
    pub fn owes(&self, slot: u32) -> bool {
        let tenant = self.tenants.get(&slot);
        tenant.is_some_and(|t| t.open > 0) || self.owed(slot).iter().any(|n| *n > 0)
    }

    /// Remembers the names of a policy's rules before a later policy removes them.
    pub fn remember_rules(&mut self, policy: u32) {
        self.names.load_rules(policy);
    }

    /// Another policy has taken this id: the rules that were remembered under it are not its own.
    pub fn renew_rules(&mut self, policy: u32) {
        self.names.drop_rules(policy);
        self.names.load_rules(policy);
    }

    /// Ends idle datagram flows and returns what lives on, having shown it to whoever watches.
    pub fn live(&mut self, pins: &Pins) -> Result<Sockets, KernelError> {
        let mut sockets = pins.sockets()?;
        let flows = &mut sockets.live;
        let tenants = &self.tenants;
        flows.retain(|l| tenants.contains_key(&l.flow.slot));
        if self.tap.wants_live() {
            flows.sort_unstable_by_key(|l| {
                Reverse(l.tail.bytes_in.saturating_add(l.tail.bytes_out))
            });
            let (nobody, names) = (&self.nobody, &mut self.names);
            let shown = flows.iter().take(LIVE_MOST).map(|l| {
                let tenant = tenants.get(&l.flow.slot);
                tenant.map_or(nobody, |t| &t.context).live(l, names)
            });
            self.tap.live(flows.len(), shown);
            self.tap.flush();
        }
        Ok(sockets)
    }

    /// Ends every flow that is left of a slot, with this close reason.
    pub fn end_flows(&self, slot: u32, close: u8) -> Result<(), KernelError> {
        self.rings.end_flows(slot, close)
    }

    /// Books of a slot.
    #[must_use]
    pub fn books(&self, slot: u32) -> Option<SlotMetrics> {
        let tenant = self.tenants.get(&slot)?;
        self.rings.books().row(tenant.index?)
    }

    /// All rows of the books, row 0 first.
    #[must_use]
    pub fn all_books(&self) -> Vec<SlotMetrics> {
        let rows = (0..).map_while(|index| self.rings.books().row(index));
        rows.collect()
    }

    /// Flows of a slot that are in no record and that nobody has complained about, once nothing of it is
    /// alive or attached any more: the accounting identity holds when this is zero.
    #[must_use]
    pub fn lost(&self, slot: u32) -> u64 {
        let ended: u64 = self.owed(slot).iter().sum();
        let astray = self.books(slot).map_or(0, |b| accounting::astray(&b, 0));
        ended + astray
    }

    /// Flows of a slot's records that could not be kept, by verdict, to be declared lost now: from here on they are owed.
    /// Once a slot; of what is refused then nobody can be told.
    pub fn last_words(&mut self, slot: u32) -> Option<Flows> {
        self.tenants.get_mut(&slot)?.last_words()
    }

    /// Waits until no program run is under way; see [`Rings::settle`].
    pub fn settle(&self) -> Result<(), KernelError> {
        self.rings.settle()
    }

    /// Forgets names and addresses that expired a while ago and that no live flow carries, of the slots
    /// that have used a quarter of their quota.
    pub fn clean(&mut self, pins: &Pins) -> Result<(), KernelError> {
        let now = boot_now();
        if u128::from(now.saturating_sub(self.cleaned)) < CLEAN_EVERY.as_nanos() {
            return Ok(());
        }
        self.cleaned = now;
        let crowded = |index| {
            self.rings
                .books()
                .row(index)
                .is_some_and(|b| is_crowded(&b))
        };
        let rows = self.tenants.iter();
        let rows = rows.filter_map(|(slot, t)| Some((*slot, t.index?)));
        let crowded: Vec<(u32, u32)> = rows.filter(|(_, index)| crowded(*index)).collect();
        if crowded.is_empty() {
            return Ok(());
        }
        let live = pins.live()?;
        let carried = live
            .iter()
            .flat_map(|l| l.flow.names.map(|n| (l.flow.slot, n)));
        let held: HashSet<(u32, u64)> = carried.collect();
        let before = now.saturating_sub(KEEP_EXPIRED_NS);
        let all = pins.learned()?;
        for (slot, index) in crowded {
            let gone = expired(&all, slot, before, &held);
            self.names.forget(slot, |hash| held.contains(&(slot, hash)));
            self.rings.forget(index, &gone)?;
        }
        Ok(())
    }
}
