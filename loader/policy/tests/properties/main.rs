//! What must hold for every policy and every flow, tried on random ones.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod explain;
mod learn;
mod oracle;
mod random;
mod suggest;
