//! Series as Prometheus gets them from the collector: the monitor's own by the dictionary (`wire::metrics`), the
//! agents' and the collector's by the names that the collector gives them. A test compares with the collector.

use super::{AGENTS, Dice, END, LENGTH};
use serde_json::{Value, json};
use std::fmt::Write as _;
use wire::metrics::ALL_METRICS;

/// An agent whose container has no label of a project.
pub const NO_PROJECT: &str = "loner";

/// Seconds between two values.
const STEP: i64 = 120;
/// Longer than the demo, so that an increase over all of it has something to start from.
const REACH: i64 = LENGTH + 2 * 3600;

/// A value at a moment.
pub type Point = (i64, f64);

/// A metric as it comes to the collector, before it has the name of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sent {
    /// Its name.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Whether it is a sum; a gauge if not.
    pub sum: bool,
}

/// A series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// What it is made of; nothing where Prometheus or the collector counts itself.
    pub sent: Option<Sent>,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its values, the oldest first.
    pub points: Vec<Point>,
}

/// Values that the labels of the monitor's own metrics take.
fn values(label: &str) -> &'static [&'static str] {
    match label {
        "verdict" => &["ALLOWED", "DENIED", "BYPASSED"],
        "reason" => &["default", "rule", "name"],
        "cause" => &["ring_full", "rate"],
        "outcome" => &["delivered", "retry", "accepted", "put_off"],
        "stream" => &["clawker-egress", "clawker-claude", "clawker-overseer"],
        "answer" => &["held", "nobody"],
        other => panic!("no values for the label {other}"),
    }
}

/// Every way to give each label one of its values.
fn combinations(labels: &[(&str, &[&str])]) -> Vec<Vec<(String, String)>> {
    labels
        .iter()
        .fold(vec![Vec::new()], |so_far, (name, values)| {
            let longer = so_far.into_iter().flat_map(|known| {
                values.iter().map(move |value| {
                    let mut more = known.clone();
                    more.push(((*name).to_owned(), (*value).to_owned()));
                    more
                })
            });
            longer.collect()
        })
}

/// Moments of all series.
fn moments() -> impl Iterator<Item = i64> {
    (0..=REACH / STEP).map(|n| END - REACH + n * STEP)
}

/// A sum that grows by up to `pace` a step.
fn counter(dice: &mut Dice, pace: u64) -> Vec<Point> {
    let mut sum = 0;
    let grow = |moment| {
        sum += 1 + dice.below(pace);
        (moment, f64::from(u32::try_from(sum).expect("a small sum")))
    };
    moments().map(grow).collect()
}

/// A number that stays.
fn gauge(value: f64) -> Vec<Point> {
    moments().map(|moment| (moment, value)).collect()
}

/// The monitor's own.
fn own(dice: &mut Dice) -> Vec<Series> {
    let mut all = Vec::new();
    for metric in ALL_METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|l| (*l, values(l))).collect();
        let origin: &[(&str, &[&str])] = &[("job", &["clawker-cp"]), ("instance", &["serve"])];
        for labels in combinations(&[origin, &labels].concat()) {
            let points = match (metric.kind, metric.name) {
                ("sum", "clawker.loader.flows.opened") => counter(dice, 900),
                ("sum", _) => counter(dice, 50),
                (_, "clawker.loader.hooks.effective") => gauge(1.0),
                (_, name) if name.ends_with("limit") => gauge(32_768.0),
                _ => gauge(40.0),
            };
            all.push(Series {
                name: metric.prometheus(),
                sent: Some(Sent {
                    name: metric.name,
                    unit: metric.unit,
                    sum: metric.kind == "sum",
                }),
                labels,
                points,
            });
        }
    }
    all
}

/// (name, name and unit as they come to the collector, labels with their values, how fast)
type Reported = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static [&'static str])],
    u64,
);

/// The agents'.
const REPORTED: &[Reported] = &[
    (
        "claude_code_session_count_total",
        "claude_code.session.count",
        "",
        &[("start_type", &["fresh"])],
        2,
    ),
    (
        "claude_code_lines_of_code_count_total",
        "claude_code.lines_of_code.count",
        "",
        &[("kind", &["added", "removed"]), ("model", MODELS)],
        20,
    ),
    (
        "claude_code_pull_request_count_total",
        "claude_code.pull_request.count",
        "",
        &[],
        1,
    ),
    (
        "claude_code_commit_count_total",
        "claude_code.commit.count",
        "",
        &[],
        2,
    ),
    (
        "claude_code_cost_usage_USD_total",
        "claude_code.cost.usage",
        "USD",
        &[("model", MODELS), ("query_source", &["main", "subagent"])],
        3,
    ),
    (
        "claude_code_token_usage_tokens_total",
        "claude_code.token.usage",
        "tokens",
        &[
            ("kind", &["input", "output", "cacheRead", "cacheCreation"]),
            ("model", MODELS),
            ("query_source", &["main"]),
        ],
        5_000,
    ),
    (
        "claude_code_code_edit_tool_decision_total",
        "claude_code.code_edit_tool.decision",
        "",
        &[
            ("tool_name", &["Edit"]),
            ("decision", &["accept", "reject"]),
            ("source", &["config"]),
            ("language", &["Rust"]),
        ],
        2,
    ),
    (
        "claude_code_active_time_seconds_total",
        "claude_code.active_time.total",
        "s",
        &[("kind", &["user", "cli"])],
        100,
    ),
];
const MODELS: &[&str] = &["claude-sonnet-4-5", "claude-haiku-4-5"];

/// Those of one sender.
fn reported(whose: &[(&str, &str)], dice: &mut Dice) -> Vec<Series> {
    let mut all = Vec::new();
    for &(name, sent, unit, labels, pace) in REPORTED {
        for mut labels in combinations(labels) {
            labels.push(("job".to_owned(), "clawker-claude".to_owned()));
            labels.extend(
                whose
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
            );
            all.push(Series {
                name: name.to_owned(),
                sent: Some(Sent {
                    name: sent,
                    unit,
                    sum: true,
                }),
                labels,
                points: counter(dice, pace),
            });
        }
    }
    all
}

/// The collector's own, and whether each target could be asked.
fn scraped(dice: &mut Dice) -> Vec<Series> {
    let origin: (&str, &[&str]) = ("job", &["collector-own"]);
    let entrances: (&str, &[&str]) = (
        "receiver",
        &["otlp/agents", "otlp/attributed", "file_log/coredns"],
    );
    let exits: (&str, &[&str]) = ("exporter", &["opensearch/egress", "otlp_http/bridge"]);
    let mut all = Vec::new();
    for (name, by) in [
        ("otelcol_receiver_accepted_log_records", entrances),
        ("otelcol_receiver_refused_log_records", entrances),
        ("otelcol_exporter_sent_log_records", exits),
        ("otelcol_exporter_send_failed_log_records", exits),
    ] {
        for labels in combinations(&[origin, by]) {
            all.push(Series {
                name: name.to_owned(),
                sent: None,
                labels,
                points: counter(dice, 30),
            });
        }
    }
    for labels in combinations(&[("job", &["collector", "collector-own", "prometheus"])]) {
        all.push(Series {
            name: "up".to_owned(),
            sent: None,
            labels,
            points: gauge(1.0),
        });
    }
    all
}

/// Every series.
#[must_use]
pub fn series() -> Vec<Series> {
    let mut dice = Dice::new(7);
    let mut all = own(&mut dice);
    for (agent, project) in AGENTS {
        all.extend(reported(
            &[("agent", agent), ("project", project)],
            &mut dice,
        ));
    }
    all.extend(reported(&[("agent", NO_PROJECT)], &mut dice));
    // Whom the leases did not name.
    all.extend(reported(&[], &mut dice));
    all.extend(scraped(&mut dice));
    all
}

/// As a file that `promtool tsdb create-blocks-from openmetrics` reads.
#[must_use]
pub(crate) fn openmetrics(all: &[Series]) -> String {
    let mut text = String::new();
    for one in all {
        let escaped = |v: &str| {
            v.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
        };
        let labels: Vec<_> = one
            .labels
            .iter()
            .map(|(k, v)| format!("{k}=\"{}\"", escaped(v)))
            .collect();
        let labels = labels.join(",");
        for (moment, value) in &one.points {
            let _ = writeln!(text, "{}{{{labels}}} {value} {moment}", one.name);
        }
    }
    text += "# EOF\n";
    text
}

/// The last value of each as a request to the collector, as the bridge hands it over.
#[must_use]
pub fn request(all: &[Series]) -> Value {
    let point = |one: &Series, sent: Sent| {
        let (moment, value) = *one.points.last().expect("a series has values");
        let label =
            |(key, value): &(String, String)| json!({"key": key, "value": {"stringValue": value}});
        let own = one.labels.iter().filter(|(key, _)| !origin(key));
        let points = json!([{"timeUnixNano": format!("{moment}000000000"), "asDouble": value,
            "attributes": own.map(label).collect::<Vec<_>>()}]);
        // Claude Code tells what is new, the monitor's own programs the whole.
        let temporality = if sent.name.starts_with("claude_code") {
            1
        } else {
            2
        };
        let data = if sent.sum {
            json!({"dataPoints": points, "isMonotonic": true, "aggregationTemporality": temporality})
        } else {
            json!({"dataPoints": points})
        };
        json!({"name": sent.name, "unit": sent.unit, if sent.sum { "sum" } else { "gauge" }: data})
    };
    let of = |one: &Series| -> Option<Value> {
        let metric = point(one, one.sent?);
        let from = one.labels.iter().filter(|(key, _)| origin(key));
        let attribute = |(key, value): &(String, String)| {
            let key = if key == "job" {
                "service.name"
            } else {
                "service.instance.id"
            };
            json!({"key": key, "value": {"stringValue": value}})
        };
        Some(
            json!({"resource": {"attributes": from.map(attribute).collect::<Vec<_>>()},
            "scopeMetrics": [{"metrics": [metric]}]}),
        )
    };
    json!({"resourceMetrics": all.iter().filter_map(of).collect::<Vec<_>>()})
}

/// Whether a label says who sent it.
fn origin(label: &str) -> bool {
    matches!(label, "job" | "instance")
}
