//! What happens to agents: enrolled, left, weakened, and flows that no record tells of.

use crate::{docker::Weakness, record::Owner, render::units, weakness};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;
use wire::{LogRecord, RecordBuilder, Severity, fields as f};

/// Why flows are in no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GapCause {
    /// A loader was killed that had them, and nobody has them on record.
    Killed,
    /// The receiver or the file did not take their records.
    Refused,
    /// Their end was not seen.
    Unseen,
}

impl GapCause {
    fn word(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Refused => "refused",
            Self::Unseen => "unseen",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Kind {
    /// A container is under the firewall.
    Enrolled {
        /// Its slot.
        slot: u32,
        /// What to know about it.
        #[serde(skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// A container has ended, and all its flows are told.
    Left {
        /// The slot it had.
        slot: u32,
    },
    /// Something weakens the firewall around a container.
    Weakness {
        /// What, from a closed list.
        weakness: &'static str,
    },
    /// A loader goes on where another one has ended.
    TakenOver {
        /// What was found, and what was done.
        message: String,
    },
    /// Flows that no record tells of.
    Gap {
        /// Boot that they are of, as in `flow_id`.
        boot: String,
        /// Slot that they were of.
        slot: u32,
        /// Their verdict; absent when their end was not seen.
        #[serde(skip_serializing_if = "Option::is_none")]
        verdict: Option<&'static str>,
        /// How many.
        flows: u64,
        /// Why.
        cause: GapCause,
    },
    /// A container that may not reach anything, because it could not be enrolled as it should.
    Shut {
        /// Why.
        message: String,
    },
    /// A container that runs and is not under the firewall.
    Unguarded {
        /// Why, and what to do.
        message: String,
    },
}

/// An audit record about one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// `clawker.overseer.*`.
    pub event_name: &'static str,
    /// Whom it is about.
    #[serde(flatten)]
    pub owner: Owner,
    /// What happened.
    #[serde(flatten)]
    pub kind: Kind,
}

impl Kind {
    /// For a weakness as the engine tells it.
    #[must_use]
    pub fn weakness(w: Weakness) -> Self {
        let weakness = weakness::told(w).word;
        Self::Weakness { weakness }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Enrolled { .. } => "clawker.overseer.enrolled",
            Self::Left { .. } => "clawker.overseer.left",
            Self::Weakness { .. } => "clawker.overseer.weakness",
            Self::TakenOver { .. } => "clawker.overseer.taken_over",
            Self::Gap { .. } => "clawker.overseer.gap",
            Self::Shut { .. } => "clawker.overseer.shut",
            Self::Unguarded { .. } => "clawker.overseer.unguarded",
        }
    }

    fn severity(&self) -> Severity {
        match self {
            Self::Enrolled { .. } | Self::Left { .. } | Self::TakenOver { .. } => Severity::Info,
            Self::Weakness { .. } => Severity::Warn,
            Self::Gap { .. } | Self::Shut { .. } | Self::Unguarded { .. } => Severity::Error,
        }
    }
}

impl Event {
    /// Now.
    #[must_use]
    pub fn now(owner: &Owner, kind: Kind) -> Self {
        Self {
            time: Timestamp::now(),
            event_name: kind.name(),
            owner: owner.clone(),
            kind,
        }
    }

    /// As a record of `clawker-overseer`.
    #[must_use]
    pub fn otlp(&self) -> LogRecord {
        let (owner, severity) = (&self.owner, self.kind.severity());
        let said = self.to_string();
        let record = RecordBuilder::new(self.event_name, self.time, self.time, severity, said)
            .maybe(f::AGENT, owner.agent.as_deref())
            .maybe(f::PROJECT, owner.project.as_deref())
            .maybe(f::CONTAINER_ID, owner.container_id.as_deref())
            .maybe(f::CONTAINER_NAME, owner.container_name.as_deref());
        match &self.kind {
            Kind::Enrolled { slot, message } => record
                .with(f::SLOT, *slot)
                .maybe(f::MESSAGE, Some(message.as_str()).filter(|m| !m.is_empty())),
            Kind::Left { slot } => record.with(f::SLOT, *slot),
            Kind::Weakness { weakness } => record.with(f::WEAKNESS, *weakness),
            Kind::Gap {
                boot,
                slot,
                verdict,
                flows,
                cause,
            } => record
                .with(f::BOOT, boot.as_str())
                .with(f::SLOT, *slot)
                .maybe(f::VERDICT, *verdict)
                .with(f::FLOWS, *flows)
                .with(f::CAUSE, cause.word()),
            Kind::Shut { message } | Kind::Unguarded { message } | Kind::TakenOver { message } => {
                record.with(f::MESSAGE, message.as_str())
            }
        }
        .build()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "-".to_owned();
        let shown = |text: &Option<String>| {
            text.as_deref()
                .map_or_else(none, crate::render::line::printable)
        };
        let name = shown(&self.owner.container_name);
        let (agent, project) = (shown(&self.owner.agent), shown(&self.owner.project));
        let who = format!("{name} (agent {agent}, project {project})");
        match &self.kind {
            Kind::Enrolled { slot, message } if message.is_empty() => {
                write!(f, "enrolled {who} as slot {slot}")
            }
            Kind::Enrolled { slot, message } => {
                write!(f, "enrolled {who} as slot {slot}: {message}")
            }
            Kind::Left { slot } => write!(f, "left {who}, slot {slot}"),
            Kind::Weakness { weakness } => write!(f, "weakened {who}: {weakness}"),
            Kind::TakenOver { message } => write!(f, "taken over: {message}"),
            Kind::Gap {
                slot,
                verdict,
                flows,
                cause,
                ..
            } => write!(
                f,
                "gap {who}, slot {slot}: {} {}flows are in no record ({})",
                units::count(*flows),
                verdict.map_or(String::new(), |v| format!("{v} ")),
                cause.word()
            ),
            Kind::Shut { message } => write!(f, "shut {who}: it can reach nothing: {message}"),
            Kind::Unguarded { message } => {
                write!(f, "NOT under the firewall: {who}: {message}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Kind> {
        vec![
            Kind::Enrolled {
                slot: 7,
                message: String::new(),
            },
            Kind::Enrolled {
                slot: 7,
                message: "without a policy: observed".to_owned(),
            },
            Kind::Left { slot: 7 },
            Kind::weakness(Weakness::HostNetwork),
            Kind::TakenOver {
                message: "2 agents stay".to_owned(),
            },
            Kind::Gap {
                boot: "0123".to_owned(),
                slot: 7,
                verdict: Some("DENIED"),
                flows: 1200,
                cause: GapCause::Refused,
            },
            Kind::Gap {
                boot: "0123".to_owned(),
                slot: 7,
                verdict: None,
                flows: 1,
                cause: GapCause::Unseen,
            },
            Kind::Shut {
                message: "no row is free".to_owned(),
            },
            Kind::Unguarded {
                message: "it has no cgroup of its own".to_owned(),
            },
        ]
    }

    #[test]
    fn json_and_otlp_say_the_same() {
        let owner = Owner {
            agent: Some("web".to_owned()),
            project: None,
            container_id: Some("0123".to_owned()),
            container_name: Some("shop.web".to_owned()),
        };
        for kind in all() {
            let event = Event::now(&owner, kind);
            let json = serde_json::to_value(&event).unwrap();
            let mut fields = json.as_object().unwrap().clone();
            let name = fields.remove("event_name").unwrap();
            fields.remove("time").unwrap();
            let record = event.otlp();
            assert_eq!(name, record.event_name);
            let mut keys: Vec<_> = record.attributes.iter().map(|a| a.key.clone()).collect();
            keys.sort();
            assert_eq!(keys, fields.keys().cloned().collect::<Vec<_>>(), "{json}");
        }
    }

    #[test]
    fn labels_cannot_move_the_cursor() {
        let owner = Owner {
            agent: Some("\u{1b}[2J".to_owned()),
            ..Owner::default()
        };
        for kind in all() {
            let said = Event::now(&owner, kind).to_string();
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
    }
}
