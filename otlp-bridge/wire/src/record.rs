//! Building one record.

use crate::fields::{Field, Value};
use jiff::Timestamp;
pub use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::SeverityNumber,
};

/// How much a record matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Worth a look: denied, or passed only because of a bypass.
    Warn,
    /// Something failed.
    Error,
}

impl Severity {
    fn number_and_text(self) -> (SeverityNumber, &'static str) {
        match self {
            Self::Info => (SeverityNumber::Info, "INFO"),
            Self::Warn => (SeverityNumber::Warn, "WARN"),
            Self::Error => (SeverityNumber::Error, "ERROR"),
        }
    }
}

/// A record in the making.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordBuilder(LogRecord);

/// Nanoseconds since 1970. A time before that is sent as the first nanosecond after it: 0 would mean that
/// there is none.
pub(crate) fn nanos(t: Timestamp) -> u64 {
    u64::try_from(t.as_nanosecond()).unwrap_or(0).max(1)
}

impl RecordBuilder {
    /// What happened, when, when it was seen, how much it matters, and one line that says it to people.
    #[must_use]
    pub fn new(
        event: &str,
        time: Timestamp,
        observed: Timestamp,
        severity: Severity,
        sentence: String,
    ) -> Self {
        let (number, text) = severity.number_and_text();
        Self(LogRecord {
            time_unix_nano: nanos(time),
            observed_time_unix_nano: nanos(observed),
            severity_number: number.into(),
            severity_text: text.to_owned(),
            body: Some(AnyValue {
                value: Some(any_value::Value::StringValue(sentence)),
            }),
            event_name: event.to_owned(),
            // As many as a flow's record has.
            attributes: Vec::with_capacity(28),
            ..LogRecord::default()
        })
    }

    /// Sets an attribute, in place of an earlier value if it has one: no record has a key twice.
    #[must_use]
    pub fn with<K>(mut self, field: Field<K>, value: impl Into<Value<K>>) -> Self {
        let new = field.with(value);
        let same = |a: &&mut KeyValue| a.key == new.key;
        match self.0.attributes.iter_mut().find(same) {
            Some(old) => *old = new,
            None => self.0.attributes.push(new),
        }
        self
    }

    /// Sets an attribute if there is a value for it.
    #[must_use]
    pub fn maybe<K>(self, field: Field<K>, value: Option<impl Into<Value<K>>>) -> Self {
        match value {
            Some(value) => self.with(field, value),
            None => self,
        }
    }

    /// The record.
    #[must_use]
    pub fn build(self) -> LogRecord {
        self.0
    }
}
