//! Each hook, allowed and denied, for every address family: the verdict the program meets, the record,
//! and the wire.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as the tests themselves do"
)]

use kernel_tests::{
    check::fields,
    net::{HERE, THERE, neighbour},
    peer::{many, send},
    run::{Bench, Outcome},
    sniff::Sniffer,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    net::{TcpStream, UdpSocket},
};

const POLICY: &str = "version: 1\nrules:\n\
    - { name: t4, dst: 192.0.2.1, proto: tcp, port: 8080 }\n\
    - { name: u4, dst: 192.0.2.1, proto: udp, port: 5000 }\n\
    - { name: t6, dst: \"2001:db8::1\", proto: tcp, port: 8080 }\n\
    - { name: u6, dst: \"2001:db8::1\", proto: udp, port: 5000 }\n";

/// Tries `how` to each address of `to` and prints what became of it.
const TRY: &str = "import errno,socket,sys\n\
    def attempt(how, family, ip, port):\n\
    \x20   s = socket.socket(family, socket.SOCK_STREAM if how == 'tcp' else socket.SOCK_DGRAM)\n\
    \x20   try:\n\
    \x20       if how == 'tcp': s.connect((ip, port)); s.sendall(b'hello')\n\
    \x20       elif how == 'sendto': s.sendto(b'hello', (ip, port))\n\
    \x20       else: s.connect((ip, port)); s.send(b'hello')\n\
    \x20       print('ok')\n\
    \x20   except OSError as e: print(errno.errorcode[e.errno])\n\
    \x20   s.close()\n\
    I4, I6 = socket.AF_INET, socket.AF_INET6\n";

fn attempts(bench: &Bench, policy: &str, args: &[&str], attempts: &str) -> Outcome {
    let out = bench.run(
        Some(policy),
        args,
        &["python3", "-c", &format!("{TRY}{attempts}")],
    );
    assert_eq!(out.code, 0, "{}", out.stderr);
    out
}

/// One attempt of each way that names an address, towards `ip` as the socket's family spells it.
fn everywhere(how: &str, family: &str, ip: &str, port: u16, allowed: bool) {
    let bench = Bench::new();
    let real = ip.strip_prefix("::ffff:").unwrap_or(ip);
    let at = if real.contains(':') {
        format!("[{real}]:{port}")
    } else {
        format!("{real}:{port}")
    };
    let udp = UdpSocket::bind(&at).unwrap();
    let listener = (how == "tcp" && allowed).then(|| many(&at, 1, 0));
    let sniffer = Sniffer::start();
    let out = attempts(
        &bench,
        POLICY,
        &[],
        &format!("attempt('{how}', {family}, '{ip}', {port})"),
    );
    let wanted = if allowed { "ok\n" } else { "EPERM\n" };
    assert_eq!(out.stdout, wanted, "{how} {family} {ip} {port}");
    if let Some(l) = listener {
        assert_eq!(l.join().unwrap()[0].received, 5);
    }
    assert_eq!(
        sniffer.to(real).is_empty(),
        !allowed,
        "{how} {family} {ip} {port}"
    );
    assert_eq!(out.records.len(), 1, "{:#?}", out.records);
    let proto = if how == "tcp" { "tcp" } else { "udp" };
    let mut expected = json!({
        "direction": "egress", "l4_proto": proto, "dst_ip": real, "dst_port": port, "comm": "python3", "bytes_in": 0,
    });
    let rest = if allowed {
        let rule = format!("{}{}", &proto[..1], if real.contains(':') { 6 } else { 4 });
        json!({"verdict": "ALLOWED", "reason": "rule", "rule": rule, "bytes_out": 5, "close_reason": "fin", "src_ip": real})
    } else {
        json!({
            "verdict": "DENIED", "reason": "default", "rule": null, "bytes_out": 0, "packets_out": 0,
            "close_reason": "denied", "src_port": null,
        })
    };
    expected
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    fields(&out.records[0], &expected);
    drop(udp);
}

/// Allowed; the wrong port; another address.
fn three(how: &str, family: &str, good: &str, port: u16, bad: &str) {
    everywhere(how, family, good, port, true);
    everywhere(how, family, good, port + 1, false);
    everywhere(how, family, bad, port, false);
}

#[test]
fn connect4_of_tcp() {
    three("tcp", "I4", "192.0.2.1", 8080, "192.0.2.2");
}

#[test]
fn connect6_of_tcp() {
    three("tcp", "I6", "2001:db8::1", 8080, "2001:db8::2");
}

#[test]
fn connect6_of_tcp_with_a_mapped_address() {
    three("tcp", "I6", "::ffff:192.0.2.1", 8080, "::ffff:192.0.2.2");
}

#[test]
fn connect4_of_udp() {
    three("connect", "I4", "192.0.2.1", 5000, "192.0.2.2");
}

#[test]
fn connect6_of_udp() {
    three("connect", "I6", "2001:db8::1", 5000, "2001:db8::2");
}

#[test]
fn connect6_of_udp_with_a_mapped_address() {
    three(
        "connect",
        "I6",
        "::ffff:192.0.2.1",
        5000,
        "::ffff:192.0.2.2",
    );
}

#[test]
fn sendmsg4() {
    three("sendto", "I4", "192.0.2.1", 5000, "192.0.2.2");
}

#[test]
fn sendmsg6() {
    three("sendto", "I6", "2001:db8::1", 5000, "2001:db8::2");
}

#[test]
fn sendmsg6_with_a_mapped_address() {
    three("sendto", "I6", "::ffff:192.0.2.1", 5000, "::ffff:192.0.2.2");
}

#[test]
fn sock_create_refuses_what_the_other_hooks_do_not_understand() {
    let bench = Bench::new();
    // Or the kernel itself would refuse ICMP sockets.
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let program = "import errno,socket\n\
         for f in (socket.AF_INET, socket.AF_INET6):\n\
         \x20   icmp = 1 if f == socket.AF_INET else 58\n\
         \x20   for kind, proto in ((3, icmp), (3, 17), (3, 255), (2, icmp), (1, 262), (2, 136)):\n\
         \x20       try: socket.socket(f, kind, proto); print('made', kind, proto)\n\
         \x20       except OSError as e: print(errno.errorcode[e.errno])\n\
         \x20   for kind, proto in ((1, 0), (1, 6), (2, 0), (2, 17)): socket.socket(f, kind, proto)\n\
         socket.socket(socket.AF_UNIX); socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)";
    // Without the capability the kernel would refuse raw sockets before any program is asked.
    let args = ["--cap-add", "net_raw"];
    let out = bench.run(Some(POLICY), &args, &["python3", "-c", program]);
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (0, "EPERM\n".repeat(12).as_str()),
        "{}",
        out.stderr
    );
    assert_eq!(out.records.len(), 12);
    let count = |reason: &str, proto: &str| {
        out.matching(&[
            ("reason", json!(reason)),
            ("l4_proto", json!(proto)),
            ("verdict", json!("DENIED")),
        ])
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
    let out = bench.python(
        Some("version: 1\nrules:\n  - { name: ping, dst: 192.0.2.0/24, proto: icmp }\n  - { name: all, dst: \"2001:db8::1\", proto: any }\n"),
        "import socket,struct\n\
         def ping(ip, f, p, kind):\n\
         \x20   s = socket.socket(f, 2, p)\n\
         \x20   try: s.sendto(struct.pack('!BBHHH', kind, 0, 0, 0, 1) + bytes(56), (ip, 0)); s.settimeout(0.5); print(len(s.recv(999)))\n\
         \x20   except (PermissionError, TimeoutError): print('denied')\n\
         ping('192.0.2.1', socket.AF_INET, 1, 8); ping('203.0.113.9', socket.AF_INET, 1, 8)\n\
         ping('2001:db8::1', socket.AF_INET6, 58, 128); ping('2001:db8::2', socket.AF_INET6, 58, 128)",
    );
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (0, "64\ndenied\n64\ndenied\n"),
        "{}",
        out.stderr
    );
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

/// A server under `inbound: deny` (or allow), and what a caller meets.
fn called(inbound: &str, program: &str, call: impl FnOnce()) -> Outcome {
    let bench = Bench::new();
    let policy = format!("version: 1\ninbound: {inbound}\n");
    let mut child = bench.spawn(Some(&policy), &[], &["python3", "-c", program]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    call();
    drop(child.stdin.take());
    bench.finish(child)
}

const TCP_SERVER: &str = "import socket,sys\n\
    l = socket.create_server(('192.0.2.1', 9000)); l.settimeout(0.01); print('up', flush=True); sys.stdin.read()\n\
    try: s, _ = l.accept(); s.recv(9); s.close()\n\
    except TimeoutError: pass";

#[test]
fn inbound_tcp_is_denied_when_the_policy_says_so() {
    let sniffed = std::sync::Mutex::new(Vec::new());
    let out = called("deny", TCP_SERVER, || {
        let sniffer = Sniffer::start();
        let wait = std::time::Duration::from_millis(400);
        TcpStream::connect_timeout(&"192.0.2.1:9000".parse().unwrap(), wait).unwrap_err();
        *sniffed.lock().unwrap() = sniffer.to("192.0.2.1");
    });
    assert_eq!(out.code, 0, "{}", out.stderr);
    // Flags of every TCP packet: only SYNs, nothing was answered.
    assert!(sniffed.lock().unwrap().iter().all(|p| p.rest[13] == 2));
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
    let out = called("allow", TCP_SERVER, || {
        let mut s = TcpStream::connect("192.0.2.1:9000").unwrap();
        send(&mut s, 4);
        // The server reads and closes after its input has ended.
        std::mem::forget(s);
    });
    assert_eq!(out.records.len(), 1);
    fields(
        &out.records[0],
        &json!({"verdict": "ALLOWED", "direction": "ingress", "reason": "inbound", "bytes_in": 4, "dst_port": 9000}),
    );
}

#[test]
fn inbound_udp_follows_the_policy() {
    let program = "import socket,sys\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 9000)); s.settimeout(0.01); print('up', flush=True); sys.stdin.read()\n\
        try: s.recv(9); sys.exit(9)\n\
        except TimeoutError: pass";
    // From another machine: what comes over loopback could come from the command itself.
    let caller = || {
        neighbour(|| {
            let s = UdpSocket::bind((THERE, 0)).unwrap();
            s.connect((HERE, 9000)).unwrap();
            s.send(b"hello").unwrap();
        });
    };
    for (inbound, verdict, code, got) in [("deny", "DENIED", 0, 0), ("allow", "ALLOWED", 9, 1)] {
        let out = called(inbound, program, caller);
        assert_eq!(out.code, code, "{}", out.stderr);
        assert_eq!(out.records.len(), 1, "{:#?}", out.records);
        fields(
            &out.records[0],
            &json!({"verdict": verdict, "direction": "ingress", "reason": "inbound", "src_ip": THERE, "dst_ip": HERE, "dst_port": 9000, "l4_proto": "udp", "bytes_in": 5 * got, "packets_in": got}),
        );
    }
}

#[test]
fn a_released_socket_ends_its_flows_whoever_holds_it_last() {
    let bench = Bench::new();
    let peer = UdpSocket::bind("192.0.2.1:5000").unwrap();
    let out = bench.python(
        Some(POLICY),
        "import os,socket,sys,time\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'one', ('192.0.2.1', 5000))\n\
         r, w = os.pipe()\n\
         if os.fork() == 0: os.read(r, 1); s.sendto(b'three', ('192.0.2.1', 5000)); os._exit(0)\n\
         s.close(); os.write(w, b'x'); os.wait()",
    );
    assert_eq!(out.code, 0, "{}", out.stderr);
    let mut buf = [0; 9];
    assert_eq!(
        (peer.recv(&mut buf).unwrap(), peer.recv(&mut buf).unwrap()),
        (3, 5)
    );
    assert_eq!(out.records.len(), 1);
    fields(
        &out.records[0],
        &json!({"bytes_out": 8, "packets_out": 2, "close_reason": "fin"}),
    );
}
