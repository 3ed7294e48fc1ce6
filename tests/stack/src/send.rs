//! Senders of OTLP: somebody at an address, over HTTP with JSON, in which anything can be said.

use crate::collector::AGENTS;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;
use serde_json::{Value, json};
use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};
use wire::{Client, Endpoint, Options, Outcome, Payload};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Nanoseconds since 1970.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_nanos()).expect("before 2554"))
}

/// Posts JSON from an address of this machine.
#[track_caller]
pub fn post(from: &str, url: &str, body: &Value) -> Answer {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "60",
    ]);
    curl.args(["--interface", from, "--write-out", "\n%{http_code}"]);
    curl.args([
        "--header",
        "Content-Type: application/json",
        "--data-binary",
        "@-",
        url,
    ]);
    curl.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = curl.spawn().expect("curl is installed");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin
        .write_all(body.to_string().as_bytes())
        .expect("curl reads");
    drop(stdin);
    let out = child.wait_with_output().expect("it is our child");
    assert!(
        out.status.success(),
        "{url}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let text = String::from_utf8_lossy(&out.stdout);
    let (body, status) = text.rsplit_once('\n').expect("--write-out");
    Answer {
        status: status.parse().expect("a status"),
        body: body.to_owned(),
    }
}

/// Sends a request of the agents' lane, which must be taken.
#[track_caller]
pub fn agent_sends(from: &str, path: &str, body: &Value) {
    let answer = post(from, &format!("http://{AGENTS}:4318{path}"), body);
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Sends a record over gRPC as Envoy does: every value a text, without a severity.
#[track_caller]
pub fn envoy_sends(url: &str, attributes: &[(&str, &str)]) {
    let pair = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue((*value).to_owned())),
        }),
        ..KeyValue::default()
    };
    let record = LogRecord {
        time_unix_nano: now(),
        attributes: attributes.iter().map(pair).collect(),
        ..LogRecord::default()
    };
    let group = ResourceLogs {
        resource: Some(Resource {
            attributes: vec![pair(&("log_name", "envoy_log"))],
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs {
            log_records: vec![record],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime.expect("a runtime").block_on(async {
        let endpoint = Endpoint::new(url, &Options::default()).expect("a URL");
        let payload = Payload::of_encoded([group.encode_to_vec().as_slice()].into_iter());
        Client::new(&endpoint).send(&payload).await
    });
    assert_eq!(outcome, Outcome::Delivered);
}

/// A value as OTLP's JSON has it.
#[must_use]
pub fn value(plain: &Value) -> Value {
    match plain {
        Value::Null => json!({}),
        Value::Bool(b) => json!({"boolValue": b}),
        Value::Number(n) if n.is_f64() => json!({"doubleValue": n}),
        Value::Number(n) => json!({"intValue": n.to_string()}),
        Value::String(s) => json!({"stringValue": s}),
        Value::Array(all) => {
            json!({"arrayValue": {"values": all.iter().map(value).collect::<Vec<_>>()}})
        }
        Value::Object(_) => json!({"kvlistValue": {"values": attributes(plain)}}),
    }
}

/// Attributes as OTLP's JSON has them, from a plain object.
#[must_use]
pub fn attributes(plain: &Value) -> Vec<Value> {
    let all = plain.as_object().expect("an object").iter();
    all.map(|(k, v)| json!({"key": k, "value": value(v)}))
        .collect()
}

/// A request of logs with one resource and one scope.
#[must_use]
pub fn logs(resource: &Value, records: &[Value]) -> Value {
    json!({"resourceLogs": [{
        "resource": {"attributes": attributes(resource)},
        "scopeLogs": [{"scope": {"name": "a scope"}, "logRecords": records}],
    }]})
}
