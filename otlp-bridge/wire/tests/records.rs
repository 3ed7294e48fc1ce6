//! Records and requests as they go over the wire.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use jiff::Timestamp;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value, logs::v1::LogRecord,
};
use proptest::prelude::*;
use prost::Message as _;
use wire::{Batch, Limits, RecordBuilder, Severity, Source, fields, stream};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn builder() -> RecordBuilder {
    let (time, seen) = ("2026-11-01T12:00:00.123456789Z", "2026-11-01T12:00:01Z");
    RecordBuilder::new(
        stream::FLOW,
        at(time),
        at(seen),
        Severity::Warn,
        "a sentence".to_owned(),
    )
}

fn source() -> Source {
    Source::new(stream::EGRESS, "ebpf-manager", "1.2.3", "run-7")
}

fn decode(bytes: &[u8]) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest::decode(bytes).unwrap()
}

#[test]
fn a_request_with_every_kind_of_value_is_this_otlp() {
    let record = builder()
        .with(fields::AGENT, "reviewer")
        .with(
            fields::DST_IP,
            "2001:db8::1".parse::<std::net::IpAddr>().unwrap(),
        )
        .with(fields::DST_PORT, 443_u16)
        .with(fields::BYTES_OUT, u64::MAX)
        .with(
            fields::DST_HOSTS,
            &["a.example".to_owned(), "b.example".to_owned()][..],
        )
        .with(fields::WOULD_DENY, true)
        .with(fields::START_TIME, at("2026-11-01T11:59:59.5Z"))
        .maybe(fields::PROJECT, None::<String>)
        .maybe(fields::PID, Some(42_u32))
        .build();
    let mut batch = Batch::new(&source(), Limits::default());
    assert_eq!(batch.push(record), None);
    let payload = batch.take();
    let golden = include_str!("golden/request.json");
    let wanted: serde_json::Value = serde_json::from_str(golden).unwrap();
    let got = serde_json::to_value(decode(&payload.bytes)).unwrap();
    assert_eq!(got, wanted, "{got:#}");
    assert_eq!(payload.records, 1);
    assert!(batch.is_empty());
}

#[test]
fn a_key_is_there_once_with_its_last_value() {
    let record = builder()
        .with(fields::AGENT, "claimed")
        .with(fields::COUNT, 1_u64)
        .with(fields::AGENT, "stamped")
        .build();
    let keys: Vec<_> = record.attributes.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(keys, ["agent", "count"]);
    let value = record.attributes[0].value.clone().unwrap().value.unwrap();
    assert_eq!(value, any_value::Value::StringValue("stamped".to_owned()));
}

#[test]
fn a_time_before_1970_is_not_taken_for_none() {
    let early = at("1969-07-20T20:17:40Z");
    let record = RecordBuilder::new("e", early, early, Severity::Info, String::new()).build();
    assert_eq!(
        (record.time_unix_nano, record.observed_time_unix_nano),
        (1, 1)
    );
}

#[test]
fn a_record_over_the_bound_goes_alone() {
    let large = builder().with(fields::COMM, "x".repeat(5000)).build();
    let limits = Limits {
        records: 10,
        bytes: 1000,
    };
    let mut batch = Batch::new(&source(), limits);
    assert_eq!(batch.push(large.clone()), None);
    let small = builder().build();
    assert_eq!(batch.push(small.clone()), Some(small.clone()));
    assert_eq!(batch.take().records, 1);
    assert_eq!(batch.push(small), None);
    assert_eq!(batch.push(large.clone()), Some(large));
}

prop_compose! {
    fn record()(
        nanos in 1_i128..4_000_000_000_000_000_000, comm in ".{0,15}", bytes in any::<u64>(),
        hosts in prop::collection::vec("[a-z.]{0,40}", 0..5), folded in any::<Option<u64>>(), flag in any::<bool>(),
        sentence in "[ -~]{0,200}",
    ) -> LogRecord {
        let time = Timestamp::from_nanosecond(nanos).unwrap();
        RecordBuilder::new(stream::FLOW, time, time, Severity::Info, sentence)
            .with(fields::COMM, comm)
            .with(fields::BYTES_IN, bytes)
            .with(fields::DST_HOSTS, &hosts[..])
            .maybe(fields::COUNT, folded)
            .with(fields::WOULD_DENY, flag)
            .build()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_record_arrives_once_in_order_within_the_bounds(
        records in prop::collection::vec(record(), 0..30), most in 1_usize..20, bytes in 200_usize..2000,
    ) {
        let limits = Limits { records: most, bytes };
        let mut batch = Batch::new(&source(), limits);
        let mut payloads = Vec::new();
        for record in &records {
            if let Some(back) = batch.push(record.clone()) {
                payloads.push(batch.take());
                prop_assert_eq!(batch.push(back), None);
            }
        }
        payloads.push(batch.take());
        let mut arrived = Vec::new();
        for p in &payloads {
            let mut request = decode(&p.bytes);
            let scope = request.resource_logs[0].scope_logs.remove(0);
            let got = scope.log_records;
            prop_assert_eq!(got.len() as u64, p.records);
            prop_assert!(got.len() <= most);
            prop_assert!(got.len() <= 1 || p.bytes.len() <= bytes, "{} > {bytes}", p.bytes.len());
            arrived.extend(got);
        }
        prop_assert_eq!(arrived, records);
    }

    #[test]
    fn a_batch_is_as_full_as_its_bound_allows(records in prop::collection::vec(record(), 1..30)) {
        let limits = Limits { records: 1000, bytes: 1500 };
        let mut batch = Batch::new(&source(), limits);
        for record in records {
            if let Some(back) = batch.push(record) {
                let sent = batch.take().bytes.len();
                // The bound counts both lengths around the records as longest: at most 10 bytes too many.
                prop_assert!(sent + back.encoded_len() + 4 + 10 > limits.bytes);
                batch.push(back);
            }
        }
    }
}
