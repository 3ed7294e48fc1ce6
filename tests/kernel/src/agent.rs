//! Python that agents of the tests share, and a conversation with one that is running.

use crate::run::{Bench, Outcome};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout},
};

/// Helpers: `ask`, `query`, `udp`, `tcp`, `step`.
pub const PRELUDE: &str = r"
import socket, struct, sys, os, time, errno, ctypes
R = '192.0.2.53'
def family(ip): return socket.AF_INET6 if ':' in ip else socket.AF_INET
def name(n):
    labels = [l.encode() for l in n.split('.')] if isinstance(n, str) else n
    return b''.join(bytes([len(l)]) + l for l in labels if l) + b'\0'
def query(n, t=1, id=7, flags=0x0100, counts=(1, 0, 0, 0), tail=b'', c=1):
    return struct.pack('>HHHHHH', id, flags, *counts) + name(n) + struct.pack('>HH', t, c) + tail
def udp(msg, to=R, port=53, wait=10):
    with socket.socket(family(to), socket.SOCK_DGRAM) as s:
        s.settimeout(wait)
        try:
            s.sendto(msg, (to, port))
            if not wait: return 'sent'
            return s.recvfrom(65535)[0]
        except OSError as e: return errno.errorcode.get(e.errno, 'timeout')
def ask(n, t=1, to=R):
    got = udp(query(n, t), to)
    assert isinstance(got, bytes), (n, got)
    return got
def tcp(ip, port, data=b''):
    with socket.socket(family(ip)) as s:
        s.settimeout(10)
        try:
            s.connect((ip, port))
            s.sendall(data)
            return 'ok'
        except OSError as e: return errno.errorcode.get(e.errno, 'timeout')
def step(*said):
    print(*said, flush=True)
    return sys.stdin.readline().strip()
def until(wanted, what):
    end = time.monotonic() + 20
    while True:
        got = what()
        if got == wanted: return got
        assert time.monotonic() < end, got
        time.sleep(0.05)
";

/// A program that speaks a line and waits for one, in turns.
pub struct Talk {
    child: Child,
    said: BufReader<ChildStdout>,
    to: Option<ChildStdin>,
}

impl Bench {
    /// Runs a Python program behind [`PRELUDE`].
    pub fn agent(&self, policy: &str, program: &str) -> Outcome {
        let out = self.python(Some(policy), &format!("{PRELUDE}\n{program}"));
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        out
    }

    /// The same with arguments for `run`.
    pub fn agent_with(&self, policy: &str, args: &[&str], program: &str) -> Outcome {
        let code = format!("{PRELUDE}\n{program}");
        let out = self.run(Some(policy), args, &["python3", "-c", &code]);
        assert_eq!(out.code, 0, "{}{}", out.stdout, out.stderr);
        out
    }

    /// Runs a Python program behind [`PRELUDE`] and learns from it.
    pub fn learn(&self, policy: Option<&str>, file: &Path, program: &str) -> Outcome {
        let code = format!("{PRELUDE}\n{program}");
        let file = file.to_str().expect("a name that is text");
        self.run(policy, &["--learn", file], &["python3", "-c", &code])
    }

    /// Starts a Python program behind [`PRELUDE`] that talks by `step`.
    pub fn talk(&self, policy: &str, args: &[&str], program: &str) -> Talk {
        let code = format!("{PRELUDE}\n{program}");
        self.converse(Some(policy), args, &["python3", "-c", &code])
    }

    /// Starts a command that speaks a line and waits for one, in turns.
    pub fn converse(&self, policy: Option<&str>, args: &[&str], cmd: &[&str]) -> Talk {
        let mut child = self.spawn(policy, args, cmd);
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let to = child.stdin.take();
        Talk { child, said, to }
    }
}

impl Talk {
    /// The next line that the program says.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line of text");
        line.trim_end().to_owned()
    }

    /// Lets the program go on.
    pub fn say(&mut self, word: &str) {
        let to = self.to.as_mut().expect("not closed yet");
        writeln!(to, "{word}").expect("the program listens");
    }

    /// Process id of `ebpf-manager`.
    #[must_use]
    pub fn loader(&self) -> u32 {
        self.child.id()
    }

    /// Closes the program's input and waits for its end.
    pub fn end(mut self, bench: &Bench) -> Outcome {
        drop(self.to.take());
        self.child.stdout = Some(self.said.into_inner());
        bench.finish(self.child)
    }
}

impl Bench {
    /// The one instance that is running.
    #[must_use]
    pub fn instance(&self) -> String {
        let all = self.dump(&[]);
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]["instance"].as_str().expect("a name").to_owned()
    }

    /// A counter of the one instance.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let rows = self.dump(&["--counters"]);
        let row = rows.iter().find(|r| r["counter"] == name);
        row.and_then(|r| r["value"].as_u64())
            .unwrap_or_else(|| panic!("no counter {name} in {rows:?}"))
    }

    /// Puts the one instance under another policy.
    pub fn apply(&self, text: &str) {
        let file = self.path("next.yaml");
        std::fs::write(&file, text).expect("the policy is written");
        let out = self
            .manager()
            .args(["policy", "apply"])
            .arg(file)
            .args(["--instance", &self.instance()])
            .output()
            .expect("policy apply starts");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
