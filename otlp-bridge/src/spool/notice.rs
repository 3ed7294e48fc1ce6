//! Records that the spool writes itself: what was thrown away, what is set aside.

use crate::{
    incoming::{Incoming, Weight},
    own::own,
};
use jiff::Timestamp;
use opentelemetry_proto::tonic::{common::v1::any_value, logs::v1::ResourceLogs};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use wire::{RecordBuilder, Severity, fields as f, stream};

/// Characters of a reason that are passed on.
const TEXT_MOST: usize = 200;

/// Why records were thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    /// Over the bound in bytes.
    SpoolFull,
    /// Over the bound in age.
    SpoolAge,
    /// The disk had no room.
    DiskFull,
    /// Too many were set aside.
    AsideFull,
}

impl Cause {
    fn name(self) -> &'static str {
        match self {
            Self::SpoolFull => "spool_full",
            Self::SpoolAge => "spool_age",
            Self::DiskFull => "disk_full",
            Self::AsideFull => "aside_full",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::SpoolFull => "the spool was full",
            Self::SpoolAge => "they could not be delivered in time",
            Self::DiskFull => "the disk of the spool was full",
            Self::AsideFull => "too many had been set aside",
        }
    }
}

/// What records that were thrown away together have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) stream: String,
    pub(super) cause: Cause,
    #[serde(flatten)]
    pub(super) who: Who,
    /// Boot, slot and verdict of the flows.
    pub(super) flows: Option<(String, u32, String)>,
}

/// Whose records they were.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Who {
    pub(super) agent: Option<String>,
    pub(super) project: Option<String>,
    pub(super) container_id: Option<String>,
    pub(super) container_name: Option<String>,
}

/// How many they were, and which.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Loss {
    pub(super) records: u64,
    pub(super) flows: u64,
    pub(super) first_id: String,
    pub(super) last_id: String,
    /// Nanoseconds since 1970.
    pub(super) first_time: u64,
    pub(super) last_time: u64,
}

impl Loss {
    pub(super) fn one(id: &str, flows: u64, time: u64) -> Self {
        Self {
            records: 1,
            flows,
            first_id: id.to_owned(),
            last_id: id.to_owned(),
            first_time: time,
            last_time: time,
        }
    }

    /// Adds one that came later.
    pub(super) fn add(&mut self, later: Self) {
        self.records += later.records;
        self.flows = self.flows.saturating_add(later.flows);
        self.last_id = later.last_id;
        self.first_time = self.first_time.min(later.first_time);
        self.last_time = self.last_time.max(later.last_time);
    }
}

/// Whose a record is, and its time, from the record itself. One that cannot be read is nobody's.
pub(super) fn look(bytes: &[u8]) -> (Who, u64) {
    let Ok(decoded) = ResourceLogs::decode(bytes) else {
        return (Who::default(), 0);
    };
    let records = decoded.scope_logs.iter().flat_map(|s| &s.log_records);
    let Some(record) = records.into_iter().next() else {
        return (Who::default(), 0);
    };
    let text = |name: &str| {
        let found = record.attributes.iter().find(|a| a.key == name)?;
        match found.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    };
    let who = Who {
        agent: text(f::AGENT.name),
        project: text(f::PROJECT.name),
        container_id: text(f::CONTAINER_ID.name),
        container_name: text(f::CONTAINER_NAME.name),
    };
    (who, record.time_unix_nano)
}

fn time(nanos: u64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanos.into())
        .ok()
        .filter(|_| nanos > 0)
}

/// The record that declares a loss.
pub(super) fn gap(group: &Group, loss: &Loss, now: Timestamp) -> Incoming {
    let (stream, flows) = (&group.stream, group.flows.as_ref());
    let (records, why) = (loss.records, group.cause.sentence());
    let sentence = match loss.flows {
        0 => format!("{records} records of {stream} were thrown away: {why}"),
        n => format!("{records} records of {stream} ({n} flows) were thrown away: {why}"),
    };
    let who = &group.who;
    let record = RecordBuilder::new(stream::GAP, now, now, Severity::Error, sentence)
        .maybe(f::AGENT, who.agent.as_deref())
        .maybe(f::PROJECT, who.project.as_deref())
        .maybe(f::CONTAINER_ID, who.container_id.as_deref())
        .maybe(f::CONTAINER_NAME, who.container_name.as_deref())
        .with(f::STREAM, stream.as_str())
        .with(f::CAUSE, group.cause.name())
        .with(f::RECORDS, records)
        .with(f::FLOWS, loss.flows)
        .maybe(f::BOOT, flows.map(|(boot, ..)| boot.as_str()))
        .maybe(f::SLOT, flows.map(|(_, slot, _)| *slot))
        .maybe(f::VERDICT, flows.map(|(.., verdict)| verdict.as_str()))
        .with(f::FIRST_ID, loss.first_id.as_str())
        .with(f::LAST_ID, loss.last_id.as_str())
        .maybe(f::FIRST_TIME, time(loss.first_time))
        .maybe(f::LAST_TIME, time(loss.last_time));
    own(stream::OVERSEER, Weight::Kept, record.build())
}

/// The record that announces one which no receiver takes.
pub(super) fn set_aside(of: &str, id: &str, bytes: &[u8], text: &str, now: Timestamp) -> Incoming {
    let (who, _) = look(bytes);
    let text: String = text.chars().take(TEXT_MOST).collect();
    let sentence = format!("record {id} of {of} is set aside: no receiver takes it");
    let record = RecordBuilder::new(stream::SET_ASIDE, now, now, Severity::Error, sentence)
        .maybe(f::AGENT, who.agent.as_deref())
        .maybe(f::PROJECT, who.project.as_deref())
        .maybe(f::CONTAINER_ID, who.container_id.as_deref())
        .maybe(f::CONTAINER_NAME, who.container_name.as_deref())
        .with(f::STREAM, of)
        .with(f::FIRST_ID, id)
        .with(f::FAILURE, text);
    own(stream::OVERSEER, Weight::Kept, record.build())
}
