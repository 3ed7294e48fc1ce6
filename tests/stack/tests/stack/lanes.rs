//! What Envoy and CoreDNS log, and what is counted.

use kernel_tests::eventually_within;
use serde_json::{Map, Value, json};
use stack_tests::{
    chain::{ANN, BOB, CAT, Chain, PATIENCE, of},
    collector::STACK,
    send::{agent_sends, attributes, envoy_sends, now},
};
use std::{fs::File, io::Write as _};

/// Attributes of a document, without those that every one has.
fn own(document: &Value) -> Map<String, Value> {
    let mut all = of(document).as_object().unwrap().clone();
    for name in [
        "data_stream",
        "record_id",
        "container_id",
        "container_name",
        "identity_as_of",
    ] {
        all.remove(name);
    }
    all
}

#[test]
fn envoys_texts_become_numbers_and_what_is_not_there_is_absent() {
    let chain = Chain::start();
    let url = format!("http://{STACK}:4320");
    envoy_sends(
        &url,
        &[
            ("src_ip", ANN.ip),
            ("src_port", "40112"),
            ("dst_ip", "203.0.113.9"),
            ("dst_port", "443"),
            ("method", "GET"),
            ("path", "/a/b?token=secret"),
            ("request_host", "api.example.com"),
            ("response_code", "200"),
            ("response_flags", "-"),
            ("grpc_status", "-"),
            ("bytes_in", "512"),
            ("bytes_out", "-"),
            ("duration_ms", "17"),
            ("verdict", "ALLOWED"),
            ("l4_proto", "tcp"),
            ("l7_proto", "https"),
            ("agent", "bob"),
            ("unknown", "x"),
            ("sni", "api.example.com"),
        ],
    );
    envoy_sends(
        &url,
        &[
            ("src_ip", "-"),
            ("response_code", "no number"),
            ("verdict", "-"),
            ("dst_ip", "-"),
        ],
    );
    let documents = chain.documents("clawker-envoy", 2);
    let whole = documents.iter().find(|d| of(d)["method"] == "GET").unwrap();
    let expected = json!({"agent": "ann", "project": "acme", "src_ip": ANN.ip, "src_port": 40112, "dst_ip": "203.0.113.9",
        "dst_port": 443, "method": "GET", "path": "/a/b", "request_host": "api.example.com", "response_code": 200,
        "bytes_in": 512, "duration_ms": 17, "verdict": "ALLOWED", "l4_proto": "tcp", "l7_proto": "https",
        "sni": "api.example.com", "event_name": "envoy.access_log"});
    assert_eq!(Value::Object(own(whole)), expected);
    assert_eq!(
        whole["_source"]["severity"],
        json!({"text": "INFO", "number": 9})
    );
    assert_eq!(whole["_source"]["body"], "GET api.example.com/a/b");
    let empty = documents
        .iter()
        .find(|d| of(d)["method"].is_null())
        .unwrap();
    assert_eq!(
        Value::Object(own(empty)),
        json!({"event_name": "envoy.access_log"})
    );
}

/// Lines of CoreDNS in the documented format, and what becomes of each.
fn lines() -> Vec<(String, Value)> {
    let query = |ip: &str, name: &str| {
        format!("[INFO] clawker ALLOWED {ip} 43947 udp A NOERROR 0.012093133s {name}")
    };
    let stored = |ip: &str, name: &str| {
        json!({"src_ip": ip, "src_port": 43947, "l4_proto": "udp", "l7_proto": "dns", "qtype": "A", "rcode": "NOERROR",
            "duration_ms": 12, "qname": name, "verdict": "ALLOWED", "event_name": "coredns.query"})
    };
    let mut all: Vec<_> = [
        "www.example.test.",
        r"sp\ ace.x.",
        r#"quo\"te.x."#,
        r"nul\000x.y.",
        r"a=b\ rcode=noerror.x.",
        r"x\ [INFO]\ clawker\ DENIED\ 192.0.2.2\ 1\ udp\ A\ NOERROR\ 0.1s\ y.",
        "clawker DENIED 192.0.2.2 1 udp A NOERROR 0.1s evil.",
    ]
    .into_iter()
    .map(|name| (query(ANN.ip, name), stored(ANN.ip, name)))
    .collect();
    all.push((
        query("[2001:db8::1]", "six.test."),
        stored(CAT.ip, "six.test."),
    ));
    all.push((query(BOB.ip, "bob.test."), stored(BOB.ip, "bob.test.")));
    for no_query in [
        "[INFO] clawker what is this",
        "[INFO] clawker 192.0.2.1 43947 udp A NOERROR 0.012093133s no.verdict.",
        "[INFO] clawker BYPASSED 192.0.2.1 43947 udp A NOERROR 0.012093133s no.such.verdict.",
    ] {
        all.push((
            no_query.to_owned(),
            json!({"event_name": "coredns.line", "parse_error": true}),
        ));
    }
    all.push((
        "[ERROR] plugin/errors: 2 a.test. A: unreachable".to_owned(),
        json!({"event_name": "coredns.line"}),
    ));
    all.push((
        "CoreDNS-1.15.0".to_owned(),
        json!({"event_name": "coredns.line"}),
    ));
    all
}

#[test]
fn every_line_of_coredns_is_kept_and_a_name_cannot_be_taken_for_a_field() {
    let mut chain = Chain::start();
    let lines = lines();
    let mut file = File::create(chain.collector.queries()).unwrap();
    let (first, rest) = lines.split_at(4);
    for (line, _) in first {
        writeln!(file, "{line}").unwrap();
    }
    chain.documents("clawker-coredns", first.len());
    // It goes on where it was, also after it was killed.
    chain.collector.kill();
    for (line, _) in rest {
        writeln!(file, "{line}").unwrap();
    }
    chain.collector.restart();
    let documents = chain.documents("clawker-coredns", lines.len());
    for (line, expected) in &lines {
        let is_query = expected["event_name"] == "coredns.query";
        let of_line = |d: &&Value| match is_query {
            true => of(d)["qname"] == expected["qname"],
            false => d["_source"]["body"] == *line,
        };
        let found = documents
            .iter()
            .find(of_line)
            .unwrap_or_else(|| panic!("{line}"));
        let mut expected = expected.clone();
        for holder in [ANN, BOB, CAT] {
            if expected["src_ip"] == holder.ip {
                expected["agent"] = json!(holder.agent);
                expected["project"] = json!(holder.project);
            }
        }
        assert_eq!(Value::Object(own(found)), expected, "{line}");
    }
    let error = documents
        .iter()
        .find(|d| {
            d["_source"]["body"]
                .as_str()
                .unwrap()
                .starts_with("[ERROR]")
        })
        .unwrap();
    assert_eq!(error["_source"]["severity"]["text"], "ERROR");
}

/// A request with counts of one session, delta (1) or running totals (2).
fn counts(session: &str, temporality: u8, name: &str, value: &Value) -> Value {
    let point = json!({"timeUnixNano": now().to_string(), "startTimeUnixNano": now().to_string(), "asDouble": value,
        "attributes": attributes(&json!({"session.id": session, "type": "output", "model": "claude-opus-4-5", "user.id": session}))});
    json!({"resourceMetrics": [{"resource": {"attributes": []}, "scopeMetrics": [{"metrics": [{"name": name, "unit": "x",
        "sum": {"aggregationTemporality": temporality, "isMonotonic": true, "dataPoints": [point]}}]}]}]})
}

#[test]
fn counts_of_sessions_are_added_up_by_agent() {
    let chain = Chain::start();
    const NAME: &str = "claude_code.token.usage";
    let send = |ip: &str, request: &Value| agent_sends(ip, "/v1/metrics", request);
    for n in 0..10 {
        send(
            ANN.ip,
            &counts(&format!("s{}", n % 3), 1, NAME, &json!(5.0)),
        );
    }
    send(BOB.ip, &counts("s0", 1, NAME, &json!(2.0)));
    // None of these is a count that can be added up.
    send(BOB.ip, &counts("s0", 2, NAME, &json!(1000.0)));
    send(BOB.ip, &counts("s0", 1, NAME, &json!(-3.0)));
    send(BOB.ip, &counts("s0", 1, NAME, &json!("NaN")));
    send(BOB.ip, &counts("s0", 1, NAME, &json!("Infinity")));
    send(BOB.ip, &counts("s0", 1, "anything.else", &json!(1.0)));
    let line = |agent: &str, project: &str, n: u32| {
        format!(
            "claude_code_token_usage_tokens_total{{agent=\"{agent}\",job=\"clawker-claude\",kind=\"output\",model=\"claude-opus-4-5\",project=\"{project}\"}} {n}"
        )
    };
    let expected = [line("ann", "acme", 50), line("bob", "shop", 2)];
    let series = eventually_within(PATIENCE, "all counts", || {
        let all = chain.collector.series();
        let claude: Vec<_> = all
            .lines()
            .filter(|l| l.starts_with("claude_code"))
            .collect();
        (claude == expected).then(|| all.clone())
    });
    assert!(!series.contains("anything"), "{series}");
    // Nobody sends for them, they are just there.
    eventually_within(PATIENCE, "the bridge's own counts", || {
        let own = "clawker_bridge_requests_total{";
        chain
            .collector
            .series()
            .lines()
            .any(|l| l.starts_with(own))
            .then_some(())
    });
    let own = chain.collector.own_series();
    assert!(
        own.contains("otelcol_receiver_accepted_metric_points"),
        "{own}"
    );
}
