//! Datagrams: the flows of one socket, byte for byte and datagram for datagram.

use kernel_tests::{
    PATIENCE,
    check::{fields, sum},
    eventually,
    net::{HERE, THERE, neighbour},
    peer::Far,
    policies::UDP,
    run::{Bench, Outcome},
};
use serde_json::json;
use std::net::UdpSocket;

#[test]
fn a_connected_socket_and_its_answers() {
    let bench = Bench::new();
    let far = Far::start("192.0.2.1:5000", true);
    let out = bench.agent(
        UDP,
        "s = dgram(); s.connect(('192.0.2.1', 5000))\n\
         for n in (0, 1, 999, 1000): s.send(bytes(n)); assert len(s.recv(5000)) == n // 2\n\
         print(s.getsockname()[1])",
    );
    assert_eq!(far.end(), (4, 2000));
    out.is_one(&json!({
            "verdict": "ALLOWED", "direction": "egress", "l4_proto": "udp", "rule": "games", "reason": "rule",
            "src_ip": "192.0.2.1", "src_port": out.stdout.trim().parse::<u16>().unwrap(),
            "dst_ip": "192.0.2.1", "dst_port": 5000, "bytes_out": 2000, "bytes_in": 999, "packets_out": 4,
            "packets_in": 4, "close_reason": "fin", "comm": "python3",
        }));
}

#[test]
fn version_6_and_mapped_addresses() {
    let bench = Bench::new();
    let (six, four) = (
        Far::start("[2001:db8::1]:5000", true),
        Far::start("192.0.2.1:5000", true),
    );
    let out = bench.agent(UDP, "s = dgram(socket.AF_INET6); s.sendto(bytes(66), ('2001:db8::1', 5000)); s.recv(99)\n\
         s.sendto(bytes(44), ('::ffff:192.0.2.1', 5000)); s.recv(99)\n\
         c = dgram(socket.AF_INET6); c.connect(('::ffff:192.0.2.1', 5000)); c.send(bytes(24)); c.recv(99)",
    );
    assert_eq!((six.end(), four.end()), ((1, 66), (2, 68)));
    assert_eq!(out.records.len(), 3, "{:#?}", out.records);
    for (ip, sent, rule) in [
        ("2001:db8::1", 66, "six"),
        ("192.0.2.1", 44, "games"),
        ("192.0.2.1", 24, "games"),
    ] {
        fields(
            out.only(&[("bytes_out", json!(sent))]),
            &json!({"verdict": "ALLOWED", "dst_ip": ip, "src_ip": ip, "dst_port": 5000, "bytes_in": sent / 2, "packets_out": 1, "packets_in": 1, "rule": rule, "close_reason": "fin"}),
        );
    }
}

/// The far sides of two addresses, which do not answer.
fn two() -> (Far, Far) {
    let far = |at| Far::start(at, false);
    (far("192.0.2.1:5000"), far("192.0.2.2:5000"))
}

/// One socket sends `i + 1` bytes to the `i`th of `n` ports, then once more to the first.
fn ports(n: u64) -> (Outcome, u64) {
    let bench = Bench::new();
    let far: Vec<_> = (0..n)
        .map(|i| Far::start(&format!("192.0.2.1:{}", 6000 + i), true))
        .collect();
    let out = bench.agent(UDP, &format!(
            "s = dgram()\n\
             for i in [*range({n}), 0]: s.sendto(bytes(2 * i + 2), ('192.0.2.1', 6000 + i)); s.recv(999)"
        ),
    );
    let got = far.into_iter().map(|f| f.end().1).sum();
    (out, got)
}

#[test]
fn eight_destinations_of_one_socket_are_eight_flows() {
    let (out, got) = ports(8);
    assert_eq!(got, 74);
    assert_eq!(out.records.len(), 8);
    for i in 0..8 {
        let bytes = 2 * i + 2;
        let times = if i == 0 { 2 } else { 1 };
        fields(
            out.only(&[("dst_port", json!(6000 + i))]),
            &json!({"bytes_out": times * bytes, "bytes_in": times * bytes / 2, "packets_out": times, "packets_in": times, "close_reason": "fin"}),
        );
    }
}

#[test]
fn the_ninth_destination_ends_the_least_recent_flow() {
    for n in [9, 50] {
        let (out, got) = ports(n);
        assert_eq!(got, n * (n + 1) + 2);
        // The first came twice, and was replaced in between.
        assert_eq!(out.records.len() as u64, n + 1);
        assert_eq!(
            (
                sum(&out.records, "bytes_out"),
                sum(&out.records, "bytes_in")
            ),
            (got, got / 2)
        );
        assert_eq!(
            (
                sum(&out.records, "packets_out"),
                sum(&out.records, "packets_in")
            ),
            (n + 1, n + 1)
        );
        let replaced: Vec<_> = out.matching(&[("close_reason", json!("replaced"))]);
        let ports: Vec<u64> = replaced
            .iter()
            .map(|r| r["dst_port"].as_u64().unwrap() - 6000)
            .collect();
        assert_eq!(ports, (0..n - 7).collect::<Vec<_>>());
        assert_eq!(out.matching(&[("close_reason", json!("fin"))]).len(), 8);
        assert!(
            out.records
                .iter()
                .all(|r| r["verdict"] == "ALLOWED" && r["packets_out"] == 1)
        );
    }
}

#[test]
fn sendto_on_a_connected_socket_is_a_flow_of_its_own() {
    let bench = Bench::new();
    let (one, two) = two();
    let out = bench.agent(UDP, "s = dgram(); s.connect(('192.0.2.1', 5000)); s.send(bytes(10)); s.sendto(bytes(200), ('192.0.2.2', 5000)); s.send(bytes(10))\n\
         try: s.sendto(b'x', ('198.51.100.7', 5000)); sys.exit(9)\n\
         except PermissionError: pass",
    );
    assert_eq!((one.end(), two.end()), ((2, 20), (1, 200)));
    assert_eq!(out.records.len(), 3);
    fields(
        out.only(&[("dst_ip", json!("192.0.2.1"))]),
        &json!({"bytes_out": 20, "packets_out": 2, "close_reason": "fin"}),
    );
    fields(
        out.only(&[("dst_ip", json!("192.0.2.2"))]),
        &json!({"bytes_out": 200, "packets_out": 1, "close_reason": "fin"}),
    );
    fields(
        out.only(&[("verdict", json!("DENIED"))]),
        &json!({"dst_ip": "198.51.100.7", "dst_port": 5000, "bytes_out": 0, "packets_out": 0, "reason": "default", "close_reason": "denied"}),
    );
}

#[test]
fn a_socket_aimed_anew_ends_its_flow() {
    let bench = Bench::new();
    let (one, two) = two();
    let out = bench.agent(UDP, "s = dgram(); s.connect(('192.0.2.1', 5000)); s.send(bytes(10)); s.connect(('192.0.2.2', 5000)); s.send(bytes(20))",
    );
    assert_eq!((one.end(), two.end()), ((1, 10), (1, 20)));
    fields(
        out.only(&[("dst_ip", json!("192.0.2.1"))]),
        &json!({"bytes_out": 10, "close_reason": "replaced"}),
    );
    fields(
        out.only(&[("dst_ip", json!("192.0.2.2"))]),
        &json!({"bytes_out": 20, "close_reason": "fin"}),
    );
    assert_eq!(out.records.len(), 2);
}

#[test]
fn a_socket_that_only_connects_is_no_flow() {
    let bench = Bench::new();
    let out = bench.agent(UDP, "s = dgram(); s.connect(('192.0.2.1', 5000)); s.close(); t = dgram(); t.connect(('192.0.2.2', 5000))",
    );
    assert!(out.records.is_empty(), "{:#?}", out.records);
}

#[test]
fn empty_and_the_largest_datagrams() {
    let bench = Bench::new();
    let all = [("192.0.2.1", 65_507), ("2001:db8::1", 65_527)];
    let far = ["192.0.2.1:5000", "[2001:db8::1]:5000"].map(|at| Far::start(at, true));
    let out = bench.agent(
        UDP,
        &format!(
            "for ip, most in {}:\n  \
             s = dgram(family(ip))\n  \
             for n in (0, most, 0): s.sendto(bytes(n), (ip, 5000)); assert len(s.recv(1 << 16)) == n // 2",
            json!(all)
        ),
    );
    assert_eq!(far.map(Far::end), all.map(|(_, most)| (3, most)));
    assert_eq!(out.records.len(), 2);
    for (ip, most) in all {
        fields(
            out.only(&[("dst_ip", json!(ip))]),
            &json!({"verdict": "ALLOWED", "bytes_out": most, "packets_out": 3, "bytes_in": most / 2, "packets_in": 3}),
        );
    }
}

#[test]
fn an_idle_flow_ends_and_the_next_datagram_begins_another() {
    let bench = Bench::new();
    let far = Far::start("192.0.2.1:5000", true);
    let mut agent = bench.talk(
        UDP,
        &[],
        "s = dgram(); s.connect(('192.0.2.1', 5000))\n\
         for n in (100, 30): s.send(bytes(n)); s.recv(999); step('sent')",
    );
    assert_eq!(agent.hear(), "sent");
    eventually("the idle flow's record", || {
        (bench.records().len() == 1).then_some(())
    });
    assert_eq!(agent.go(), "sent");
    let out = agent.end(&bench);
    assert_eq!((out.code, far.end()), (0, (2, 130)), "{}", out.stderr);
    assert_eq!(out.records.len(), 2);
    fields(
        &out.records[0],
        &json!({"bytes_out": 100, "bytes_in": 50, "packets_out": 1, "packets_in": 1, "close_reason": "idle", "rule": "games"}),
    );
    fields(
        &out.records[1],
        &json!({"bytes_out": 30, "bytes_in": 15, "packets_out": 1, "packets_in": 1, "close_reason": "fin", "rule": "games", "src_port": out.records[0]["src_port"], "comm": "python3"}),
    );
    // The record ends with the last packet, not with the second in which somebody looked.
    assert!(out.records[0]["duration_ms"].as_u64().unwrap() < 500);
}

#[test]
fn an_answer_to_a_peer_belongs_to_the_flow_that_the_peer_began() {
    let bench = Bench::new();
    // No rule allows the peer's address: the answer is not egress.
    let mut agent = bench.talk(
        "version: 1\n",
        &[],
        "s = dgram(); s.bind(('0.0.0.0', 7000)); say('up')\n\
         d, a = s.recvfrom(999); s.sendto(bytes(2 * len(d)), a)",
    );
    assert_eq!(agent.hear(), "up");
    let (n, port) = neighbour(|| {
        let peer = UdpSocket::bind((THERE, 0)).unwrap();
        peer.send_to(&[0; 333], (HERE, 7000)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let (n, _) = peer.recv_from(&mut [0; 999]).unwrap();
        (n, peer.local_addr().unwrap().port())
    });
    let out = agent.end(&bench);
    assert_eq!((out.code, n), (0, 666), "{}", out.stderr);
    out.is_one(&json!({
            "verdict": "ALLOWED", "direction": "ingress", "reason": "inbound", "src_ip": THERE, "dst_ip": HERE,
            "src_port": port, "dst_port": 7000, "bytes_in": 333, "bytes_out": 666,
            "packets_in": 1, "packets_out": 1, "close_reason": "fin",
        }));
}
