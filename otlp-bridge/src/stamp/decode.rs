//! Reading one record, resource or scope within bounds. What is over them is left out or cut, what is not
//! UTF-8 or no number is repaired, and it is said that this was done: an agent that could get a record of
//! Envoy refused by a byte in its path would not be seen.

use super::{
    Limits,
    raw::{Malformed, Part, Parts},
};
use opentelemetry_proto::tonic::{
    common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    logs::v1::LogRecord,
};
use std::borrow::Cow;

/// Severities are numbers from 0 to this.
const SEVERITY_MOST: u64 = 24;

/// Reads, and remembers whether everything is there.
pub(super) struct Reader<'l> {
    limits: &'l Limits,
    values_left: usize,
    /// Whether something was left out, cut or repaired.
    pub(super) altered: bool,
}

impl<'l> Reader<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            values_left: limits.values,
            altered: false,
        }
    }

    /// A record, with its attributes as they came: also those that are there twice.
    pub(super) fn record(&mut self, message: &[u8]) -> Result<LogRecord, Malformed> {
        let mut record = LogRecord::default();
        let mut left_out = 0u32;
        for field in Parts::new(message) {
            match field? {
                (1, Part::Fixed64(n)) => record.time_unix_nano = n,
                (11, Part::Fixed64(n)) => record.observed_time_unix_nano = n,
                (2, Part::Varint(n)) => record.severity_number = self.severity(n),
                (3, Part::Bytes(b)) => record.severity_text = self.name(b),
                (5, Part::Bytes(b)) => record.body = self.value(b, 0)?,
                (6, Part::Bytes(b)) => {
                    let full = record.attributes.len() >= self.limits.attributes;
                    match if full { None } else { self.pair(b, 0)? } {
                        Some(pair) => record.attributes.push(pair),
                        None => left_out = left_out.saturating_add(1),
                    }
                }
                (7, Part::Varint(n)) => record.dropped_attributes_count = clamp(n),
                (8, Part::Fixed32(n)) => record.flags = n,
                (9, Part::Bytes(b)) => record.trace_id = self.id(b, 16),
                (10, Part::Bytes(b)) => record.span_id = self.id(b, 8),
                (12, Part::Bytes(b)) => record.event_name = self.name(b),
                _ => {}
            }
        }
        self.altered |= left_out > 0;
        record.dropped_attributes_count = record.dropped_attributes_count.saturating_add(left_out);
        Ok(record)
    }

    /// The attributes of a resource, from every place where the request has a part of it.
    pub(super) fn resource(&mut self, messages: &[&[u8]]) -> Result<Vec<KeyValue>, Malformed> {
        let mut attributes = Vec::new();
        let mut room = self.limits.envelope_bytes;
        for message in messages {
            for field in Parts::new(message) {
                if let (1, Part::Bytes(b)) = field? {
                    self.push(&mut attributes, &mut room, b)?;
                }
            }
        }
        Ok(attributes)
    }

    /// A scope, likewise.
    pub(super) fn scope(&mut self, messages: &[&[u8]]) -> Result<InstrumentationScope, Malformed> {
        let mut scope = InstrumentationScope::default();
        let mut room = self.limits.envelope_bytes;
        for message in messages {
            for field in Parts::new(message) {
                match field? {
                    (1, Part::Bytes(b)) => scope.name = self.name(b),
                    (2, Part::Bytes(b)) => scope.version = self.name(b),
                    (3, Part::Bytes(b)) => self.push(&mut scope.attributes, &mut room, b)?,
                    (4, Part::Varint(n)) => scope.dropped_attributes_count = clamp(n),
                    _ => {}
                }
            }
        }
        Ok(scope)
    }

    /// Adds an attribute if there is room: it will stand before every record.
    fn push(
        &mut self,
        attributes: &mut Vec<KeyValue>,
        room: &mut usize,
        bytes: &[u8],
    ) -> Result<(), Malformed> {
        if attributes.len() >= self.limits.attributes || bytes.len() > *room {
            self.altered = true;
            return Ok(());
        }
        *room -= bytes.len();
        attributes.extend(self.pair(bytes, 0)?);
        Ok(())
    }

    /// Takes one of the values and pairs that may be built; false when there are none left.
    fn spend(&mut self) -> bool {
        let left = self.values_left > 0;
        self.values_left = self.values_left.saturating_sub(1);
        left
    }

    fn pair(&mut self, message: &[u8], depth: usize) -> Result<Option<KeyValue>, Malformed> {
        let mut pair = KeyValue::default();
        let mut whole = self.spend();
        for field in Parts::new(message) {
            match field? {
                (1, Part::Bytes(b)) if b.len() > self.limits.key_bytes => whole = false,
                (1, Part::Bytes(b)) => pair.key = self.name(b),
                (2, Part::Bytes(b)) => {
                    pair.value = self.value(b, depth)?;
                    whole &= pair.value.is_some();
                }
                _ => {}
            }
        }
        self.altered |= !whole;
        Ok(whole.then_some(pair))
    }

    /// A value; nothing where it is nested too deep or there are too many.
    fn value(&mut self, message: &[u8], depth: usize) -> Result<Option<AnyValue>, Malformed> {
        if depth > self.limits.depth || !self.spend() {
            self.altered = true;
            return Ok(None);
        }
        let mut value = None;
        for field in Parts::new(message) {
            value = Some(match field? {
                (1, Part::Bytes(b)) => Value::StringValue(self.text(b)),
                (2, Part::Varint(n)) => Value::BoolValue(n != 0),
                // The bits of a signed number.
                (3, Part::Varint(n)) => Value::IntValue(n.cast_signed()),
                (4, Part::Fixed64(n)) => self.double(f64::from_bits(n)),
                (5, Part::Bytes(b)) => self.array(b, depth + 1)?,
                (6, Part::Bytes(b)) => self.list(b, depth + 1)?,
                (7, Part::Bytes(b)) => Value::BytesValue(self.cut(b).to_vec()),
                _ => continue,
            });
        }
        Ok(Some(AnyValue { value }))
    }

    fn array(&mut self, message: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut values = Vec::new();
        for field in Parts::new(message) {
            if let (1, Part::Bytes(b)) = field? {
                values.extend(self.value(b, depth)?);
            }
        }
        Ok(Value::ArrayValue(ArrayValue { values }))
    }

    fn list(&mut self, message: &[u8], depth: usize) -> Result<Value, Malformed> {
        let mut values = Vec::new();
        for field in Parts::new(message) {
            if let (1, Part::Bytes(b)) = field? {
                values.extend(self.pair(b, depth)?);
            }
        }
        Ok(Value::KvlistValue(KeyValueList { values }))
    }

    /// JSON, which records become in the end, has no such numbers.
    fn double(&mut self, n: f64) -> Value {
        if n.is_finite() {
            Value::DoubleValue(n)
        } else {
            self.altered = true;
            Value::StringValue(n.to_string())
        }
    }

    /// A text of an attribute or a body.
    fn text(&mut self, bytes: &[u8]) -> String {
        self.at_most(bytes, self.limits.text_bytes)
    }

    /// A text that names something.
    pub(super) fn name(&mut self, bytes: &[u8]) -> String {
        self.at_most(bytes, self.limits.key_bytes)
    }

    /// A text, repaired where it is not UTF-8, cut between two characters.
    fn at_most(&mut self, bytes: &[u8], most: usize) -> String {
        let text = String::from_utf8_lossy(bytes);
        // A repaired byte is three.
        let mut end = most.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.altered |= end < text.len() || matches!(text, Cow::Owned(_));
        text[..end].to_owned()
    }

    fn cut<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        self.altered |= bytes.len() > self.limits.text_bytes;
        &bytes[..bytes.len().min(self.limits.text_bytes)]
    }

    /// An id of a trace or span. One of another length would make the whole request unreadable for a
    /// collector.
    fn id(&mut self, bytes: &[u8], len: usize) -> Vec<u8> {
        let right = bytes.is_empty() || bytes.len() == len;
        self.altered |= !right;
        if right { bytes.to_vec() } else { Vec::new() }
    }

    fn severity(&mut self, n: u64) -> i32 {
        self.altered |= n > SEVERITY_MOST;
        i32::try_from(n.min(SEVERITY_MOST)).unwrap_or_default()
    }
}

fn clamp(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
