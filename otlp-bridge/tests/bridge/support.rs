//! What the tests have in common.

use opentelemetry_proto::tonic::{common::v1::any_value, logs::v1::ResourceLogs};
use otlp_bridge::{
    incoming::{Flows, Incoming, Weight},
    spool::{Bounds, From, Pending, Spool, StreamState},
};
use prost::Message as _;
use serde_json::{Map, Value};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use wire::{RecordBuilder, Severity, Source, fields as f, stream};

pub(crate) const BOOT: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const BATCH: usize = 200;

/// Bounds in bytes; nothing is too old.
pub(crate) fn bounds(bytes: u64) -> Bounds {
    Bounds {
        bytes,
        age: Duration::from_secs(1 << 30),
    }
}

pub(crate) fn open(dir: &Path, bytes: u64) -> Spool {
    Spool::open(dir, bounds(bytes), |e| panic!("the spool has stopped: {e}")).unwrap()
}

/// A record of a flow.
pub(crate) fn flow(slot: u32, verdict: &str, n: u64) -> Incoming {
    let weight = match verdict {
        "ALLOWED" => Weight::Allowed,
        _ => Weight::Kept,
    };
    let letter = verdict.to_ascii_lowercase().remove(0);
    let id = format!("{BOOT}-{slot}-{letter}{n}");
    Incoming {
        flows: Some(Flows {
            boot: BOOT.to_owned(),
            slot,
            verdict: verdict.to_owned(),
            count: 1,
        }),
        ..other(stream::EGRESS, &id, weight)
    }
}

/// A record of another source.
pub(crate) fn other(stream: &str, id: &str, weight: Weight) -> Incoming {
    let now = jiff::Timestamp::now();
    let agent = id.split('-').nth(1).unwrap_or("nobody");
    let record = RecordBuilder::new("test", now, now, Severity::Info, "a sentence".to_owned())
        .with(f::AGENT, agent)
        .with(f::FLOW_ID, id)
        .build();
    let source = Source::new(stream, "test", "1", "test");
    Incoming {
        stream: stream.to_owned(),
        id: id.to_owned(),
        weight,
        flows: None,
        bytes: source.records(vec![record]).encode_to_vec(),
    }
}

pub(crate) fn find(spool: &Spool, stream: &str) -> StreamState {
    let state = spool.state().unwrap();
    let mut streams = state.streams.into_iter();
    streams.find(|s| s.stream == stream).unwrap_or_default()
}

/// Everything of a stream that is in nobody's hands, handed out.
pub(crate) fn all(spool: &Spool, stream: &str) -> Vec<Pending> {
    let mut all = Vec::new();
    loop {
        let some = spool
            .hand_out(stream, From::Oldest, BATCH, 1 << 20)
            .unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

pub(crate) fn ids(records: &[Pending]) -> Vec<String> {
    records.iter().map(|p| p.id.clone()).collect()
}

/// Name and attributes of an event.
pub(crate) fn event(p: &Pending) -> (String, Map<String, Value>) {
    let logs = ResourceLogs::decode(p.bytes.as_slice()).unwrap();
    let record = &logs.scope_logs[0].log_records[0];
    let plain = |v: &any_value::Value| match v {
        any_value::Value::StringValue(s) => Value::from(s.as_str()),
        any_value::Value::IntValue(n) => Value::from(*n),
        other => panic!("{other:?}"),
    };
    let attributes = record.attributes.iter();
    let attributes = attributes.map(|a| {
        let value = a.value.as_ref().unwrap().value.as_ref().unwrap();
        (a.key.clone(), plain(value))
    });
    (record.event_name.clone(), attributes.collect())
}

/// What the gaps among these records declare of a stream: records and flows.
pub(crate) fn declared(records: &[Pending], stream: &str) -> (u64, u64) {
    let gaps = records.iter().map(event);
    let gaps = gaps.filter(|(name, a)| name == stream::GAP && a["stream"] == stream);
    gaps.fold((0, 0), |(r, fl), (_, a)| {
        (
            r + a["records"].as_u64().unwrap(),
            fl + a["flows"].as_u64().unwrap(),
        )
    })
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
