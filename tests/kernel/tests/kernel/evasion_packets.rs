//! Evasion below the socket calls: what is on the wire is judged, not what an earlier hook was told.

use kernel_tests::{
    check::{fields, sum},
    net::ip,
    run::Bench,
    server::Place,
    sniff::Sniffer,
};
use serde_json::json;
use std::{
    net::UdpSocket,
    process::{Command, Stdio},
};

const POLICY: &str = "rules:\n\
    - { name: tcp, dst: 192.0.2.1, proto: tcp, port: \"1-65535\" }\n\
    - { name: udp, dst: 192.0.2.1, proto: udp, port: \"1-65535\" }\n\
    - { name: six, dst: \"2001:db8::1\", proto: any }\n";

/// Options that root could set if it were not withheld.
const RAW: &[&str] = &["--cap-add", "CAP_NET_RAW"];

/// Makes a way out of the namespace to addresses that are not in it, behind a link that ends nowhere.
fn way_out() {
    ip(&[
        "link", "add", "out0", "type", "veth", "peer", "name", "out1",
    ]);
    ip(&["link", "set", "out0", "up"]);
    ip(&["link", "set", "out1", "up"]);
    ip(&["route", "add", "default", "dev", "out0"]);
    ip(&["-6", "route", "add", "default", "dev", "out0"]);
    for far in ["100.99.98.97", "2001:db8:bad::1"] {
        ip(&[
            "neigh",
            "add",
            far,
            "lladdr",
            "02:00:00:00:00:99",
            "dev",
            "out0",
            "nud",
            "permanent",
        ]);
    }
}

#[test]
fn source_routes_do_not_leave() {
    let bench = Bench::new();
    let place = Place::open("192.0.2.1:80");
    let heard = UdpSocket::bind("192.0.2.1:81").unwrap();
    heard.set_nonblocking(true).unwrap();
    let wire = Sniffer::start();
    // Loose source route by 203.0.113.9, and an option that does nothing.
    let out = bench.agent_with(
        POLICY,
        RAW,
        "lsrr = bytes([0x83, 7, 4]) + socket.inet_aton('203.0.113.9') + b'\\0'\n\
         for opt in (lsrr, b'\\1' * 4):\n  \
         u = dgram(); u.setsockopt(0, 4, opt)\n  \
         print(tried(lambda: u.sendto(b'x', ('192.0.2.1', 81))))\n  \
         s = socket.socket(); s.setsockopt(0, 4, opt); s.settimeout(0.3)\n  \
         try: s.connect(('192.0.2.1', 80)); print('ok')\n  \
         except OSError as e: print('no')\n  \
         s.close()\n",
    );
    assert_eq!(out.words(), ["EPERM", "no", "EPERM", "no"]);
    assert_eq!(wire.packets(), []);
    assert!(heard.recv(&mut [0; 9]).is_err());
    assert_eq!(place.calls(), 0);
    let refused = out.denied(&[("reason", json!("headers"))]);
    assert!(refused.len() >= 4, "{:#?}", out.records);
    let first_hop = refused
        .iter()
        .any(|r| r["dst_ip"] == "203.0.113.9" && r["l4_proto"] == "udp");
    assert!(
        first_hop,
        "the record shows where the packet would have gone: {refused:#?}"
    );
}

#[test]
fn routing_headers_do_not_leave_and_harmless_ones_do() {
    let bench = Bench::new();
    let heard = UdpSocket::bind("[2001:db8::1]:81").unwrap();
    let wire = Sniffer::start();
    // Segment routing through 2001:db8::2; then destination options.
    let out = bench.agent_with(
        POLICY,
        RAW,
        "srh = bytes([0, 4, 4, 1, 1, 0, 0, 0]) + socket.inet_pton(10, '2001:db8::1') + socket.inet_pton(10, '2001:db8::2')\n\
         type2 = bytes([0, 2, 2, 1, 0, 0, 0, 0]) + socket.inet_pton(10, '2001:db8::2')\n\
         for what, opt in ((57, srh), (57, type2), (59, bytes([0, 0, 1, 4, 0, 0, 0, 0]))):\n  \
         u = dgram(socket.AF_INET6)\n  \
         try: u.setsockopt(41, what, opt)\n  \
         except OSError as e: print('unsupported'); continue\n  \
         print(tried(lambda: u.sendto(b'x', ('2001:db8::1', 81))))\n",
    );
    let words = out.words();
    assert_eq!(words[2], "sent");
    assert!(
        words[..2]
            .iter()
            .all(|w| ["EPERM", "unsupported"].contains(w)),
        "{words:?}"
    );
    assert!(
        words[..2].contains(&"EPERM"),
        "this kernel has no routing header at all: {words:?}"
    );
    let denied = out.denied(&[("reason", json!("headers"))]);
    assert_eq!(
        denied.len(),
        words.iter().filter(|w| **w == "EPERM").count()
    );
    assert_eq!(heard.recv(&mut [0; 9]).unwrap(), 1);
    assert!(!wire.packets().iter().any(|p| p.proto == 43));
    let six = out.matching(&[("rule", json!("six")), ("dst_port", json!(81))]);
    assert_eq!(sum(six, "bytes_out"), 1, "{:#?}", out.records);
}

#[test]
fn a_datagram_that_is_sent_in_fragments_is_judged_and_counted_whole() {
    let bench = Bench::new();
    ip(&["link", "set", "lo", "mtu", "1500"]);
    let heard = UdpSocket::bind("192.0.2.1:81").unwrap();
    let out = bench.agent(
        POLICY,
        "print(udp(b'x' * 8000, '192.0.2.1', 81, 0), udp(b'x' * 8000, '203.0.113.9', 81, 0))\n",
    );
    assert_eq!(out.stdout.trim(), "sent EPERM");
    assert_eq!(heard.recv(&mut [0; 9000]).unwrap(), 8000);
    fields(
        out.only(&[("verdict", json!("ALLOWED"))]),
        &json!({"bytes_out": 8000, "packets_out": 1, "rule": "udp"}),
    );
    fields(
        out.only(&[("verdict", json!("DENIED"))]),
        &json!({"dst_ip": "203.0.113.9", "bytes_out": 0}),
    );
}

/// Loads rules that rewrite destinations on the way out.
fn rewrite(rules: &str) {
    let script = format!(
        "table ip t {{ chain o {{ type nat hook output priority -100; policy accept; {rules} }}; }}"
    );
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nftables is installed");
    let mut input = nft.stdin.take().expect("it was piped");
    std::io::Write::write_all(&mut input, script.as_bytes()).expect("nft reads");
    drop(input);
    assert!(
        nft.wait().expect("nft ends").success(),
        "nft refused {script}"
    );
}

#[test]
fn a_rewrite_between_hook_and_wire_is_judged_by_where_it_leads() {
    let bench = Bench::new();
    rewrite(
        "ip daddr 192.0.2.1 tcp dport 80 dnat to 203.0.113.9:80; ip daddr 192.0.2.1 udp dport 81 dnat to 203.0.113.9:81; \
             ip daddr 192.0.2.1 tcp dport 8080 dnat to 192.0.2.1:9090;",
    );
    let far = Place::open("203.0.113.9:80");
    let near = Place::open("192.0.2.1:9090");
    let heard = UdpSocket::bind("203.0.113.9:81").unwrap();
    heard.set_nonblocking(true).unwrap();
    let wire = Sniffer::start();
    let out = bench.agent(
        POLICY,
        "s = socket.socket(); s.settimeout(0.5)\n\
         try: s.connect(('192.0.2.1', 80)); print('ok')\n\
         except OSError: print('no')\n\
         s.close(); print(udp(b'x', '192.0.2.1', 81, 0), tcp('192.0.2.1', 8080, b'fine'))\n",
    );
    assert_eq!(out.stdout.trim(), "no\nEPERM ok");
    assert_eq!(wire.to("203.0.113.9"), []);
    assert!(heard.recv(&mut [0; 9]).is_err());
    assert_eq!((far.calls(), near.calls()), (0, 1));
    for (proto, port) in [("tcp", 80), ("udp", 81)] {
        let r = out.denied(&[("dst_ip", json!("203.0.113.9")), ("l4_proto", json!(proto))]);
        assert!(!r.is_empty(), "{:#?}", out.records);
        fields(r[0], &json!({"reason": "default", "dst_port": port}));
    }
    let cut = out.only(&[("dst_ip", json!("192.0.2.1")), ("dst_port", json!(80))]);
    fields(cut, &json!({"close_reason": "policy", "bytes_out": 0}));
    fields(
        out.only(&[("dst_port", json!(8080))]),
        &json!({"verdict": "ALLOWED", "bytes_out": 4}),
    );
}

/// A datagram from a made-up source to a socket of the agent's own, which then answers.
fn answer_to_nobody(option: &str, from: &str, to: &str) {
    let bench = Bench::new();
    way_out();
    let wire = Sniffer::start();
    let out = bench.agent_with(
        POLICY,
        RAW,
        &format!(
            "f = family('{to}'); l = dgram(f); l.bind(('{to}', 5000)); l.settimeout(1)\n\
             s = dgram(f)\n\
             try:\n  s.setsockopt({option}, 1); s.bind(('{from}', 4444)); s.sendto(b'x', ('{to}', 5000))\n  \
             who = l.recvfrom(9)[1]; l.sendto(b'SECRET', who); print('sent', who[0])\n\
             except OSError as e: print('stopped', e)\n\
             print(udp(b'direct', '{from}', 4444, 0))\n"
        ),
    );
    assert_eq!(
        out.stdout.lines().last(),
        Some("EPERM"),
        "the address is not allowed"
    );
    assert_eq!(wire.to(from), [], "{}", out.stdout);
    let allowed_there = out.matching(&[
        ("src_ip", json!(from)),
        ("verdict", json!("ALLOWED")),
        ("direction", json!("ingress")),
    ]);
    assert!(
        allowed_there.iter().all(|r| r["bytes_out"] == 0),
        "{allowed_there:#?}"
    );
}

#[test]
fn an_answer_to_a_made_up_ipv6_source_is_egress() {
    // IPV6_FREEBIND asks for no privilege.
    answer_to_nobody("41, 78", "2001:db8:bad::1", "2001:db8::1");
}

#[test]
fn an_answer_to_a_made_up_ipv4_source_is_egress() {
    // IP_TRANSPARENT asks for CAP_NET_RAW.
    answer_to_nobody("0, 19", "100.99.98.97", "192.0.2.1");
}
