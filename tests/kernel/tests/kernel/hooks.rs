//! Each hook, allowed and denied, for every address family: the verdict the program meets, the record,
//! and the wire.

use kernel_tests::{
    check::fields,
    eventually,
    net::{HERE, THERE, neighbour},
    peer::{many, send},
    run::{Bench, Outcome},
    sniff::Sniffer,
};
use serde_json::{Value, json};
use std::{
    net::{TcpStream, UdpSocket},
    time::Duration,
};

const POLICY: &str = "version: 1\nrules:\n\
    - { name: t4, dst: 192.0.2.1, proto: tcp, port: 8080 }\n\
    - { name: u4, dst: 192.0.2.1, proto: udp, port: 5000 }\n\
    - { name: t6, dst: \"2001:db8::1\", proto: tcp, port: 8080 }\n\
    - { name: u6, dst: \"2001:db8::1\", proto: udp, port: 5000 }\n";

/// A way to name an address.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// TCP.
    Connect,
    /// UDP, connected.
    Aim,
    /// UDP, unconnected.
    Send,
}

impl How {
    /// The attempt, in Python.
    fn attempt(self, ip: &str, port: u16) -> String {
        match self {
            Self::Connect => format!("tcp('{ip}', {port}, b'hello')"),
            Self::Aim => format!("told(b'hello', '{ip}', {port})"),
            Self::Send => format!("udp(b'hello', '{ip}', {port}, 0)"),
        }
    }

    fn proto(self) -> &'static str {
        if self == Self::Connect { "tcp" } else { "udp" }
    }
}

/// An allowed destination, the wrong port of it, and another address, as the socket's family spells
/// them.
fn three(how: How, good: &str, bad: &str) {
    let bench = Bench::new();
    let port = if how == How::Connect { 8080 } else { 5000 };
    let real = |ip: &str| ip.strip_prefix("::ffff:").unwrap_or(ip).to_owned();
    let (allowed, other) = (real(good), real(bad));
    let six = allowed.contains(':');
    let at = if six {
        format!("[{allowed}]:{port}")
    } else {
        format!("{allowed}:{port}")
    };
    let udp = UdpSocket::bind(&at).unwrap();
    let listener = (how == How::Connect).then(|| many(&at, 1, 0));
    let wire = Sniffer::start();
    let to = [(good, port), (good, port + 1), (bad, port)];
    let attempts = to.map(|(ip, port)| how.attempt(ip, port)).join(", ");
    let out = bench.agent(POLICY, &format!("print({attempts})"));
    let done = if how == How::Connect { "ok" } else { "sent" };
    assert_eq!(out.words(), [done, "EPERM", "EPERM"]);
    match listener {
        Some(l) => assert_eq!(l.join().unwrap()[0].received, 5),
        None => assert_eq!(udp.recv(&mut [0; 9]).unwrap(), 5),
    }
    // Of the connection both ends are on loopback, so that answers leave for the same address.
    let (seen, here) = (wire.packets(), port.to_be_bytes());
    let ours = |p: &kernel_tests::sniff::Seen| p.rest[..2] == here || p.rest[2..4] == here;
    assert!(!seen.is_empty() && seen.iter().all(|p| p.dst.to_string() == allowed && ours(p)));
    assert_eq!(out.records.len(), 3, "{:#?}", out.records);
    for r in &out.records {
        fields(
            r,
            &json!({"direction": "egress", "l4_proto": how.proto(), "comm": "python3", "bytes_in": 0}),
        );
    }
    let rule = format!("{}{}", &how.proto()[..1], if six { 6 } else { 4 });
    fields(
        out.only(&[("verdict", json!("ALLOWED"))]),
        &json!({"reason": "rule", "rule": rule, "dst_ip": allowed, "src_ip": allowed, "dst_port": port,
                "bytes_out": 5, "close_reason": "fin"}),
    );
    for (ip, port) in [(&allowed, port + 1), (&other, port)] {
        fields(
            out.only_denied(&[("dst_ip", json!(ip)), ("dst_port", json!(port))]),
            &json!({"reason": "default", "rule": null, "packets_out": 0, "src_port": null}),
        );
    }
}

#[test]
fn connect4_of_tcp() {
    three(How::Connect, "192.0.2.1", "192.0.2.2");
}

#[test]
fn connect6_of_tcp() {
    three(How::Connect, "2001:db8::1", "2001:db8::2");
}

#[test]
fn connect6_of_tcp_with_a_mapped_address() {
    three(How::Connect, "::ffff:192.0.2.1", "::ffff:192.0.2.2");
}

#[test]
fn connect4_of_udp() {
    three(How::Aim, "192.0.2.1", "192.0.2.2");
}

#[test]
fn connect6_of_udp() {
    three(How::Aim, "2001:db8::1", "2001:db8::2");
}

#[test]
fn connect6_of_udp_with_a_mapped_address() {
    three(How::Aim, "::ffff:192.0.2.1", "::ffff:192.0.2.2");
}

#[test]
fn sendmsg4() {
    three(How::Send, "192.0.2.1", "192.0.2.2");
}

#[test]
fn sendmsg6() {
    three(How::Send, "2001:db8::1", "2001:db8::2");
}

#[test]
fn sendmsg6_with_a_mapped_address() {
    three(How::Send, "::ffff:192.0.2.1", "::ffff:192.0.2.2");
}

#[test]
fn sock_create_refuses_what_the_other_hooks_do_not_understand() {
    let bench = Bench::new();
    // Or the kernel itself would refuse ICMP sockets.
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let program = "for f in (socket.AF_INET, socket.AF_INET6):\n\
         \x20   icmp = 1 if f == socket.AF_INET else 58\n\
         \x20   for kind, proto in ((3, icmp), (3, 17), (3, 255), (2, icmp), (1, 262), (2, 136)):\n\
         \x20       print(tried(lambda: socket.socket(f, kind, proto)))\n\
         \x20   for kind, proto in ((1, 0), (1, 6), (2, 0), (2, 17)): socket.socket(f, kind, proto)\n\
         socket.socket(socket.AF_UNIX); socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)";
    // Without the capability the kernel would refuse raw sockets before any program is asked.
    let out = bench.agent_with(POLICY, &["--cap-add", "net_raw"], program);
    assert_eq!(out.words(), ["EPERM"; 12]);
    assert_eq!(out.records.len(), 12);
    let count = |reason: &str, proto: &str| {
        out.denied(&[("reason", json!(reason)), ("l4_proto", json!(proto))])
            .len()
    };
    assert_eq!(count("raw_socket", "icmp"), 1);
    assert_eq!(count("raw_socket", "icmp6"), 1);
    assert_eq!(count("raw_socket", "udp"), 2);
    assert_eq!(count("raw_socket", "raw"), 2);
    assert_eq!(count("protocol", "icmp"), 1);
    assert_eq!(count("protocol", "icmp6"), 1);
    assert_eq!(count("protocol", "mptcp"), 2);
    assert_eq!(count("protocol", "udplite"), 2);
    for r in &out.records {
        fields(
            r,
            &json!({"dst_ip": null, "dst_port": null, "src_ip": null, "close_reason": "denied", "comm": "python3", "bytes_out": 0}),
        );
    }
}

#[test]
fn icmp_sockets_exist_where_a_rule_allows_icmp() {
    let bench = Bench::new();
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let out = bench.agent(
        "rules:\n- { name: ping, dst: 192.0.2.0/24, proto: icmp }\n- { name: all, dst: \"2001:db8::1\", proto: any }\n",
        "def ping(ip, f, p, kind):\n\
         \x20   s = socket.socket(f, 2, p)\n\
         \x20   try: s.sendto(struct.pack('!BBHHH', kind, 0, 0, 0, 1) + bytes(56), (ip, 0)); s.settimeout(0.5); print(len(s.recv(999)))\n\
         \x20   except (PermissionError, TimeoutError): print('denied')\n\
         ping('192.0.2.1', socket.AF_INET, 1, 8); ping('203.0.113.9', socket.AF_INET, 1, 8)\n\
         ping('2001:db8::1', socket.AF_INET6, 58, 128); ping('2001:db8::2', socket.AF_INET6, 58, 128)",
    );
    assert_eq!(out.words(), ["64", "denied", "64", "denied"]);
    assert_eq!(out.records.len(), 4, "{:#?}", out.records);
    for (dst, proto, verdict, rule) in [
        ("192.0.2.1", "icmp", "ALLOWED", json!("ping")),
        ("203.0.113.9", "icmp", "DENIED", Value::Null),
        ("2001:db8::1", "icmp6", "ALLOWED", json!("all")),
        ("2001:db8::2", "icmp6", "DENIED", Value::Null),
    ] {
        let one = u32::from(verdict == "ALLOWED");
        fields(
            out.only(&[("dst_ip", json!(dst))]),
            &json!({"l4_proto": proto, "verdict": verdict, "rule": rule, "reason": if one == 1 { "rule" } else { "default" }, "dst_port": null, "packets_out": one, "packets_in": one}),
        );
    }
}

/// A server under `inbound: deny` (or allow), and what a caller meets. `program` says whether it heard
/// anything.
fn called(inbound: &str, program: &str, call: impl FnOnce(&Bench)) -> Outcome {
    let bench = Bench::new();
    let policy = format!("inbound: {inbound}\n");
    let mut server = bench.talk(&policy, &[], program);
    assert_eq!(server.hear(), "up");
    call(&bench);
    let out = server.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    out
}

const TCP_SERVER: &str = "l = socket.create_server(('192.0.2.1', 9000)); l.settimeout(0.01); step('up')\n\
    try: s, _ = l.accept(); s.recv(9); s.close(); print('heard')\n\
    except TimeoutError: print('silence')";

#[test]
fn inbound_tcp_is_denied_when_the_policy_says_so() {
    let mut sniffed = Vec::new();
    let out = called("deny", TCP_SERVER, |_| {
        let sniffer = Sniffer::start();
        let wait = Duration::from_millis(400);
        TcpStream::connect_timeout(&"192.0.2.1:9000".parse().unwrap(), wait).unwrap_err();
        sniffed = sniffer.to("192.0.2.1");
    });
    assert_eq!(out.stdout, "silence\n");
    // Flags of every TCP packet: only SYNs, nothing was answered.
    assert!(!sniffed.is_empty() && sniffed.iter().all(|p| p.rest[13] == 2));
    assert!(!out.records.is_empty());
    for r in &out.records {
        fields(
            r,
            &json!({"verdict": "DENIED", "direction": "ingress", "reason": "inbound", "src_ip": "192.0.2.1", "dst_ip": "192.0.2.1", "dst_port": 9000, "l4_proto": "tcp", "bytes_in": 0}),
        );
    }
}

#[test]
fn inbound_tcp_is_allowed_by_default() {
    let out = called("allow", TCP_SERVER, |_| {
        let mut s = TcpStream::connect("192.0.2.1:9000").unwrap();
        send(&mut s, 4);
        // The server reads and closes after its input has ended.
        std::mem::forget(s);
    });
    assert_eq!(out.stdout, "heard\n");
    out.is_one(&json!({"verdict": "ALLOWED", "direction": "ingress", "reason": "inbound", "bytes_in": 4, "dst_port": 9000}));
}

#[test]
fn inbound_udp_follows_the_policy() {
    let program = "s = dgram(); s.bind(('0.0.0.0', 9000)); s.settimeout(0.01); step('up')\n\
        try: s.recv(9); print('heard')\n\
        except TimeoutError: print('silence')";
    // From another machine: what comes over loopback could come from the command itself.
    let caller = |bench: &Bench| {
        neighbour(|| {
            let s = UdpSocket::bind((THERE, 0)).unwrap();
            s.connect((HERE, 9000)).unwrap();
            s.send(b"hello").unwrap();
            // The way there is gone when this machine is.
            eventually("its arrival", || {
                (bench.counter("opened") > 0).then_some(())
            });
        });
    };
    for (inbound, verdict, said, got) in [
        ("deny", "DENIED", "silence\n", 0),
        ("allow", "ALLOWED", "heard\n", 1),
    ] {
        let out = called(inbound, program, caller);
        assert_eq!(out.stdout, said);
        out.is_one(&json!({"verdict": verdict, "direction": "ingress", "reason": "inbound", "src_ip": THERE, "dst_ip": HERE, "dst_port": 9000, "l4_proto": "udp", "bytes_in": 5 * got, "packets_in": got}));
    }
}

#[test]
fn a_released_socket_ends_its_flows_whoever_holds_it_last() {
    let bench = Bench::new();
    let peer = UdpSocket::bind("192.0.2.1:5000").unwrap();
    let out = bench.agent(
        POLICY,
        "s = dgram(); s.sendto(b'one', ('192.0.2.1', 5000))\n\
         r, w = os.pipe()\n\
         if os.fork() == 0: os.read(r, 1); s.sendto(b'three', ('192.0.2.1', 5000)); os._exit(0)\n\
         s.close(); os.write(w, b'x'); os.wait()",
    );
    let mut buf = [0; 9];
    assert_eq!(
        (peer.recv(&mut buf).unwrap(), peer.recv(&mut buf).unwrap()),
        (3, 5)
    );
    out.is_one(&json!({"bytes_out": 8, "packets_out": 2, "close_reason": "fin"}));
}
