//! What `run` and `serve` have in common when they tell their metrics.

use crate::{
    export::Export,
    telemetry::{self, Sums, View},
};
use jiff::Timestamp;
use std::time::{Duration, Instant};
use wire::{Source, log_layer::Unsent};

/// How often metrics are sent.
const EVERY: Duration = Duration::from_secs(10);

/// Says when it is time, and hands metrics over.
pub(super) struct Metrics {
    source: Source,
    start: Timestamp,
    next: Instant,
    unsent: Option<Unsent>,
}

impl Metrics {
    /// Counts begin now.
    pub(super) fn new(instance: &str, unsent: Option<Unsent>) -> Self {
        Self {
            source: telemetry::source(instance),
            start: Timestamp::now(),
            next: Instant::now(),
            unsent,
        }
    }

    /// Whether the last ones are old enough; asked once for each time that they are told.
    pub(super) fn are_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            self.next = now + EVERY;
        }
        due
    }

    /// Hands these over. What is known here and not there is filled in.
    pub(super) fn tell(&self, sums: &Sums, view: View, export: &Export) {
        let view = View {
            export: export.state(),
            unsent: self.unsent.as_ref().map_or(0, Unsent::count),
            ..view
        };
        let now = Timestamp::now();
        export.metrics(telemetry::snapshot(
            &self.source,
            self.start,
            now,
            sums,
            &view,
        ));
    }
}
