//! Evasion by choice of socket and call. The number is that of the case in the list of abuses; an
//! escape is judged on the wire, not by what the agent was told.

use kernel_tests::{
    check::{fields, sum},
    evasion::{POLICY, attempt, attempt_in},
    run::{Bench, Outcome},
    server::Place,
    sniff::Sniffer,
};
use serde_json::json;
use std::{fs, net::UdpSocket};

#[test]
fn case_01_native_ipv6() {
    let bench = Bench::new();
    let wire = Sniffer::start();
    let places = ["[2001:db8::1]:80", "[2001:db8::2]:80"].map(Place::open);
    let out = bench.agent(
        POLICY,
        "print(tcp('2001:db8::1', 80, b'ok'), tcp('2001:db8::2', 80), udp(b'x', '2001:db8::2', 80))\n",
    );
    assert_eq!(out.stdout.trim(), "ok EPERM EPERM");
    assert_eq!(wire.to("2001:db8::2"), []);
    assert_eq!(places.map(|p| p.calls()), [1, 0]);
    fields(
        out.only(&[("verdict", json!("ALLOWED"))]),
        &json!({"dst_ip": "2001:db8::1", "rule": "six", "bytes_out": 2}),
    );
    for proto in ["tcp", "udp"] {
        out.only_denied(&[
            ("dst_ip", json!("2001:db8::2")),
            ("l4_proto", json!(proto)),
            ("reason", json!("default")),
        ]);
    }
}

#[test]
fn case_02_mapped_ipv6() {
    let bench = Bench::new();
    let wire = Sniffer::start();
    let _place = Place::open("192.0.2.1:80");
    let echo = UdpSocket::bind("192.0.2.1:80").unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 64];
        while let Ok((n, from)) = echo.recv_from(&mut buf) {
            echo.send_to(&buf[..n], from).unwrap();
        }
    });
    let out = bench.agent(
        POLICY,
        "print(tcp('::ffff:192.0.2.1', 80), udp(b'echo', '::ffff:192.0.2.1', 80))\n\
         print(tcp('::ffff:203.0.113.9', 80), udp(b'x', '::ffff:203.0.113.9', 80), tcp('::ffff:169.254.169.254', 80))\n",
    );
    assert_eq!(out.stdout.trim(), "ok b'echo'\nEPERM EPERM EPERM");
    assert_eq!(wire.to("203.0.113.9"), []);
    fields(
        out.only(&[("rule", json!("four"))]),
        &json!({"dst_ip": "192.0.2.1", "verdict": "ALLOWED"}),
    );
    fields(
        out.only(&[("rule", json!("datagrams"))]),
        &json!({"dst_ip": "192.0.2.1", "bytes_in": 4, "bytes_out": 4}),
    );
    for proto in ["tcp", "udp"] {
        out.only_denied(&[("dst_ip", json!("203.0.113.9")), ("l4_proto", json!(proto))]);
    }
    out.only_denied(&[
        ("dst_ip", json!("169.254.169.254")),
        ("reason", json!("builtin")),
    ]);
}

#[test]
fn case_04_every_way_to_send_a_datagram() {
    let out = attempt(
        "F = ('203.0.113.9', 80)\n\
         s = dgram(); s.connect(('192.0.2.1', 80)); s.send(b'ok')\n\
         print(tried(lambda: s.sendto(b'on connected', F)))\n\
         print(tried(lambda: dgram().connect(F)))\n\
         print(tried(lambda: dgram().sendto(b'x', F)))\n\
         print(tried(lambda: dgram().sendmsg([b'x'], [], 0, F)))\n\
         c = dgram(); c.sendto(b'more', socket.MSG_MORE, ('192.0.2.1', 80))\n\
         try: c.sendto(b'end', F)\n\
         except OSError: pass\n\
         class IOV(ctypes.Structure): _fields_ = [('b', ctypes.c_char_p), ('n', ctypes.c_size_t)]\n\
         class HDR(ctypes.Structure): _fields_ = [('name', ctypes.c_char_p), ('nl', ctypes.c_uint), ('iov', ctypes.POINTER(IOV)), ('n', ctypes.c_size_t), ('c', ctypes.c_void_p), ('cl', ctypes.c_size_t), ('f', ctypes.c_int), ('len', ctypes.c_uint)]\n\
         sa = struct.pack('<H', 2) + struct.pack('>H', 80) + socket.inet_aton(F[0]) + b'\\0' * 8\n\
         iov = IOV(b'x', 1); h = (HDR * 2)(); m = dgram()\n\
         for i in range(2): h[i].name, h[i].nl, h[i].iov, h[i].n = sa, 16, ctypes.pointer(iov), 1\n\
         print(ctypes.CDLL(None, use_errno=True).sendmmsg(m.fileno(), h, 2, 0))\n",
    );
    assert_eq!(out.words(), ["EPERM", "EPERM", "EPERM", "EPERM", "-1"]);
    let n = out.denied(&[("dst_ip", json!("203.0.113.9"))]).len();
    assert!((5..=6).contains(&n), "{:#?}", out.records);
    let rest: Vec<_> = out.matching(&[("rule", json!("datagrams"))]);
    assert_eq!(sum(rest.iter().copied(), "bytes_out") % 7, 2, "{rest:#?}");
}

#[test]
fn case_11_root_is_judged_like_anybody() {
    let out = attempt("print(os.getuid(), tcp('203.0.113.9', 80))\n");
    assert_eq!(out.words(), ["0", "EPERM"]);
    out.only_denied(&[
        ("dst_ip", json!("203.0.113.9")),
        ("reason", json!("default")),
    ]);
}

#[test]
fn case_12_a_mark_opens_nothing() {
    let out = attempt(
        "for mark in (1, 0xc1a, 0xffffffff):\n  \
         s = socket.socket()\n  \
         try: s.setsockopt(socket.SOL_SOCKET, 36, struct.pack('I', mark))\n  \
         except OSError: pass\n  \
         print(tried(lambda: s.connect(('203.0.113.9', 80))))\n",
    );
    assert_eq!(out.words(), ["EPERM"; 3]);
    assert_eq!(out.denied(&[("dst_ip", json!("203.0.113.9"))]).len(), 3);
}

/// Tries to make a socket of each kind, and to send an echo request on it.
fn kinds(list: &str) -> Outcome {
    let bench = Bench::new();
    // Everybody may have ICMP datagram sockets, as in containers.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
        .expect("the sysctl of this namespace");
    let program = format!(
        "for f, t, p in [{list}]:\n  \
         print(tried(lambda: socket.socket(f, t, p).sendto(b'\\x08\\0\\xf7\\xff\\0\\0\\0\\0', ('203.0.113.9' if f == 2 else '2001:db8::2', 0))))\n"
    );
    attempt_in(&bench, &program)
}

#[test]
fn case_13_raw_sockets() {
    let out = kinds("(2, 3, 1), (2, 3, 255), (2, 3, 6), (10, 3, 58), (10, 3, 17)");
    assert_eq!(out.words(), ["EPERM"; 5]);
    let all = out.denied(&[("reason", json!("raw_socket"))]);
    let protos: Vec<_> = all
        .iter()
        .map(|r| r["l4_proto"].as_str().unwrap())
        .collect();
    assert_eq!(protos, ["icmp", "raw", "tcp", "icmp6", "udp"]);
    assert!(
        all.iter()
            .all(|r| r["comm"] == "python3" && r.get("dst_ip").is_none())
    );
}

#[test]
fn case_14_icmp_datagram_sockets() {
    let out = kinds("(2, 2, 1), (10, 2, 58)");
    assert_eq!(out.words(), ["EPERM"; 2]);
    for proto in ["icmp", "icmp6"] {
        out.only_denied(&[("reason", json!("protocol")), ("l4_proto", json!(proto))]);
    }
}

#[test]
fn case_17_other_transports() {
    // What the kernel was not built with says so; nothing else may come through.
    let out = kinds(
        "(2, 2, 136), (10, 2, 136), (2, 1, 132), (2, 5, 132), (2, 6, 33), (2, 2, 115), (2, 3, 47)",
    );
    let refused = ["EPERM", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"];
    let words = out.words();
    assert!(words.iter().all(|w| refused.contains(w)), "{words:?}");
    assert_eq!(words.last(), Some(&"EPERM"));
    let eperm = words.iter().filter(|w| **w == "EPERM").count();
    assert_eq!(out.denied(&[]).len(), eperm);
}

#[test]
fn case_18_multipath_tcp() {
    let out = attempt(
        "print(tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(('203.0.113.9', 80))))\n",
    );
    let built_in = std::path::Path::new("/proc/sys/net/mptcp").exists();
    assert_eq!(
        out.words(),
        [if built_in { "EPERM" } else { "EPROTONOSUPPORT" }]
    );
    if built_in {
        out.only_denied(&[("reason", json!("protocol"))]);
    }
}
