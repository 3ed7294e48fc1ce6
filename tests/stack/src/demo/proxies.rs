//! What CoreDNS and Envoy log of an agent.

use super::{Dice, Document, INFO, LENGTH, Said, WARN, Whose, document};
use serde_json::json;
use wire::stream;

fn at(number: i64, of: i64) -> i64 {
    LENGTH / of * number + 60
}

/// Queries, and one line that could not be read.
pub(super) fn dns(whose: Whose, dice: &mut Dice) -> Vec<Document> {
    let names = [
        "api.anthropic.com.",
        "packages.example.net.",
        "github.com.",
        "nope.example.",
    ];
    let mut all = Vec::new();
    for number in 0..20 {
        let (name, qtype) = (*dice.of(&names), *dice.of(&["A", "AAAA"]));
        let (verdict, rcode) = match name {
            "nope.example." => ("DENIED", "NXDOMAIN"),
            _ => ("ALLOWED", "NOERROR"),
        };
        let said = Said {
            stream: stream::COREDNS,
            event: "coredns.query",
            before: at(number, 20),
            severity: INFO,
            body: format!("{qtype} {name} {rcode}"),
            attributes: json!({
                "src_ip": whose.address(), "src_port": 30_000 + number, "l4_proto": "udp", "l7_proto": "dns",
                "qname": name, "qtype": qtype, "rcode": rcode, "verdict": verdict, "duration_ms": dice.below(40),
            }),
        };
        all.push(document(said, Some(whose)));
    }
    let odd = Said {
        stream: stream::COREDNS,
        event: "coredns.line",
        before: 90,
        severity: WARN,
        body: "[INFO] clawker of no form".to_owned(),
        attributes: json!({"parse_error": true}),
    };
    all.push(document(odd, Some(whose)));
    all
}

/// Requests, and one connection that is no HTTP.
pub(super) fn http(whose: Whose, dice: &mut Dice) -> Vec<Document> {
    let mut all = Vec::new();
    for number in 0..15 {
        let host = *dice.of(&["packages.example.net", "api.anthropic.com", "github.com"]);
        let status = *dice.of(&[200, 200, 304, 403, 503]);
        let said = Said {
            stream: stream::ENVOY,
            event: "envoy.access_log",
            before: at(number, 15),
            severity: INFO,
            body: format!("GET {host}/path"),
            attributes: json!({
                "src_ip": whose.address(), "src_port": 40_000 + number, "dst_ip": "203.0.113.20", "dst_port": 443,
                "dst_host": host, "l4_proto": "tcp", "l7_proto": "http", "sni": host, "tls_version": "TLSv1.3",
                "method": *dice.of(&["GET", "POST"]), "request_host": host, "path": "/path", "response_code": status,
                "response_flags": if status == 503 { "UF" } else { "" }, "upstream_ip": "203.0.113.20",
                "bytes_in": 9_000, "bytes_out": 400, "duration_ms": dice.below(900),
                "verdict": if status == 403 { "DENIED" } else { "ALLOWED" },
            }),
        };
        all.push(document(said, Some(whose)));
    }
    let other = Said {
        stream: stream::ENVOY,
        event: "envoy.access_log",
        before: 120,
        severity: INFO,
        body: "connection to 203.0.113.30".to_owned(),
        attributes: json!({"src_ip": whose.address(), "src_port": 41_000, "dst_ip": "203.0.113.30", "dst_port": 22,
            "l4_proto": "tcp", "l7_proto": "tcp", "bytes_in": 100, "bytes_out": 200, "duration_ms": 30}),
    };
    all.push(document(other, Some(whose)));
    all
}
