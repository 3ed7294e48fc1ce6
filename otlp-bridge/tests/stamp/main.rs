//! The stamper: whatever a sender writes, a record has the identity that the leases say or none, and every
//! record that comes is in the result or counted.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod bounds;
mod collector;
mod loader;
mod make;
mod metrics;
mod series;
