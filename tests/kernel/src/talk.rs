//! Python programs that talk TCP, run to their end.

use crate::{
    check::fields,
    run::{Bench, Outcome},
};
use serde_json::Value;

/// Documentation addresses, all of TCP.
pub const POLICY: &str = "version: 1\nrules:\n\
    - { name: doc nets, dst: 192.0.2.0/24, proto: tcp, port: 1-65535 }\n\
    - { name: v6, dst: \"2001:db8::/32\", proto: tcp, port: 1-65535 }\n\
    - { name: far, dst: 198.51.100.0/24, proto: tcp, port: 1-65535 }\n";

/// What every program begins with.
pub const PRELUDE: &str = "import os,signal,socket,struct,sys\n\
    def dial(ip, port=8080):\n\
    \x20   return socket.create_connection((ip, port))\n\
    def read(s):\n\
    \x20   n = 0\n\
    \x20   while b := s.recv(1 << 16): n += len(b)\n\
    \x20   return n\n\
    def need(s, n):\n\
    \x20   while n: n -= len(s.recv(n))\n";

/// Runs a program under [`POLICY`]; it must end well.
#[track_caller]
pub fn run(bench: &Bench, program: &str) -> Outcome {
    let out = bench.python(Some(POLICY), &format!("{PRELUDE}{program}"));
    assert_eq!(out.code, 0, "{}", out.stderr);
    out
}

/// Asserts that there is one record, with these fields.
#[track_caller]
pub fn only(out: &Outcome, wanted: &Value) {
    assert_eq!(out.records.len(), 1, "{:#?}", out.records);
    fields(&out.records[0], wanted);
}
