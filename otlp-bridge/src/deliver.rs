//! Delivery: from the spool to the receiver, one worker for each data stream, so that the trouble of one
//! is not that of another.

mod conflict;
mod plan;
mod worker;

pub use worker::{Deliveries, start};
