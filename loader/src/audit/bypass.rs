//! A bypass that began or ended.

use crate::{actor::Actor, render::line::printable, whom};
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};
use std::fmt;
use wire::{LogRecord, RecordBuilder, Severity, fields as f};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BypassEvent {
    /// Enforcement is lifted for a time.
    #[serde(rename = "clawker.overseer.bypass")]
    Begun,
    /// It is back.
    #[serde(rename = "clawker.overseer.enforce")]
    Ended,
}

impl BypassEvent {
    /// The `event_name` of the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Begun => "clawker.overseer.bypass",
            Self::Ended => "clawker.overseer.enforce",
        }
    }
}

/// What made it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Somebody ordered it.
    Operator,
    /// Its time was over.
    Expired,
    /// What was bypassed is over.
    Over,
}

impl Cause {
    /// As written in the record.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Expired => "expired",
            Self::Over => "over",
        }
    }
}

/// A bypass that began or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BypassChange {
    /// When.
    pub time: Timestamp,
    /// What happened.
    pub event_name: BypassEvent,
    /// Raw label of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Raw label of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The engine's id of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Name of the instance.
    pub instance: String,
    /// The slot.
    pub slot: u32,
    /// What made it happen.
    pub cause: Cause,
    /// Who ordered this change; nobody when time or an end brought it.
    #[serde(flatten)]
    pub actor: Option<Actor>,
    /// Who ordered the bypass.
    pub bypass_by: String,
    /// Why.
    pub bypass_reason: String,
    /// Its beginning.
    pub bypass_from: Timestamp,
    /// Until when it is to last; of one that has ended, when it did.
    pub bypass_until: Timestamp,
    /// Until when the bypass was to last that this one takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_until: Option<Timestamp>,
    /// What whoever ended it had to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the configuration that is in force now.
    pub generation: u32,
}

impl BypassChange {
    /// How whoever is concerned is called, with the container where there is one.
    #[must_use]
    pub fn who(&self) -> String {
        let label = |l: &Option<String>| l.clone().unwrap_or_default();
        let mut name = whom::name(&label(&self.agent), &label(&self.project));
        if name.is_empty() {
            name.clone_from(&self.instance);
        }
        match &self.container_name {
            Some(container) => format!("{name} (container {container})"),
            None => name,
        }
    }
}

impl BypassChange {
    /// As a record of `clawker-overseer`.
    #[must_use]
    pub fn otlp(&self) -> LogRecord {
        let severity = match self.event_name {
            BypassEvent::Begun => Severity::Warn,
            BypassEvent::Ended => Severity::Info,
        };
        let name = self.event_name.name();
        let record = RecordBuilder::new(name, self.time, self.time, severity, self.to_string())
            .maybe(f::AGENT, self.agent.as_deref())
            .maybe(f::PROJECT, self.project.as_deref())
            .maybe(f::CONTAINER_ID, self.container_id.as_deref())
            .maybe(f::CONTAINER_NAME, self.container_name.as_deref())
            .with(f::INSTANCE, self.instance.as_str())
            .with(f::SLOT, self.slot)
            .with(f::CAUSE, self.cause.word())
            .with(f::BYPASS_BY, self.bypass_by.as_str())
            .with(f::BYPASS_REASON, self.bypass_reason.as_str())
            .with(f::BYPASS_FROM, self.bypass_from)
            .with(f::BYPASS_UNTIL, self.bypass_until)
            .maybe(f::REPLACED_UNTIL, self.replaced_until)
            .maybe(f::MESSAGE, self.message.as_deref())
            .with(f::GENERATION, self.generation);
        let Some(actor) = &self.actor else {
            return record.build();
        };
        record
            .maybe(f::ACTOR, actor.actor.as_deref())
            .with(f::ACTOR_UID, actor.actor_uid)
            .with(f::ACTOR_PID, actor.actor_pid)
            .with(f::ACTOR_COMM, actor.actor_comm.as_str())
            .maybe(f::ACTOR_LOGIN, actor.actor_login.as_deref())
            .build()
    }
}

impl fmt::Display for BypassChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = TimeZone::system();
        let clock = |t: Timestamp| t.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string();
        let who = printable(&self.who());
        let (by, why) = (printable(&self.bypass_by), printable(&self.bypass_reason));
        let until = clock(self.bypass_until);
        match (self.event_name, self.cause, &self.actor) {
            (BypassEvent::Begun, ..) => {
                write!(f, "bypass on for {who} until {until} (by {by}): {why}")
            }
            (_, Cause::Operator, Some(actor)) => {
                let actor = printable(&actor.to_string());
                write!(f, "bypass off for {who} at {until} (by {actor}): {why}")?;
                match &self.message {
                    Some(message) => write!(f, "; {}", printable(message)),
                    None => Ok(()),
                }
            }
            (_, Cause::Over, _) => write!(f, "bypass of {who} over at {until}: it has ended"),
            _ => write!(f, "bypass of {who} over at {until}: its time is up"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn change() -> BypassChange {
        BypassChange {
            time: "2026-03-01T12:00:00Z".parse().unwrap(),
            event_name: BypassEvent::Begun,
            agent: Some("reviewer".to_owned()),
            project: Some("acme".to_owned()),
            container_id: None,
            container_name: Some("web".to_owned()),
            instance: "serve".to_owned(),
            slot: 7,
            cause: Cause::Operator,
            actor: Some(Actor {
                actor: Some("alice".to_owned()),
                actor_uid: 1000,
                actor_pid: 42,
                actor_comm: "ebpf-manager".to_owned(),
                actor_login: None,
                cgroup: None,
            }),
            bypass_by: "alice, uid 1000".to_owned(),
            bypass_reason: "debug npm".to_owned(),
            bypass_from: "2026-03-01T12:00:00Z".parse().unwrap(),
            bypass_until: "2026-03-01T12:05:00Z".parse().unwrap(),
            replaced_until: None,
            message: None,
            generation: 3,
        }
    }

    #[test]
    fn it_is_one_object_with_one_level() {
        let text = serde_json::to_string(&change()).unwrap();
        assert_eq!(
            text,
            r#"{"time":"2026-03-01T12:00:00Z","event_name":"clawker.overseer.bypass","agent":"reviewer","project":"acme","container_name":"web","instance":"serve","slot":7,"cause":"operator","actor":"alice","actor_uid":1000,"actor_pid":42,"actor_comm":"ebpf-manager","bypass_by":"alice, uid 1000","bypass_reason":"debug npm","bypass_from":"2026-03-01T12:00:00Z","bypass_until":"2026-03-01T12:05:00Z","generation":3}"#
        );
        let by_time = BypassChange {
            event_name: BypassEvent::Ended,
            cause: Cause::Expired,
            actor: None,
            ..change()
        };
        for c in [change(), by_time] {
            let text = serde_json::to_string(&c).unwrap();
            assert_eq!(serde_json::from_str::<BypassChange>(&text).unwrap(), c);
            assert!(text.contains(c.event_name.name()) && text.contains(c.cause.word()));
        }
    }

    #[test]
    fn it_is_one_line_for_people_whatever_was_said() {
        let said = BypassChange {
            bypass_reason: "two\nlines \u{1b}[31m".to_owned(),
            ..change()
        };
        let line = said.to_string();
        assert!(line.starts_with("bypass on for acme/reviewer (container web) until "));
        assert!(line.contains("(by alice, uid 1000): two"), "{line}");
        assert!(!line.contains(['\n', '\u{1b}']), "{line:?}");
        let off = BypassChange {
            event_name: BypassEvent::Ended,
            message: Some("done".to_owned()),
            ..change()
        };
        assert!(off.to_string().ends_with(": debug npm; done"), "{off}");
    }
}
