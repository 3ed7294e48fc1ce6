//! The thinnest slice: one allowed and one denied connection, and nothing left behind.

use kernel_tests::run::Bench;
use serde_json::json;
use std::{io::Read as _, net::TcpListener, thread};

const POLICY: &str =
    "version: 1\nrules:\n  - { name: web, dst: 192.0.2.1, proto: tcp, port: 8080 }\n";

#[test]
fn one_flow_is_allowed_and_one_denied() {
    let bench = Bench::new();
    let server = TcpListener::bind("192.0.2.1:8080").unwrap();
    let reader = thread::spawn(move || {
        let (mut s, _) = server.accept().unwrap();
        let mut got = Vec::new();
        s.read_to_end(&mut got).unwrap();
        got
    });
    let out = bench.python(
        Some(POLICY),
        "import socket,sys\n\
         s=socket.create_connection(('192.0.2.1',8080)); s.sendall(b'x'*1234); s.close()\n\
         try: socket.create_connection(('203.0.113.9',80)); sys.exit(9)\n\
         except PermissionError: print('refused')\n",
    );
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (0, "refused\n"),
        "{}",
        out.stderr
    );
    assert_eq!(reader.join().unwrap().len(), 1234);
    let allowed = out.only(&[("verdict", json!("ALLOWED"))]);
    assert_eq!(allowed["dst_ip"], "192.0.2.1");
    assert_eq!(allowed["bytes_out"], 1234);
    assert_eq!(allowed["bytes_in"], 0);
    assert_eq!(allowed["rule"], "web");
    assert_eq!(allowed["close_reason"], "fin");
    assert_eq!(allowed["comm"], "python3");
    let denied = out.only(&[("verdict", json!("DENIED"))]);
    assert_eq!(
        (denied["dst_port"].clone(), denied["reason"].clone()),
        (json!(80), json!("default"))
    );
    assert_eq!(out.records.len(), 2);
    assert!(bench.dump(&[]).is_empty());
}
