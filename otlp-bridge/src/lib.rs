//! The bridge: takes telemetry in, stamps whose it is, keeps it on disk, and delivers it.

pub mod incoming;
