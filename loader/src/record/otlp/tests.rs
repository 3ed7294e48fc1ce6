use super::super::{
    Context, Record,
    tests::{Table, context, event},
};
use abi::{
    DIRECTION_INGRESS, FLOW_HAS_DST, FLOW_WOULD_DENY, FlowEvent, FoldKey, FoldRow,
    VERDICT_BYPASSED, VERDICT_DENIED, close, reason,
};
use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use serde_json::{Value, json};
use wire::{LogRecord, fields};
use zerocopy::FromZeros as _;

fn ended(change: impl FnOnce(&mut FlowEvent)) -> Record {
    let mut e = event();
    change(&mut e);
    context().ended(&e, &mut Table)
}

fn denied(e: &mut FlowEvent) {
    e.flow.verdict = VERDICT_DENIED;
    e.flow.src_port = 0;
    e.tail = abi::Tail {
        end: e.flow.start,
        close: u64::from(close::DENIED),
        cut_rule: abi::NO_RULE,
        ..e.tail
    };
    (e.tail.bytes_in, e.tail.bytes_out) = (0, 0);
    e.flow.rule = abi::NO_RULE;
    e.flow.reason = reason::DEFAULT;
}

/// One record of each kind.
fn kinds() -> Vec<(&'static str, Record)> {
    let mut key = FoldKey::new_zeroed();
    key.slot = 7;
    key.epoch = 3;
    key.dst = crate::enrol::ip("192.0.2.9".parse().unwrap());
    key.port = 80;
    key.proto = abi::IPPROTO_TCP;
    key.verdict = VERDICT_DENIED;
    key.reason = reason::DEFAULT;
    let row = FoldRow {
        count: 5,
        first: 1_000_000_000,
        last: 2_000_000_000,
        rule: abi::NO_RULE,
        ..FoldRow::default()
    };
    vec![
        (
            "allowed",
            ended(|e| {
                e.tail.rtt_us = 1234;
                e.tail.retransmits = 2;
            }),
        ),
        ("denied", ended(denied)),
        (
            "of a container",
            Record {
                container_id: Some("0123abcd".to_owned()),
                container_name: Some("acme.reviewer".to_owned()),
                ..ended(denied)
            },
        ),
        (
            "bypassed, several names",
            ended(|e| {
                e.flow.verdict = VERDICT_BYPASSED;
                e.flow.reason = reason::BYPASS;
                e.flow.names[1] = 2;
                e.flow.name_count = 2;
            }),
        ),
        (
            "refused DNS query",
            ended(|e| {
                denied(e);
                e.flow.proto = abi::IPPROTO_UDP;
                e.flow.reason = reason::NAME;
            }),
        ),
        (
            "refused socket",
            ended(|e| {
                denied(e);
                e.flow.flags = 0;
                e.flow.proto = abi::IPPROTO_ICMP;
                e.flow.reason = reason::RAW_SOCKET;
                e.flow.name_count = 0;
            }),
        ),
        (
            "accepted",
            ended(|e| {
                e.flow.direction = DIRECTION_INGRESS;
                e.flow.reason = reason::INBOUND;
                e.flow.rule = abi::NO_RULE;
                e.flow.pid = 0;
                e.flow.name_count = 0;
            }),
        ),
        (
            "would be denied, address alone",
            ended(|e| {
                e.flow.flags = FLOW_HAS_DST | FLOW_WOULD_DENY;
                e.flow.name_count = 0;
                e.tail.close = u64::from(close::POLICY);
            }),
        ),
        ("folded", context().folded(&key, &row, &mut Table)),
    ]
}

fn observed() -> Timestamp {
    "2026-11-01T12:00:00Z".parse().unwrap()
}

#[test]
fn one_record_of_each_kind_is_this_otlp() {
    let golden = include_str!("golden.json");
    let wanted: Value = serde_json::from_str(golden).unwrap();
    let got: serde_json::Map<String, Value> = kinds()
        .iter()
        .map(|(kind, r)| {
            let record = serde_json::to_value(r.otlp(observed())).unwrap();
            ((*kind).to_owned(), record)
        })
        .collect();
    assert_eq!(Value::Object(got.clone()), wanted, "{}", json!(got));
}

/// A value as JSON would have it.
fn plain(value: Option<&AnyValue>) -> Value {
    use any_value::Value as V;
    match value.and_then(|v| v.value.as_ref()) {
        Some(V::StringValue(s)) => json!(s),
        Some(V::IntValue(n)) => json!(n),
        Some(V::BoolValue(b)) => json!(b),
        Some(V::ArrayValue(a)) => a.values.iter().map(|v| plain(Some(v))).collect(),
        other => panic!("{other:?}"),
    }
}

fn attributes(record: &LogRecord) -> Value {
    let pairs = record.attributes.iter();
    pairs
        .map(|a| (a.key.clone(), plain(a.value.as_ref())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[test]
fn attributes_are_those_of_the_json_lines_with_the_same_values() {
    for (kind, record) in kinds() {
        let mut json = serde_json::to_value(&record).unwrap();
        let time = json.as_object_mut().unwrap().remove("time").unwrap();
        let otlp = record.otlp(observed());
        assert_eq!(attributes(&otlp), json, "{kind}");
        let nanos: Timestamp = time.as_str().unwrap().parse().unwrap();
        assert_eq!(
            u128::from(otlp.time_unix_nano),
            nanos.as_nanosecond() as u128
        );
    }
}

#[test]
fn every_field_of_the_dictionary_for_flows_is_filled_by_some_kind() {
    // There is no proxy yet; the others are the collector's and the bridge's.
    const ELSEWHERE: [&str; 5] = [
        "proxy_ip",
        "proxy_port",
        "event_name",
        "truncated",
        "identity_as_of",
    ];
    let records: Vec<LogRecord> = kinds().iter().map(|(_, r)| r.otlp(observed())).collect();
    let filled = |name: &str| {
        let has = |r: &LogRecord| r.attributes.iter().any(|a| a.key == name);
        records.iter().any(has)
    };
    for f in fields::ALL {
        let ours = ["flows", "every stream"];
        let ours = f.records.split(", ").any(|stream| ours.contains(&stream));
        assert_eq!(
            filled(f.name),
            ours && !ELSEWHERE.contains(&f.name),
            "{} ({})",
            f.name,
            f.records
        );
    }
}

#[test]
fn what_cannot_be_told_is_no_reason_to_leave_the_record_out() {
    let context = Context {
        wall_offset: i128::MIN / 2,
        set: 9,
        ..context()
    };
    let record = context.ended(&event(), &mut Table).otlp(observed());
    assert!(record.time_unix_nano > 0);
}
