//! One lease: a container's life from start to end, and the addresses it had in it.

use crate::{
    text::{self, TextError, shown},
    time::BootTime,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Holds of addresses that one lease remembers.
pub const MAX_HOLDS: usize = 64;
/// Longest container id, in bytes. Docker's have 64.
pub const MAX_CONTAINER_ID: usize = 128;

/// Who somebody was, from when to when. Times are half open: `since` belongs to it, `until` does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// `dev.clawker.agent` as it is; absent label, absent value (D17).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// `dev.clawker.project`, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Docker's full id. A restarted container keeps it and gets another lease.
    pub container_id: String,
    /// Docker's name, without the slash. It is the latest one: a renamed container keeps its lease.
    pub name: String,
    /// Slot in the kernel's maps, never used twice in a boot; absent for a container that is not
    /// enrolled and known only because its addresses are nobody else's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// Id of the cgroup's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Inode number of the network namespace. Who shares it shares every address in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<u64>,
    /// Beginning.
    pub since: BootTime,
    /// End; absent while it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<BootTime>,
    /// Addresses, each with its own time, which lies in that of the lease.
    pub ips: Vec<Hold>,
}

/// An address while it was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The address; never IPv4 in an IPv6 spelling.
    pub ip: IpAddr,
    /// Beginning.
    pub since: BootTime,
    /// End; absent while it is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<BootTime>,
}

/// Why something is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// A text that may not stand there.
    #[error("its {field} {source}")]
    Text {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        source: TextError,
    },
    /// No container id, or one that is too long.
    #[error("its container id has {0} bytes instead of 1 to {MAX_CONTAINER_ID}")]
    ContainerId(usize),
    /// Slot 0 is "not enrolled".
    #[error("its slot is 0, which is nobody's")]
    SlotZero,
    /// It ends before it begins.
    #[error("it ends before it begins")]
    Order,
    /// An address that no container has for itself.
    #[error("{0} cannot be the address of one container")]
    Address(IpAddr),
    /// An address is held when the lease is not, or ends before it begins.
    #[error("it holds {0} at a time that is not its own")]
    HoldTime(IpAddr),
    /// One address twice at a time.
    #[error("it holds {0} twice at a time")]
    HoldTwice(IpAddr),
    /// More addresses than [`MAX_HOLDS`].
    #[error("it has {0} addresses, more than {MAX_HOLDS}")]
    TooManyHolds(usize),
}

/// Whether a half-open time has a part in the closed one from `from` to `to`.
fn touches(since: BootTime, until: Option<BootTime>, from: BootTime, to: BootTime) -> bool {
    // A hold that ends when it begins was never one.
    since <= to && until.is_none_or(|until| from < until && since < until)
}

/// Whether a half-open time has this moment.
fn covers(since: BootTime, until: Option<BootTime>, at: BootTime) -> bool {
    touches(since, until, at, at)
}

impl Lease {
    /// Whether it lives.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.until.is_none()
    }

    /// Whether it lived at some moment from `from` to `to`.
    pub(crate) fn lived(&self, from: BootTime, to: BootTime) -> bool {
        touches(self.since, self.until, from, to)
    }

    /// Whether it held the address at some moment from `from` to `to`.
    pub(crate) fn held(&self, ip: IpAddr, from: BootTime, to: BootTime) -> bool {
        let mut holds = self.ips.iter().filter(|hold| hold.ip == ip);
        holds.any(|hold| touches(hold.since, hold.until, from, to))
    }

    /// Whether it held the address at every moment from `from` to `to`.
    pub(crate) fn held_through(&self, ip: IpAddr, from: BootTime, to: BootTime) -> bool {
        let mut at = from;
        // Each turn takes a hold that goes on where the one before ended.
        loop {
            let mut holds = self.ips.iter().filter(|hold| hold.ip == ip);
            match holds.find(|hold| covers(hold.since, hold.until, at)) {
                None => return false,
                Some(hold) => match hold.until {
                    Some(until) if until <= to => at = until,
                    _ => return true,
                },
            }
        }
    }

    /// Ends it and what it holds. An end before the beginning leaves a lease of no time.
    pub(crate) fn end(&mut self, until: BootTime) {
        let until = until.max(self.since);
        self.until = Some(until);
        for hold in &mut self.ips {
            hold.until = Some(hold.until.map_or(until, |end| end.min(until)));
        }
        self.ips.retain(|hold| Some(hold.since) < hold.until);
    }

    /// The addresses it would have if from `at` on it held exactly `now`. What it holds already keeps
    /// its beginning: nothing is claimed for a time before it was said.
    pub(crate) fn with_ips(&self, now: &[IpAddr], at: BootTime) -> Result<Vec<Hold>, LeaseError> {
        let at = at.max(self.since);
        let mut holds = self.ips.clone();
        for hold in &mut holds {
            if !now.iter().any(|ip| ip.to_canonical() == hold.ip) {
                hold.until = Some(hold.until.map_or(at, |end| end.min(at)));
            }
        }
        holds.retain(|hold| hold.until.is_none_or(|until| hold.since < until));
        for ip in now.iter().map(IpAddr::to_canonical) {
            check_ip(ip)?;
            let ends = holds.iter().filter(|hold| hold.ip == ip);
            let last = ends.map(|hold| hold.until).max_by(later);
            // Held to this day, or held until then, or never.
            let since = match last {
                Some(None) => continue,
                Some(Some(end)) => end.max(at),
                None => at,
            };
            holds.push(Hold {
                ip,
                since,
                until: None,
            });
        }
        Ok(holds)
    }

    /// Whether everything in it may be there.
    pub(crate) fn check(&self) -> Result<(), LeaseError> {
        let texts = [
            ("agent", self.agent.as_deref().unwrap_or_default()),
            ("project", self.project.as_deref().unwrap_or_default()),
            ("name", &self.name),
            ("container id", &self.container_id),
        ];
        for (field, text) in texts {
            text::check(text).map_err(|source| LeaseError::Text { field, source })?;
        }
        if !(1..=MAX_CONTAINER_ID).contains(&self.container_id.len()) {
            return Err(LeaseError::ContainerId(self.container_id.len()));
        }
        if self.slot == Some(0) {
            return Err(LeaseError::SlotZero);
        }
        if self.until.is_some_and(|until| until < self.since) {
            return Err(LeaseError::Order);
        }
        self.check_holds()
    }

    fn check_holds(&self) -> Result<(), LeaseError> {
        if self.ips.len() > MAX_HOLDS {
            return Err(LeaseError::TooManyHolds(self.ips.len()));
        }
        for (i, hold) in self.ips.iter().enumerate() {
            check_ip(hold.ip)?;
            let ended = hold.until.is_none_or(|until| hold.since < until);
            let inside = later(&hold.until, &self.until).is_le() && self.since <= hold.since;
            if !ended || !inside {
                return Err(LeaseError::HoldTime(hold.ip));
            }
            let mut before = self.ips[..i].iter().filter(|other| other.ip == hold.ip);
            let starts_in = |a: &Hold, b: &Hold| covers(a.since, a.until, b.since);
            if before.any(|other| starts_in(other, hold) || starts_in(hold, other)) {
                return Err(LeaseError::HoldTwice(hold.ip));
            }
        }
        Ok(())
    }

    /// Its container for an error message.
    pub(crate) fn shown(&self) -> String {
        shown(&self.container_id)
    }
}

/// Compares ends, of which the absent one is the latest.
fn later(a: &Option<BootTime>, b: &Option<BootTime>) -> std::cmp::Ordering {
    (a.is_none(), a).cmp(&(b.is_none(), b))
}

/// Refuses what several machines, or none, have at the same time.
fn check_ip(ip: IpAddr) -> Result<(), LeaseError> {
    let shared = match ip {
        IpAddr::V4(v4) => v4.is_broadcast(),
        // A link-local address says nothing without its link.
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if shared || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return Err(LeaseError::Address(ip));
    }
    Ok(())
}
