//! What two days of five agents leave behind, made up: records as the collector's exporter writes them, and
//! series as Prometheus has them. The same on every run.
//!
//! Every agent has something of everything, so that a panel that is narrowed to one of them still has something
//! to show.

mod proxies;
mod records;
mod reports;
mod series;

use serde_json::{Map, Value, json};
pub(crate) use series::openmetrics;
pub use series::{NO_PROJECT, Point, Sent, Series, request, series};
use wire::stream;

/// End of the demo, in seconds since 1970: 2026-03-01T12:00:00Z.
pub const END: i64 = 1_772_366_400;
/// How long it lasted, in seconds.
pub const LENGTH: i64 = 24 * 3600;

/// Agents with their projects. One name is in two projects, and two names differ only by what a pattern would
/// take for any character.
pub const AGENTS: [(&str, &str); 5] = [
    ("web.1", "shop"),
    ("webx1", "shop"),
    ("reviewer", "shop"),
    ("reviewer", "acme"),
    ("nightly build", "acme (old)"),
];

/// Numbers that look thrown and are always the same (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A row of numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// One of a list.
    pub fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        let at = self.below(list.len() as u64);
        &list[usize::try_from(at).expect("within the list")]
    }
}

/// A record with where it is stored.
#[derive(Clone, Debug)]
pub struct Document {
    /// The data stream.
    pub stream: &'static str,
    /// As the exporter writes it.
    pub body: Value,
}

/// Whose a record is.
#[derive(Clone, Copy, Debug)]
pub struct Whose {
    agent: &'static str,
    project: &'static str,
    /// Number of the container, from 0.
    at: usize,
}

impl Whose {
    /// The address of its container.
    fn address(self) -> String {
        format!("172.28.0.{}", 10 + self.at)
    }
}

/// A moment as texts have it.
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01, so that the leap day is a year's last (Hinnant's civil_from_days).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
}

/// What is said of one record.
struct Said<'a> {
    stream: &'static str,
    /// Empty where the record has none.
    event: &'a str,
    /// Seconds before the end.
    before: i64,
    severity: (&'a str, u64),
    body: String,
    attributes: Value,
}

/// The document that the exporter makes of it.
fn document(said: Said<'_>, whose: Option<Whose>) -> Document {
    let mut attributes: Map<String, Value> = match said.attributes {
        Value::Object(map) => map,
        other => panic!("attributes are an object, not {other}"),
    };
    if let Some(whose) = whose {
        attributes.insert("agent".to_owned(), json!(whose.agent));
        attributes.insert("project".to_owned(), json!(whose.project));
        attributes.insert(
            "container_id".to_owned(),
            json!(format!("{:064x}", whose.at + 1)),
        );
        attributes.insert(
            "container_name".to_owned(),
            json!(format!("agent-{}", whose.at)),
        );
    }
    if !said.event.is_empty() {
        attributes.insert("event_name".to_owned(), json!(said.event));
    }
    let dataset = said.stream.trim_start_matches("clawker-");
    attributes.insert(
        "data_stream".to_owned(),
        json!({"dataset": dataset, "namespace": "clawker", "type": "record"}),
    );
    let time = rfc3339(END - said.before);
    let body = json!({
        "@timestamp": time,
        "observedTimestamp": time,
        "body": said.body,
        "attributes": attributes,
        "resource": {"service.name": said.stream},
        "instrumentationScope": {},
        "severity": {"text": said.severity.0, "number": said.severity.1},
    });
    Document {
        stream: said.stream,
        body,
    }
}

const INFO: (&str, u64) = ("INFO", 9);
const WARN: (&str, u64) = ("WARN", 13);
const ERROR: (&str, u64) = ("ERROR", 17);

/// Every record.
#[must_use]
pub fn documents() -> Vec<Document> {
    let mut all = Vec::new();
    for (at, (agent, project)) in AGENTS.into_iter().enumerate() {
        let whose = Whose { agent, project, at };
        let mut dice = Dice::new(at as u64);
        all.extend(records::flows(whose, &mut dice));
        all.extend(records::audit(whose));
        all.extend(proxies::dns(whose, &mut dice));
        all.extend(proxies::http(whose, &mut dice));
        all.extend(reports::claude(whose, &mut dice));
    }
    all.extend(records::of_nobody());
    // What tells repetitions, which the bridge and the loader set.
    for (number, document) in all.iter_mut().enumerate() {
        let id = if document.stream == stream::EGRESS {
            "flow_id"
        } else {
            "record_id"
        };
        document.body["attributes"][id] = json!(format!("demo-{number}"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (END, "2026-03-01T12:00:00Z"),
            (END - LENGTH, "2026-02-28T12:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    /// Whether a value is what a field takes.
    fn fits(value: &Value, mapping: &str) -> bool {
        match (value, mapping) {
            (Value::Array(list), _) => list.iter().all(|v| fits(v, mapping)),
            (Value::String(text), "ip") => text.parse::<std::net::IpAddr>().is_ok(),
            (Value::String(text), "date") => text.len() == 20 && text.ends_with('Z'),
            (Value::String(_), "keyword" | "match_only_text") => true,
            // Some senders say yes and no so, and codes as numbers.
            (Value::Bool(_) | Value::Number(_), "keyword") => true,
            (Value::Number(n), "long") => n.is_u64() || n.is_i64(),
            (Value::Number(_), "double") | (Value::Bool(_), "boolean") => true,
            _ => false,
        }
    }

    #[test]
    fn records_have_the_fields_of_the_templates_with_values_of_their_types() {
        let mut streams = BTreeSet::new();
        for document in documents() {
            streams.insert(document.stream);
            for (name, value) in document.body["attributes"].as_object().unwrap() {
                if name == "data_stream" {
                    continue;
                }
                let field = dashboards::fields::find(&format!("attributes.{name}"));
                let field = field.unwrap_or_else(|| panic!("{name} is no field"));
                assert!(
                    fits(value, &field.mapping),
                    "{name}: {value} in {}",
                    field.mapping
                );
            }
        }
        assert_eq!(streams.len(), 7, "{streams:?}");
    }

    #[test]
    fn the_demo_is_the_same_every_time() {
        let text = |d: Vec<Document>| d.iter().map(|d| d.body.to_string()).collect::<Vec<_>>();
        assert_eq!(text(documents()), text(documents()));
    }
}
