//! The client against receivers that answer well, badly, late, half or not at all.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod grpc;
mod held;
mod http;
mod log;
mod metrics;
mod receiver;
mod tls;

use std::time::Duration;
use wire::{Client, Endpoint, Failure, Options, Outcome};

/// Limits that no healthy receiver meets.
fn options() -> Options {
    Options {
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

fn client(url: &str, options: &Options) -> Client {
    Client::new(&Endpoint::new(url, options).unwrap())
}

/// What stood in the way of a request that may be sent again.
#[track_caller]
fn failure(outcome: &Outcome) -> &Failure {
    match outcome {
        Outcome::Retry { failure, .. } => failure,
        other => panic!("{other:?}"),
    }
}

/// An answer that the receiver gave.
fn status(code: &str, message: &str) -> Failure {
    Failure::Status {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}
