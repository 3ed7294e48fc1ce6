//! What senders write: any bytes, by any lane, become records or are refused and counted. No claim
//! survives, no stream is chosen, and who is named had the address.
#![no_main]

use lease::{Answer, BootId, BootTime, Hold, Lease, Leases, Reading, WallTime};
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::{KeyValue, any_value::Value},
    logs::v1::ResourceLogs,
    resource::v1::Resource,
};
use otlp_bridge::stamp::{Context, Entrance, Limits, Reception, Stamped, is_claim, logs, metrics};
use prost::Message as _;
use std::{net::IpAddr, sync::LazyLock};
use wire::fields::{LANE, PEER};

const OFFSET: u64 = 1_700_000_000_000_000_000;
const PEER_IP: &str = "172.18.0.2";
const NAMES: [&str; 4] = ["agent", "project", "container_id", "container_name"];
const OURS: [&str; 3] = ["record_id", "truncated", "identity_as_of"];

fn at(seconds: u64) -> BootTime {
    BootTime(seconds * 1_000_000_000)
}

static BOOK: LazyLock<Leases> = LazyLock::new(|| {
    let mut book = Leases::new(BootId::parse(&"b".repeat(32)).expect("a boot id"));
    book.observe(Reading {
        before: at(1),
        wall: WallTime(OFFSET + at(1).0),
        after: at(1),
    });
    for (name, ip, since, until) in [
        ("first", PEER_IP, 100, Some(at(200))),
        ("second", PEER_IP, 210, None),
        ("other", "172.18.0.3", 50, None),
        ("six", "fd00::5", 50, None),
    ] {
        let (since, ip) = (at(since), ip.parse().expect("an address"));
        let opened = book.open(Lease {
            agent: Some(name.to_owned()),
            project: None,
            container_id: name.to_owned(),
            name: name.to_owned(),
            slot: None,
            cgroup_id: None,
            netns: None,
            since,
            until,
            ips: vec![Hold { ip, since, until }],
        });
        opened.expect("a lease");
    }
    book.complete_until(at(300));
    book
});

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let lane = match kind % 5 {
        0 => None,
        1 => Some("agents"),
        2 => Some("envoy"),
        3 => Some("coredns"),
        _ => Some("none"),
    };
    for entrance in [Entrance::Loader, Entrance::Collector] {
        if let Ok(stamped) = logs(bytes, context(entrance)) {
            check(&stamped, entrance, None);
        }
        if let Ok(stamped) = metrics(bytes, context(entrance)) {
            let again = ExportMetricsServiceRequest::decode(&*stamped.bytes);
            assert!(again.is_ok(), "what is passed on can be read");
        }
    }
    // The same as the collector would hand it over.
    if let (Ok(mut request), Some(lane)) = (ExportLogsServiceRequest::decode(bytes), lane) {
        let mut sent = 0;
        for group in &mut request.resource_logs {
            let attributes = &mut group.resource.get_or_insert_default().attributes;
            attributes.insert(0, LANE.with(lane));
            let peer: IpAddr = PEER_IP.parse().expect("an address");
            attributes.insert(1, PEER.with(peer));
            sent += group.scope_logs.iter().map(|s| s.log_records.len()).sum::<usize>();
        }
        let stamped = logs(&request.encode_to_vec(), context(Entrance::Collector));
        // What prost can read is no reason to refuse a whole request.
        let stamped = stamped.expect("a request");
        assert_eq!(stamped.tally.records, sent as u64);
        check(&stamped, Entrance::Collector, Some(lane));
    }
});

fn context(entrance: Entrance) -> Context<'static> {
    static LIMITS: LazyLock<Limits> = LazyLock::new(Limits::default);
    Context {
        entrance,
        book: &BOOK,
        received: Reception {
            boot: at(300),
            wall: WallTime(OFFSET + at(300).0),
        },
        limits: &LIMITS,
    }
}

fn check(stamped: &Stamped, entrance: Entrance, lane: Option<&str>) {
    let t = &stamped.tally;
    assert_eq!(t.records, t.kept + t.refused());
    assert_eq!(t.kept, stamped.records.len() as u64);
    for incoming in &stamped.records {
        let mut group = ResourceLogs::decode(&*incoming.bytes).expect("what is kept can be read");
        let Resource { attributes, .. } = group.resource.take().unwrap_or_default();
        assert_eq!(text(&attributes, "service.name"), Some(&*incoming.stream));
        if entrance == Entrance::Loader {
            continue;
        }
        assert!(incoming.flows.is_none());
        assert!(!["clawker-egress", "clawker-cp", "clawker-overseer"].contains(&&*incoming.stream));
        let claims = |list: &[KeyValue]| list.iter().filter(|pair| is_claim(&pair.key)).count();
        assert_eq!(claims(&attributes), 1, "the stream, and nothing else");
        let scope = &group.scope_logs[0];
        assert_eq!(claims(&scope.scope.clone().unwrap_or_default().attributes), 0);
        let record = &scope.log_records[0];
        for pair in &record.attributes {
            let ours = [&NAMES[..], &OURS].concat().contains(&&*pair.key);
            assert!(ours || !is_claim(&pair.key), "{:?} survived", pair.key);
        }
        let name = text(&record.attributes, "container_name");
        let ip = match lane {
            Some("agents") => Some(PEER_IP),
            Some("envoy" | "coredns") => text(&record.attributes, "src_ip"),
            _ => continue,
        };
        let Some(name) = name else { continue };
        let ip = ip.expect("nobody is named without an address");
        let ip = ip.trim_matches(['[', ']']).parse().expect("an address");
        let Answer::Held(lease) = BOOK.by_ip(ip, WallTime(record.time_unix_nano)) else {
            panic!("{name} did not have {ip}");
        };
        assert_eq!(lease.name, name);
    }
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let pair = attributes.iter().find(|pair| pair.key == key)?;
    match pair.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}
