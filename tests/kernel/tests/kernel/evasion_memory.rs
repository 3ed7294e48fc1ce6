//! Evasion by using up the memory of a socket, so that the firewall cannot keep a flow with it.

use kernel_tests::{
    check::fields,
    eventually,
    run::Bench,
    server::Place,
    sniff::{Seen, Sniffer},
};
use serde_json::json;
use std::{
    fs,
    net::{TcpStream, UdpSocket},
};

const POLICY: &str = "rules:\n\
    - { name: tcp, dst: 192.0.2.1, proto: tcp, port: \"1-65535\" }\n\
    - { name: udp, dst: 192.0.2.1, proto: udp, port: \"1-65535\" }\n";

#[test]
fn a_socket_without_memory_for_its_flow_is_denied() {
    let bench = Bench::new();
    // What an agent does with a large filter or many options on a socket, done to all of them.
    fs::write("/proc/sys/net/core/optmem_max", "128").unwrap();
    let place = Place::open("192.0.2.1:80");
    let heard = UdpSocket::bind("192.0.2.1:81").unwrap();
    heard.set_nonblocking(true).unwrap();
    let wire = Sniffer::start();
    let out = bench.agent(
        POLICY,
        "print(tcp('192.0.2.1', 80), udp(b'x', '192.0.2.1', 81, 0), told(b'x', '192.0.2.1', 81))\n",
    );
    assert_eq!(out.words(), ["EPERM"; 3]);
    let all = out.denied(&[
        ("reason", json!("no_state")),
        ("dst_ip", json!("192.0.2.1")),
    ]);
    assert_eq!(all.len(), 3, "{:#?}", out.records);
    assert_eq!(wire.packets(), []);
    assert!(heard.recv(&mut [0; 9]).is_err());
    assert_eq!(place.calls(), 0);
}

/// Fills what a socket may have of memory with a filter that drops nothing, to the last instruction:
/// first the ones that the kernel makes many of, then single ones.
const GLUTTON: &str = r"
def takes(s, heavy, light):
    code = struct.pack('HBBI', 0x28, 0, 0, 0) * heavy + struct.pack('HBBI', 0, 0, 0, 0) * light + struct.pack('HBBI', 6, 0, 0, 0xffffffff)
    b = ctypes.create_string_buffer(code, len(code))
    # The one before would count until it is replaced.
    tried(lambda: s.setsockopt(1, 27, 0))
    return tried(lambda: s.setsockopt(1, 26, struct.pack('HxxxxxxQ', heavy + light + 1, ctypes.addressof(b)))) == 'sent'
def most(fits, n):
    low, high = 0, n
    while low < high:
        mid = (low + high + 1) // 2
        low, high = (mid, high) if fits(mid) else (low, mid - 1)
    return low
def stuffed(s):
    heavy = most(lambda n: takes(s, n, 0), 4000)
    light = most(lambda n: takes(s, heavy, n), 4000 - heavy)
    assert takes(s, heavy, light) and light + heavy < 4000, (heavy, light)
    return s
";

#[test]
fn a_socket_full_of_filter_is_denied() {
    let bench = Bench::new();
    let place = Place::open("192.0.2.1:80");
    let wire = Sniffer::start();
    // Some kernels let only an administrator of the network attach filters.
    let out = bench.agent_with(
        POLICY,
        &["--cap-add", "CAP_NET_ADMIN"],
        &format!(
            "{GLUTTON}\n\
             print(tried(lambda: stuffed(socket.socket()).connect(('192.0.2.1', 80))))\n\
             print(tried(lambda: stuffed(dgram()).sendto(b'x', ('192.0.2.1', 81))))\n\
             print(tried(lambda: stuffed(dgram()).connect(('192.0.2.1', 81))))\n\
             print(tcp('192.0.2.1', 80, b'x'))",
        ),
    );
    assert_eq!(out.words(), ["EPERM", "EPERM", "EPERM", "ok"]);
    let full = out.denied(&[("reason", json!("no_state"))]);
    assert_eq!(
        (full.len(), out.records.len()),
        (3, 4),
        "{:#?}",
        out.records
    );
    for r in full {
        fields(
            r,
            &json!({"dst_ip": "192.0.2.1", "bytes_out": 0, "close_reason": "denied"}),
        );
    }
    assert!(
        wire.packets().iter().all(|p| p.proto == 6),
        "no datagram left"
    );
    assert_eq!(place.calls(), 1);
}

#[test]
fn case_60_an_accepted_socket_full_of_filter_sends_nothing() {
    let bench = Bench::new();
    let mut agent = bench.talk(
        POLICY,
        &["--cap-add", "CAP_NET_ADMIN", "--linger", "0"],
        &format!(
            "{GLUTTON}\n\
             l = stuffed(socket.create_server(('192.0.2.2', 7000))); say('up')\n\
             s, _ = l.accept(); s.sendall(b'SECRET'); step('sent')",
        ),
    );
    assert_eq!(agent.hear(), "up");
    let wire = Sniffer::start();
    let caller = TcpStream::connect("192.0.2.2:7000").unwrap();
    assert_eq!(agent.hear(), "sent");
    eventually("the refusal", || {
        bench
            .records()
            .iter()
            .any(|r| r["verdict"] == "DENIED")
            .then_some(())
    });
    let secret = |p: &Seen| p.rest.windows(6).any(|w| w == b"SECRET");
    assert!(!wire.packets().iter().any(secret));
    agent.say("go");
    let out = agent.end(&bench);
    let port = caller.local_addr().unwrap().port();
    for r in out.denied(&[]) {
        fields(
            r,
            &json!({"src_ip": "192.0.2.2", "src_port": 7000, "dst_ip": "192.0.2.2", "dst_port": port, "bytes_out": 0}),
        );
    }
    assert_eq!(
        out.matching(&[("verdict", json!("ALLOWED"))]).len(),
        0,
        "{:#?}",
        out.records
    );
}
