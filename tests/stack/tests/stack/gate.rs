//! No text of people or models gets further than the collector's intake, wherever in a record it hides, and
//! everything else arrives.

use serde_json::{Value, json};
use stack_tests::{
    chain::{ANN, Chain, PATIENCE, holds, of},
    claude::{MARK, events, prose, session},
    send::{agent_sends, attributes, logs, now},
};

/// Spellings in which the mark could be left.
fn spellings() -> Vec<Vec<u8>> {
    let hex: String = MARK.bytes().map(|b| format!("{b:02x}")).collect();
    // In base64 it looks different at each of three positions; the ends depend on what is beside it.
    let base64 = ["WnE3eEhpZGRlb", "pxN3hIaWRkZW", "acTd4SGlkZGVu"];
    let mut all = vec![
        MARK.as_bytes().to_vec(),
        MARK.to_lowercase().into_bytes(),
        hex.into_bytes(),
    ];
    all.extend(base64.map(|b| b.as_bytes().to_vec()));
    all
}

#[track_caller]
fn nothing_is_left(chain: &Chain) {
    for (place, bytes) in chain.everything() {
        for spelling in spellings() {
            let shown = String::from_utf8_lossy(&spelling);
            if let Some(at) = bytes.windows(spelling.len()).position(|w| w == spelling) {
                let around = &bytes[at.saturating_sub(300)..(at + 100).min(bytes.len())];
                panic!("{shown} is in {place}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}

#[test]
fn every_event_arrives_without_its_content() {
    let chain = Chain::start();
    agent_sends(ANN.ip, "/v1/logs", &session());
    let all = events();
    let documents = chain.documents("clawker-claude", all.len());
    for (number, event) in all.iter().enumerate() {
        let found = documents.iter().find(|d| of(d)["event_sequence"] == number);
        let found = found.unwrap_or_else(|| panic!("{} is not there", event.name));
        let mut attributes = of(found).as_object().unwrap().clone();
        for (name, value) in event.expected(number) {
            assert_eq!(
                attributes.remove(&name),
                Some(value),
                "{name} of {}",
                event.name
            );
        }
        // What is left is the bridge's and the exporter's.
        let mut left: Vec<_> = attributes.keys().map(String::as_str).collect();
        left.retain(|k| *k != "identity_as_of");
        left.sort_unstable();
        let theirs = [
            "agent",
            "container_id",
            "container_name",
            "data_stream",
            "project",
            "record_id",
            "src_ip",
        ];
        assert_eq!(left, theirs, "{}", event.name);
        assert_eq!(
            found["_source"]["body"],
            format!("claude_code.{}", event.name)
        );
        assert_eq!(
            (&attributes["agent"], &attributes["project"]),
            (&json!("ann"), &json!("acme"))
        );
        assert_eq!(found["_source"]["resource"]["service.version"], "2.1.248");
        assert_eq!(
            found["_source"]["severity"],
            json!({"text": "INFO", "number": 9})
        );
    }
    nothing_is_left(&chain);
}

/// A record with the mark in one place besides what is structure.
fn hiding(place: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut record = json!({"timeUnixNano": now().to_string(), "body": {"stringValue": "claude_code.tool_result"},
        "attributes": attributes(&json!({"event.name": "tool_result", "tool_name": "Read", "duration_ms": 5}))});
    change(&mut record);
    // Which one it is, in a field that may say it.
    let attributes = record["attributes"].as_array_mut().unwrap();
    attributes.push(json!({"key": "command_name", "value": {"stringValue": place}}));
    record
}

fn add(record: &mut Value, key: &str, value: &Value) {
    let all = record["attributes"].as_array_mut().unwrap();
    all.push(json!({"key": key, "value": value}));
}

fn first(record: &mut Value, key: &str, value: &Value) {
    let all = record["attributes"].as_array_mut().unwrap();
    all.retain(|a| a["key"] != key);
    all.insert(0, json!({"key": key, "value": value}));
}

/// "Zq7xHidden" and prose around it, as OTLP's JSON has bytes.
const BYTES: &str = "bXkgWnE3eEhpZGRlbiBieXRlcw==";
/// 16 bytes with the mark, and 8 with its beginning, as ids are written.
const TRACE_ID: &str = "5a71377848696464656e5a7137784869";
const SPAN_ID: &str = "5a71377848696464";

fn in_records() -> Vec<Value> {
    let text = |of: &str| json!({"stringValue": prose(of)});
    let nested = |of: &str| {
        json!({"kvlistValue": {"values": [{"key": "tool_name", "value": {"stringValue": prose(of)}},
        {"key": MARK, "value": {"arrayValue": {"values": [{"stringValue": MARK}]}}}]}})
    };
    let list = |of: &str| json!({"arrayValue": {"values": [{"stringValue": prose(of)}, {"stringValue": MARK}]}});
    let bytes = json!({"bytesValue": BYTES});
    let mut all = vec![
        hiding("body", |r| r["body"] = text("body")),
        hiding("body_map", |r| r["body"] = nested("body")),
        hiding("body_list", |r| r["body"] = list("body")),
        hiding("body_bytes", |r| r["body"] = bytes.clone()),
        hiding("event_name", |r| r["eventName"] = json!(prose("event"))),
        hiding("event_name_word", |r| r["eventName"] = json!(MARK)),
        hiding("severity_text", |r| {
            r["severityText"] = json!(prose("severity"));
        }),
        hiding("severity_word", |r| r["severityText"] = json!(MARK)),
        hiding("ids", |r| {
            r["traceId"] = json!(TRACE_ID);
            r["spanId"] = json!(SPAN_ID);
        }),
        hiding("unknown_key", |r| add(r, "anything", &text("key"))),
        hiding("key_itself", |r| add(r, MARK, &json!({"intValue": "1"}))),
        hiding("below_known", |r| add(r, "tool_name.more", &text("name"))),
        hiding("case", |r| add(r, "Tool_Name", &text("name"))),
        hiding("empty_key", |r| add(r, "", &text("empty key"))),
    ];
    for key in [
        "tool_name",
        "model",
        "session.id",
        "duration_ms",
        "success",
        "cost_usd",
        "event.name",
        "app.version",
    ] {
        let at = |how: &str| format!("{key}_{how}").replace('.', "_");
        all.push(hiding(&at("prose"), |r| first(r, key, &text(key))));
        all.push(hiding(&at("map"), |r| first(r, key, &nested(key))));
        all.push(hiding(&at("list"), |r| first(r, key, &list(key))));
        all.push(hiding(&at("bytes"), |r| first(r, key, &bytes)));
        all.push(hiding(&at("second"), |r| add(r, key, &text(key))));
        all.push(hiding(&at("second_map"), |r| add(r, key, &nested(key))));
        let long = format!("{}{MARK}", "x".repeat(90));
        all.push(hiding(&at("long"), |r| {
            first(r, key, &json!({"stringValue": long}));
        }));
        all.push(hiding(&at("mail"), |r| {
            first(
                r,
                key,
                &json!({"stringValue": format!("{MARK}@example.com")}),
            );
        }));
    }
    all
}

#[test]
fn nothing_hides_in_any_place_of_a_record() {
    let chain = Chain::start();
    let records = in_records();
    let n = records.len();
    let mut request = logs(
        &json!({"service.name": "claude-code", "other": prose("resource"), MARK: 1,
        "service.version": prose("version"), "nested": {"a": [MARK]}}),
        &records,
    );
    let group = &mut request["resourceLogs"][0];
    group["schemaUrl"] = json!(format!("https://example.com/{MARK}"));
    group["resource"]["entityRefs"] =
        json!([{"schemaUrl": MARK, "type": MARK, "idKeys": [MARK], "descriptionKeys": [MARK]}]);
    let scope = &mut group["scopeLogs"][0];
    scope["schemaUrl"] = json!(MARK);
    scope["scope"] = json!({"name": prose("scope"), "version": MARK, "attributes": attributes(&json!({"a": prose("scope")}))});
    agent_sends(ANN.ip, "/v1/logs", &request);

    // Traces have no way in at all.
    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": TRACE_ID, "spanId": SPAN_ID, "name": MARK,
        "traceState": MARK}]}]}]});
    let url = format!("http://{}:4318/v1/traces", stack_tests::collector::AGENTS);
    assert_eq!(stack_tests::send::post(ANN.ip, &url, &spans).status, 404);

    let documents = chain.documents("clawker-claude", n);
    for document in &documents {
        assert_eq!(of(document)["agent"], "ann", "{document}");
    }
    // What hides in one place takes nothing away from the others.
    let whole = |d: &&Value| of(d)["tool_name"] == "Read" && of(d)["duration_ms"] == 5;
    assert!(documents.iter().filter(whole).count() >= n - 12);
    nothing_is_left(&chain);
}

fn point(attributes_of: &Value) -> Value {
    json!({"asInt": "7", "startTimeUnixNano": now().to_string(), "timeUnixNano": now().to_string(),
        "attributes": attributes(attributes_of),
        "exemplars": [{"timeUnixNano": now().to_string(), "asInt": "1", "traceId": TRACE_ID, "spanId": SPAN_ID,
            "filteredAttributes": attributes(&json!({"prompt": prose("exemplar"), MARK: MARK}))}]})
}

fn metric(name: &str, unit: &str, points: &[Value]) -> Value {
    json!({"name": name, "description": prose("description"), "unit": unit, "metadata": attributes(&json!({"m": prose("metadata")})),
        "sum": {"aggregationTemporality": 1, "isMonotonic": true, "dataPoints": points}})
}

#[test]
fn nothing_hides_in_metrics() {
    let chain = Chain::start();
    let labels = json!({"type": "input", "model": "claude-opus-4-5", "user.email": format!("{MARK}@example.com"),
        "session.id": "7f1f3d0e", "user.id": MARK, "other": prose("label"), "query_source": prose("source")});
    let metrics = [
        metric("claude_code.token.usage", &prose("unit"), &[point(&labels)]),
        metric(&prose("name"), "1", &[point(&json!({}))]),
        metric(MARK, "1", &[point(&json!({}))]),
    ];
    let request = json!({"resourceMetrics": [{"schemaUrl": MARK, "resource": {"attributes": attributes(&json!({"service.name": MARK, "x": MARK})),
        "entityRefs": [{"type": MARK}]}, "scopeMetrics": [{"schemaUrl": MARK, "scope": {"name": MARK, "version": MARK}, "metrics": metrics}]}]});
    agent_sends(ANN.ip, "/v1/metrics", &request);
    let series = kernel_tests::eventually_within(PATIENCE, "the series", || {
        let all = chain.collector.series();
        all.contains("claude_code_token_usage_tokens_total{")
            .then_some(all)
    });
    let line = series
        .lines()
        .find(|l| l.starts_with("claude_code_token"))
        .unwrap();
    assert_eq!(
        line,
        "claude_code_token_usage_tokens_total{agent=\"ann\",job=\"clawker-claude\",kind=\"input\",model=\"claude-opus-4-5\",project=\"acme\"} 7"
    );
    assert!(holds(series.as_bytes(), b"# TYPE"), "{series}");
    // So that there are documents to look at.
    agent_sends(
        ANN.ip,
        "/v1/logs",
        &logs(&json!({}), &[hiding("x", |_| {})]),
    );
    chain.documents("clawker-claude", 1);
    nothing_is_left(&chain);
}
