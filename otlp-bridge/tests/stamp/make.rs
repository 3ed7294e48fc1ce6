//! Leases, requests and what is in them, for the tests.

use lease::{BootId, BootTime, Hold, Lease, Leases, Reading, WallTime};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{
        AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use otlp_bridge::{
    incoming::Incoming,
    stamp::{Context, Entrance, Limits, Reception, Stamped, logs},
};
use proptest::prelude::*;
use prost::Message as _;
use std::net::IpAddr;

/// What the wall clock shows is that much more than the boot clock.
const OFFSET: u64 = 1_700_000_000_000_000_000;
/// When requests arrive, seconds on the boot clock.
pub(crate) const NOW: u64 = 300;
/// Given to one container after the other.
pub(crate) const REUSED: &str = "172.18.0.2";
/// Of a container that lives.
pub(crate) const STEADY: &str = "172.18.0.3";
/// Of two containers in one network namespace.
pub(crate) const SHARED: &str = "172.18.0.4";
/// Of a container that is no agent.
pub(crate) const PLAIN: &str = "fd00::5";

pub(crate) fn boot(seconds: u64) -> BootTime {
    BootTime(seconds * 1_000_000_000)
}

pub(crate) fn wall(seconds: u64) -> WallTime {
    WallTime(OFFSET + seconds * 1_000_000_000)
}

fn lease(id: &str, agent: Option<&str>, ip: &str, netns: u64, life: (u64, Option<u64>)) -> Lease {
    let (since, until) = (boot(life.0), life.1.map(boot));
    Lease {
        agent: agent.map(str::to_owned),
        project: agent.map(|agent| format!("project of {agent}")),
        container_id: id.repeat(64),
        name: format!("c-{id}"),
        slot: None,
        cgroup_id: None,
        netns: Some(netns),
        since,
        until,
        ips: vec![Hold {
            ip: ip.parse().unwrap(),
            since,
            until,
        }],
    }
}

/// A book that is complete up to `as_of` seconds.
pub(crate) fn book(as_of: u64) -> Leases {
    let mut book = Leases::new(BootId::parse(&"b".repeat(32)).unwrap());
    book.observe(Reading {
        before: boot(10),
        wall: wall(10),
        after: boot(10),
    });
    for lease in [
        lease("a", Some("web"), REUSED, 1, (100, Some(200))),
        lease("b", Some("db"), REUSED, 2, (210, None)),
        lease("c", Some(""), STEADY, 3, (50, None)),
        lease("d", Some("one"), SHARED, 4, (50, None)),
        lease("e", Some("two"), "172.18.0.9", 4, (50, None)),
        lease("f", None, PLAIN, 6, (50, None)),
    ] {
        book.open(lease).unwrap();
    }
    book.complete_until(boot(as_of));
    book
}

/// Stamps at [`NOW`], with leases that are complete.
pub(crate) fn stamp(entrance: Entrance, request: &ExportLogsServiceRequest) -> Stamped {
    stamp_bytes(entrance, &request.encode_to_vec(), &Limits::default()).unwrap()
}

pub(crate) fn stamp_bytes(
    entrance: Entrance,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Stamped, otlp_bridge::stamp::Malformed> {
    let book = book(NOW);
    logs(bytes, context(entrance, &book, limits))
}

pub(crate) fn context<'c>(entrance: Entrance, book: &'c Leases, limits: &'c Limits) -> Context<'c> {
    Context {
        entrance,
        book,
        received: Reception {
            boot: boot(NOW),
            wall: wall(NOW),
        },
        limits,
    }
}

pub(crate) fn text(value: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(value.to_owned())),
    }
}

pub(crate) fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..KeyValue::default()
    }
}

pub(crate) fn says(key: &str, value: &str) -> KeyValue {
    pair(key, text(value))
}

/// A request of one resource and scope.
pub(crate) fn request(
    resource: Vec<KeyValue>,
    log_records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: "test".to_owned(),
                    ..InstrumentationScope::default()
                }),
                log_records,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

/// A record at a second of the boot clock.
pub(crate) fn record(seconds: u64, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: wall(seconds).0,
        observed_time_unix_nano: wall(seconds).0,
        body: Some(text("something happened")),
        attributes,
        ..LogRecord::default()
    }
}

/// What a kept record says: its resource, its scope and the record itself.
pub(crate) fn opened(incoming: &Incoming) -> (Vec<KeyValue>, InstrumentationScope, LogRecord) {
    let mut group = ResourceLogs::decode(&*incoming.bytes).unwrap();
    assert_eq!(group.scope_logs.len(), 1);
    let mut scope = group.scope_logs.remove(0);
    assert_eq!(scope.log_records.len(), 1);
    (
        group.resource.unwrap_or_default().attributes,
        scope.scope.unwrap_or_default(),
        scope.log_records.remove(0),
    )
}

/// The text of an attribute, which must not be there twice.
pub(crate) fn said(attributes: &[KeyValue], key: &str) -> Option<String> {
    let mut found = attributes.iter().filter(|pair| pair.key == key);
    let value = found.next()?.value.clone();
    assert!(found.next().is_none(), "{key} is there twice");
    match value.unwrap_or_default().value {
        Some(Value::StringValue(text)) => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}

/// Spellings under which a sender may claim to be somebody, or to be the bridge.
pub(crate) const CLAIMS: [&str; 24] = [
    "agent",
    "project",
    "container_id",
    "container_name",
    "agent.name",
    "agent.source",
    "project.name",
    "container.id",
    "container.name",
    "container_id.x",
    ".agent",
    "Agent",
    "AGENT",
    "agent ",
    "\tagent",
    "agent\u{0}",
    "dev.clawker.agent",
    "dev.clawker.project",
    "clawker.agent",
    "flow_id",
    "record_id",
    "record_id.x",
    "truncated",
    "identity_as_of",
];

pub(crate) fn values() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        "[ -~é\u{0}]{0,12}".prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        (-1e9..1e9f64).prop_map(Value::DoubleValue),
        prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::BytesValue),
    ];
    let value = |value| AnyValue { value: Some(value) };
    leaf.prop_map(value).prop_recursive(4, 16, 4, move |inner| {
        let list = prop::collection::vec(inner.clone(), 0..4);
        let pairs = prop::collection::vec((keys(), inner), 0..4);
        prop_oneof![
            list.prop_map(move |values| value(Value::ArrayValue(ArrayValue { values }))),
            pairs.prop_map(move |pairs| {
                let values = pairs.into_iter().map(|(k, v)| pair(&k, v)).collect();
                value(Value::KvlistValue(KeyValueList { values }))
            }),
        ]
    })
}

fn keys() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z_.]{0,10}",
        2 => prop::sample::select(&CLAIMS[..]).prop_map(str::to_owned),
        1 => Just("src_ip".to_owned()),
        1 => Just("service.name".to_owned()),
    ]
}

/// Attributes with many claims among them.
pub(crate) fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let one = (keys(), prop::option::of(values()));
    let one = one.prop_map(|(key, value)| KeyValue {
        key,
        value,
        ..KeyValue::default()
    });
    prop::collection::vec(one, 0..8)
}

pub(crate) fn records() -> impl Strategy<Value = LogRecord> {
    let times = (prop_oneof![Just(0), 0..400u64], any::<bool>());
    let words = ("[a-z.]{0,9}", -1..30i32, prop::option::of(values()));
    let ids = prop_oneof![Just(0), Just(16), Just(5usize)];
    (times, words, attributes(), ids).prop_map(|(times, words, attributes, id)| LogRecord {
        time_unix_nano: if times.0 == 0 { 0 } else { wall(times.0).0 },
        observed_time_unix_nano: if times.1 { wall(299).0 } else { 0 },
        event_name: words.0,
        severity_number: words.1,
        body: words.2,
        attributes,
        trace_id: vec![7; id],
        ..LogRecord::default()
    })
}

/// Requests of all shapes, with more resources and scopes than one.
pub(crate) fn requests() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope = (attributes(), prop::collection::vec(records(), 0..4));
    let scope = scope.prop_map(|(attributes, log_records)| ScopeLogs {
        scope: Some(InstrumentationScope {
            name: "scope".to_owned(),
            attributes,
            ..InstrumentationScope::default()
        }),
        log_records,
        schema_url: String::new(),
    });
    let group = (attributes(), prop::collection::vec(scope, 0..3));
    let group = group.prop_map(|(attributes, scope_logs)| ResourceLogs {
        resource: Some(Resource {
            attributes,
            ..Resource::default()
        }),
        scope_logs,
        schema_url: "https://example.com/schema".to_owned(),
    });
    prop::collection::vec(group, 0..3)
        .prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

/// Records in a request.
pub(crate) fn count(request: &ExportLogsServiceRequest) -> u64 {
    let scopes = request
        .resource_logs
        .iter()
        .flat_map(|group| &group.scope_logs);
    scopes.map(|scope| scope.log_records.len() as u64).sum()
}

/// Addresses that are somebody's at some time, and one that is nobody's.
pub(crate) fn addresses() -> impl Strategy<Value = IpAddr> {
    prop::sample::select(&[REUSED, STEADY, SHARED, PLAIN, "10.9.9.9"][..])
        .prop_map(|ip| ip.parse().unwrap())
}
