//! Evasion by choice of socket and call. The number is that of the case in the list of abuses; an
//! escape is judged on the wire, not by what the agent was told.

use kernel_tests::{
    check::fields,
    run::{Bench, Outcome},
    server::Place,
    sniff::Sniffer,
};
use serde_json::{Value, json};
use std::{fs, net::UdpSocket};

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
        denied(
            &out,
            &[
                ("dst_ip", json!("2001:db8::2")),
                ("l4_proto", json!(proto)),
                ("reason", json!("default")),
            ],
        );
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
        denied(
            &out,
            &[("dst_ip", json!("203.0.113.9")), ("l4_proto", json!(proto))],
        );
    }
    denied(
        &out,
        &[
            ("dst_ip", json!("169.254.169.254")),
            ("reason", json!("builtin")),
        ],
    );
}

#[test]
fn case_04_every_way_to_send_a_datagram() {
    let (words, out) = attempt(
        "F = ('203.0.113.9', 80)\n\
         def tried(f):\n  try: f(); print('sent')\n  except OSError as e: print(errno.errorcode[e.errno])\n\
         new = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         s = new(); s.connect(('192.0.2.1', 80)); s.send(b'ok')\n\
         tried(lambda: s.sendto(b'on connected', F))\n\
         tried(lambda: new().connect(F))\n\
         tried(lambda: new().sendto(b'x', F))\n\
         tried(lambda: new().sendmsg([b'x'], [], 0, F))\n\
         c = new(); c.sendto(b'more', socket.MSG_MORE, ('192.0.2.1', 80))\n\
         try: c.sendto(b'end', F)\n\
         except OSError: pass\n\
         class IOV(ctypes.Structure): _fields_ = [('b', ctypes.c_char_p), ('n', ctypes.c_size_t)]\n\
         class HDR(ctypes.Structure): _fields_ = [('name', ctypes.c_char_p), ('nl', ctypes.c_uint), ('iov', ctypes.POINTER(IOV)), ('n', ctypes.c_size_t), ('c', ctypes.c_void_p), ('cl', ctypes.c_size_t), ('f', ctypes.c_int), ('len', ctypes.c_uint)]\n\
         sa = struct.pack('<H', 2) + struct.pack('>H', 80) + socket.inet_aton(F[0]) + b'\\0' * 8\n\
         iov = IOV(b'x', 1); h = (HDR * 2)(); m = new()\n\
         for i in range(2): h[i].name, h[i].nl, h[i].iov, h[i].n = sa, 16, ctypes.pointer(iov), 1\n\
         print(ctypes.CDLL(None, use_errno=True).sendmmsg(m.fileno(), h, 2, 0))\n",
    );
    assert_eq!(words, ["EPERM", "EPERM", "EPERM", "EPERM", "-1"]);
    let n = out
        .matching(&[
            ("verdict", json!("DENIED")),
            ("dst_ip", json!("203.0.113.9")),
        ])
        .len();
    assert!((5..=6).contains(&n), "{:#?}", out.records);
    let rest: Vec<_> = out.matching(&[("rule", json!("datagrams"))]);
    assert_eq!(
        rest.iter()
            .map(|r| r["bytes_out"].as_u64().unwrap())
            .sum::<u64>()
            % 7,
        2,
        "{rest:#?}"
    );
}

#[test]
fn case_11_root_is_judged_like_anybody() {
    let (words, out) = attempt("print(os.getuid(), tcp('203.0.113.9', 80))\n");
    assert_eq!(words, ["0", "EPERM"]);
    denied(
        &out,
        &[
            ("dst_ip", json!("203.0.113.9")),
            ("reason", json!("default")),
        ],
    );
}

#[test]
fn case_12_a_mark_opens_nothing() {
    let (words, out) = attempt(
        "for mark in (1, 0xc1a, 0xffffffff):\n  \
         s = socket.socket()\n  \
         try: s.setsockopt(socket.SOL_SOCKET, 36, struct.pack('I', mark))\n  \
         except OSError: pass\n  \
         try: s.connect(('203.0.113.9', 80)); print('ok')\n  \
         except OSError as e: print(errno.errorcode[e.errno])\n",
    );
    assert_eq!(words, ["EPERM"; 3]);
    assert_eq!(
        out.matching(&[
            ("verdict", json!("DENIED")),
            ("dst_ip", json!("203.0.113.9"))
        ])
        .len(),
        3
    );
}

/// Tries to make a socket of each kind, and to send an echo request on it.
fn kinds(list: &str) -> (Vec<String>, Outcome) {
    let bench = Bench::new();
    // Everybody may have ICMP datagram sockets, as in containers.
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
        .expect("the sysctl of this namespace");
    let program = format!(
        "for f, t, p in [{list}]:\n  \
         try:\n    s = socket.socket(f, t, p); s.sendto(b'\\x08\\0\\xf7\\xff\\0\\0\\0\\0', ('203.0.113.9' if f == 2 else '2001:db8::2', 0)); print('sent')\n  \
         except OSError as e: print(errno.errorcode[e.errno])\n"
    );
    attempt_in(&bench, &program)
}

#[test]
fn case_13_raw_sockets() {
    let (words, out) = kinds("(2, 3, 1), (2, 3, 255), (2, 3, 6), (10, 3, 58), (10, 3, 17)");
    assert_eq!(words, ["EPERM"; 5]);
    let all = out.matching(&[
        ("verdict", json!("DENIED")),
        ("reason", json!("raw_socket")),
    ]);
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
    let (words, out) = kinds("(2, 2, 1), (10, 2, 58)");
    assert_eq!(words, ["EPERM"; 2]);
    for proto in ["icmp", "icmp6"] {
        denied(
            &out,
            &[("reason", json!("protocol")), ("l4_proto", json!(proto))],
        );
    }
}

#[test]
fn case_17_other_transports() {
    // What the kernel was not built with says so; nothing else may come through.
    let (words, out) = kinds(
        "(2, 2, 136), (10, 2, 136), (2, 1, 132), (2, 5, 132), (2, 6, 33), (2, 2, 115), (2, 3, 47)",
    );
    let refused = ["EPERM", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"];
    assert!(
        words.iter().all(|w| refused.contains(&w.as_str())),
        "{words:?}"
    );
    assert_eq!(words.last().unwrap(), "EPERM");
    let denied = out.matching(&[("verdict", json!("DENIED"))]);
    assert_eq!(denied.len(), words.iter().filter(|w| *w == "EPERM").count());
}

#[test]
fn case_18_multipath_tcp() {
    let (words, out) = attempt(
        "try:\n  s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.connect(('203.0.113.9', 80)); print('ok')\n\
         except OSError as e: print(errno.errorcode[e.errno])\n",
    );
    let built_in = std::path::Path::new("/proc/sys/net/mptcp").exists();
    assert_eq!(words, [if built_in { "EPERM" } else { "EPROTONOSUPPORT" }]);
    if built_in {
        denied(&out, &[("reason", json!("protocol"))]);
    }
}

#[test]
fn case_20_fast_open() {
    let (words, out) = attempt(
        "for how in ('sendto', 'connect'):\n  \
         s = socket.socket()\n  \
         try:\n    \
         if how == 'sendto': s.sendto(b'secret', 0x20000000, ('203.0.113.9', 80))\n    \
         else: s.setsockopt(6, 30, 1); s.connect(('203.0.113.9', 80)); s.sendall(b'secret')\n    \
         print('sent')\n  \
         except OSError as e: print(errno.errorcode[e.errno])\n",
    );
    assert_eq!(words, ["EPERM"; 2]);
    assert_eq!(
        out.matching(&[
            ("verdict", json!("DENIED")),
            ("dst_ip", json!("203.0.113.9"))
        ])
        .len(),
        2
    );
}

#[test]
fn case_21_io_uring() {
    // Two requests on a ring set up by hand: a connect, and a socket with a connect behind it.
    let (words, out) = attempt(
        "libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p\n\
         libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]\n\
         for flags in (0, 2):\n  \
         p = ctypes.create_string_buffer(120); struct.pack_into('I', p, 8, flags); struct.pack_into('I', p, 16, 100)\n  \
         fd = libc.syscall(425, 4, p); assert fd >= 0, os.strerror(ctypes.get_errno())\n  \
         sq = struct.unpack_from('8I', p, 40); cq = struct.unpack_from('8I', p, 80)\n  \
         ring = libc.mmap(None, 4096, 3, 0x8001, fd, 0); cring = libc.mmap(None, 4096, 3, 0x8001, fd, 0x8000000); sqes = libc.mmap(None, 4096, 3, 0x8001, fd, 0x10000000)\n  \
         word = lambda base, off: ctypes.c_uint.from_address(base + off)\n  \
         s = socket.socket(); sa = ctypes.create_string_buffer(struct.pack('<H', 2) + struct.pack('>H', 80) + socket.inet_aton('203.0.113.9') + b'\\0' * 8)\n  \
         sqe = struct.pack('BBHiQQIIQ24x', 16, 0, 0, s.fileno(), 16, ctypes.addressof(sa), 0, 0, 1)\n  \
         ctypes.memmove(sqes, sqe, 64); word(ring, sq[6]).value = 0; word(ring, sq[1]).value += 1\n  \
         assert libc.syscall(426, fd, 1, 1, 3 if flags else 1, None, 0) >= 0, os.strerror(ctypes.get_errno())\n  \
         res = ctypes.c_int.from_address(cring + cq[5] + 8).value; print(errno.errorcode.get(-res, res))\n",
    );
    assert_eq!(words, ["EPERM"; 2], "{}", out.stderr);
    let all = out.matching(&[
        ("verdict", json!("DENIED")),
        ("dst_ip", json!("203.0.113.9")),
    ]);
    assert_eq!(all.len(), 2);
    assert!(
        all.iter()
            .all(|r| r["reason"] == "default" && r["l4_proto"] == "tcp")
    );
}
