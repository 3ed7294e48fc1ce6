//! The bridge from outside: the spool against a model of it, against kill -9 and full disks, and delivery
//! to a real collector.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod delivered;
mod disk;
mod full;
mod kept;
mod killed;
mod model;
mod program;
mod receiver;
mod support;
