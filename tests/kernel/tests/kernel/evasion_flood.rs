//! Evasion by volume and by what is written into records.

use kernel_tests::{
    check::{fields, flows},
    dns::Resolver,
    run::{Bench, Outcome},
    server::Place,
};
use serde_json::{Value, json};
use std::collections::HashSet;

const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: api, dst: .api.example, proto: tcp, port: 443 }\n\
    - { name: udp, dst: 192.0.2.1, proto: udp, port: \"1-65535\" }\n";

fn with(out: &Outcome, wanted: &[(&str, Value)]) -> u64 {
    flows(out.matching(wanted))
}

const FLOOD: &str = "\
    s = dgram()\n\
    def deny(ip, port): assert tried(lambda: s.sendto(b'x', (ip, port))) == 'EPERM'\n\
    for i in range(10000): deny('203.0.113.9', 1 + i % 5000)\n\
    deny('198.51.100.7', 4444)\n\
    for i in range(10000): deny('203.0.113.9', 1 + i % 5000)\n";

#[test]
fn case_52_a_flood_hides_no_flow_from_the_count() {
    let bench = Bench::new();
    let out = bench.agent_with(POLICY, &["--quiet", "--ring-kib", "4"], FLOOD);
    assert_eq!(with(&out, &[("verdict", json!("DENIED"))]), 20001);
    assert!(!out.stderr.contains("in no record"), "{}", out.stderr);
    let folded = out
        .records
        .iter()
        .filter(|r| r.get("count").is_some())
        .count();
    assert!(folded > 0, "nothing was folded: the flood was none");
}

#[test]
fn case_52_a_flow_over_the_rate_keeps_its_destination_while_there_are_rows() {
    let bench = Bench::new();
    let out = bench.agent_with(
        POLICY,
        &["--quiet", "--rate", "10"],
        "s = dgram()\n\
         def deny(ip, port): assert tried(lambda: s.sendto(b'x', (ip, port))) == 'EPERM'\n\
         for i in range(3000): deny('203.0.113.9', 7)\n\
         deny('198.51.100.7', 4444)\n",
    );
    assert_eq!(with(&out, &[("verdict", json!("DENIED"))]), 3001);
    assert_eq!(
        with(
            &out,
            &[("dst_ip", json!("198.51.100.7")), ("dst_port", json!(4444))]
        ),
        1
    );
    assert_eq!(
        with(
            &out,
            &[("dst_ip", json!("203.0.113.9")), ("dst_port", json!(7))]
        ),
        3000
    );
    assert!(
        out.records.len() < 500,
        "{} records at ten a second",
        out.records.len()
    );
    let folded = out.matching(&[("dst_port", json!(7)), ("reason", json!("default"))]);
    assert!(
        folded
            .iter()
            .any(|r| r["count"].as_u64() > Some(1) && r["first_time"].is_string())
    );
}

#[test]
fn every_record_has_a_number_of_its_own() {
    let bench = Bench::new();
    let out = bench.agent_with(
        POLICY,
        &["--quiet"],
        "for i in range(200):\n  \
         udp(b'x', '192.0.2.1', 1 + i, 0); udp(b'x', '203.0.113.9', 1 + i, 0)\n",
    );
    assert_eq!(out.records.len(), 400);
    let ids: HashSet<&str> = out
        .records
        .iter()
        .filter_map(|r| r["flow_id"].as_str())
        .collect();
    assert_eq!(
        ids.len(),
        400,
        "flow_id is the key by which copies are recognised"
    );
}

#[test]
fn case_51_names_and_rows_that_are_used_up_hurt_only_the_one_who_did_it() {
    let bench = Bench::new();
    let other = Bench::without_network();
    let _resolver = Resolver::naming(&[("x.api.example", "203.0.113.9")]);
    let place = Place::open("203.0.113.9:443");
    // Refused names take room too.
    let mut greedy = bench.talk(
        POLICY,
        &["--quiet", "--rate", "1"],
        "s = dgram(); s.connect((R, 53))\n\
         for i in range(2500):\n  \
         try: s.send(query(f'n{i}.refused.example'))\n  \
         except PermissionError: pass\n\
         ask('x.api.example'); step(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(
        greedy.hear(),
        "EPERM",
        "its own names find no room: closed, not open"
    );
    assert!(bench.counter("names_full") > 0);
    assert_eq!(bench.counter("names_used"), 2048);
    let out = other.agent(
        POLICY,
        "ask('x.api.example'); print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "ok");
    let greedy = greedy.end(&bench);
    assert_eq!(with(&greedy, &[("verdict", json!("DENIED"))]), 2501);
    assert_eq!(place.calls(), 1);
}

#[test]
fn case_53_nothing_in_a_record_can_be_made_to_look_like_another() {
    let bench = Bench::new();
    let _resolver = Resolver::naming(&[]);
    let out = bench.agent(
        POLICY,
        "import ctypes\n\
         ctypes.CDLL(None).prctl(15, b'\\x1b[2K\\r\\n{\"a\":1}', 0, 0, 0)\n\
         print(tcp('203.0.113.9', 80), udp(query([b'a\\x1b[31m\\n\\r', b'api', b'example'])), udp(query(\"q\\\"'<>|`$.example\")))\n",
    );
    assert_eq!(out.stdout.trim(), "EPERM EPERM EPERM");
    fields(
        out.only(&[("dst_port", json!(80))]),
        &json!({"comm": "\u{1b}[2K\r\n{\"a\":1}"}),
    );
    fields(
        out.only(&[("reason", json!("query"))]),
        &json!({"qname": null}),
    );
    fields(
        out.only(&[("reason", json!("name"))]),
        &json!({"qname": "q\"'<>|`$.example"}),
    );
    // The table for people shows them as text.
    let control = |c: char| c.is_control() && c != '\n';
    assert!(!out.stderr.contains(control), "{:?}", out.stderr);
    assert!(
        !out.stderr.lines().any(|l| l.starts_with('{')),
        "{}",
        out.stderr
    );
}
