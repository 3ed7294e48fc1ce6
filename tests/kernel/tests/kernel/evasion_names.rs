//! Evasion by way of names: tunnels, races, and answers that nobody asked for. The number is that of the
//! case in the list of abuses.

use kernel_tests::{
    check::{fields, flows, sum},
    dns::{RESOLVER, Resolver, address},
    eventually,
    net::{HERE, THERE, ip, neighbour},
    policies::NAMES,
    run::Bench,
    server::{Place, dns_udp, reply},
};
use serde_json::json;
use std::net::UdpSocket;

#[test]
fn case_26_what_a_tunnel_through_an_allowed_zone_carries_is_in_the_record() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    // Nobody can tell a long name from a message; the record has its bytes.
    let out = bench.agent(
        NAMES,
        "s = dgram(); s.connect((R, 53)); n = 0\n\
         for i in range(50):\n  \
         m = query(f'{i:02}' + 'x' * 60 + '.' + 'y' * 63 + '.suffix.example'); n += s.send(m); s.recv(999)\n\
         print(n); s.close(); print(udp(query('x' * 60 + '.evil.example')))",
    );
    let sent: u64 = out.words()[0].parse().unwrap();
    assert_eq!(out.words()[1], "EPERM");
    assert_eq!(resolver.asked().len(), 50);
    fields(
        out.only(&[("verdict", json!("ALLOWED"))]),
        &json!({"dst_ip": RESOLVER, "dst_port": 53, "reason": "resolver", "bytes_out": sent, "packets_out": 50,
                "packets_in": 50}),
    );
    fields(
        out.only_denied(&[("reason", json!("name"))]),
        &json!({"qname": format!("{}.evil.example", "x".repeat(60)), "bytes_out": 0}),
    );
}

#[test]
fn case_32_an_address_is_open_before_its_name_is_read() {
    const N: usize = 200;
    let bench = Bench::new();
    // Nobody listens on any of them, which is said at once.
    ip(&["route", "add", "local", "198.18.0.0/16", "dev", "lo"]);
    let mut n = 0;
    let _asked = dns_udp(RESOLVER, move |q, _| {
        n += 1;
        vec![reply(q, &[address(&format!("198.18.0.{n}"), 300)])]
    });
    let out = bench.agent(
        NAMES,
        &format!(
            "def each(i):\n  \
             for j in range({N} // 4):\n    \
             ip = socket.inet_ntoa(ask(f'n{{i}}-{{j}}.suffix.example')[-4:])\n    \
             assert tcp(ip, 443) == 'ECONNREFUSED', ip\n    \
             assert tcp(ip, 80) == 'EPERM', ip\n\
             assert tcp('198.18.0.1', 443) == 'EPERM'\n\
             all = [threading.Thread(target=each, args=(i,)) for i in range(4)]\n\
             [t.start() for t in all]; [t.join() for t in all]"
        ),
    );
    assert!(!out.stderr.contains("Traceback"), "{}", out.stderr);
    let open = out.matching(&[("dst_port", json!(443)), ("verdict", json!("ALLOWED"))]);
    assert_eq!(flows(open.iter().copied()), N as u64);
    for r in open {
        let name = r["dst_host"].as_str().unwrap();
        assert!(name.ends_with(".suffix.example"), "{name}");
        fields(r, &json!({"rule": "both", "close_reason": "refused"}));
    }
    assert_eq!(flows(out.denied(&[("dst_port", json!(80))])), N as u64);
    assert_eq!(flows(out.denied(&[("dst_port", json!(443))])), 1);
}

#[test]
fn case_37_quic_needs_a_rule_of_its_own() {
    let bench = Bench::new();
    let _resolver = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let _place = Place::open("203.0.113.9:443");
    let heard = UdpSocket::bind("203.0.113.9:443").unwrap();
    let program = "ask('api.example')\n\
        print(udp(b'quic', '203.0.113.9', 443, 0), told(b'quic', '203.0.113.9', 443), tcp('203.0.113.9', 443))";
    let out = bench.agent(NAMES, program);
    assert_eq!(out.words(), ["EPERM", "EPERM", "ok"]);
    let refused = out.denied(&[("l4_proto", json!("udp")), ("dst_port", json!(443))]);
    assert_eq!(refused.len(), 2, "{:#?}", out.records);
    for r in refused {
        fields(
            r,
            &json!({"dst_host": "api.example", "reason": "default", "bytes_out": 0}),
        );
    }
    let rule = "- { name: quic, dst: api.example, proto: udp, port: 443 }\n";
    let out = bench.agent(&format!("{NAMES}{rule}"), program);
    assert_eq!(out.words(), ["sent", "sent", "ok"]);
    let passed = out.matching(&[("rule", json!("quic"))]);
    assert_eq!((passed.len(), sum(passed, "bytes_out")), (2, 8));
    for _ in 0..2 {
        assert_eq!(heard.recv(&mut [0; 9]).unwrap(), 4);
    }
}

/// An agent with a socket that waits, under a policy that trusts its neighbour's resolver, and an answer
/// that it never asked for.
fn unasked(inbound: &str) -> kernel_tests::run::Outcome {
    let bench = Bench::new();
    let place = Place::open("203.0.113.9:443");
    let policy = NAMES.replace(RESOLVER, THERE);
    let mut agent = bench.talk(
        &format!("inbound: {inbound}\n{policy}"),
        &[],
        "s = dgram(); s.bind(('0.0.0.0', 9000)); s.settimeout(0.01); q = query('api.example')\n\
         step(q.hex()); print(tried(lambda: s.recv(999)), tcp('203.0.113.9', 443))",
    );
    let hex = agent.hear();
    let query: Vec<u8> = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    let forged = reply(&query, &[address("203.0.113.9", 300)]);
    neighbour(|| {
        let resolver = UdpSocket::bind((THERE, 53)).unwrap();
        resolver.send_to(&forged, (HERE, 9000)).unwrap();
        eventually("its arrival", || {
            (bench.counter("opened") > 0).then_some(())
        });
    });
    assert_eq!(bench.dump(&["--names"]).len(), 0);
    agent.say("go");
    let out = agent.end(&bench);
    assert_eq!(place.calls(), 0);
    fields(
        out.only_denied(&[("dst_port", json!(443))]),
        &json!({"reason": "default", "dst_host": null}),
    );
    out
}

#[test]
fn an_answer_that_nobody_asked_for_teaches_nothing() {
    let out = unasked("allow");
    assert_eq!(out.words(), ["sent", "EPERM"]);
    fields(
        out.only(&[("direction", json!("ingress"))]),
        &json!({"verdict": "ALLOWED", "reason": "inbound", "src_ip": THERE, "src_port": 53, "packets_in": 1}),
    );
}

#[test]
fn an_answer_that_nobody_asked_for_is_inbound_and_denied_where_inbound_is() {
    let out = unasked("deny");
    assert_eq!(out.words(), ["timeout", "EPERM"]);
    fields(
        out.only_denied(&[("direction", json!("ingress"))]),
        &json!({"reason": "inbound", "src_ip": THERE, "src_port": 53, "dst_port": 9000, "packets_in": 0}),
    );
}

#[test]
fn answers_that_were_asked_for_pass_where_inbound_is_denied() {
    let bench = Bench::new();
    let _resolver = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let place = Place::open("203.0.113.9:443");
    let policy = format!("inbound: deny\n{NAMES}");
    let out = bench.agent(
        &policy,
        "ask('api.example'); print(tcp('203.0.113.9', 443, b'x'))",
    );
    assert_eq!(out.words(), ["ok"]);
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"verdict": "ALLOWED", "dst_host": "api.example", "bytes_out": 1, "close_reason": "fin"}),
    );
    eventually("the byte", || (place.bytes() == 1).then_some(()));
}
