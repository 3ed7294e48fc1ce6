use super::*;
use abi::{Ip, VERDICT_DENIED, close};
use zerocopy::FromZeros as _;

pub(super) struct Table;

impl Lookup for Table {
    fn name(&mut self, slot: u32, hash: u64) -> Option<String> {
        (slot == 7).then(|| format!("name{hash}.example"))
    }

    fn rule(&mut self, policy: u32, rule: u32) -> Option<String> {
        Some(format!("p{policy}r{rule}"))
    }
}

pub(super) fn context() -> Context {
    Context {
        owner: Owner {
            agent: Some("reviewer".to_owned()),
            project: Some("acme".to_owned()),
            ..Owner::default()
        },
        boot: "b007".to_owned(),
        wall_offset: 1_700_000_000_000_000_000,
        set: 9,
    }
}

pub(super) fn event() -> FlowEvent {
    let mut e = FlowEvent::new_zeroed();
    e.flow.start = 1_000_000_000;
    e.tail.end = 1_182_000_000;
    e.flow.slot = 7;
    e.flow.policy = 2;
    e.flow.rule = 3;
    e.flow.proto = abi::IPPROTO_TCP;
    e.flow.flags = FLOW_HAS_DST | FLOW_HAS_SRC;
    e.flow.dst = crate::enrol::ip("140.82.121.6".parse().unwrap());
    e.flow.dst_port = 443;
    e.flow.src = crate::enrol::ip("192.0.2.1".parse().unwrap());
    e.flow.src_port = 40000;
    e.flow.pid = 42;
    e.flow.comm[..4].copy_from_slice(b"curl");
    e.flow.names[0] = 1;
    e.flow.name_count = 1;
    e.tail.bytes_in = 4800;
    e.tail.bytes_out = 1200;
    e.tail.close = u64::from(close::FIN);
    e.tail.cut_rule = NO_RULE;
    e.seq = 9;
    e
}

#[test]
fn an_allowed_flow_is_told_whole() {
    let r = context().ended(&event(), &mut Table);
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:21.182Z",
        "agent": "reviewer",
        "project": "acme",
        "verdict": "ALLOWED",
        "direction": "egress",
        "src_ip": "192.0.2.1",
        "src_port": 40000,
        "dst_ip": "140.82.121.6",
        "dst_port": 443,
        "l4_proto": "tcp",
        "dst_host": "name1.example",
        "l7_proto": "unknown",
        "bytes_in": 4800,
        "bytes_out": 1200,
        "packets_in": 0,
        "packets_out": 0,
        "duration_ms": 182,
        "start_time": "2023-11-14T22:13:21Z",
        "reason": "rule",
        "rule": "p2r3",
        "close_reason": "fin",
        "pid": 42,
        "comm": "curl",
        "flow_id": "b007-7-a9",
    });
    assert_eq!(serde_json::to_value(&r).unwrap(), expected);
}

#[test]
fn several_names_make_a_list_and_a_refused_query_its_own_field() {
    let mut e = event();
    e.flow.names[1] = 2;
    e.flow.name_count = 2;
    let r = context().ended(&e, &mut Table);
    assert_eq!((r.dst_host, r.dst_hosts.len()), (None, 2));
    e.flow.verdict = VERDICT_DENIED;
    e.flow.reason = reason::NAME;
    let r = context().ended(&e, &mut Table);
    assert_eq!(
        (r.dst_host, r.dst_hosts.len(), r.qname.as_deref()),
        (None, 0, Some("name1.example"))
    );
}

#[test]
fn a_cut_flow_names_the_rule_that_cut_it() {
    let mut e = event();
    e.tail.close = u64::from(close::POLICY);
    e.tail.cut_rule = 0;
    e.tail.cut_policy = 5;
    let r = context().ended(&e, &mut Table);
    assert_eq!(
        (r.rule.as_deref(), r.close_reason, r.verdict),
        (Some("p5r0"), Some("policy"), "ALLOWED")
    );
}

#[test]
fn a_refused_socket_has_no_destination() {
    let mut e = event();
    e.flow.flags = 0;
    e.flow.verdict = VERDICT_DENIED;
    e.flow.reason = reason::RAW_SOCKET;
    e.flow.proto = abi::IPPROTO_ICMP;
    let r = context().ended(&e, &mut Table);
    assert_eq!(
        (r.dst_ip, r.dst_port, r.reason, r.l4_proto.as_str()),
        (None, None, "raw_socket", "icmp")
    );
    assert_eq!(r.flow_id.as_deref(), Some("b007-7-d9"));
}

#[test]
fn folded_rows_carry_their_count_and_distinct_ids() {
    let mut k = FoldKey::new_zeroed();
    k.slot = 7;
    k.dst = Ip(crate::enrol::ip("192.0.2.9".parse().unwrap()).0);
    k.port = 80;
    k.proto = abi::IPPROTO_TCP;
    k.verdict = VERDICT_DENIED;
    let row = FoldRow {
        count: 5,
        first: 1,
        last: 2,
        rule: NO_RULE,
        ..FoldRow::default()
    };
    let one = context().folded(&k, &row, &mut Table);
    assert_eq!(
        (one.count, one.dst_port, one.rule.as_deref()),
        (Some(5), Some(80), None)
    );
    let other = context().folded(&FoldKey { port: 81, ..k }, &row, &mut Table);
    assert_ne!(one.flow_id, other.flow_id);
}

#[test]
fn every_reason_and_close_reason_has_a_name() {
    for r in 0..reason::COUNT {
        assert_ne!(reason_name(r as u8), "unknown");
    }
    for c in 1..u64::from(close::COUNT) {
        assert_ne!(close_name(c), Some("unknown"), "{c}");
    }
    assert_eq!(close_name(0), None);
    assert_eq!(reason_name(reason::HEADERS), "headers");
    assert_eq!(close_name(u64::from(close::DETACHED)), Some("detached"));
}

#[test]
fn records_come_back_from_their_json() {
    let mut e = event();
    e.flow.names[1] = 2;
    let folded = context().folded(&FoldKey::new_zeroed(), &FoldRow::default(), &mut Table);
    let live = context().live(
        &LiveFlow {
            flow: e.flow,
            tail: Tail { close: 0, ..e.tail },
            cookie: 0,
        },
        &mut Table,
    );
    for count in 0..=2 {
        e.flow.name_count = count;
        for r in [&context().ended(&e, &mut Table), &folded, &live] {
            let json = serde_json::to_string(r).unwrap();
            assert_eq!(&serde_json::from_str::<Record>(&json).unwrap(), r, "{json}");
        }
    }
}

#[test]
fn what_a_later_version_says_is_unknown_but_a_verdict_is_not_guessed() {
    let r = context().ended(&event(), &mut Table);
    let json = serde_json::to_string(&r).unwrap();
    let read = |from: &str, to: &str| serde_json::from_str::<Record>(&json.replace(from, to));
    let later = read(r#""reason":"rule""#, r#""reason":"astrology","more":1"#).unwrap();
    assert_eq!(later.reason, "unknown");
    let escaped = read(r#""close_reason":"fin""#, r#""close_reason":"f\u0069n""#).unwrap();
    assert_eq!(escaped.close_reason, Some("fin"));
    assert!(read("ALLOWED", "PERMITTED").is_err());
    assert!(read("egress", "sideways").is_err());
}
