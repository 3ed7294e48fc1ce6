//! Every query to Prometheus that a panel makes, asked of a real one.

use dashboards::Object;
use kernel_tests::{eventually, net::isolate};
use serde_json::Value;
use stack_tests::{
    collector::{Collector, STACK},
    demo::{self, AGENTS, END, LENGTH, NO_PROJECT},
    opensearch::Asker,
    panels::interpolated,
    prometheus::{Prometheus, config, promtool},
};
use std::collections::BTreeSet;

/// One moment of all panels: what a day at Dashboards' pace asks for.
const STEP: i64 = 600;

fn asked(object: &Object) -> String {
    let source = object.text("searchSourceJSON").unwrap();
    source["query"]["query"].as_str().unwrap().to_owned()
}

/// Whether the panel follows the variables.
fn narrowed(object: &Object) -> bool {
    asked(object).contains("${")
}

fn day(prometheus: &Prometheus, query: &str) -> Vec<Value> {
    prometheus.range(query, END - LENGTH, END, STEP)
}

/// Values of a series.
fn values(series: &Value) -> Vec<f64> {
    let points = series["values"].as_array().unwrap();
    points
        .iter()
        .map(|p| p[1].as_str().unwrap().parse().unwrap())
        .collect()
}

/// Whether something is there to be seen.
fn shows(answer: &[Value]) -> bool {
    let finite = answer.iter().flat_map(values).filter(|v| v.is_finite());
    finite.count() > 0
}

fn everybody() -> [(&'static str, Vec<&'static str>); 2] {
    let [agents, projects] = [0, 1].map(|part| {
        let of = |(agent, project): (&'static str, &'static str)| [agent, project][part];
        AGENTS
            .map(of)
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    });
    [("agent", agents), ("project", projects)]
}

fn with<'a>(picked: &'a [(&'static str, Vec<&'static str>)]) -> Vec<(&'a str, &'a [&'a str])> {
    picked
        .iter()
        .map(|(name, values)| (*name, values.as_slice()))
        .collect()
}

/// One Prometheus for all: giving it a day of series takes longer than all that is asked of it.
#[test]
fn panels_show_the_demo_and_follow_the_two_variables() {
    isolate();
    let prometheus = Prometheus::with(&demo::series());
    every_panel_shows_something_of_everybody(&prometheus);
    one_agent_narrows_every_series_of_agents_to_itself(&prometheus);
    what_no_value_of_the_filters_reaches_is_in_a_panel_of_its_own(&prometheus);
}

fn every_panel_shows_something_of_everybody(prometheus: &Prometheus) {
    let mut empty = Vec::new();
    for object in dashboards::explore() {
        let query = interpolated(&asked(object), &with(&everybody()));
        if !shows(&day(prometheus, &query)) {
            empty.push(format!("{object}: {query}"));
        }
    }
    assert!(empty.is_empty(), "{empty:#?}");
    // That this can fail.
    assert!(!shows(&day(prometheus, "clawker_no_such_metric")));
    assert!(!shows(&day(prometheus, "0 * clawker_loader_agents / 0")));
}

fn one_agent_narrows_every_series_of_agents_to_itself(prometheus: &Prometheus) {
    let panels: Vec<_> = dashboards::explore()
        .iter()
        .filter(|o| narrowed(o))
        .collect();
    assert!(panels.len() > 10);
    // Names that would mean something in a pattern, and one that is in two projects.
    for (agent, project) in [AGENTS[0], AGENTS[3], AGENTS[4]] {
        for object in &panels {
            let picked = [("agent", vec![agent]), ("project", vec![project])];
            let found = day(prometheus, &interpolated(&asked(object), &with(&picked)));
            assert!(
                shows(&found),
                "{object} has nothing of {agent} of {project}"
            );
            for series in &found {
                for (label, right) in [("agent", agent), ("project", project)] {
                    let label = series["metric"].get(label).and_then(Value::as_str);
                    assert!(label.is_none_or(|l| l == right), "{object}: {series}");
                }
            }
            // Sums over all agents have no label: they are those of this one alone.
            let exact = |query: String, name: &str, value: &str| {
                query.replace(
                    &format!("{name}=~`${{{name}}}`"),
                    &format!("{name}=`{value}`"),
                )
            };
            let alone = exact(exact(asked(object), "agent", agent), "project", project);
            assert_eq!(found, day(prometheus, &alone), "{object}");
        }
    }
}

fn what_no_value_of_the_filters_reaches_is_in_a_panel_of_its_own(prometheus: &Prometheus) {
    let mut all = dashboards::explore().iter();
    let outside = all.find(|o| o.id() == "clawker-tokens-outside").unwrap();
    let found = day(prometheus, &asked(outside));
    let whose = |s: &Value| {
        s["metric"]
            .get("agent")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let whose: BTreeSet<_> = found.iter().map(whose).collect();
    assert_eq!(whose, BTreeSet::from([None, Some(NO_PROJECT.to_owned())]));
}

#[test]
fn the_shipped_configuration_is_taken_and_asks_the_collector() {
    promtool(&["check", "config", config().to_str().unwrap()]);
    isolate();
    let prometheus = Prometheus::with(&[]);
    let expected = [
        "http://127.0.0.1:9090/metrics",
        "http://collector:8888/metrics",
        "http://collector:8889/metrics",
    ];
    eventually("Prometheus to know whom to ask", || {
        let answer = prometheus.get("/api/v1/targets");
        let targets = answer["data"]["activeTargets"].as_array()?.clone();
        let mut urls: Vec<_> = targets
            .iter()
            .map(|t| t["scrapeUrl"].as_str().unwrap())
            .collect();
        urls.sort_unstable();
        (urls == expected).then_some(())
    });
}

/// Names of series with the names of their labels, as the collector shows them to Prometheus.
fn shown(text: &str) -> BTreeSet<String> {
    let lines = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty());
    let shape = |line: &str| {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        // Values have no `="` in them here.
        let labels = line
            .contains('{')
            .then(|| rest.split("=\"").collect::<Vec<_>>());
        let mut labels = labels.unwrap_or_default();
        labels.pop();
        let label = |l: &str| l.rsplit([',', ' ']).next().unwrap().to_owned();
        let mut labels: Vec<_> = labels.into_iter().map(label).collect();
        labels.sort();
        format!("{name} {labels:?}")
    };
    lines.map(shape).collect()
}

#[test]
fn the_demo_has_the_series_that_the_collector_makes() {
    isolate();
    let dir = tempfile::tempdir().unwrap();
    let collector = Collector::start(dir.path());
    let asker = Asker::new(format!("http://{STACK}:4319"));
    let all = demo::series();
    asker.ok("POST", "/v1/metrics", Some(&demo::request(&all)));
    let expected: BTreeSet<_> = all
        .iter()
        .filter(|s| s.sent.is_some())
        .map(|s| {
            let mut labels: Vec<_> = s.labels.iter().map(|(key, _)| key).collect();
            labels.sort();
            format!("{} {labels:?}", s.name)
        })
        .collect();
    let found: BTreeSet<_> = shown(&collector.series())
        .into_iter()
        .filter(|s| !s.starts_with("target_info "))
        .collect();
    assert_eq!(found, expected);

    // There is no OpenSearch here: the record is refused, and that is counted.
    let record = serde_json::json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "clawker-egress"}}]},
        "scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}]});
    assert!(asker.ask("POST", "/v1/logs", Some(&record)).status >= 500);
    let own = shown(&collector.own_series());
    for series in all.iter().filter(|s| s.name.starts_with("otelcol_")) {
        let by = &series.labels[1].0;
        let there = |s: &String| {
            s.starts_with(&format!("{} ", series.name)) && s.contains(&format!("\"{by}\""))
        };
        assert!(own.iter().any(there), "{} by {by}: {own:#?}", series.name);
    }
}
