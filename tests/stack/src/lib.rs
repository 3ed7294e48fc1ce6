//! The real parts of the monitor stack, started for one test each.

pub mod bridge;
pub mod chain;
pub mod claude;
pub mod collector;
pub mod opensearch;
pub mod send;
