//! Whose record it is: takes requests apart, removes whatever the sender said about itself, and sets what
//! the leases say about the address it came from. Pure: bytes, leases and a time in, records out.
//!
//! ```text
//! ExportLogsServiceRequest ─▶ one record at a time, within bounds ─▶ lane, address ─▶ lease ─▶ Incoming
//! ```
//!
//! Nothing is refused in silence: every record of a request is in the result or counted there.

mod claims;
mod decode;
mod flows;
mod id;
mod identity;
mod logs;
mod metrics;
mod raw;
mod series;
mod tally;

pub use claims::is_claim;
pub use logs::{Stamped, logs};
pub use metrics::{StampedMetrics, metrics};
pub use raw::Malformed;
pub use series::{SETS_MOST, Series};
pub use tally::Tally;

use lease::{BootTime, Leases, WallTime};
use wire::stream::{self, LANE_AGENTS, LANE_COREDNS, LANE_ENVOY};

/// Which way a record came to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Agents send it themselves: the address is the peer's.
    Agents,
    /// Envoy logged it: the address is the one it logged.
    Envoy,
    /// CoreDNS logged it, likewise.
    Coredns,
}

impl Lane {
    /// By the name that the collector gives it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            LANE_AGENTS => Some(Self::Agents),
            LANE_ENVOY => Some(Self::Envoy),
            LANE_COREDNS => Some(Self::Coredns),
            _ => None,
        }
    }

    /// The stream that its records belong to, whatever they say.
    #[must_use]
    pub fn stream(self) -> &'static str {
        match self {
            Self::Agents => stream::CLAUDE,
            Self::Envoy => stream::ENVOY,
            Self::Coredns => stream::COREDNS,
        }
    }
}

/// The door a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// The loader's unix socket. What comes here is true.
    Loader,
    /// The collector's intake. Only what the collector says is true.
    Collector,
}

/// Bounds of what one request may make of the bridge. What is over them is cut, left out or refused, and
/// counted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Records of a request.
    pub records: usize,
    /// Bytes of a record, encoded.
    pub record_bytes: usize,
    /// Bytes of all records of a request when each has its resource and scope, encoded.
    pub output_bytes: usize,
    /// Attributes of a record, a resource, a scope.
    pub attributes: usize,
    /// Values and pairs in a record, nested ones included.
    pub values: usize,
    /// How deep values may be nested.
    pub depth: usize,
    /// Bytes of a text.
    pub text_bytes: usize,
    /// Bytes of a name: a key, an event, a scope.
    pub key_bytes: usize,
    /// Bytes of the attributes of a resource, and of a scope: they stand before every record.
    pub envelope_bytes: usize,
    /// Messages in a request of metrics: metrics, data points, attributes and the like.
    pub metric_parts: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            records: 4096,
            record_bytes: 256 << 10,
            output_bytes: 16 << 20,
            attributes: 128,
            values: 2048,
            depth: 8,
            text_bytes: 16 << 10,
            key_bytes: 256,
            envelope_bytes: 4 << 10,
            metric_parts: 100_000,
        }
    }
}

/// When a request arrived, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception {
    /// On the boot clock.
    pub boot: BootTime,
    /// On the wall clock.
    pub wall: WallTime,
}

/// What a stamp is made with.
#[derive(Clone, Copy, Debug)]
pub struct Context<'c> {
    /// Where the request came in.
    pub entrance: Entrance,
    /// Who held which address when.
    pub book: &'c Leases,
    /// When it came in.
    pub received: Reception,
    /// How much of it is taken.
    pub limits: &'c Limits,
}
