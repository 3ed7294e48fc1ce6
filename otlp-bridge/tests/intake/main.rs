//! The entrances, from outside: real sockets, real clients, and senders that mean no good. The disk is a
//! list in memory.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod follow;
mod full;
mod grpc;
mod hostile;
mod house;
mod http;
mod metrics;
mod socket;
