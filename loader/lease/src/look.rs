//! Look-ups. Each answers for a time, because everything but slots is used again.

use crate::{
    index::under,
    lease::Lease,
    leases::Leases,
    time::{At, BootTime},
};
use std::net::IpAddr;

/// Who it was. Only [`Answer::Held`] is an identity; the others say why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'l> {
    /// This one, alone, at every moment asked for.
    Held(&'l Lease),
    /// Nobody that the book knows.
    Nobody,
    /// More than one could be meant: several shared it, or it changed hands, or the wall clock showed
    /// this time more than once and not everything was the same.
    Ambiguous,
    /// The book cannot tell: the time is before what it remembers, or the wall clock is not known to
    /// have shown it.
    Beyond,
}

impl<'l> Answer<'l> {
    /// The identity, if there is one.
    #[must_use]
    pub fn lease(self) -> Option<&'l Lease> {
        match self {
            Self::Held(lease) => Some(lease),
            Self::Nobody | Self::Ambiguous | Self::Beyond => None,
        }
    }

    fn same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Held(a), Self::Held(b)) => std::ptr::eq(a, b),
            (a, b) => std::mem::discriminant(&a) == std::mem::discriminant(&b),
        }
    }
}

/// What all answers agree on.
fn agreed<'l>(mut answers: impl Iterator<Item = Answer<'l>>) -> Answer<'l> {
    let Some(first) = answers.next() else {
        return Answer::Beyond;
    };
    if answers.all(|answer| answer.same(first)) {
        first
    } else {
        Answer::Ambiguous
    }
}

impl Leases {
    /// Whose slot it is or was. Slots are never used twice in a boot, so no time is needed, and flows
    /// that end after their container are still its own.
    #[must_use]
    pub fn by_slot(&self, slot: u32) -> Option<&Lease> {
        self.index.slots.get(&slot).map(|at| &self.leases[*at])
    }

    /// Who had an address at a time. Whoever shares the network namespace of one who had it, had it too.
    #[must_use]
    pub fn by_ip(&self, ip: IpAddr, at: impl Into<At>) -> Answer<'_> {
        let ip = ip.to_canonical();
        self.at(at.into(), |moment| self.ip_holder(ip, moment, moment))
    }

    /// Who had an address all the time from one moment to another, in either order. For a sender that
    /// chooses the time in its records itself: ask with that time and the time of reception, and nobody
    /// can write into the time of whoever had the address before.
    #[must_use]
    pub fn by_ip_through(
        &self,
        ip: IpAddr,
        one: impl Into<At>,
        other: impl Into<At>,
    ) -> Answer<'_> {
        let ip = ip.to_canonical();
        let (one, other) = (one.into(), other.into());
        let pairs = self
            .moments(one)
            .flat_map(|a| self.moments(other).map(move |b| (a.min(b), a.max(b))));
        agreed(pairs.map(|(from, to)| self.known(from, || self.ip_holder(ip, from, to))))
    }

    /// Which life of a container it was.
    #[must_use]
    pub fn by_container(&self, container_id: &str, at: impl Into<At>) -> Answer<'_> {
        let positions = under(&self.index.containers, container_id);
        self.at(at.into(), |moment| self.alive(positions, moment))
    }

    /// Whose cgroup it was.
    #[must_use]
    pub fn by_cgroup(&self, cgroup_id: u64, at: impl Into<At>) -> Answer<'_> {
        let positions = under(&self.index.cgroups, &cgroup_id);
        self.at(at.into(), |moment| self.alive(positions, moment))
    }

    fn at<'l>(&'l self, at: At, holder: impl Fn(BootTime) -> Answer<'l>) -> Answer<'l> {
        agreed(
            self.moments(at)
                .map(|moment| self.known(moment, || holder(moment))),
        )
    }

    /// Every moment that a time may stand for.
    fn moments(&self, at: At) -> impl Iterator<Item = BootTime> + '_ {
        let (boot, wall) = match at {
            At::Boot(boot) => (Some(boot), None),
            At::Wall(wall) => (None, Some(wall)),
        };
        let by_wall = wall
            .into_iter()
            .flat_map(|wall| self.clock.boot_times(wall));
        boot.into_iter().chain(by_wall)
    }

    fn known<'l>(&self, from: BootTime, answer: impl FnOnce() -> Answer<'l>) -> Answer<'l> {
        if from < self.floor {
            Answer::Beyond
        } else {
            answer()
        }
    }

    fn alive(&self, positions: &[usize], moment: BootTime) -> Answer<'_> {
        let mut living = positions
            .iter()
            .map(|at| &self.leases[*at])
            .filter(|lease| lease.lived(moment, moment));
        match (living.next(), living.next()) {
            (None, _) => Answer::Nobody,
            (Some(lease), None) => Answer::Held(lease),
            (Some(_), Some(_)) => Answer::Ambiguous,
        }
    }

    fn ip_holder(&self, ip: IpAddr, from: BootTime, to: BootTime) -> Answer<'_> {
        let mut holders = under(&self.index.ips, &ip)
            .iter()
            .filter(|at| self.leases[**at].held(ip, from, to));
        let at = match (holders.next(), holders.next()) {
            (None, _) => return Answer::Nobody,
            (Some(_), Some(_)) => return Answer::Ambiguous,
            (Some(at), None) => *at,
        };
        let lease = &self.leases[at];
        if self.shares_netns(at, from, to) {
            Answer::Ambiguous
        } else if lease.held_through(ip, from, to) {
            Answer::Held(lease)
        } else {
            Answer::Nobody
        }
    }

    /// Whether somebody else lived in the network namespace of a lease.
    fn shares_netns(&self, at: usize, from: BootTime, to: BootTime) -> bool {
        let Some(netns) = self.leases[at].netns else {
            return false;
        };
        let mut others = under(&self.index.netns, &netns).iter().copied();
        others.any(|other| other != at && self.leases[other].lived(from, to))
    }
}
