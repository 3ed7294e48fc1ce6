//! Flows, audit, and the monitor's own log.

use super::{Dice, Document, END, ERROR, INFO, LENGTH, Said, WARN, Whose, document, rfc3339};
use serde_json::{Value, json};
use wire::stream;

/// (name, address, port) of where agents go.
const PLACES: [(&str, &str, u16); 6] = [
    ("api.anthropic.com", "203.0.113.10", 443),
    ("packages.example.net", "203.0.113.20", 443),
    ("github.com", "203.0.113.30", 443),
    ("github.com", "203.0.113.30", 22),
    ("index.example.net", "203.0.113.40", 443),
    ("mirror.example.net", "2001:db8::50", 80),
];
const COMMANDS: [&str; 5] = ["node", "git", "curl", "python3", "apt-get"];

/// Adds what one JSON object has to another.
fn with(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        base[key] = value.clone();
    }
    base
}

fn flow(whose: Whose, before: i64, attributes: Value) -> Document {
    let verdict = attributes["verdict"]
        .as_str()
        .expect("a verdict")
        .to_owned();
    let to = attributes["dst_host"]
        .as_str()
        .unwrap_or("somewhere")
        .to_owned();
    let said = Said {
        stream: stream::EGRESS,
        event: stream::FLOW,
        before,
        severity: if verdict == "ALLOWED" { INFO } else { WARN },
        body: format!("{verdict} to {to}"),
        attributes,
    };
    document(said, Some(whose))
}

/// Flows of an agent: usual ones over the whole time, then one of each special kind.
pub(super) fn flows(whose: Whose, dice: &mut Dice) -> Vec<Document> {
    let mut all = Vec::new();
    for number in 0..60 {
        let before = i64::try_from(dice.below(LENGTH.unsigned_abs())).expect("less than a day");
        let (name, ip, port) = *dice.of(&PLACES);
        let common = json!({
            "src_ip": whose.address(), "src_port": 40_000 + number, "dst_ip": ip, "dst_port": port,
            "l4_proto": "tcp", "l7_proto": "unknown", "direction": "egress", "dst_host": name,
            "comm": dice.of(&COMMANDS), "pid": 100 + number, "start_time": rfc3339(END - before - 3),
        });
        let passed = json!({
            "bytes_in": 2_000 + dice.below(900_000), "bytes_out": 300 + dice.below(90_000),
            "packets_in": 40, "packets_out": 30, "duration_ms": 20 + dice.below(3_000),
            "rtt_us": 12_000, "retransmits": 0, "close_reason": "fin",
        });
        let attributes = match number % 10 {
            0 | 5 => {
                json!({"verdict": "DENIED", "reason": "default", "bytes_in": 0, "bytes_out": 0,
                "duration_ms": 0, "close_reason": "denied"})
            }
            1 => with(passed, &json!({"verdict": "BYPASSED", "reason": "bypass"})),
            _ => with(
                passed,
                &json!({"verdict": "ALLOWED", "reason": "rule", "rule": "dev"}),
            ),
        };
        all.push(flow(whose, before, with(common, &attributes)));
    }
    all.extend(
        special(whose)
            .into_iter()
            .zip(1..)
            .map(|(a, n)| flow(whose, 600 * n, a)),
    );
    all
}

/// One flow of each kind that a panel asks for by itself.
fn special(whose: Whose) -> Vec<Value> {
    let src = whose.address();
    let denied = json!({"verdict": "DENIED", "bytes_in": 0, "bytes_out": 0, "close_reason": "denied", "direction": "egress"});
    let passed = json!({"verdict": "ALLOWED", "bytes_in": 700, "bytes_out": 900, "duration_ms": 5, "direction": "egress",
        "close_reason": "fin", "src_ip": src, "src_port": 50_000, "l4_proto": "tcp", "comm": "node", "reason": "rule"});
    let resolver =
        json!({"dst_ip": "127.0.0.11", "dst_port": 53, "l4_proto": "udp", "src_ip": src});
    vec![
        // A name that no rule could allow: the query itself is refused.
        with(
            with(denied.clone(), &resolver),
            &json!({"reason": "name", "qname": "paste.example.", "comm": "curl", "pid": 900}),
        ),
        // A raw socket: no address, no port.
        with(
            denied.clone(),
            &json!({"reason": "raw_socket", "l4_proto": "icmp", "comm": "ping", "pid": 901}),
        ),
        // Many at once, folded; and the row for all that had no room.
        with(
            denied.clone(),
            &json!({"reason": "default", "dst_ip": "198.51.100.9", "dst_port": 8080, "l4_proto": "tcp",
            "count": 500, "first_time": rfc3339(END - 9_000)}),
        ),
        with(
            denied.clone(),
            &json!({"reason": "folded", "l4_proto": "any", "count": 4_000, "first_time": rfc3339(END - 9_000)}),
        ),
        with(
            denied,
            &json!({"reason": "rule", "rule": "no-mail", "dst_ip": "203.0.113.77", "dst_port": 25, "l4_proto": "tcp",
            "dst_host": "mail.example.com", "src_ip": src, "comm": "python3", "pid": 902}),
        ),
        // An address without a name; one with several; through a proxy; in audit mode.
        with(
            passed.clone(),
            &json!({"dst_ip": "198.51.100.44", "dst_port": 4444}),
        ),
        with(
            passed.clone(),
            &json!({"dst_ip": "203.0.113.60", "dst_port": 443, "dst_hosts": ["a.cdn.example", "b.cdn.example"],
            "identity_as_of": rfc3339(END - 100)}),
        ),
        with(
            passed.clone(),
            &json!({"dst_ip": "203.0.113.20", "dst_port": 443, "dst_host": "packages.example.net",
            "proxy_ip": "172.28.0.2", "proxy_port": 10_000}),
        ),
        with(
            passed,
            &json!({"dst_ip": "203.0.113.88", "dst_port": 80, "dst_host": "old.example.org", "would_deny": true,
            "reason": "default", "truncated": true, "identity_as_of": rfc3339(END - 100)}),
        ),
    ]
}

/// Audit of an agent.
pub(super) fn audit(whose: Whose) -> Vec<Document> {
    let bypass = json!({"instance": "serve", "slot": whose.at, "generation": 3, "bypass_by": "alice, uid 1000",
        "bypass_reason": "debug npm", "bypass_from": rfc3339(END - 7_200), "bypass_until": rfc3339(END - 6_900)});
    let by = json!({"cause": "operator", "actor": "alice", "actor_uid": 1000, "actor_pid": 42, "actor_comm": "ebpf-manager",
        "actor_login": "alice"});
    let gap = json!({"stream": "clawker-egress", "cause": "spool_full", "verdict": "ALLOWED", "records": 20, "flows": 31,
        "boot": "9f", "slot": whose.at, "first_id": "9f-1-a1", "last_id": "9f-1-a20", "first_time": rfc3339(END - 4_000),
        "last_time": rfc3339(END - 3_900)});
    let events = [
        ("enrolled", INFO, json!({"slot": whose.at})),
        ("weakness", WARN, json!({"weakness": "host_network"})),
        (
            "policy",
            INFO,
            json!({"outcome": "applied", "policy": "egress.yaml", "generation": 2}),
        ),
        (
            "policy",
            ERROR,
            json!({"outcome": "refused", "policy": "egress.yaml", "generation": 2, "message": "line 3: no such name"}),
        ),
        ("bypass", WARN, with(bypass.clone(), &by)),
        ("enforce", INFO, with(bypass, &json!({"cause": "expired"}))),
        ("gap", ERROR, gap),
        // The loader's own, which names no stream.
        (
            "gap",
            ERROR,
            json!({"cause": "refused", "verdict": "DENIED", "flows": 7, "slot": whose.at}),
        ),
        (
            "set_aside",
            ERROR,
            json!({"stream": "clawker-envoy", "first_id": "0195", "failure": "mapping", "records": 1}),
        ),
        ("left", INFO, json!({"slot": whose.at})),
    ];
    let one = |((name, severity, attributes), number): ((&str, _, Value), i64)| {
        let said = Said {
            stream: stream::OVERSEER,
            event: &format!("clawker.overseer.{name}"),
            before: 40_000 - 4_000 * number,
            severity,
            body: format!("{name} agent-{}", whose.at),
            attributes,
        };
        document(said, Some(whose))
    };
    events.into_iter().zip(0..).map(one).collect()
}

/// Records that are nobody's.
pub(super) fn of_nobody() -> Vec<Document> {
    let one = |stream, event: &'static str, before, severity, body: &str, attributes| {
        let body = body.to_owned();
        document(
            Said {
                stream,
                event,
                before,
                severity,
                body,
                attributes,
            },
            None,
        )
    };
    vec![
        one(
            stream::CONTROL_PLANE,
            "clawker.cp.log",
            300,
            WARN,
            "leases.json is 40 s old",
            json!({"level": "warn", "target": "clawker::security"}),
        ),
        one(
            stream::CONTROL_PLANE,
            "clawker.cp.log",
            9_000,
            ERROR,
            "the collector refuses the connection",
            json!({"level": "error", "target": "otlp_bridge::deliver", "suppressed": 12}),
        ),
        one(stream::UNKNOWN, "", 500, WARN, "came by no lane", json!({})),
        one(
            stream::COREDNS,
            "coredns.query",
            700,
            INFO,
            "A who.example. NOERROR",
            json!({"src_ip": "172.28.0.99", "qname": "who.example.", "qtype": "A", "rcode": "NOERROR", "verdict": "ALLOWED", "duration_ms": 1}),
        ),
    ]
}
