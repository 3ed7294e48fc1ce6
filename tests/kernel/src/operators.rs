//! Operators who lift the firewall and put it back, and what is recorded of it.

use crate::{eventually, run::Bench};
use serde_json::Value;

impl Bench {
    /// `bypass` or `enforce` with `--json`: the audit records it answers with. It must be good.
    #[track_caller]
    pub fn order(&self, args: &[&str]) -> Vec<Value> {
        let out = self.operate(&[args, &["--json"]].concat());
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {said}");
        let text = String::from_utf8_lossy(&out.stdout);
        text.lines()
            .map(|l| serde_json::from_str(l).expect("one JSON object a line"))
            .collect()
    }

    /// Audit records of an event in the stream of the run.
    #[must_use]
    pub fn audit(&self, event: &str) -> Vec<Value> {
        let name = format!("clawker.overseer.{event}");
        let mut all = self.events();
        all.retain(|e| e["event_name"] == name.as_str());
        all
    }

    /// Waits until so many audit records of an event are there; returns them.
    #[track_caller]
    pub fn audited(&self, event: &str, n: usize) -> Vec<Value> {
        eventually(&format!("{n} records of {event}"), || {
            let all = self.audit(event);
            (all.len() >= n).then_some(all)
        })
    }
}
