//! What is left of connections when the run is over: nothing that was cut may leave afterwards.

use kernel_tests::{
    check::fields,
    eventually,
    net::ip,
    peer::{drain, once, take},
    run::Bench,
    sniff::Sniffer,
};
use serde_json::json;
use std::time::Duration;

const OLD: &str = "version: 1\nrules: [{ name: one, dst: 192.0.2.1, proto: any }]\n";
const NEW: &str =
    "version: 1\nrules: [{ name: not one, dst: 192.0.2.1, proto: any, action: deny }]\n";

#[test]
fn what_a_cut_connection_still_held_never_leaves() {
    let bench = Bench::new();
    let server = once("192.0.2.1:8080", |mut s| {
        take(&mut s, 1000);
        // Longer than the retries of a second, which is what would come.
        s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        drain(&mut s)
    });
    let mut talk = bench.talk(
        OLD,
        &[],
        "s = socket.create_connection(('192.0.2.1', 8080)); s.sendall(bytes(1000)); step('up')\n\
         s.sendall(bytes(77)); step('sent')",
    );
    assert_eq!(talk.hear(), "up");
    bench.acknowledged(1000);
    let sniffer = Sniffer::start();
    bench.apply(NEW);
    assert_eq!(talk.go(), "sent");
    let out = talk.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(server.join().unwrap().1, 0, "bytes after the cut");
    assert_eq!(sniffer.payload("192.0.2.1"), 0);
    fields(
        &out.records[0],
        &json!({"close_reason": "policy", "rule": "not one", "bytes_out": 1000}),
    );
    bench.nothing_left(&[]);
}

#[test]
fn a_command_that_waits_on_a_cut_connection_is_told() {
    let bench = Bench::new();
    let (open, closed) = std::sync::mpsc::channel::<()>();
    let server = once("192.0.2.1:8080", move |s| {
        // Until the test is over.
        let _ = closed.recv();
        drop(s);
    });
    let mut talk = bench.talk(
        OLD,
        &[],
        "s = socket.create_connection(('192.0.2.1', 8080)); step('up'); s.sendall(b'x')\n\
         try: s.recv(1)\n\
         except OSError as e: print(errno.errorcode[e.errno])",
    );
    assert_eq!(talk.hear(), "up");
    bench.apply(NEW);
    assert_eq!(talk.go(), "ECONNABORTED");
    assert_eq!(talk.end(&bench).code, 0);
    drop(open);
    server.join().unwrap();
}

#[test]
fn what_the_wait_for_connections_gave_up_on_never_leaves() {
    let bench = Bench::new();
    let (go, over) = std::sync::mpsc::channel::<()>();
    let server = once("192.0.2.1:8080", move |mut s| {
        over.recv().unwrap();
        s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        drain(&mut s)
    });
    // More than the peer, who does not read, has room for: the rest waits in the orphaned socket.
    let out = bench.agent_with(
        OLD,
        &["--linger", "1"],
        "s = socket.create_connection(('192.0.2.1', 8080)); s.setblocking(False)\n\
         n = 0\n\
         try:\n\
         \x20   while True: n += s.send(bytes(65536))\n\
         except BlockingIOError: print(n)",
    );
    let handed_over: u64 = out.stdout.trim().parse().unwrap();
    go.send(()).unwrap();
    let arrived = server.join().unwrap().1;
    assert!(arrived < handed_over, "{arrived} of {handed_over}");
    fields(
        &out.records[0],
        &json!({"close_reason": "container_exit", "bytes_out": arrived, "verdict": "ALLOWED"}),
    );
    bench.nothing_left(&[]);
}

#[test]
fn a_cut_connection_out_of_reach_keeps_its_firewall_until_it_is_gone() {
    let bench = Bench::new();
    // Two namespaces of its own, so that the loader cannot get at the socket. It gives up by itself.
    let program = "import socket, sys, os, subprocess\n\
         subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n\
         subprocess.run(['ip', 'addr', 'add', '192.0.2.1/32', 'dev', 'lo'], check=True)\n\
         l = socket.create_server(('192.0.2.1', 8080))\n\
         s = socket.create_connection(('192.0.2.1', 8080)); a = l.accept()[0]\n\
         [x.setsockopt(6, 18, 5000) for x in (s, a)]; s.sendall(bytes(10)); a.recv(10)\n\
         print('up', flush=True); sys.stdin.readline()\n\
         s.sendall(bytes(77)); print('sent', flush=True); sys.stdin.readline()";
    let cmd = [
        "unshare",
        "--user",
        "--map-root-user",
        "--net",
        "python3",
        "-c",
        program,
    ];
    let mut talk = bench.converse(OLD, &["--linger", "1"], &cmd);
    assert_eq!(talk.hear(), "up");
    bench.apply(NEW);
    assert_eq!(talk.go(), "sent");
    let out = talk.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(
        out.stderr.contains("the firewall stays on them"),
        "{}",
        out.stderr
    );
    assert_eq!(bench.dump(&[]).len(), 1, "it is still attached");
    eventually("the socket to give up and the next run to clean up", || {
        let next = bench.run(None, &[], &["true"]);
        next.stderr.contains("cleaned up").then_some(())
    });
    bench.nothing_left(&[]);
}

#[test]
fn a_handshake_with_a_made_up_source_is_egress() {
    let bench = Bench::new();
    ip(&[
        "link", "add", "out0", "type", "veth", "peer", "name", "out1",
    ]);
    for end in ["out0", "out1"] {
        ip(&["link", "set", end, "up"]);
    }
    ip(&["-6", "route", "add", "default", "dev", "out0"]);
    let sniffer = Sniffer::start();
    let out = bench.agent(
        "rules: [{ name: six, dst: \"2001:db8::1\", proto: any }]\n",
        "l = socket.create_server(('2001:db8::1', 5000), family=socket.AF_INET6)\n\
         s = socket.socket(socket.AF_INET6); s.setsockopt(41, 78, 1); s.settimeout(1.5)\n\
         s.bind(('2001:db8:bad::1', 4444))\n\
         try: s.connect(('2001:db8::1', 5000)); print('yes')\n\
         except OSError: print('no')",
    );
    assert_eq!(out.stdout.trim(), "no");
    assert_eq!(sniffer.to("2001:db8:bad::1"), []);
    fields(
        out.matching(&[("direction", json!("ingress"))])
            .first()
            .expect("a record of the refusal"),
        &json!({"verdict": "DENIED", "src_ip": "2001:db8:bad::1", "src_port": 4444, "dst_port": 5000, "reason": "default"}),
    );
}
