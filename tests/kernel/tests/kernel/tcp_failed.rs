//! TCP connections that never were, or that failed: each is one record all the same.

use kernel_tests::{
    check::fields,
    eventually,
    net::{BLACK_HOLE, black_hole, ip},
    peer::{drain, once, take},
    policies::TCP,
    run::Bench,
};
use serde_json::json;
use std::{net::TcpListener, sync::mpsc};

#[test]
fn refused_again_and_again_then_accepted_on_one_socket() {
    let bench = Bench::new();
    let server = once("192.0.2.1:8080", |mut s| drain(&mut s));
    let out = bench.agent(
        TCP,
        "s = socket.socket()\n\
         for port in (81, 82, 83): assert s.connect_ex(('192.0.2.1', port)) == 111\n\
         s.connect(('192.0.2.1', 8080)); s.sendall(b'x' * 77); s.close()",
    );
    assert_eq!(server.join().unwrap().1, 77);
    assert_eq!(out.records.len(), 4);
    for port in [81, 82, 83] {
        fields(
            out.only(&[("dst_port", json!(port))]),
            &json!({"verdict": "ALLOWED", "rule": "doc nets", "bytes_out": 0, "bytes_in": 0, "close_reason": "refused"}),
        );
    }
    fields(
        out.only(&[("dst_port", json!(8080))]),
        &json!({"bytes_out": 77, "bytes_in": 0, "close_reason": "fin"}),
    );
}

#[test]
fn nobody_answers() {
    let bench = Bench::new();
    black_hole();
    let out = bench.agent(
        TCP,
        &format!(
            "s = socket.socket(); s.setsockopt(6, 18, 300)\n\
             assert s.connect_ex(('{BLACK_HOLE}', 8080)) == 110"
        ),
    );
    out.is_one(&json!({"verdict": "ALLOWED", "dst_ip": BLACK_HOLE, "bytes_out": 0, "bytes_in": 0, "close_reason": "timeout"}),
    );
}

#[test]
fn nobody_answers_and_the_application_gives_up() {
    let bench = Bench::new();
    black_hole();
    let out = bench.agent(
        TCP,
        &format!(
            "s = socket.socket(); s.setblocking(False)\n\
             assert s.connect_ex(('{BLACK_HOLE}', 8080)) == 115\n\
             assert s.connect_ex(('{BLACK_HOLE}', 8080)) == 114\n\
             s.close()"
        ),
    );
    out.is_one(&json!({"bytes_out": 0, "bytes_in": 0, "close_reason": "timeout"}));
}

#[test]
fn no_way_to_the_peer() {
    let bench = Bench::new();
    ip(&["route", "add", "unreachable", "198.51.100.128/25"]);
    let out = bench.agent(
        TCP,
        "s = socket.socket()\n\
         for port in (1, 2): assert s.connect_ex(('198.51.100.129', port)) == 113",
    );
    assert_eq!(out.records.len(), 2);
    for port in [1, 2] {
        fields(
            out.only(&[("dst_port", json!(port))]),
            &json!({"verdict": "ALLOWED", "rule": "far", "src_ip": null, "bytes_out": 0, "packets_out": 0, "close_reason": "unreachable"}),
        );
    }
}

#[test]
fn a_peer_that_vanishes_is_a_timeout() {
    let bench = Bench::new();
    let (go, gone) = mpsc::channel::<()>();
    let server = once("192.0.2.1:8080", move |mut s| {
        take(&mut s, 1000);
        ip(&["addr", "del", "192.0.2.1/32", "dev", "lo"]);
        gone.recv().unwrap();
    });
    let mut agent = bench.talk(
        TCP,
        &[],
        "s = socket.socket(); s.bind(('192.0.2.2', 0)); s.connect(('192.0.2.1', 8080))\n\
         s.setsockopt(6, 18, 300); s.sendall(b'x' * 1000); hear(); s.sendall(b'y' * 50)\n\
         try: s.recv(1); sys.exit(9)\n\
         except (TimeoutError, OSError) as e: print(e.errno)",
    );
    eventually("the address to be gone", || {
        TcpListener::bind("192.0.2.1:0").is_err().then_some(())
    });
    agent.say("go");
    let out = agent.end(&bench);
    go.send(()).unwrap();
    server.join().unwrap();
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (0, "110\n"),
        "{}",
        out.stderr
    );
    out.is_one(&json!({"bytes_out": 1000, "bytes_in": 0, "close_reason": "timeout"}));
}
