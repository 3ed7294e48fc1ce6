//! Everything about one flow, line by line.

use super::{model::Details, table::Row};
use crate::{
    bypass::Lifted,
    filter::FIELDS,
    render::{line, units},
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;
use std::time::Duration;

/// A running bypass for people: what is left of it, by whom, and why.
#[must_use]
pub fn bypass(b: &Lifted, now: Timestamp, zone: &TimeZone) -> String {
    let until = b.until.to_zoned(zone.clone()).strftime("%H:%M:%S");
    line::printable(&format!(
        "{} left, until {until} (by {}): {}",
        left(b, now),
        b.by,
        b.reason
    ))
}

/// How long a bypass still runs.
#[must_use]
pub fn left(b: &Lifted, now: Timestamp) -> String {
    let left = Duration::try_from(b.until.duration_since(now)).unwrap_or_default();
    units::duration(left)
}

/// Labels and values: what happened in words, then every field of the record. `lifted`: the bypass that
/// its agent has now.
#[must_use]
pub fn lines(details: &Details, lifted: Option<String>) -> Vec<(&'static str, String)> {
    let Row {
        record, instance, ..
    } = &*details.row;
    let state = if details.lives {
        "alive"
    } else if record.close_reason.is_none() && record.count.is_none() {
        "no longer alive; its record has not come (yet)"
    } else {
        "ended"
    };
    let rule = match &record.rule {
        Some(rule) => format!("rule {rule:?}"),
        None => "no rule".to_owned(),
    };
    let mut lines = vec![
        ("instance", line::printable(instance)),
        ("state", state.to_owned()),
        (
            "decided by",
            line::printable(&format!("{rule} ({})", record.reason)),
        ),
        ("in words", line::printable(&line::why(record))),
    ];
    lines.extend(lifted.map(|text| ("bypass now", text)));
    lines.push(("", String::new()));
    // A record is always an object.
    let json = serde_json::to_value(record).unwrap_or_default();
    let fields = FIELDS.iter().filter(|f| f.in_record);
    lines.extend(fields.map(|f| {
        let value = json
            .get(f.name)
            .map_or_else(|| "-".to_owned(), |v| value(f.name, v));
        (f.name, value)
    }));
    lines
}

/// As in the record, and in human units where they say more.
fn value(name: &str, v: &Value) -> String {
    match (name, v, v.as_u64()) {
        ("bytes_in" | "bytes_out", _, Some(n @ 1000..)) => format!("{n} ({})", units::bytes(n)),
        ("duration_ms", _, Some(n @ 1000..)) => {
            format!("{n} ({})", units::duration(Duration::from_millis(n)))
        }
        (_, Value::String(s), _) => line::printable(s),
        (_, Value::Array(a), _) => {
            let all: Vec<_> = a.iter().map(|v| value(name, v)).collect();
            all.join(" ")
        }
        (_, other, _) => other.to_string(),
    }
}
