//! The shipped configuration as the collector reads it: what must hold of it whatever is sent.

use kernel_tests::collector::binary;
use serde_json::{Map, Value};
use stack_tests::collector::{config, files};
use std::{collections::BTreeMap, fs, process::Command};
use wire::{fields, stream};

/// All files together, defaults included.
fn read() -> Value {
    let mut command = Command::new(binary());
    command.args(["print-config", "--format", "json", "--mode", "unredacted"]);
    for file in files() {
        command.arg("--config").arg(file);
    }
    command
        .env_clear()
        .env("CLAWKER_COLLECTOR_PASSWORD", "none");
    let out = command.output().expect("the collector runs");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).expect("JSON")
}

fn part<'c>(config: &'c Value, name: &str) -> &'c Map<String, Value> {
    config[name].as_object().unwrap_or_else(|| panic!("{name}"))
}

fn pipelines(config: &Value) -> &Map<String, Value> {
    config["service"]["pipelines"]
        .as_object()
        .expect("pipelines")
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

#[test]
fn nothing_is_queued_and_nothing_is_printed() {
    let config = read();
    for (name, exporter) in part(&config, "exporters") {
        assert!(exporter["sending_queue"].is_null(), "{name}");
        let kind = name.split('/').next().expect("a kind");
        match kind {
            "opensearch" | "otlp_http" => {
                assert_eq!(exporter["retry_on_failure"]["enabled"], false, "{name}");
            }
            "prometheus" => assert_ne!(exporter["enable_open_metrics"], true),
            other => panic!("an exporter of kind {other} would need its own proof"),
        }
    }
    for (name, pipeline) in pipelines(&config) {
        let signal = name.split('/').next().expect("a signal");
        assert!(
            ["logs", "metrics"].contains(&signal),
            "{name}: spans of agents are made of content"
        );
        let batches = names(&pipeline["processors"])
            .into_iter()
            .any(|p| p.starts_with("batch"));
        assert!(!batches, "{name} answers before it has delivered");
    }
}

#[test]
fn what_fails_to_be_judged_does_not_pass() {
    let config = read();
    let all = part(&config, "processors")
        .iter()
        .chain(part(&config, "connectors"));
    let mut judged = 0;
    for (name, component) in all {
        if !["transform", "filter", "routing"]
            .iter()
            .any(|k| name.starts_with(k))
        {
            continue;
        }
        judged += 1;
        assert_eq!(component["error_mode"], "propagate", "{name}");
        for signal in ["log_statements", "metric_statements"] {
            for group in component[signal].as_array().into_iter().flatten() {
                let own = group["error_mode"].as_str().unwrap_or_default();
                assert!(["", "propagate"].contains(&own), "{name}: {group}");
            }
        }
    }
    assert!(judged >= 7, "{judged}");
}

#[test]
fn every_way_in_says_lane_and_peer_first_and_agents_pass_the_gate() {
    let config = read();
    for (name, pipeline) in pipelines(&config) {
        let processors = names(&pipeline["processors"]);
        let lane = match names(&pipeline["receivers"])[..] {
            ["otlp/agents"] => "resource/agents",
            ["otlp/infra"] => "resource/envoy",
            ["file_log/coredns"] => "resource/coredns",
            _ => continue,
        };
        assert_eq!(
            processors[..3],
            ["memory_limiter", "transform/unclaimed", lane],
            "{name}"
        );
        assert_eq!(
            names(&pipeline["exporters"]),
            ["otlp_http/bridge"],
            "{name}"
        );
        if lane == "resource/agents" {
            assert!(processors.contains(&"transform/gate"), "{name}");
        }
        assert_eq!(processors.last(), Some(&"groupbyattrs"), "{name}");
    }
}

/// Names of attributes of records that a transform writes, with the type of each.
fn written(config: &Value, transform: &str) -> BTreeMap<String, &'static str> {
    let groups = config["processors"][transform]["log_statements"]
        .as_array()
        .expect("groups");
    let statements = groups
        .iter()
        .flat_map(|g| g["statements"].as_array().expect("statements"));
    let mut all = BTreeMap::new();
    for statement in statements.map(|s| s.as_str().expect("a statement")) {
        let Some(rest) = statement.strip_prefix("set(log.attributes[\"") else {
            continue;
        };
        let (name, rest) = rest.split_once("\"], ").expect("a name");
        let (value, _) = rest.split_once(" where ").unwrap_or((rest, ""));
        let kind = match value {
            _ if value.starts_with("Int(") => "int",
            _ if value.starts_with("Double(") => "double",
            "true)" | "false)" => "bool",
            _ if rest.contains("IsBool(") => "bool",
            _ => "string",
        };
        let before = all.insert(name.to_owned(), kind);
        assert!(
            before.is_none_or(|b| b == kind),
            "{name} is written as two types"
        );
    }
    all
}

#[test]
fn the_gate_lets_through_what_the_dictionary_has_and_all_of_it() {
    let config = read();
    for transform in ["transform/gate", "transform/envoy", "transform/coredns"] {
        for (name, kind) in written(&config, transform) {
            let entry = fields::ALL.iter().find(|e| e.name == name);
            let entry =
                entry.unwrap_or_else(|| panic!("{name} of {transform} is in no dictionary"));
            assert_eq!(entry.kind.split(',').next(), Some(kind), "{name}");
        }
    }
    let gate = written(&config, "transform/gate");
    let of_claude = fields::ALL
        .iter()
        .filter(|e| e.records.contains("Claude Code") && e.name != fields::SRC_IP.name);
    for entry in of_claude {
        assert!(
            gate.contains_key(entry.name),
            "{} cannot get through",
            entry.name
        );
    }
}

#[test]
fn every_stream_has_its_exporter_and_its_route() {
    let config = read();
    let indices: Vec<_> = part(&config, "exporters")
        .values()
        .filter_map(|e| e["logs_index"].as_str())
        .collect();
    let table = config["connectors"]["routing/streams"]["table"]
        .as_array()
        .expect("a table");
    let streams = [
        stream::EGRESS,
        stream::CONTROL_PLANE,
        stream::OVERSEER,
        stream::CLAUDE,
        stream::ENVOY,
        stream::COREDNS,
    ];
    assert_eq!(
        (indices.len(), table.len()),
        (streams.len() + 1, streams.len())
    );
    assert!(indices.contains(&stream::UNKNOWN));
    for name in streams {
        let condition = format!("attributes[\"service.name\"] == \"{name}\"");
        let route = table
            .iter()
            .find(|r| r["condition"] == condition)
            .unwrap_or_else(|| panic!("{name}"));
        let to = names(&route["pipelines"]);
        let exporters = names(&pipelines(&config)[to[0]]["exporters"]);
        assert_eq!(config["exporters"][exporters[0]]["logs_index"], name);
    }
}

#[test]
fn the_page_names_every_file_and_variable() {
    let page =
        fs::read_to_string(config().join("../docs/collector.md")).expect("docs/collector.md");
    for file in files() {
        let name = file.file_name().expect("a name").to_string_lossy();
        assert!(
            page.contains(&format!("--config=/etc/clawker/collector/{name}")),
            "{name}"
        );
        let text = fs::read_to_string(&file).expect("it can be read");
        for part in text.split("${env:").skip(1) {
            let end = part.find([':', '}']).expect("an end");
            assert!(
                page.contains(&format!("`{}`", &part[..end])),
                "{}",
                &part[..end]
            );
        }
    }
}
