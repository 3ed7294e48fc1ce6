//! Records that a mapping alone would refuse, or that come close.

use super::TIME;
use serde_json::{Value, json};

/// Attributes, and the names that are set aside of them.
pub(super) fn odd_attributes() -> Vec<(Value, &'static [&'static str])> {
    let deep = |open: &str, close: &str, depth: usize| {
        let text = open.repeat(depth) + "1" + &close.repeat(depth);
        serde_json::from_str::<Value>(&text).expect("serde_json reads 127 levels")
    };
    vec![
        (json!({"agent": "a", "agent.name": "b"}), &["agent.name"]),
        (json!({"agent": {"name": "b"}}), &["agent"]),
        (json!({"agent": [{"x": 1}]}), &["agent"]),
        (json!({"agent": [["x"]]}), &["agent"]),
        (json!({"agent": ["a", "b", null]}), &[]),
        (json!({"agent": null}), &[]),
        (json!({"agent": 5}), &[]),
        (json!({"agent": "x".repeat(40_000)}), &[]),
        (json!({"agent": "é".repeat(40_000)}), &[]),
        (json!({"dst_ip": "-"}), &["dst_ip"]),
        (json!({"dst_ip": ""}), &["dst_ip"]),
        (json!({"dst_ip": "192.0.2.1:80"}), &["dst_ip"]),
        (json!({"dst_ip": "192.0.2.0/24"}), &["dst_ip"]),
        (json!({"dst_ip": "192.0.2.256"}), &["dst_ip"]),
        (json!({"dst_ip": {"a": 1}}), &["dst_ip"]),
        (json!({"dst_ip": 5}), &["dst_ip"]),
        (json!({"dst_ip": "2001:db8::1"}), &[]),
        (json!({"dst_port": "http"}), &["dst_port"]),
        (json!({"dst_port": "-"}), &["dst_port"]),
        (json!({"dst_port": ""}), &["dst_port"]),
        (json!({"dst_port": true}), &["dst_port"]),
        (json!({"dst_port": {"x": 1}}), &["dst_port"]),
        (json!({"dst_port": 9.5e18}), &["dst_port"]),
        (json!({"dst_port": "80"}), &[]),
        (json!({"dst_port": 1.5}), &[]),
        (json!({"cost_usd": "much"}), &["cost_usd"]),
        (json!({"cost_usd": "Infinity"}), &["cost_usd"]),
        (json!({"cost_usd": false}), &["cost_usd"]),
        (json!({"cost_usd": 0.25}), &[]),
        (json!({"would_deny": "yes"}), &["would_deny"]),
        (json!({"would_deny": 1}), &["would_deny"]),
        (json!({"would_deny": ""}), &["would_deny"]),
        (json!({"would_deny": [true, "x"]}), &["would_deny"]),
        (json!({"would_deny": "true"}), &[]),
        (json!({"start_time": "yesterday"}), &["start_time"]),
        (json!({"start_time": 1e300}), &["start_time"]),
        (json!({"start_time": true}), &["start_time"]),
        (
            json!({"start_time": "+12026-11-22T10:00:00Z"}),
            &["start_time"],
        ),
        (json!({"dst_hosts": ["a.example", "b.example"]}), &[]),
        (json!({"dst_hosts": ["a", {"b": 1}]}), &["dst_hosts"]),
        (json!({"": 1}), &[""]),
        (json!({".": 1}), &["."]),
        (json!({"..": 1}), &[".."]),
        (json!({"a..b": 1}), &["a..b"]),
        (json!({" ": 1}), &[" "]),
        (json!({"a.": 1}), &["a."]),
        (json!({".a": 1}), &[".a"]),
        (json!({"a. .b": 1}), &["a. .b"]),
        (json!({"\0": 1}), &["\0"]),
        (json!({"foo": {"": 1, "a..b": {".": 2}}}), &[]),
        (json!({"foo": 1, "foo.bar": 2}), &[]),
        (json!({"foo": deep("{\"a\":", "}", 100)}), &[]),
        (json!({"agent": deep("{\"a\":", "}", 100)}), &["agent"]),
        (json!({"agent": deep("[", "]", 100)}), &["agent"]),
        (json!({"k".repeat(40_000): 1}), &[]),
        (json!({"data_stream": "x"}), &["data_stream"]),
        (
            json!({"data_stream": {"dataset": {"a": 1}}}),
            &["data_stream.dataset"],
        ),
        (
            json!({"data_stream.dataset": "x"}),
            &["data_stream.dataset"],
        ),
        (json!({"record_id": "x".repeat(600)}), &[]),
        (json!({"record_id": 5}), &[]),
        (json!({"record_id": {"a": 1}}), &["record_id"]),
        (json!({"record_id": ""}), &[]),
        (json!({"record_id": "\u{1f600}".repeat(64)}), &[]),
        (
            json!({"type": "object", "properties": {"agent": {"type": "long"}}}),
            &[],
        ),
    ]
}

/// Whole records, and the names that are set aside of them.
pub(super) fn odd_records() -> Vec<(Value, &'static [&'static str])> {
    let mut all: Vec<(Value, &[&str])> = vec![
        (json!({"attributes": "x"}), &["attributes"]),
        (json!({"attributes": [{"agent": "a"}]}), &["attributes"]),
        (json!({"attributes": null}), &["attributes"]),
        (
            json!({"attributes.agent": "x", "attributes": {"agent": "y"}}),
            &["attributes.agent"],
        ),
        (json!({"severity": "INFO"}), &["severity"]),
        (json!({"severity": {"text": {"a": 1}}}), &["severity.text"]),
        (json!({"severity": {"number": "x"}}), &["severity.number"]),
        (json!({"severity.text": "x"}), &["severity.text"]),
        (json!({"resource": "x"}), &["resource"]),
        (
            json!({"resource": {"service": "x", "service.name": "y"}}),
            &["resource.service"],
        ),
        (
            json!({"resource": {"service.name.x": "x", "service.name": "y"}}),
            &["resource.service.name.x"],
        ),
        (
            json!({"resource": {"attributes": {"service": {"name": "x"}}}}),
            &["resource.attributes"],
        ),
        (json!({"resource": {"host.name": "x", "host": "y"}}), &[]),
        (
            json!({"instrumentationScope": "x"}),
            &["instrumentationScope"],
        ),
        (
            json!({"instrumentationScope": {"name": {"a": 1}}}),
            &["instrumentationScope.name"],
        ),
        (
            json!({"instrumentationScope": {"attributes": {"": 1, "a..b": 2}}}),
            &[],
        ),
        (json!({"body": {"a": 1}}), &["body"]),
        (json!({"body": ["a", {"b": 1}]}), &["body"]),
        (json!({"body": 5}), &[]),
        (json!({"body": "x".repeat(40_000)}), &[]),
        (json!({"": 1}), &[""]),
        (json!({".": 1}), &["."]),
        (json!({"source": "x"}), &["source"]),
        (json!({"source": {"ip": "192.0.2.1"}}), &["source"]),
        (json!({"severityText": "x"}), &["severityText"]),
        (json!({"odd": "x"}), &["odd"]),
        (json!({"_source": {"a": 1}}), &["_source"]),
        (json!({"_routing": "x"}), &["_routing"]),
        (json!({"_ignored": "x"}), &["_ignored"]),
        (json!({"observedTimestamp": "x"}), &["observedTimestamp"]),
        (json!({"traceId": {"a": 1}}), &["traceId"]),
        (json!({"@timestamp": "2026-11-22T24:00:00Z"}), &[]),
        (json!({"@timestamp": "2262-04-11T23:47:16.854775807Z"}), &[]),
    ];
    for bad in [
        Value::Null,
        json!("now"),
        json!({"a": 1}),
        json!([TIME, TIME]),
        json!("1970-01-01T00:00:00Z"),
        json!("+12026-11-22T10:00:00Z"),
        json!("0000-01-01T00:00:00Z"),
        json!(-5),
        json!(1.5),
        json!(true),
    ] {
        all.push((json!({"@timestamp": bad}), &["@timestamp"]));
    }
    all
}
