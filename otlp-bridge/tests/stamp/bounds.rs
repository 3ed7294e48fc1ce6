//! Hostile requests: what is over a bound is cut or refused, never in silence, and never more than one
//! record of others goes with it.

use crate::make::{count, opened, pair, record, request, said, says, stamp, stamp_bytes, text};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value},
    logs::v1::LogRecord,
};
use otlp_bridge::stamp::{Entrance, Limits, Stamped};
use prost::Message as _;

const COLLECTOR: Entrance = Entrance::Collector;

fn envoy() -> Vec<KeyValue> {
    vec![says("clawker.lane", "envoy")]
}

fn stamped(records: Vec<LogRecord>) -> Stamped {
    stamp(COLLECTOR, &request(envoy(), records))
}

fn is_truncated(attributes: &[KeyValue]) -> bool {
    let flag = |pair: &KeyValue| pair.value.clone().unwrap_or_default().value;
    let found = attributes.iter().find(|pair| pair.key == "truncated");
    found.is_some_and(|pair| flag(pair) == Some(Value::BoolValue(true)))
}

/// The one record, which was altered.
#[track_caller]
fn altered(stamped: &Stamped) -> LogRecord {
    assert_eq!((stamped.tally.truncated, stamped.records.len()), (1, 1));
    let (_, _, record) = opened(&stamped.records[0]);
    assert!(is_truncated(&record.attributes));
    assert_eq!(
        stamped.message().unwrap(),
        "1 record(s) were cut to their bounds"
    );
    record
}

fn nested(depth: usize, list: bool) -> AnyValue {
    (0..depth).fold(text("end"), |value, _| AnyValue {
        value: Some(if list {
            Value::ArrayValue(ArrayValue {
                values: vec![value],
            })
        } else {
            Value::KvlistValue(KeyValueList {
                values: vec![pair("k", value)],
            })
        }),
    })
}

/// A message inside others, as bytes: what prost would not encode.
fn wrapped(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// A request of records given as bytes.
fn raw(records: &[Vec<u8>]) -> Vec<u8> {
    let scope: Vec<u8> = records.iter().flat_map(|r| wrapped(2, r)).collect();
    let mut group = wrapped(
        1,
        &request(envoy(), vec![]).resource_logs[0]
            .resource
            .clone()
            .unwrap()
            .encode_to_vec(),
    );
    group.extend(wrapped(2, &scope));
    wrapped(1, &group)
}

#[test]
fn nine_hundred_levels_are_cut_and_the_rest_arrives() {
    for list in [true, false] {
        // Built as bytes, because building and dropping it in memory would need the stack.
        let mut value = text("end").encode_to_vec();
        for _ in 0..900 {
            value = if list {
                wrapped(5, &wrapped(1, &value))
            } else {
                wrapped(6, &wrapped(1, &wrapped(2, &value)))
            };
        }
        let mut one = record(250, vec![says("kept", "yes")]).encode_to_vec();
        one.extend(wrapped(
            6,
            &[wrapped(1, b"deep"), wrapped(2, &value)].concat(),
        ));
        let request = raw(&[one]);
        let stamped = stamp_bytes(COLLECTOR, &request, &Limits::default()).unwrap();
        let record = altered(&stamped);
        assert_eq!(said(&record.attributes, "kept").as_deref(), Some("yes"));
    }
}

#[test]
fn nesting_within_bounds_is_kept() {
    for list in [true, false] {
        let deep = pair("deep", nested(8, list));
        let stamped = stamped(vec![record(250, vec![deep.clone()])]);
        assert_eq!(stamped.tally.truncated, 0);
        let (_, _, kept) = opened(&stamped.records[0]);
        assert!(kept.attributes.contains(&deep));
    }
}

#[test]
fn too_many_attributes_are_left_out_and_counted() {
    let many = (0..500).map(|i| says(&format!("k{i}"), "v")).collect();
    let record = altered(&stamped(vec![record(250, many)]));
    assert_eq!(record.dropped_attributes_count, 500 - 128);
    assert_eq!(said(&record.attributes, "k127").as_deref(), Some("v"));
    assert_eq!(said(&record.attributes, "k128"), None);
}

#[test]
fn too_many_values_are_left_out() {
    let values = vec![text(""); 100_000 / 4];
    let array = AnyValue {
        value: Some(Value::ArrayValue(ArrayValue { values })),
    };
    let record = altered(&stamped(vec![record(250, vec![pair("many", array)])]));
    let many = record.attributes.iter().find(|p| p.key == "many").unwrap();
    let Some(Value::ArrayValue(kept)) = &many.value.as_ref().unwrap().value else {
        panic!("{many:?}");
    };
    assert!(kept.values.len() < 2048, "{}", kept.values.len());
}

#[test]
fn long_texts_are_cut_between_characters() {
    let long = "é".repeat(20_000);
    let mut one = record(250, vec![says("long", &long), says("short", "é")]);
    one.body = Some(text(&long));
    let record = altered(&stamped(vec![one]));
    let kept = said(&record.attributes, "long").unwrap();
    assert_eq!(kept, "é".repeat(8 * 1024));
    assert_eq!(said(&record.attributes, "short").as_deref(), Some("é"));
    assert_eq!(record.body, Some(text(&kept)));
}

#[test]
fn bytes_that_are_no_text_are_repaired() {
    // An agent that writes them into a path must be seen all the same.
    let mut one = record(250, vec![says("src_ip", "172.18.0.3")]).encode_to_vec();
    let value = wrapped(1, b"/a\xff\xfeb");
    one.extend(wrapped(
        6,
        &[wrapped(1, b"path"), wrapped(2, &value)].concat(),
    ));
    let stamped = stamp_bytes(COLLECTOR, &raw(&[one]), &Limits::default()).unwrap();
    let record = altered(&stamped);
    assert_eq!(
        said(&record.attributes, "path").as_deref(),
        Some("/a\u{fffd}\u{fffd}b")
    );
    assert_eq!(
        said(&record.attributes, "container_name").as_deref(),
        Some("c-c")
    );
}

#[test]
fn what_no_store_could_take_is_repaired() {
    let double = |n| AnyValue {
        value: Some(Value::DoubleValue(n)),
    };
    let mut one = record(
        250,
        vec![
            pair("n", double(f64::NAN)),
            pair("i", double(f64::INFINITY)),
        ],
    );
    one.attributes
        .extend([says("twice", "first"), says("twice", "second")]);
    one.trace_id = vec![1; 7];
    one.severity_number = 4000;
    let record = altered(&stamped(vec![one]));
    assert_eq!(said(&record.attributes, "n").as_deref(), Some("NaN"));
    assert_eq!(said(&record.attributes, "i").as_deref(), Some("inf"));
    assert_eq!(said(&record.attributes, "twice").as_deref(), Some("first"));
    assert_eq!((record.trace_id.len(), record.severity_number), (0, 24));
}

#[test]
fn a_record_that_is_too_large_or_broken_goes_alone() {
    let large = record(
        250,
        (0..100)
            .map(|i| says(&format!("k{i}"), &"x".repeat(4000)))
            .collect(),
    );
    let good = record(250, vec![]).encode_to_vec();
    let request = raw(&[
        good.clone(),
        large.encode_to_vec(),
        b"\xff\xff\xff".to_vec(),
        wrapped(6, b"\x0a\x7f"),
        good,
    ]);
    let stamped = stamp_bytes(COLLECTOR, &request, &Limits::default()).unwrap();
    assert_eq!(stamped.records.len(), 2);
    let t = &stamped.tally;
    assert_eq!((t.records, t.too_large, t.malformed), (5, 1, 2));
    let said = stamped.message().unwrap();
    assert_eq!(said, "2 record(s) are no OTLP, 1 record(s) are too large");
}

#[test]
fn a_request_becomes_no_more_records_than_allowed() {
    // Two bytes each.
    let stamped = stamp_bytes(
        COLLECTOR,
        &raw(&vec![Vec::new(); 100_000]),
        &Limits::default(),
    )
    .unwrap();
    assert_eq!(stamped.records.len(), 4096);
    assert_eq!(
        (stamped.tally.records, stamped.tally.too_many),
        (100_000, 100_000 - 4096)
    );
}

#[test]
fn what_stands_before_every_record_does_not_grow_with_them() {
    let mut resource = envoy();
    resource.extend((0..100).map(|i| says(&format!("k{i}"), &"x".repeat(4000))));
    let request = request(resource, vec![record(250, vec![]); 1000]);
    let stamped = stamp(COLLECTOR, &request);
    assert_eq!(stamped.tally.kept, count(&request));
    assert_eq!(stamped.tally.truncated, 1000);
    let bytes: usize = stamped.records.iter().map(|i| i.bytes.len()).sum();
    assert!(bytes < 1000 * 6000, "{bytes}");
    let limits = Limits {
        output_bytes: 100_000,
        ..Limits::default()
    };
    let stamped = stamp_bytes(COLLECTOR, &request.encode_to_vec(), &limits).unwrap();
    let bytes: usize = stamped.records.iter().map(|i| i.bytes.len()).sum();
    assert!(bytes <= 100_000, "{bytes}");
    let t = &stamped.tally;
    assert_eq!(t.kept + t.too_many, 1000);
    // Of what was refused nothing is counted twice.
    assert_eq!(t.no_address, t.kept);
}
