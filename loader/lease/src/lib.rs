//! Identity: who held which slot, cgroup id, container id and address, from when to when.
//!
//! ```text
//! Docker events ─▶ open, set_ips, close ─▶ Leases ─publish─▶ file ─poll─▶ Leases ─▶ by_slot, by_ip, …
//!                  (loader)                                              (loader, otlp-bridge)
//! ```
//!
//! Data and look-up: no sockets, and whoever calls brings the time. Only [`Publisher`] and
//! [`Follower`] touch the disk. A look-up answers for one moment, and gives nobody's name where two
//! could be meant: see [`Answer`]. `docs/identity.md` tells the whole.
#![forbid(unsafe_code)]

mod clock;
mod file;
mod format;
mod index;
mod label;
mod lease;
mod leases;
mod look;
mod text;
mod time;

pub use clock::{Clock, ClockError, MAX_SPANS, Observation, Reading, TOLERANCE_NS};
pub use file::{FileError, Follower, MAX_FILE, Publisher, load};
pub use format::{FormatError, VERSION};
pub use label::{AGENT_LABEL, Labels, PROJECT_LABEL, Refused, container_name};
pub use lease::{Hold, Lease, LeaseError, MAX_CONTAINER_ID, MAX_HOLDS};
pub use leases::{Forgotten, Leases, LeasesError, MAX_LEASES};
pub use look::Answer;
pub use text::{MAX_TEXT, TextError};
pub use time::{At, BootId, BootIdError, BootTime, WallTime};
