//! What stands in the stream of records beside the flows: what was done to the firewall. Told from a
//! flow's record by `event_name`.

mod bypass;
mod event;

#[cfg(test)]
pub(crate) use bypass::tests as bypass_tests;
pub use bypass::{BypassChange, BypassEvent, Cause};
pub use event::{Event, GapCause, Kind};

use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use wire::{LogRecord, RecordBuilder, Severity, fields as f};

/// What came of a change of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The proxies have been given it, and the kernel waits for what they say.
    Offered,
    /// It is in force.
    Applied,
    /// The policy before it stays.
    Refused,
}

/// A change of policy, or an attempt at one.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyChange {
    /// When it was made or refused.
    pub time: Timestamp,
    /// `clawker.overseer.policy`.
    pub event_name: &'static str,
    /// Raw label of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Raw label of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Whether it is in force.
    pub outcome: Outcome,
    /// The file, as it was named.
    pub policy: String,
    /// Generation of the configuration that is in force now.
    pub generation: u32,
    /// Why it was refused, or what to know about it; several lines when a policy has several mistakes.
    pub message: String,
}

/// `event_name` of a [`PolicyChange`].
pub const POLICY: &str = "clawker.overseer.policy";

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

impl PolicyChange {
    /// As a record of `clawker-overseer`.
    #[must_use]
    pub fn otlp(&self) -> LogRecord {
        let severity = match self.outcome {
            Outcome::Offered | Outcome::Applied => Severity::Info,
            Outcome::Refused => Severity::Error,
        };
        let message = Some(self.message.as_str()).filter(|m| !m.is_empty());
        RecordBuilder::new(POLICY, self.time, self.time, severity, self.to_string())
            .maybe(f::AGENT, self.agent.as_deref())
            .maybe(f::PROJECT, self.project.as_deref())
            .with(f::OUTCOME, self.outcome.word())
            .with(f::POLICY, self.policy.as_str())
            .with(f::GENERATION, self.generation)
            .maybe(f::MESSAGE, message)
            .build()
    }
}

impl fmt::Display for PolicyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy, generation, ..
        } = self;
        match self.outcome {
            Outcome::Offered => write!(f, "policy {policy} offered to the proxies"),
            Outcome::Applied => write!(f, "policy {policy} applied: generation {generation}"),
            Outcome::Refused => write!(f, "policy {policy} refused: generation {generation} stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_object_and_one_line() {
        let change = PolicyChange {
            time: "2026-03-01T12:00:00Z".parse().unwrap(),
            event_name: POLICY,
            agent: Some("reviewer".to_owned()),
            project: None,
            outcome: Outcome::Refused,
            policy: "egress.yaml".to_owned(),
            generation: 3,
            message: "two\nlines".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&change).unwrap(),
            r#"{"time":"2026-03-01T12:00:00Z","event_name":"clawker.overseer.policy","agent":"reviewer","outcome":"refused","policy":"egress.yaml","generation":3,"message":"two\nlines"}"#
        );
        assert_eq!(
            change.to_string(),
            "policy egress.yaml refused: generation 3 stays"
        );
    }
}
