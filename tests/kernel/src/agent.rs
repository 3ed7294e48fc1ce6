//! The Python that agents of the tests share.

use crate::{
    run::{Bench, Outcome, PolicyText},
    talk::Talk,
};
use std::path::Path;

/// Attempts that answer a word (`udp`, `tcp`, `told`, `tried`), DNS (`query`, `answer`, `framed`, `ask`), sockets
/// (`dgram`, `dial`, `read`, `need`), processes (`crowd`) and a conversation with the test (`say`, `hear`, `step`, `until`).
pub const PRELUDE: &str = r"
import ctypes, errno, os, signal, socket, struct, sys, threading, time
R = '192.0.2.53'
def family(ip): return socket.AF_INET6 if ':' in ip else socket.AF_INET
def name(n):
    labels = [l.encode() for l in n.split('.')] if isinstance(n, str) else n
    return b''.join(bytes([len(l)]) + l for l in labels if l) + b'\0'
def query(n, t=1, id=7, flags=0x0100, counts=(1, 0, 0, 0), tail=b'', c=1):
    return struct.pack('>HHHHHH', id, flags, *counts) + name(n) + struct.pack('>HH', t, c) + tail
def answer(q, ip):
    return q[:2] + b'\x81\x80\0\1\0\1\0\0\0\0' + q[12:] + b'\xc0\x0c\0\1\0\1\0\0\1\0\0\4' + socket.inet_aton(ip)
def framed(m): return struct.pack('>H', len(m)) + m
def tried(f, done='sent'):
    try: f(); return done
    except OSError as e: return errno.errorcode.get(e.errno, 'timeout')
def udp(msg, to=R, port=53, wait=10):
    with dgram(family(to)) as s:
        s.settimeout(wait)
        try:
            s.sendto(msg, (to, port))
            return s.recvfrom(65535)[0] if wait else 'sent'
        except OSError as e: return errno.errorcode.get(e.errno, 'timeout')
def told(msg, to, port):
    with dgram(family(to)) as s: return tried(lambda: (s.connect((to, port)), s.send(msg)))
def ask(n, t=1, to=R):
    got = udp(query(n, t), to)
    assert isinstance(got, bytes), (n, got)
    return got
def tcp(ip, port, data=b''):
    with socket.socket(family(ip)) as s:
        s.settimeout(10)
        return tried(lambda: (s.connect((ip, port)), s.sendall(data)), 'ok')
def dgram(f=socket.AF_INET): return socket.socket(f, socket.SOCK_DGRAM)
def dial(ip, port=8080): return socket.create_connection((ip, port))
def read(s):
    n = 0
    while b := s.recv(1 << 16): n += len(b)
    return n
def need(s, n):
    while n: n -= len(s.recv(n))
def crowd(n, f):
    for p in range(n):
        if os.fork() == 0: f(); os._exit(0)
    for p in range(n): assert os.wait()[1] == 0
def say(*said): print(*said, flush=True)
def hear(): return sys.stdin.readline().strip()
def step(*said):
    say(*said)
    return hear()
def until(wanted, what):
    end = time.monotonic() + 20
    while True:
        got = what()
        if got == wanted: return got
        assert time.monotonic() < end, got
        time.sleep(0.05)
";

/// A program behind the [`PRELUDE`].
#[must_use]
pub fn code(program: &str) -> String {
    format!("{PRELUDE}\n{program}")
}

impl Bench {
    /// Runs a Python program behind the [`PRELUDE`] to its end, which must be good.
    #[track_caller]
    pub fn agent(&self, policy: impl PolicyText, program: &str) -> Outcome {
        self.agent_with(policy, &[], program)
    }

    /// The same with arguments for `run`.
    #[track_caller]
    pub fn agent_with(&self, policy: impl PolicyText, args: &[&str], program: &str) -> Outcome {
        let out = self.run(policy, args, &["python3", "-c", &code(program)]);
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        out
    }

    /// Runs a Python program behind [`PRELUDE`] and learns from it.
    pub fn learn(&self, policy: impl PolicyText, file: &Path, program: &str) -> Outcome {
        let file = file.to_str().expect("a name that is text");
        self.run(
            policy,
            &["--learn", file],
            &["python3", "-c", &code(program)],
        )
    }

    /// Starts a Python program behind the [`PRELUDE`] that talks by `say`, `hear` and `step`.
    pub fn talk(&self, policy: impl PolicyText, args: &[&str], program: &str) -> Talk {
        self.converse(policy, args, &["python3", "-c", &code(program)])
    }
}
