//! What a run says about itself to the receiver of `--otlp`.

use super::otlp::METRICS_EVERY;
use crate::{
    cgroup::Cgroup,
    export::Export,
    session::Session,
    telemetry::{self, Ledger, View, hooks},
};
use jiff::Timestamp;
use std::{path::PathBuf, time::Instant};
use wire::{Source, log_layer::Unsent};

/// Counts, looks at the hooks, and hands over metrics when it is time.
pub(super) struct Telemetry {
    source: Source,
    start: Timestamp,
    ledger: Ledger,
    next: Instant,
    /// Directory of the links, and the id of the cgroup that they must lead to.
    links: PathBuf,
    cgroup_id: u64,
    /// The hook that was missing at the last look.
    missing: Option<&'static str>,
    unsent: Option<Unsent>,
}

impl Telemetry {
    /// Starts counting. `links`: the directory of the links of the attachment to the cgroup of that id.
    pub(super) fn new(
        instance: &str,
        links: PathBuf,
        cgroup_id: u64,
        unsent: Option<Unsent>,
    ) -> Self {
        Self {
            source: telemetry::source(instance),
            start: Timestamp::now(),
            ledger: Ledger::default(),
            next: Instant::now(),
            links,
            cgroup_id,
            missing: None,
            unsent,
        }
    }

    /// Hands metrics over if the last ones are old enough.
    pub(super) fn tick(&mut self, session: &Session, cgroup: &Cgroup, export: &Export) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + METRICS_EVERY;
        let missing = hooks::missing(&self.links, cgroup.path(), self.cgroup_id);
        if let Some(hook) = missing.filter(|_| self.missing != missing) {
            tracing::error!(
                target: wire::log_layer::SECURITY,
                "hook {hook} is not in force on {}: `ebpf-manager doctor` says what that costs",
                cgroup.path().display()
            );
        }
        self.missing = missing;
        let view = View {
            agents: 1,
            guarded: Some(missing.is_none()),
            ..View::default()
        };
        self.tell(session, view, export);
    }

    /// Hands over the last ones: nobody is under the firewall any more.
    pub(super) fn last(&mut self, session: &Session, lost: u64, export: &Export) {
        let view = View {
            lost,
            ..View::default()
        };
        self.tell(session, view, export);
    }

    fn tell(&mut self, session: &Session, view: View, export: &Export) {
        let rows = session.all_books();
        self.ledger.look((0..).zip(&rows));
        let view = View {
            malformed: session.malformed,
            export: export.state(),
            unsent: self.unsent.as_ref().map_or(0, Unsent::count),
            ..view
        };
        let now = Timestamp::now();
        export.metrics(telemetry::snapshot(
            &self.source,
            self.start,
            now,
            self.ledger.sums(),
            &view,
        ));
    }
}
