//! The bridge: takes telemetry in, stamps whose it is, keeps it on disk, and delivers it.

pub mod cli;
pub mod deliver;
pub mod incoming;
pub mod intake;
pub mod own;
pub mod reason;
pub mod serve;
pub mod spool;
pub mod stamp;
pub mod status;
pub mod telemetry;
