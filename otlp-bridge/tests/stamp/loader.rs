//! Records of the loader: taken as they are, weighed, and their flows counted.

use crate::make::{opened, pair, record, request, requests, said, says, stamp};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use otlp_bridge::{
    incoming::{Flows, Weight},
    stamp::Entrance,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const LOADER: Entrance = Entrance::Loader;
const BOOT: &str = "0123456789abcdef0123456789abcdef";

fn stream(name: &str) -> Vec<KeyValue> {
    vec![says("service.name", name)]
}

fn int(n: i64) -> AnyValue {
    AnyValue {
        value: Some(Value::IntValue(n)),
    }
}

fn flow(verdict: &str, id: &str) -> LogRecord {
    record(
        250,
        vec![
            says("agent", "web"),
            says("verdict", verdict),
            says("flow_id", id),
        ],
    )
}

#[test]
fn a_flow_is_kept_as_it_is_with_its_own_id() {
    let id = format!("{BOOT}-7-a12");
    let sent = flow("ALLOWED", &id);
    let stamped = stamp(
        LOADER,
        &request(stream("clawker-egress"), vec![sent.clone()]),
    );
    let incoming = &stamped.records[0];
    let (resource, scope, record) = opened(incoming);
    assert_eq!(record, sent);
    assert_eq!(
        said(&resource, "service.name").as_deref(),
        Some("clawker-egress")
    );
    assert_eq!(scope.name, "test");
    assert_eq!(incoming.id, id);
    let wanted = Flows {
        boot: BOOT.to_owned(),
        slot: 7,
        verdict: "ALLOWED".to_owned(),
        count: 1,
    };
    assert_eq!(incoming.flows.as_ref(), Some(&wanted));
}

#[test]
fn what_a_full_spool_throws_away_first_is_said() {
    let weight = |name, verdict| {
        let one = flow(verdict, &format!("{BOOT}-7-a1"));
        stamp(LOADER, &request(stream(name), vec![one])).records[0].weight
    };
    assert_eq!(weight("clawker-egress", "ALLOWED"), Weight::Allowed);
    assert_eq!(weight("clawker-egress", "DENIED"), Weight::Kept);
    assert_eq!(weight("clawker-egress", "BYPASSED"), Weight::Kept);
    assert_eq!(weight("clawker-egress", "x"), Weight::Other);
    assert_eq!(weight("clawker-overseer", "ALLOWED"), Weight::Kept);
    assert_eq!(weight("clawker-cp", "DENIED"), Weight::Other);
}

#[test]
fn what_is_no_flow_gets_an_id_and_is_not_counted() {
    let stamped = stamp(
        LOADER,
        &request(stream("clawker-overseer"), vec![record(250, vec![]); 2]),
    );
    let ids: Vec<_> = stamped.records.iter().map(|i| i.id.clone()).collect();
    assert_ne!(ids[0], ids[1]);
    for incoming in &stamped.records {
        let (_, _, record) = opened(incoming);
        assert_eq!(
            said(&record.attributes, "record_id"),
            Some(incoming.id.clone())
        );
        assert_eq!(incoming.flows, None);
    }
    assert_eq!(stamped.tally.uncounted, 0);
    let own = record(250, vec![says("record_id", "mine")]);
    let stamped = stamp(LOADER, &request(stream("clawker-cp"), vec![own]));
    assert_eq!(stamped.records[0].id, "mine");
}

#[test]
fn flows_that_cannot_be_counted_are_kept_and_told() {
    let good = format!("{BOOT}-7-f1-0");
    let with = |count| {
        let mut one = flow("ALLOWED", &good);
        one.attributes.push(pair("count", count));
        one
    };
    let odd = [
        flow("ALLOWED", "x"),
        flow("MAYBE", &format!("{BOOT}-7-a1")),
        flow("ALLOWED", &good),
        with(int(0)),
        with(int(-4)),
        with(AnyValue {
            value: Some(Value::StringValue("3".to_owned())),
        }),
        record(250, vec![says("verdict", "ALLOWED")]),
    ];
    let stamped = stamp(LOADER, &request(stream("clawker-egress"), odd.to_vec()));
    assert_eq!(stamped.tally.uncounted, odd.len() as u64);
    assert_eq!(stamped.records.len(), odd.len());
    assert!(
        stamped
            .records
            .iter()
            .all(|incoming| incoming.flows.is_none())
    );
}

#[test]
fn flows_that_the_loader_declares_lost_are_accounted_for() {
    let gap = |attributes: Vec<KeyValue>| {
        let mut one = record(250, attributes);
        one.event_name = "clawker.overseer.gap".to_owned();
        one
    };
    let whole = vec![
        says("boot", BOOT),
        says("verdict", "DENIED"),
        pair("slot", int(7)),
        pair("flows", int(41)),
    ];
    let flows = |attributes: &[KeyValue]| {
        let one = gap(attributes.to_vec());
        let mut stamped = stamp(LOADER, &request(stream("clawker-overseer"), vec![one]));
        (stamped.records.remove(0).flows, stamped.tally.uncounted)
    };
    let wanted = Flows {
        boot: BOOT.to_owned(),
        slot: 7,
        verdict: "DENIED".to_owned(),
        count: 41,
    };
    assert_eq!(flows(&whole), (Some(wanted), 0));
    // Flows whose end was not seen have no verdict, and are in no count of ended ones.
    let unseen: Vec<_> = whole
        .iter()
        .filter(|a| a.key != "verdict")
        .cloned()
        .collect();
    assert_eq!(flows(&unseen), (None, 0));
    // What says too little is kept and told.
    for lacking in ["boot", "slot", "flows"] {
        let odd: Vec<_> = whole.iter().filter(|a| a.key != lacking).cloned().collect();
        assert_eq!(flows(&odd), (None, 1), "{lacking}");
    }
    // The same words in another record declare nothing.
    let other = record(250, whole);
    let stamped = stamp(LOADER, &request(stream("clawker-overseer"), vec![other]));
    assert_eq!(stamped.records[0].flows, None);
}

#[test]
fn other_streams_are_refused() {
    for resource in [
        stream("clawker-envoy"),
        stream(""),
        vec![],
        [stream("clawker-egress"), stream("clawker-cp")].concat(),
    ] {
        let stamped = stamp(LOADER, &request(resource, vec![record(250, vec![]); 3]));
        assert_eq!((stamped.tally.no_stream, stamped.tally.refused()), (3, 3));
        assert_eq!(stamped.records, []);
        assert!(stamped.message().unwrap().contains("3 record(s)"));
    }
}

/// Slot, verdict and count of flows, single or folded.
fn flows() -> impl Strategy<Value = Vec<(u32, usize, Option<u32>)>> {
    prop::collection::vec((1..4u32, 0..3usize, prop::option::of(1..1000u32)), 0..40)
}

proptest! {
    #[test]
    fn every_flow_is_counted_once(flows in flows()) {
        let verdicts = ["ALLOWED", "DENIED", "BYPASSED"];
        let mut wanted: BTreeMap<(u32, &str), u64> = BTreeMap::new();
        let mut records = Vec::new();
        for (i, (slot, verdict, count)) in flows.iter().enumerate() {
            let verdict = verdicts[*verdict];
            *wanted.entry((*slot, verdict)).or_default() += u64::from(count.unwrap_or(1));
            records.push(match count {
                None => flow(verdict, &format!("{BOOT}-{slot}-a{i}")),
                Some(count) => {
                    let mut one = flow(verdict, &format!("{BOOT}-{slot}-f{i}-{i:x}"));
                    one.attributes.push(pair("count", int(i64::from(*count))));
                    one
                }
            });
        }
        let stamped = stamp(LOADER, &request(stream("clawker-egress"), records));
        let mut found: BTreeMap<(u32, &str), u64> = BTreeMap::new();
        for incoming in &stamped.records {
            let one = incoming.flows.as_ref().unwrap();
            prop_assert_eq!(&*one.boot, BOOT);
            let verdict = verdicts.into_iter().find(|v| *v == one.verdict).unwrap();
            *found.entry((one.slot, verdict)).or_default() += one.count;
        }
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_within_bounds_is_not_touched(request in requests()) {
        let mut request = request;
        let mut sent = Vec::new();
        for group in &mut request.resource_logs {
            let attributes = &mut group.resource.get_or_insert_default().attributes;
            attributes.retain(|pair| pair.key != "service.name");
            attributes.push(says("service.name", "clawker-cp"));
            for one in group.scope_logs.iter_mut().flat_map(|scope| &mut scope.log_records) {
                one.attributes.sort_by(|a, b| a.key.cmp(&b.key));
                one.attributes.dedup_by(|a, b| a.key == b.key);
                one.attributes.retain(|pair| !["record_id", "flow_id", "truncated"].contains(&&*pair.key));
                one.severity_number = one.severity_number.clamp(0, 24);
                one.trace_id.truncate(one.trace_id.len() / 16 * 16);
                one.observed_time_unix_nano = one.observed_time_unix_nano.max(1);
                one.time_unix_nano = one.time_unix_nano.max(1);
                sent.push(one.clone());
            }
        }
        let stamped = stamp(LOADER, &request);
        let kept: Vec<_> = stamped.records.iter().map(|incoming| {
            let (_, _, mut record) = opened(incoming);
            // Resources and scopes may have an attribute twice, which is said of their records.
            record.attributes.retain(|pair| !["record_id", "truncated"].contains(&&*pair.key));
            record
        }).collect();
        prop_assert_eq!(kept, sent);
    }
}
