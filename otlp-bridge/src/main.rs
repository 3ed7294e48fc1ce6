//! `otlp-bridge`: unprivileged; the only durable store between the sources and the collector.

use clap::Parser;

/// Takes telemetry in, stamps whose it is, keeps it on disk, and delivers it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {}

fn main() {
    Arguments::parse();
}
