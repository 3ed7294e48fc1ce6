//! The leases of everybody who runs: who held which address, from when to when, in the file that the bridge
//! follows. `docs/identity.md` tells what a lease says.

use super::{FleetError, roll::Member};
use crate::session::boot_now;
use lease::{BootId, BootTime, FileError, Hold, Lease, Leases, LeasesError, Publisher, WallTime};
use nix::time::{ClockId, clock_gettime};
use std::{
    collections::HashSet,
    fs, io,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

/// How long ended leases are remembered. The room for them is what ends first where many come and go.
const HORIZON: Duration = Duration::from_secs(24 * 3600);
/// A book that nobody has changed is published so often: it says until when it is complete.
const EVERY: Duration = Duration::from_millis(500);

/// The book and its file.
pub(super) struct Book {
    leases: Leases,
    publisher: Option<Publisher>,
    published: Instant,
    changed: bool,
    /// Whether the last attempt to publish failed, which is told once.
    failing: bool,
    /// Whether the engine has told of everybody, and still tells.
    listed: bool,
    /// Up to when what the engine said has been heard.
    read: BootTime,
}

fn boot() -> Result<BootId, FleetError> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(FleetError::Boot)?;
    BootId::parse(&text).map_err(|e| FleetError::Boot(io::Error::other(e)))
}

fn now() -> BootTime {
    BootTime(boot_now())
}

/// Both clocks.
fn reading() -> lease::Reading {
    let before = now();
    let wall = clock_gettime(ClockId::CLOCK_REALTIME);
    let wall = wall.map_or(0, |t| Duration::from(t).as_nanos() as u64);
    lease::Reading {
        before,
        wall: WallTime(wall),
        after: now(),
    }
}

impl Book {
    /// Goes on with the file that an earlier loader of this boot has left; then [`Book::keep`]. One that
    /// cannot be read is begun anew, and comes with why.
    pub(super) fn open(
        file: Option<&Path>,
        group: Option<u32>,
    ) -> Result<(Self, Option<FileError>), FleetError> {
        let boot = boot()?;
        let mut trouble = None;
        let publisher = file.map(|path| Publisher::open(path, group)).transpose()?;
        let known = match file.map(|path| lease::load(path, &boot)) {
            Some(Ok(leases)) => leases,
            None | Some(Err(FileError::OtherBoot { .. })) => Leases::new(boot),
            Some(Err(FileError::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
                Leases::new(boot)
            }
            Some(Err(e)) => {
                trouble = Some(e);
                Leases::new(boot)
            }
        };
        let mut book = Self {
            leases: known,
            publisher,
            published: Instant::now(),
            changed: true,
            failing: false,
            listed: false,
            read: BootTime(0),
        };
        book.observe();
        Ok((book, trouble))
    }

    /// The lease of a slot.
    pub(super) fn of_slot(&self, slot: u32) -> Option<&Lease> {
        self.leases.by_slot(slot)
    }

    /// Ends every open lease but those of these containers and slots, at the moment when the file was
    /// written last: who else still runs comes again.
    pub(super) fn keep(&mut self, these: &HashSet<(String, u32)>) -> Result<(), LeasesError> {
        let goes = |l: &&Lease| {
            let stays = |slot| these.contains(&(l.container_id.clone(), slot));
            l.is_open() && !l.slot.is_some_and(stays)
        };
        let gone = self.leases.iter().filter(goes);
        let gone: Vec<String> = gone.map(|l| l.container_id.clone()).collect();
        let until = self.leases.as_of();
        gone.iter().try_for_each(|id| self.leases.close(id, until))
    }

    /// Whether the engine has told of everybody, so that what is written is all there is.
    pub(super) fn is_listed(&mut self, all: bool) {
        self.listed = all;
    }

    /// Everything that happened up to this moment (boot clock, nanoseconds) has been told.
    pub(super) fn is_read(&mut self, until: u64) {
        self.read = self.read.max(BootTime(until));
    }

    /// Looks at the clocks, twice if the first time took too long.
    fn observe(&mut self) {
        for _ in 0..2 {
            if self.leases.observe(reading()) != lease::Observation::Unusable {
                return;
            }
        }
    }

    /// The moments that an event's own time may mean, not later than now.
    fn moments(&self, at: i64) -> impl Iterator<Item = BootTime> + '_ {
        let wall = u64::try_from(at).ok().map(WallTime);
        let now = now();
        let all = wall
            .into_iter()
            .flat_map(|w| self.leases.clock().boot_times(w));
        all.filter(move |t| *t <= now)
    }

    /// Opens the lease of somebody who runs, from when it had its addresses: what it sends at its very start is of
    /// before the time that the engine has for that. Where the clock leaves a choice, the latest beginning: too
    /// short a lease loses a name, too long a one could give a wrong one.
    pub(super) fn begin(
        &mut self,
        m: &Member,
        cgroup_id: Option<u64>,
    ) -> Result<Option<Lease>, LeasesError> {
        let c = &m.container;
        let of_it = || self.leases.iter().filter(|l| l.container_id == c.id);
        if of_it().any(Lease::is_open) {
            // One that a loader before has opened.
            return self.renew(m).map(|()| None);
        }
        // Not while it had the same addresses under another slot.
        let before = of_it().filter_map(|l| l.until).max();
        let since = self.moments(c.started).max().unwrap_or_else(now);
        let since = m.held_since.map_or(since, |held| since.min(BootTime(held)));
        let since = before.map_or(since, |before| since.max(before));
        let hold = |ip: &IpAddr| Hold {
            ip: *ip,
            since,
            until: None,
        };
        let agent = c.is_agent;
        self.changed = true;
        self.leases.open(Lease {
            agent: c.agent.clone().filter(|_| agent),
            project: c.project.clone().filter(|_| agent),
            container_id: c.id.clone(),
            name: c.name.clone(),
            slot: m.slot,
            cgroup_id,
            netns: c.netns,
            since,
            until: None,
            ips: c.addresses.iter().map(hold).collect(),
        })
    }

    /// Takes over a change of name or addresses.
    pub(super) fn renew(&mut self, m: &Member) -> Result<(), LeasesError> {
        let c = &m.container;
        self.changed = true;
        self.leases.rename(&c.id, &c.name)?;
        if let Some(netns) = c.netns {
            self.leases.set_netns(&c.id, netns)?;
        }
        self.leases.set_ips(&c.id, &c.addresses, now())
    }

    /// Ends a lease at the engine's time; where the clock leaves a choice, the earliest end. Nobody has
    /// one who was never met.
    pub(super) fn end(&mut self, container_id: &str, at: Option<i64>) {
        let as_of = self.leases.as_of();
        let until = match at {
            Some(at) => self.moments(at).min().unwrap_or_else(now),
            // It went while nobody looked.
            None => as_of,
        };
        self.changed = true;
        // What is refused is an end of a lease that was not opened.
        let _ = self.leases.close(container_id, until);
    }

    /// Writes the book when it has changed, and twice a second. What cannot be written is said once. It is complete as far
    /// as the engine has been heard, and not from `held` on (boot clock): since then somebody holds addresses whose lease
    /// is not opened yet.
    pub(super) fn tick(&mut self, held: Option<u64>) -> Result<(), FileError> {
        if (!self.changed || self.failing) && self.published.elapsed() < EVERY {
            return Ok(());
        }
        self.observe();
        let now = now();
        if self.listed {
            let until = held.map_or(self.read, |held| self.read.min(BootTime(held)));
            self.leases.complete_until(until);
        }
        self.leases.expire(now, HORIZON);
        self.published = Instant::now();
        let Some(publisher) = &mut self.publisher else {
            self.changed = false;
            return Ok(());
        };
        match publisher.publish(&self.leases) {
            Ok(()) => {
                self.changed = false;
                self.failing = false;
                Ok(())
            }
            Err(_) if self.failing => Ok(()),
            Err(e) => {
                self.failing = true;
                Err(e)
            }
        }
    }
}

#[cfg(test)]
mod tests;
