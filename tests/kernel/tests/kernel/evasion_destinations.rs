//! Evasion by choice of destination. The number is that of the case in the list of abuses; an
//! escape is judged on the wire, not by what the agent was told.

use kernel_tests::{
    check::fields,
    evasion::{POLICY, attempt},
    net::ip,
    run::Bench,
    sniff::Sniffer,
};
use serde_json::json;
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

#[test]
fn cases_23_24_25_other_resolvers() {
    let out = attempt(
        "q = query('api.example')\n\
         print(udp(q, '203.0.113.9'), udp(q, '2001:db8::2'), tcp('203.0.113.9', 53), tcp('2001:db8::2', 53))\n\
         print(tcp('203.0.113.9', 853), tcp(R, 853), udp(q, R, 853), udp(q, '203.0.113.9', 853), udp(q, '192.0.2.1', 53))\n\
         print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.words(), ["EPERM"; 10]);
    assert_eq!(out.denied(&[("reason", json!("resolver"))]).len(), 9);
    out.only_denied(&[("dst_port", json!(443)), ("reason", json!("default"))]);
}

#[test]
fn case_34_direct_address() {
    let out = attempt("print(tcp('203.0.113.9', 443), udp(b'quic', '203.0.113.9', 443))\n");
    assert_eq!(out.words(), ["EPERM"; 2]);
    for proto in ["tcp", "udp"] {
        out.only_denied(&[
            ("l4_proto", json!(proto)),
            ("reason", json!("default")),
            ("dst_port", json!(443)),
        ]);
    }
}

#[test]
fn case_41_metadata_services() {
    let bench = Bench::new();
    let wire = Sniffer::start();
    let all = [
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "169.254.1.1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
    ];
    for address in all {
        ip(&["addr", "add", address, "dev", "lo"]);
    }
    let list = all.map(|ip| format!("'{ip}'")).join(", ");
    let program = format!("for ip in ({list}): print(tcp(ip, 80), udp(b'x', ip, 80))\n");
    // An allow rule for everything, and no policy at all, open none of them.
    let open = "default: allow\nrules:\n- { name: all, dst: 0.0.0.0/0, proto: any }\n- { name: all6, dst: \"::/0\", proto: any }\n";
    for (policy, mode) in [
        (POLICY, "enforce"),
        (open, "enforce"),
        (open, "audit"),
        (open, "observe"),
    ] {
        let out = bench.agent_with(policy, &["--mode", mode], &program);
        let words = out.words();
        assert!(
            words.iter().all(|w| *w == "EPERM" || *w == "EINVAL"),
            "{mode}: {words:?}"
        );
        for ip in &all[..7] {
            let all = out.denied(&[("dst_ip", json!(ip)), ("reason", json!("builtin"))]);
            assert_eq!(all.len(), 2, "{mode}: {ip}");
            for r in all {
                fields(
                    r,
                    &json!({"rule": null, "would_deny": null, "bytes_out": 0}),
                );
            }
        }
        let seen = wire.packets();
        assert!(
            !seen
                .iter()
                .any(|p| all.contains(&p.dst.to_string().as_str())),
            "{seen:?}"
        );
    }
}

#[test]
fn case_44_loopback_is_a_destination_under_run() {
    let out = attempt(
        "print(tcp('127.0.0.1', 80), tcp('::1', 80), tcp('0.0.0.0', 80), tcp('::', 80), udp(b'x', '127.0.0.11', 53))\n",
    );
    assert_eq!(out.words(), ["EPERM"; 5]);
    for (ip, n) in [("127.0.0.1", 2), ("::1", 2), ("127.0.0.11", 1)] {
        assert_eq!(out.denied(&[("dst_ip", json!(ip))]).len(), n, "{ip}");
    }
}

#[test]
fn case_60_a_listener_is_recorded_with_its_bytes() {
    let bench = Bench::new();
    let mut agent = bench.talk(
        POLICY,
        &[],
        "l = socket.create_server(('192.0.2.2', 7000)); step('up')\n\
         s, _ = l.accept(); s.sendall(b'x' * 4321)\n\
         while s.recv(100): pass\n\
         s.close()\n",
    );
    assert_eq!(agent.hear(), "up");
    agent.say("go");
    let mut s = TcpStream::connect("192.0.2.2:7000").unwrap();
    let here = s.local_addr().unwrap();
    s.write_all(b"hello").unwrap();
    s.shutdown(Shutdown::Write).unwrap();
    let got = s.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(got, 4321);
    let out = agent.end(&bench);
    fields(
        out.only(&[("direction", json!("ingress"))]),
        &json!({"verdict": "ALLOWED", "reason": "inbound", "src_ip": here.ip().to_string(), "src_port": here.port(),
                "dst_ip": "192.0.2.2", "dst_port": 7000, "bytes_in": 5, "bytes_out": 4321, "close_reason": "fin"}),
    );
}
