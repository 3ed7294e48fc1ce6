//! Records that come by the collector: nothing they say of themselves is believed.

use crate::make::{
    CLAIMS, NOW, PLAIN, REUSED, SHARED, STEADY, addresses, book, boot, context, count, opened,
    record, request, requests, said, says, stamp, stamp_bytes, text, wall,
};
use lease::{Answer, WallTime};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::KeyValue,
};
use otlp_bridge::stamp::{Entrance, Limits, logs};
use proptest::prelude::*;
use prost::Message as _;
use std::{collections::HashSet, net::IpAddr};

const COLLECTOR: Entrance = Entrance::Collector;
const IDENTITY: [&str; 4] = ["agent", "project", "container_id", "container_name"];

/// What a record of a lane is stamped with.
fn identity(lane: Vec<KeyValue>, seconds: u64, attributes: Vec<KeyValue>) -> Option<String> {
    let stamped = stamp(COLLECTOR, &request(lane, vec![record(seconds, attributes)]));
    let (_, _, record) = opened(&stamped.records[0]);
    said(&record.attributes, "container_name")
}

fn agents(peer: &str) -> Vec<KeyValue> {
    vec![says("clawker.lane", "agents"), says("clawker.peer", peer)]
}

fn lane(name: &str) -> Vec<KeyValue> {
    vec![says("clawker.lane", name)]
}

#[test]
fn agents_are_known_by_their_peer_and_only_for_as_long_as_they_had_the_address() {
    let who = |peer, seconds| identity(agents(peer), seconds, vec![]);
    assert_eq!(who(REUSED, 250).as_deref(), Some("c-b"));
    assert_eq!(who(STEADY, 60).as_deref(), Some("c-c"));
    // Whoever has it now cannot write into the time of whoever had it before.
    assert_eq!(who(REUSED, 150), None);
    assert_eq!(who(REUSED, 205), None);
    assert_eq!(who(SHARED, 250), None);
    assert_eq!(who("10.9.9.9", 250), None);
    assert_eq!(who("not an address", 250), None);
    // What it logs says nothing here.
    let logged = vec![says("src_ip", STEADY)];
    assert_eq!(
        identity(agents(REUSED), 250, logged).as_deref(),
        Some("c-b")
    );
}

#[test]
fn envoy_and_coredns_are_believed_the_address_and_the_time() {
    for name in ["envoy", "coredns"] {
        let who = |ip, seconds| identity(lane(name), seconds, vec![says("src_ip", ip)]);
        assert_eq!(who(REUSED, 150).as_deref(), Some("c-a"));
        assert_eq!(who(REUSED, 205), None);
        assert_eq!(who(REUSED, 250).as_deref(), Some("c-b"));
        assert_eq!(who("[fd00::5]", 250).as_deref(), Some("c-f"));
        assert_eq!(who("::ffff:172.18.0.3", 250).as_deref(), Some("c-c"));
        assert_eq!(identity(lane(name), 250, vec![]), None);
        let two = vec![says("src_ip", REUSED), says("src_ip", STEADY)];
        assert_eq!(identity(lane(name), 250, two), None);
    }
}

#[test]
fn labels_are_written_down_as_they_are() {
    let request = request(agents(STEADY), vec![record(250, vec![])]);
    let (_, _, record) = opened(&stamp(COLLECTOR, &request).records[0]);
    assert_eq!(said(&record.attributes, "agent").as_deref(), Some(""));
    assert_eq!(said(&record.attributes, "src_ip").as_deref(), Some(STEADY));
    let request = crate::make::request(agents(PLAIN), vec![crate::make::record(250, vec![])]);
    let (_, _, record) = opened(&stamp(COLLECTOR, &request).records[0]);
    assert_eq!(said(&record.attributes, "agent"), None);
    assert_eq!(
        said(&record.attributes, "container_name").as_deref(),
        Some("c-f")
    );
}

#[test]
fn a_sender_cannot_choose_its_lane() {
    // Its own words beside those of the collector.
    for more in [
        lane("envoy"),
        agents(STEADY),
        vec![says("clawker.peer", STEADY)],
    ] {
        let mut resource = agents(REUSED);
        resource.extend(more.clone());
        assert_eq!(identity(resource, 250, vec![]), None, "{more:?}");
        assert_eq!(
            identity(agents(REUSED), 250, more.clone()),
            None,
            "{more:?}"
        );
    }
    // The same again is no contradiction.
    assert_eq!(
        identity(agents(REUSED), 250, agents(REUSED)).as_deref(),
        Some("c-b")
    );
    // The collector may say it on the record.
    assert_eq!(
        identity(vec![], 250, agents(REUSED)).as_deref(),
        Some("c-b")
    );
}

#[test]
fn a_stream_is_the_lanes_whatever_the_sender_calls_itself() {
    let named = |lane: Vec<KeyValue>, name| {
        let mut resource = lane;
        resource.push(says("service.name", name));
        let stamped = stamp(COLLECTOR, &request(resource, vec![record(250, vec![])]));
        let (resource, _, _) = opened(&stamped.records[0]);
        let stream = stamped.records[0].stream.clone();
        assert_eq!(said(&resource, "service.name").as_ref(), Some(&stream));
        stream
    };
    for name in ["clawker-egress", "clawker-overseer", "clawker-envoy", "x"] {
        assert_eq!(named(agents(REUSED), name), "clawker-claude");
        assert_eq!(named(lane("envoy"), name), "clawker-envoy");
        assert_eq!(named(lane("coredns"), name), "clawker-coredns");
    }
    assert_eq!(named(vec![], "clawker-envoy"), "clawker-envoy");
    for name in ["clawker-egress", "clawker-overseer", "clawker-cp", "x", ""] {
        assert_eq!(named(vec![], name), "clawker-unknown");
        assert_eq!(named(lane("loader"), name), "clawker-unknown");
    }
}

#[test]
fn a_record_without_time_has_the_one_at_which_it_was_seen() {
    let times = |time, observed| {
        let mut one = record(0, vec![]);
        (one.time_unix_nano, one.observed_time_unix_nano) = (time, observed);
        let stamped = stamp(COLLECTOR, &request(agents(REUSED), vec![one]));
        let (_, _, record) = opened(&stamped.records[0]);
        (record.time_unix_nano, record.observed_time_unix_nano)
    };
    let (now, then) = (wall(NOW).0, wall(250).0);
    assert_eq!(times(0, 0), (now, now));
    assert_eq!(times(0, then), (then, then));
    assert_eq!(times(then, 0), (then, now));
}

#[test]
fn leases_older_than_the_record_are_used_and_named() {
    let limits = Limits::default();
    let old = book(280);
    let stamped = |lane, seconds, attributes| {
        let request = request(lane, vec![record(seconds, attributes)]).encode_to_vec();
        logs(&request, context(COLLECTOR, &old, &limits)).unwrap()
    };
    let as_of = |stamped: &otlp_bridge::stamp::Stamped| {
        let (_, _, record) = opened(&stamped.records[0]);
        assert_eq!(
            said(&record.attributes, "container_name").as_deref(),
            Some("c-b")
        );
        said(&record.attributes, "identity_as_of")
    };
    let logged = || vec![says("src_ip", REUSED)];
    let before = stamped(lane("envoy"), 270, logged());
    assert_eq!((as_of(&before), before.ahead), (None, None));
    let after = stamped(lane("envoy"), 290, logged());
    let when = jiff::Timestamp::from_nanosecond(i128::from(wall(280).0)).unwrap();
    assert_eq!(as_of(&after), Some(when.to_string()));
    assert_eq!((after.ahead, after.tally.stale), (Some(boot(290)), 1));
    // Of what an agent sends, the time of reception counts: nobody waits for a time of its own choice.
    let sent = stamped(agents(REUSED), 270, vec![]);
    assert_eq!(
        (as_of(&sent), sent.ahead),
        (Some(when.to_string()), Some(boot(NOW)))
    );
    assert_eq!(stamped(agents(REUSED), 9999, vec![]).ahead, Some(boot(NOW)));
}

#[test]
fn a_record_that_comes_again_has_the_id_it_had() {
    let one = |seconds, what| record(seconds, vec![says("what", what)]);
    let id = |peer, one| {
        stamp(COLLECTOR, &request(agents(peer), vec![one])).records[0]
            .id
            .clone()
    };
    let first = id(REUSED, one(250, "a"));
    let mut again = one(250, "a");
    again.observed_time_unix_nano += 5;
    assert_eq!(first, id(REUSED, again));
    assert_ne!(first, id(STEADY, one(250, "a")));
    assert_ne!(first, id(REUSED, one(250, "b")));
    assert_ne!(first, id(REUSED, one(251, "a")));
}

/// What the leases say, asked without the stamper.
fn wanted(by_peer: bool, ip: IpAddr, time: u64) -> Option<[Option<String>; 4]> {
    let book = book(NOW);
    let time = WallTime(time);
    let answer = if by_peer {
        book.by_ip_through(ip, time, boot(NOW))
    } else {
        book.by_ip(ip, time)
    };
    match answer {
        Answer::Held(lease) => Some([
            lease.agent.clone(),
            lease.project.clone(),
            Some(lease.container_id.clone()),
            Some(lease.name.clone()),
        ]),
        _ => None,
    }
}

fn no_claims(attributes: &[KeyValue], but: &[&str]) {
    for pair in attributes {
        let claimed = CLAIMS.contains(&&*pair.key) || pair.key == "service.name";
        assert!(
            !claimed || but.contains(&&*pair.key),
            "{} survived",
            pair.key
        );
        assert!(!pair.key.starts_with("clawker."), "{} survived", pair.key);
    }
}

/// A request whose resources say what the collector says.
fn sent(
    mut request: ExportLogsServiceRequest,
    name: &str,
    peer: IpAddr,
) -> ExportLogsServiceRequest {
    for group in &mut request.resource_logs {
        let attributes = &mut group.resource.get_or_insert_default().attributes;
        attributes.push(says("clawker.lane", name));
        if name == "agents" {
            attributes.push(says("clawker.peer", &peer.to_string()));
        } else {
            for record in group.scope_logs.iter_mut().flat_map(|s| &mut s.log_records) {
                record.attributes.retain(|pair| pair.key != "src_ip");
                record.attributes.push(says("src_ip", &peer.to_string()));
            }
        }
    }
    request
}

proptest! {
    #[test]
    fn no_claim_survives_and_an_identity_is_the_leases(
        request in requests(),
        name in prop::sample::select(&["agents", "envoy", "coredns", "loader"][..]),
        peer in addresses(),
    ) {
        let request = sent(request, name, peer);
        let stamped = stamp(COLLECTOR, &request);
        prop_assert_eq!(stamped.tally.records, count(&request));
        prop_assert_eq!(stamped.tally.kept, stamped.records.len() as u64);
        prop_assert_eq!(stamped.tally.refused(), 0);
        let mut ids = HashSet::new();
        for incoming in &stamped.records {
            let (resource, scope, record) = opened(incoming);
            no_claims(&resource, &["service.name"]);
            no_claims(&scope.attributes, &[]);
            let ours = ["record_id", "truncated"];
            no_claims(&record.attributes, &[&IDENTITY[..], &ours].concat());
            prop_assert_eq!(said(&record.attributes, "record_id"), Some(incoming.id.clone()));
            prop_assert!(ids.insert(incoming.id.clone()), "an id twice");
            prop_assert_eq!(incoming.flows.clone(), None);
            let found = IDENTITY.map(|key| said(&record.attributes, key));
            let known = (name != "loader").then(|| wanted(name == "agents", peer, record.time_unix_nano));
            prop_assert_eq!(found, known.flatten().unwrap_or_default());
        }
    }

    #[test]
    fn without_a_lane_nobody_is_named(request in requests()) {
        let stamped = stamp(COLLECTOR, &request);
        prop_assert_eq!(stamped.tally.no_lane, count(&request));
        for incoming in &stamped.records {
            let (_, _, record) = opened(incoming);
            prop_assert_eq!(IDENTITY.map(|key| said(&record.attributes, key)), [const { None }; 4]);
            prop_assert!(!["clawker-egress", "clawker-cp", "clawker-overseer"].contains(&&*incoming.stream));
        }
    }

    #[test]
    fn the_same_request_gives_the_same_records(request in requests()) {
        let once = stamp(COLLECTOR, &request);
        prop_assert_eq!(once.records, stamp(COLLECTOR, &request).records);
    }

    #[test]
    fn any_bytes_are_stamped_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for entrance in [Entrance::Loader, COLLECTOR] {
            if let Ok(stamped) = stamp_bytes(entrance, &bytes, &Limits::default()) {
                let t = &stamped.tally;
                prop_assert_eq!(t.records, t.kept + t.refused());
                prop_assert_eq!(t.kept, stamped.records.len() as u64);
            }
        }
    }

    #[test]
    fn broken_requests_are_stamped_or_refused(request in requests(), at: prop::sample::Index, byte: u8) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for entrance in [Entrance::Loader, COLLECTOR] {
            if let Ok(stamped) = stamp_bytes(entrance, &bytes, &Limits::default()) {
                let t = &stamped.tally;
                prop_assert_eq!(t.records, t.kept + t.refused());
                stamped.records.iter().for_each(|incoming| drop(opened(incoming)));
            }
        }
    }
}

#[test]
fn a_body_is_what_it_was() {
    let mut one = record(250, vec![]);
    one.body = Some(text("agent=somebody"));
    let stamped = stamp(COLLECTOR, &request(agents(REUSED), vec![one]));
    let (_, _, record) = opened(&stamped.records[0]);
    assert_eq!(record.body, Some(text("agent=somebody")));
}
