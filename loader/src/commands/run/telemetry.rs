//! What a run says about itself to the receiver of `--otlp`.

use super::super::metrics::Metrics;
use crate::{
    cgroup::Cgroup,
    export::Export,
    session::Session,
    telemetry::{Ledger, View, hooks},
};
use std::path::PathBuf;
use wire::log_layer::Unsent;

/// Counts, looks at the hooks, and hands over metrics when it is time.
pub(super) struct Telemetry {
    metrics: Metrics,
    ledger: Ledger,
    /// Directory of the links, and the id of the cgroup that they must lead to.
    links: PathBuf,
    cgroup_id: u64,
    /// The hook that was missing at the last look.
    missing: Option<&'static str>,
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
            metrics: Metrics::new(instance, unsent),
            ledger: Ledger::default(),
            links,
            cgroup_id,
            missing: None,
        }
    }

    /// Hands metrics over if the last ones are old enough.
    pub(super) fn tick(&mut self, session: &Session, cgroup: &Cgroup, export: &Export) {
        if !self.metrics.are_due() {
            return;
        }
        let missing = hooks::missing(&self.links, cgroup.path(), self.cgroup_id);
        if let Some(hook) = missing.filter(|_| self.missing != missing) {
            hooks::complain(hook, cgroup.path());
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
        self.ledger.look((0..).zip(&session.all_books()));
        let view = View {
            malformed: session.malformed,
            ..view
        };
        self.metrics.tell(self.ledger.sums(), view, export);
    }
}
