//! The book of leases: what the loader writes into it.

use crate::{
    clock::{Clock, Observation, Reading},
    index::Index,
    lease::{Lease, LeaseError, MAX_HOLDS},
    text::{self, shown},
    time::{BootId, BootTime},
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::Duration};

/// Leases that are remembered at most, living and ended.
pub const MAX_LEASES: usize = 4096;

/// Why the book refuses a change. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeasesError {
    /// What is said about a container cannot be.
    #[error("cannot take the lease of container {container}: {source}")]
    Invalid {
        /// Its id, quoted.
        container: String,
        /// What is wrong.
        source: LeaseError,
    },
    /// Slots are never used twice in a boot.
    #[error("cannot take the lease of container {container}: slot {slot} has been another's")]
    SlotTaken {
        /// The id of the new one, quoted.
        container: String,
        /// The slot.
        slot: u32,
    },
    /// A container lives once at a time.
    #[error("cannot open a lease of container {0}: it has an open one")]
    AlreadyOpen(String),
    /// Only living ones change.
    #[error("cannot change the lease of container {0}: it has no open one")]
    NotOpen(String),
    /// Every lease there is room for is open.
    #[error(
        "cannot open a lease of container {0}: {MAX_LEASES} are open, and there is no room for more"
    )]
    Full(String),
    /// A file with more leases than there is room for.
    #[error("there are {0} leases, and room for {MAX_LEASES}")]
    TooMany(usize),
}

/// How many leases are in no look-up any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forgotten {
    /// Ended longer ago than the horizon.
    pub expired: u64,
    /// Ended first, when there was no room for another.
    pub evicted: u64,
}

/// Every lease of this boot that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    pub(crate) boot: BootId,
    pub(crate) as_of: BootTime,
    pub(crate) floor: BootTime,
    pub(crate) forgotten: Forgotten,
    pub(crate) clock: Clock,
    pub(crate) leases: Vec<Lease>,
    pub(crate) index: Index,
}

impl Leases {
    /// An empty book.
    #[must_use]
    pub fn new(boot: BootId) -> Self {
        Self {
            boot,
            as_of: BootTime(0),
            floor: BootTime(0),
            forgotten: Forgotten::default(),
            clock: Clock::default(),
            leases: Vec::new(),
            index: Index::default(),
        }
    }

    /// The boot that every time and slot belongs to.
    #[must_use]
    pub fn boot(&self) -> &BootId {
        &self.boot
    }

    /// Until when the book is known to be complete. Later moments are answered as if nothing had
    /// happened since.
    #[must_use]
    pub fn as_of(&self) -> BootTime {
        self.as_of
    }

    /// From when on the book is complete: of earlier moments something is forgotten.
    #[must_use]
    pub fn floor(&self) -> BootTime {
        self.floor
    }

    /// What is in no look-up any more.
    #[must_use]
    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }

    /// How wall time is understood.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Every lease, in the order they came.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Lease> {
        self.leases.iter()
    }

    /// Tells both clocks (see [`Clock::observe`]). Do it before looking up what has just arrived.
    pub fn observe(&mut self, reading: Reading) -> Observation {
        self.clock.observe(reading)
    }

    /// Says that everything up to this moment has been written down.
    pub fn complete_until(&mut self, now: BootTime) {
        self.as_of = self.as_of.max(now);
    }

    /// Takes a lease, open or ended. Where there is no room, the one that ended first is forgotten and
    /// handed back: say so.
    pub fn open(&mut self, mut lease: Lease) -> Result<Option<Lease>, LeasesError> {
        for hold in &mut lease.ips {
            hold.ip = hold.ip.to_canonical();
        }
        self.admit(&lease)?;
        let evicted = if self.leases.len() < MAX_LEASES {
            None
        } else {
            Some(self.evict(&lease)?)
        };
        self.push(lease);
        Ok(evicted)
    }

    /// Whether a lease may stand beside the others.
    fn admit(&self, lease: &Lease) -> Result<(), LeasesError> {
        let container = || lease.shown();
        lease.check().map_err(|source| LeasesError::Invalid {
            container: container(),
            source,
        })?;
        if let Some(slot) = lease.slot
            && self.index.slots.contains_key(&slot)
        {
            let container = container();
            return Err(LeasesError::SlotTaken { container, slot });
        }
        if lease.is_open() && self.open_position(&lease.container_id).is_some() {
            return Err(LeasesError::AlreadyOpen(container()));
        }
        Ok(())
    }

    fn push(&mut self, lease: Lease) {
        self.index.add(self.leases.len(), &lease);
        self.leases.push(lease);
    }

    fn evict(&mut self, newcomer: &Lease) -> Result<Lease, LeasesError> {
        let ended = self.leases.iter().enumerate();
        let ended = ended.filter_map(|(at, lease)| lease.until.map(|until| (until, at)));
        let (until, at) = ended
            .min()
            .ok_or_else(|| LeasesError::Full(newcomer.shown()))?;
        let lease = self.leases.remove(at);
        self.floor = self.floor.max(until);
        self.forgotten.evicted += 1;
        self.index = Index::of(&self.leases);
        Ok(lease)
    }

    /// Fills an empty book with what a file says.
    pub(crate) fn restore(mut self, leases: Vec<Lease>) -> Result<Self, LeasesError> {
        if leases.len() > MAX_LEASES {
            return Err(LeasesError::TooMany(leases.len()));
        }
        for lease in leases {
            self.admit(&lease)?;
            self.push(lease);
        }
        Ok(self)
    }

    /// Ends the open lease of a container, and every hold in it. An end before the beginning leaves a
    /// lease of no time. Take the event's own time, the earliest if the clock leaves a choice: from
    /// then on somebody else may have the address.
    pub fn close(&mut self, container_id: &str, until: BootTime) -> Result<(), LeasesError> {
        self.change(container_id, |lease| {
            lease.end(until);
            Ok(())
        })
    }

    /// Says that from `at` on a container has exactly these addresses (it was connected to a network, or
    /// disconnected from one). What it has already goes on. Of more than [`MAX_HOLDS`] holds those that
    /// ended first are forgotten.
    pub fn set_ips(
        &mut self,
        container_id: &str,
        ips: &[IpAddr],
        at: BootTime,
    ) -> Result<(), LeasesError> {
        let mut floor = self.floor;
        self.change(container_id, |lease| {
            let mut holds = lease.with_ips(ips, at)?;
            while holds.len() > MAX_HOLDS {
                let ended = holds.iter().enumerate();
                let ended = ended.filter_map(|(i, hold)| hold.until.map(|until| (until, i)));
                let (until, first) = ended.min().ok_or(LeaseError::TooManyHolds(holds.len()))?;
                holds.remove(first);
                floor = floor.max(until);
            }
            lease.ips = holds;
            Ok(())
        })?;
        self.floor = floor;
        Ok(())
    }

    /// Says which network namespace a container has. It has had it from its beginning.
    pub fn set_netns(&mut self, container_id: &str, netns: u64) -> Result<(), LeasesError> {
        self.change(container_id, |lease| {
            lease.netns = Some(netns);
            Ok(())
        })
    }

    /// Gives a container another name.
    pub fn rename(&mut self, container_id: &str, name: &str) -> Result<(), LeasesError> {
        self.change(container_id, |lease| {
            text::check(name).map_err(|source| LeaseError::Text {
                field: "name",
                source,
            })?;
            name.clone_into(&mut lease.name);
            Ok(())
        })
    }

    /// Forgets the leases that ended longer than `horizon` before `now`, and hands them back.
    pub fn expire(&mut self, now: BootTime, horizon: Duration) -> Vec<Lease> {
        let cut = now.before(horizon);
        let old = |lease: &mut Lease| lease.until.is_some_and(|until| until < cut);
        let gone: Vec<Lease> = self.leases.extract_if(.., old).collect();
        if let Some(last) = gone.iter().filter_map(|lease| lease.until).max() {
            self.floor = self.floor.max(last);
            self.forgotten.expired += gone.len() as u64;
            self.index = Index::of(&self.leases);
        }
        gone
    }

    /// Changes the open lease of a container, and where it is found. `with` changes all or nothing.
    fn change(
        &mut self,
        container_id: &str,
        with: impl FnOnce(&mut Lease) -> Result<(), LeaseError>,
    ) -> Result<(), LeasesError> {
        let at = self
            .open_position(container_id)
            .ok_or_else(|| LeasesError::NotOpen(shown(container_id)))?;
        let lease = &mut self.leases[at];
        self.index.remove(at, lease);
        let result = with(lease);
        self.index.add(at, lease);
        result.map_err(|source| LeasesError::Invalid {
            container: shown(container_id),
            source,
        })
    }

    fn open_position(&self, container_id: &str) -> Option<usize> {
        let positions = crate::index::under(&self.index.containers, container_id);
        let mut positions = positions.iter().copied();
        positions.find(|at| self.leases[*at].is_open())
    }
}
