//! Evasion by choice of destination. The number is that of the case in the list of abuses; an
//! escape is judged on the wire, not by what the agent was told.

use kernel_tests::{
    check::fields,
    run::{Bench, Outcome},
    sniff::Sniffer,
};
use serde_json::{Value, json};

const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: four, dst: 192.0.2.1, proto: tcp, port: 80 }\n\
    - { name: datagrams, dst: 192.0.2.1, proto: udp, port: 80 }\n\
    - { name: six, dst: \"2001:db8::1\", proto: tcp, port: 80 }\n";

/// Addresses that nothing may reach.
const FORBIDDEN: [&str; 2] = ["203.0.113.9", "2001:db8::2"];

/// Runs the program, in which every attempt prints a word, and asserts that nothing of it reached a
/// forbidden address.
fn attempt(program: &str) -> (Vec<String>, Outcome) {
    attempt_in(&Bench::new(), program)
}

fn attempt_in(bench: &Bench, program: &str) -> (Vec<String>, Outcome) {
    let wire = Sniffer::start();
    // What is withheld otherwise, so that the hooks are what refuses.
    let out = bench.agent_with(POLICY, &["--cap-add", "CAP_NET_RAW"], program);
    for p in wire.packets() {
        assert!(
            !FORBIDDEN.contains(&p.dst.to_string().as_str()),
            "escaped: {p:?}"
        );
    }
    (
        out.stdout.split_whitespace().map(str::to_owned).collect(),
        out,
    )
}

/// Asserts that there is exactly one denied record with these values.
fn denied(out: &Outcome, wanted: &[(&str, Value)]) {
    let all = [wanted, &[("verdict", json!("DENIED"))]].concat();
    fields(
        out.only(&all),
        &json!({"bytes_out": 0, "bytes_in": 0, "close_reason": "denied"}),
    );
}

#[test]
fn cases_23_24_25_other_resolvers() {
    let (words, out) = attempt(
        "q = query('api.example')\n\
         print(udp(q, '203.0.113.9'), udp(q, '2001:db8::2'), tcp('203.0.113.9', 53), tcp('2001:db8::2', 53))\n\
         print(tcp('203.0.113.9', 853), tcp(R, 853), udp(q, R, 853), udp(q, '203.0.113.9', 853), udp(q, '192.0.2.1', 53))\n\
         print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(words, ["EPERM"; 10]);
    assert_eq!(
        out.matching(&[("verdict", json!("DENIED")), ("reason", json!("resolver"))])
            .len(),
        9
    );
    denied(
        &out,
        &[("dst_port", json!(443)), ("reason", json!("default"))],
    );
}

#[test]
fn case_34_direct_address() {
    let (words, out) =
        attempt("print(tcp('203.0.113.9', 443), udp(b'quic', '203.0.113.9', 443))\n");
    assert_eq!(words, ["EPERM"; 2]);
    for proto in ["tcp", "udp"] {
        denied(
            &out,
            &[
                ("l4_proto", json!(proto)),
                ("reason", json!("default")),
                ("dst_port", json!(443)),
            ],
        );
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
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::1",
    ];
    for ip in all {
        kernel_tests::net::ip(&["addr", "add", ip, "dev", "lo"]);
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
        let code = format!("{}\n{program}", kernel_tests::agent::PRELUDE);
        let out = bench.run(Some(policy), &["--mode", mode], &["python3", "-c", &code]);
        let words: Vec<_> = out.stdout.split_whitespace().collect();
        assert!(
            words.iter().all(|w| *w == "EPERM" || *w == "EINVAL"),
            "{mode}: {words:?}"
        );
        for ip in &all[..6] {
            let r = out.matching(&[
                ("dst_ip", json!(ip)),
                ("verdict", json!("DENIED")),
                ("reason", json!("builtin")),
            ]);
            assert_eq!(r.len(), 2, "{mode}: {ip}");
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
    let (words, out) = attempt(
        "print(tcp('127.0.0.1', 80), tcp('::1', 80), tcp('0.0.0.0', 80), tcp('::', 80), udp(b'x', '127.0.0.11', 53))\n",
    );
    assert_eq!(words, ["EPERM"; 5]);
    for (ip, n) in [("127.0.0.1", 2), ("::1", 2), ("127.0.0.11", 1)] {
        assert_eq!(
            out.matching(&[("verdict", json!("DENIED")), ("dst_ip", json!(ip))])
                .len(),
            n,
            "{ip}"
        );
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
    let mut s = std::net::TcpStream::connect("192.0.2.2:7000").unwrap();
    let here = s.local_addr().unwrap();
    std::io::Write::write_all(&mut s, b"hello").unwrap();
    s.shutdown(std::net::Shutdown::Write).unwrap();
    let got = std::io::Read::read_to_end(&mut s, &mut Vec::new()).unwrap();
    assert_eq!(got, 4321);
    let out = agent.end(&bench);
    fields(
        out.only(&[("direction", json!("ingress"))]),
        &json!({"verdict": "ALLOWED", "reason": "inbound", "src_ip": here.ip().to_string(), "src_port": here.port(),
                "dst_ip": "192.0.2.2", "dst_port": 7000, "bytes_in": 5, "bytes_out": 4321, "close_reason": "fin"}),
    );
}
