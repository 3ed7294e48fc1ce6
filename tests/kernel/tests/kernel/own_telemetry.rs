//! What a run says about itself: metrics and warnings, in a real collector.

use abi::programs;
use ebpf_manager::{cgroup::Cgroup, telemetry::hooks};
use kernel_tests::{
    agent::PRELUDE,
    bpf, cgroup_root,
    collector::{Collector, GRPC, HTTP, Point},
    eventually,
    run::Bench,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs};
use wire::metrics::{AGENTS, ALL_METRICS, HOOKS};

const POLICY: &str = "rules:\n  - { name: api, dst: 192.0.2.2, proto: tcp, port: 81 }\n";

const REFUSED: &str = "
def refused(n):
    for i in range(n):
        with socket.socket() as s: assert s.connect_ex(('203.0.113.9', 80)) == errno.EPERM
";

/// The last value of each series, by name and label.
fn last(points: &[Point]) -> BTreeMap<(String, String), i64> {
    let label = |p: &Point| match p.labels.values().next() {
        Some(Value::String(text)) => text.clone(),
        Some(other) => panic!("{other}"),
        None => String::new(),
    };
    points
        .iter()
        .map(|p| ((p.name.clone(), label(p)), p.value))
        .collect()
}

/// All points of a run that is over, once the last ones are there: then nobody is under the firewall.
fn all_points(collector: &Collector) -> Vec<Point> {
    eventually("the last metrics at the collector", || {
        let all = collector.points();
        let agents = all.iter().rfind(|p| p.name == AGENTS.name)?.value;
        (agents == 0).then_some(all)
    })
}

/// Asserts that no sum falls, and that all sums of a run have one beginning.
#[track_caller]
fn sums_grow(points: &[Point]) {
    let mut before: BTreeMap<String, i64> = BTreeMap::new();
    let mut start = None;
    for p in points.iter().filter(|p| p.metric.get("sum").is_some()) {
        let series = format!("{} {:?}", p.name, p.labels);
        let old = before.insert(series, p.value).unwrap_or(0);
        assert!(p.value >= old, "{p:?} after {old}");
        let began = p.point["startTimeUnixNano"].clone();
        assert_eq!(*start.get_or_insert_with(|| began.clone()), began);
    }
}

#[test]
fn every_metric_of_the_loader_arrives_with_kind_unit_and_labels() {
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let program = format!("{PRELUDE}{REFUSED}refused(5); tcp('192.0.2.2', 81)");
    let url = format!("http://{GRPC}");
    let args = ["--otlp", &url, "--rate", "0"];
    let out = bench.run(Some(POLICY), &args, &["python3", "-c", &program]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let points = all_points(&collector);
    for entry in ALL_METRICS.iter().filter(|e| e.program != "bridge") {
        let mine: Vec<_> = points.iter().filter(|p| p.name == entry.name).collect();
        assert!(!mine.is_empty(), "{}", entry.name);
        for p in mine {
            assert_eq!(p.metric["unit"], entry.unit, "{}", entry.name);
            assert_eq!(p.metric["description"], entry.meaning.trim());
            let labels: Vec<_> = p.labels.keys().collect();
            assert_eq!(labels, entry.labels, "{}", entry.name);
            let kind = &p.metric[entry.kind];
            assert!(kind.is_object(), "{}", entry.name);
            if entry.kind == "sum" {
                assert_eq!(
                    (&kind["isMonotonic"], &kind["aggregationTemporality"]),
                    (&json!(true), &json!(2))
                );
            }
            assert_eq!(p.resource["service.name"], "clawker-cp");
            assert!(
                p.resource["service.instance.id"]
                    .as_str()
                    .unwrap()
                    .starts_with("run-")
            );
        }
    }
    sums_grow(&points);
    let values = last(&points);
    let value =
        |name: &str, label: &str| values[&(format!("clawker.loader.{name}"), label.to_owned())];
    assert_eq!(value("flows.opened", ""), 6);
    assert_eq!(
        (
            value("flows.ended", "DENIED"),
            value("flows.ended", "ALLOWED")
        ),
        (5, 1)
    );
    assert_eq!(value("flows.recorded", "DENIED"), 5);
    assert_eq!(value("flows.denied", "default"), 5);
    assert_eq!(value("flows.folded", "rate"), 6);
    assert_eq!(
        (value("flows.lost", ""), value("records.undelivered", "")),
        (0, 0)
    );
    // While the command ran, and at the end.
    let first = |name: &str| points.iter().find(|p| p.name == name).unwrap().value;
    assert_eq!(first("clawker.loader.agents"), 1);
    assert_eq!(value("agents", ""), 0);
    assert_eq!(value("hooks.effective", ""), 1);
    assert_eq!(
        collector.stream("clawker-cp").len(),
        0,
        "{:?}",
        collector.stream("clawker-cp")
    );
}

#[test]
fn over_http_metrics_have_a_path_of_their_own() {
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let program = format!("{PRELUDE}{REFUSED}refused(2)");
    let url = format!("http://{HTTP}/v1/logs");
    let out = bench.run(
        Some(POLICY),
        &["--otlp", &url],
        &["python3", "-c", &program],
    );
    assert_eq!(out.code, 0, "{}", out.stderr);
    let values = last(&all_points(&collector));
    assert_eq!(
        values[&("clawker.loader.flows.ended".to_owned(), "DENIED".to_owned())],
        2
    );
}

#[test]
fn what_an_operator_must_see_is_in_the_control_planes_stream_too() {
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let url = format!("http://{GRPC}");
    let program = format!("{PRELUDE}{REFUSED}refused(1); step('up'); refused(1)");
    let args = ["--otlp", &url, "--reload", "--cap-add", "CAP_NET_ADMIN"];
    let mut agent = bench.converse(POLICY, &args, &["python3", "-c", &program]);
    assert_eq!(agent.hear(), "up");
    fs::write(bench.path("policy.yaml"), "rules: nonsense\n").unwrap();
    let said = eventually("the refusal at the collector", || {
        let said = collector.stream("clawker-cp");
        said.iter()
            .any(|r| {
                r.record["body"]["stringValue"]
                    .as_str()
                    .unwrap()
                    .starts_with("policy refused: ")
            })
            .then_some(said)
    });
    agent.say("go");
    let out = agent.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(
        out.stderr.contains("--cap-add CAP_NET_ADMIN: with it"),
        "{}",
        out.stderr
    );
    for r in &said {
        assert_eq!(r.attributes["target"], "clawker::security");
        assert_eq!(r.attributes["level"], "warn");
        assert_eq!(
            (&r.record["severityText"], &r.record["eventName"]),
            (&json!("WARN"), &json!("clawker.cp.log"))
        );
        let text = r.record["body"]["stringValue"].as_str().unwrap();
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    let about = |what: &str| {
        let has = |r: &&kernel_tests::collector::Received| {
            r.record["body"]["stringValue"]
                .as_str()
                .unwrap()
                .contains(what)
        };
        said.iter().filter(has).count()
    };
    assert_eq!((about("CAP_NET_ADMIN"), about("nonsense")), (1, 1));
}

#[test]
fn each_hook_that_is_taken_away_is_missed_where_it_was_and_by_whoever_watches() {
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let url = format!("http://{GRPC}");
    let mut talk = bench.talk(POLICY, &["--otlp", &url], "step('ready')");
    assert_eq!(talk.hear(), "ready");
    let id = bench.instance();
    let links = bench.pins_of(&id).dir().join("links/1");
    let cgroup = Cgroup::at(cgroup_root().join("clawker").join(&id));
    let look = |cgroup_id| hooks::missing(&links, cgroup.path(), cgroup_id);
    let number = cgroup.id().unwrap();
    assert_eq!(look(number), None);
    // Another cgroup under the same path.
    assert_eq!(look(number + 1), Some(programs::CGROUP[0]));
    // From the last to the first, so that each is the first that is missing.
    for hook in programs::CGROUP.into_iter().rev() {
        bpf::detach(&links.join(hook));
        assert_eq!(look(number), Some(hook));
    }
    let gone = eventually("the gauge to fall", || {
        let all = collector.points();
        let last = all.into_iter().rfind(|p| p.name == HOOKS.name)?;
        (last.value == 0).then_some(last)
    });
    assert_eq!(gone.resource["service.instance.id"], id);
    let said = eventually("the record", || {
        let said = collector.stream("clawker-cp");
        (!said.is_empty()).then_some(said)
    });
    let text = said[0].record["body"]["stringValue"].as_str().unwrap();
    assert!(
        text.starts_with("hook connect4 is not in force on "),
        "{text}"
    );
    assert_eq!(said[0].record["severityText"], "ERROR");
    talk.say("");
    talk.end(&bench);
}
