//! From an address and a time to an identity, or to none.

use super::{Context, Lane, Tally};
use jiff::Timestamp;
use lease::{Answer, BootTime, Lease, WallTime};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use std::net::IpAddr;
use wire::fields::{AGENT, CONTAINER_ID, CONTAINER_NAME, IDENTITY_AS_OF, PROJECT};

/// Who it was, and whether the leases were complete up to then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'c> {
    pub(super) lease: &'c Lease,
    stale: bool,
}

/// Asks the leases.
pub(super) struct Asker<'c> {
    context: Context<'c>,
    /// The latest moment that was asked for and is later than the leases are complete.
    pub(super) ahead: Option<BootTime>,
}

impl<'c> Asker<'c> {
    pub(super) fn new(context: Context<'c>) -> Self {
        Self {
            context,
            ahead: None,
        }
    }

    /// Who had an address when a record was made. On the lane of the agents the sender wrote the time
    /// himself, so the address must have been his from then until now.
    pub(super) fn who(
        &mut self,
        lane: Lane,
        ip: Option<IpAddr>,
        time: WallTime,
        tally: &mut Tally,
    ) -> Option<Found<'c>> {
        let Some(ip) = ip else {
            tally.no_address += 1;
            return None;
        };
        let Context { book, received, .. } = self.context;
        let (answer, last) = match lane {
            Lane::Agents => (book.by_ip_through(ip, time, received.boot), received.boot),
            Lane::Envoy | Lane::Coredns => {
                let moments = book.clock().boot_times(time);
                // A time that the clock has not shown is not known later either.
                let last = moments.max().unwrap_or(book.as_of());
                (book.by_ip(ip, time), last.min(received.boot))
            }
        };
        let stale = last > book.as_of();
        if stale {
            self.ahead = self.ahead.max(Some(last));
        }
        match answer {
            Answer::Held(lease) => {
                tally.held += 1;
                tally.stale += u64::from(stale);
                return Some(Found { lease, stale });
            }
            Answer::Nobody => tally.nobody += 1,
            Answer::Ambiguous => tally.ambiguous += 1,
            Answer::Beyond => tally.beyond += 1,
        }
        None
    }

    /// Writes down who it was.
    pub(super) fn set(&self, attributes: &mut Vec<KeyValue>, found: Found<'_>) {
        let lease = found.lease;
        attributes.extend(lease.agent.as_deref().map(|v| AGENT.with(v)));
        attributes.extend(lease.project.as_deref().map(|v| PROJECT.with(v)));
        attributes.push(CONTAINER_ID.with(&*lease.container_id));
        attributes.push(CONTAINER_NAME.with(&*lease.name));
        if found.stale {
            attributes.extend(self.as_of().map(|at| IDENTITY_AS_OF.with(at)));
        }
    }

    /// What the wall clock showed when the leases were complete, if it has not been set since.
    fn as_of(&self) -> Option<Timestamp> {
        let Context { book, received, .. } = self.context;
        let age = received.boot.0.saturating_sub(book.as_of().0);
        let wall = i128::from(received.wall.0) - i128::from(age);
        Timestamp::from_nanosecond(wall).ok()
    }
}
