//! The bridge: takes telemetry in, stamps whose it is, keeps it on disk, and delivers it.

pub mod cli;
pub mod deliver;
pub mod entrance;
pub mod incoming;
pub mod serve;
pub mod spool;
pub mod status;
