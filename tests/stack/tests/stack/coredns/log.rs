//! What the real one logs, on its way to the store: whatever a name is made of, one query is one record that
//! does not lie.

use super::{NOBODY, ask, policy};
use kernel_tests::eventually;
use serde_json::{Value, json};
use stack_tests::{
    bridge::Holder,
    chain::{ANN, BOB, CAT, Chain, of},
    coredns::{CoreDns, UPSTREAM, render},
    dns::{A, AAAA, ANY, HTTPS, Query, TXT, Upstream, anything},
};
use std::fs;

/// Of the three the last is only watched: it may ask for every name, so that odd ones are allowed, too.
const POLICY: &str = "
domains: [.open.example]
agents: { acme/cat: { mode: audit } }
projects: { shop: { domains: [api.shop.example] } }
";

/// Labels that would like to be something else.
fn labels() -> Vec<Vec<u8>> {
    let mut labels: Vec<Vec<u8>> = [
        "www",
        "WWW-Upper",
        "_dmarc",
        "-",
        "sp ace",
        "quo\"te",
        "a=b rcode=noerror",
        "back\\slash",
        "end\\",
        " rcode=noerror",
        "dot.ted",
        "tab\tbed",
        "nul\0",
        "cr\r",
        "two\n\nlines",
        "{name} {remote} %s %d",
        "\",\"agent\":\"bob\",\"x\":\"",
        "clawker ALLOWED 192.0.2.2 1 udp A NOERROR 0.1s evil",
        "\n[INFO] clawker ALLOWED 192.0.2.2 1 udp A NOERROR 0.1s evil",
        "\r\n2026-11-22T13:05:07.123Z [INFO] clawker ALLOWED 192.0.2.2 1",
        "[ERROR] plugin/errors: 2 a.test. A: unreachable",
        "é\u{202e}",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    labels.push(vec![0xff, 0xfe, 0x80]);
    labels.push(vec![b' '; 63]);
    labels
}

fn queries() -> Vec<Query> {
    let kinds = [A, AAAA, TXT, HTTPS, ANY, 65_280];
    let ends = ["open.example", "api.shop.example", "other.example"];
    let mut all = Vec::new();
    for (n, label) in labels().into_iter().enumerate() {
        let mut query = Query::of(ends[n % 3], kinds[n % 6]);
        query.labels.insert(0, label);
        all.push(query);
    }
    for end in ["Open.EXAMPLE", "api.shop.example", "other.example", ""] {
        all.push(Query::of(end, A));
    }
    // Two of 255 bytes on the wire, the longest that there are: each byte of the one is written as four signs.
    for byte in [0, b'Z'] {
        let mut query = Query::of("open.example", A);
        let lengths = [63, 63, 63, 48];
        query.labels.splice(0..0, lengths.map(|n| vec![byte; n]));
        all.push(query);
    }
    all
}

/// What must be on record of a query.
fn expected(policy: &policy::Policy, whose: Option<Holder>, query: &Query, tcp: bool) -> Value {
    let allowed = whose.is_some_and(|holder| {
        let selected = policy.select(Some(holder.agent), Some(holder.project));
        let may = |name: String| selected.may_resolve(&name);
        selected.mode != policy::Mode::Enforce || query.name().is_some_and(may)
    });
    let (verdict, rcode) = match (whose, allowed) {
        (_, true) => ("ALLOWED", "NOERROR"),
        (Some(_), false) => ("DENIED", "NXDOMAIN"),
        (None, _) => ("DENIED", "REFUSED"),
    };
    let qtype = match query.kind {
        A => "A",
        AAAA => "AAAA",
        TXT => "TXT",
        HTTPS => "HTTPS",
        ANY => "ANY",
        _ => "TYPE65280",
    };
    json!({"agent": whose.map(|h| h.agent), "project": whose.map(|h| h.project), "qname": query.written(), "qtype": qtype,
        "rcode": rcode, "verdict": verdict, "l4_proto": if tcp { "tcp" } else { "udp" }, "l7_proto": "dns",
        "src_ip": whose.map_or(NOBODY, |h| h.ip), "event_name": "coredns.query"})
}

/// The same of what is stored.
fn stored(document: &Value) -> Value {
    let mut found = json!({});
    for name in [
        "agent",
        "project",
        "qname",
        "qtype",
        "rcode",
        "verdict",
        "l4_proto",
        "l7_proto",
        "src_ip",
        "event_name",
    ] {
        found[name] = of(document)[name].clone();
    }
    found
}

#[test]
fn every_query_is_one_record_of_whoever_asked_whatever_its_name_is_made_of() {
    let chain = Chain::start();
    let policy = policy(POLICY);
    let _upstream = Upstream::start(UPSTREAM, anything);
    let agents = [ANN, BOB, CAT].map(|h| format!("{}/{}@{}", h.project, h.agent, h.ip));
    let corefile = render(&policy, &agents.each_ref().map(String::as_str));
    let log = chain.collector.queries();
    let coredns = CoreDns::start(chain.dir.path(), &corefile, log.clone());
    let mut wanted = Vec::new();
    for (n, query) in queries().into_iter().enumerate() {
        for whose in [Some(ANN), Some(BOB), Some(CAT), None] {
            let tcp = n % 2 == 0;
            let answer = ask(&query, whose.map_or(NOBODY, |h| h.ip), tcp);
            wanted.push((answer.port, expected(&policy, whose, &query, tcp)));
        }
    }
    // A line is written after its answer.
    eventually("a line of every query", || {
        let lines = fs::read_to_string(&log).unwrap();
        let queries = lines.lines().filter(|l| l.starts_with("[INFO] clawker "));
        (queries.count() == wanted.len()).then_some(())
    });
    drop(coredns);
    let lines = fs::read_to_string(&log).unwrap().lines().count();
    let documents = chain.documents("clawker-coredns", lines);
    let is_query = |d: &&Value| of(d)["event_name"] == "coredns.query";
    let found: Vec<_> = documents.iter().filter(is_query).collect();
    assert_eq!(found.len(), wanted.len());
    for (port, wanted) in &wanted {
        let of_it = |d: &&&Value| of(d)["src_port"] == *port && stored(d) == *wanted;
        let same: Vec<_> = found.iter().filter(of_it).collect();
        assert_eq!(same.len(), 1, "{port}: {wanted}");
        assert!(of(same[0])["duration_ms"].is_u64(), "{wanted}");
    }
    for verdict in ["ALLOWED", "DENIED"] {
        let one = |(_, wanted): &&(u16, Value)| wanted["verdict"] == verdict;
        assert!(wanted.iter().filter(one).count() > 20, "{verdict}");
    }
    assert!(documents.iter().all(|d| of(d)["parse_error"].is_null()));
}
