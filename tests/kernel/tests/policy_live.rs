//! A policy that changes while flows live.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as the tests themselves do"
)]

use kernel_tests::{
    check::fields,
    eventually,
    peer::{drain, once, take},
    run::{Bench, line, tell},
    sniff::Sniffer,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufReader, Write as _},
    net::UdpSocket,
    process::{Child, ChildStdout},
};

const OLD: &str = "version: 1\nrules:\n\
    - { name: one, dst: 192.0.2.1, proto: any }\n\
    - { name: two, dst: 192.0.2.2, proto: any }\n";
/// What allowed `one` is gone; `two` is allowed under another name and number.
const NEW: &str = "version: 1\nrules:\n\
    - { name: filler, dst: 198.51.100.7, proto: any }\n\
    - { name: not one, dst: 192.0.2.1, proto: any, action: deny }\n\
    - { name: still two, dst: 192.0.2.2, proto: any }\n";

fn spawn(bench: &Bench, program: &str) -> (Child, BufReader<ChildStdout>) {
    let program = format!(
        "import errno,socket,sys\n\
         def say(*a): print(*a, flush=True)\n\
         def hear(): return sys.stdin.readline()\n{program}"
    );
    let mut child = bench.spawn(
        Some(OLD),
        &["--rate", "1000000", "--ring-kib", "16384"],
        &["python3", "-c", &program],
    );
    let mut said = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut said), "up");
    (child, said)
}

fn apply(bench: &Bench, text: &str, args: &[&str]) {
    let file = bench.path("new.yaml");
    fs::write(&file, text).unwrap();
    let instance = bench.dump(&[])[0]["instance"].as_str().unwrap().to_owned();
    let out = bench
        .manager()
        .args(["policy", "apply"])
        .arg(&file)
        .args(["--instance", &instance])
        .args(args)
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// TCP payload that leaves for an address.
fn payload(sniffer: &Sniffer, to: &str) -> usize {
    let of = |rest: &[u8]| rest.len() - usize::from(rest[12] >> 4) * 4;
    sniffer
        .to(to)
        .iter()
        .filter(|p| p.proto == 6)
        .map(|p| of(&p.rest))
        .sum()
}

#[test]
fn an_established_connection_that_the_new_policy_denies_is_cut() {
    let bench = Bench::new();
    let hold = |n| {
        move |mut s: std::net::TcpStream| {
            take(&mut s, n);
            s.set_read_timeout(Some(std::time::Duration::from_secs(3)))
                .unwrap();
            drain(&mut s)
        }
    };
    let (one, two) = (
        once("192.0.2.1:8080", hold(1000)),
        once("192.0.2.2:8080", hold(2000)),
    );
    let (mut child, mut said) = spawn(
        &bench,
        "a = socket.create_connection(('192.0.2.1', 8080)); b = socket.create_connection(('192.0.2.2', 8080))\n\
         a.sendall(bytes(1000)); b.sendall(bytes(2000)); say('up'); hear()\n\
         a.sendall(bytes(77)); b.sendall(bytes(33)); b.close()\n\
         say(errno.errorcode[socket.socket().connect_ex(('192.0.2.1', 8080))]); hear()",
    );
    eventually("all bytes to be acknowledged", || {
        let live = bench.dump(&["--flows"]);
        (live
            .iter()
            .map(|l| l["bytes_out"].as_u64().unwrap())
            .sum::<u64>()
            == 3000)
            .then_some(())
    });
    let sniffer = Sniffer::start();
    apply(&bench, NEW, &[]);
    tell(&mut child);
    assert_eq!(line(&mut said), "EPERM");
    eventually("the cut flow's record", || {
        bench
            .records()
            .iter()
            .any(|r| r["close_reason"] == "policy")
            .then_some(())
    });
    assert_eq!(
        payload(&sniffer, "192.0.2.1"),
        0,
        "not a byte after the new policy"
    );
    tell(&mut child);
    let out = bench.finish(child);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(out.records.len(), 3, "{:#?}", out.records);
    fields(
        out.only(&[
            ("dst_ip", json!("192.0.2.1")),
            ("verdict", json!("ALLOWED")),
        ]),
        &json!({"close_reason": "policy", "rule": "not one", "reason": "rule", "bytes_out": 1000, "bytes_in": 0}),
    );
    fields(
        out.only(&[("dst_ip", json!("192.0.2.1")), ("verdict", json!("DENIED"))]),
        &json!({"close_reason": "denied", "rule": "not one", "reason": "rule"}),
    );
    fields(
        out.only(&[("dst_ip", json!("192.0.2.2"))]),
        &json!({"verdict": "ALLOWED", "close_reason": "fin", "bytes_out": 2033, "rule": "two"}),
    );
    assert_eq!(two.join().unwrap().1, 33);
    drop(one);
}

#[test]
fn a_cut_connection_gets_nothing_from_its_peer_either() {
    let bench = Bench::new();
    let (go, applied) = std::sync::mpsc::channel::<()>();
    let server = once("192.0.2.1:8080", move |mut s| {
        take(&mut s, 10);
        s.write_all(b"before").unwrap();
        applied.recv().unwrap();
        s.write_all(b"after").unwrap();
        s
    });
    let (mut child, mut said) = spawn(
        &bench,
        "a = socket.create_connection(('192.0.2.1', 8080)); a.sendall(bytes(10)); say('up'); say(a.recv(6).decode()); hear()\n\
         a.settimeout(0.3)\n\
         try: say(a.recv(5))\n\
         except TimeoutError: say('silence')",
    );
    assert_eq!(line(&mut said), "before");
    apply(&bench, NEW, &[]);
    go.send(()).unwrap();
    let stream = server.join().unwrap().1;
    tell(&mut child);
    assert_eq!(line(&mut said), "silence");
    let out = bench.finish(child);
    drop(stream);
    assert_eq!(out.records.len(), 1, "{:#?}", out.records);
    fields(
        &out.records[0],
        &json!({"verdict": "ALLOWED", "close_reason": "policy", "rule": "not one", "bytes_out": 10, "bytes_in": 6}),
    );
}

#[test]
fn datagram_flows_are_cut_too() {
    for connected in [true, false] {
        let bench = Bench::new();
        let (one, two) = (
            UdpSocket::bind("192.0.2.1:5000").unwrap(),
            UdpSocket::bind("192.0.2.2:5000").unwrap(),
        );
        for s in [&one, &two] {
            s.set_read_timeout(Some(std::time::Duration::from_millis(100)))
                .unwrap();
        }
        let open = if connected {
            "s.connect(to); send = s.send"
        } else {
            "send = lambda b: s.sendto(b, to)"
        };
        let (mut child, mut said) = spawn(
            &bench,
            &format!(
                "def aim(to):\n\
                 \x20   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); {open}\n\
                 \x20   return s, send\n\
                 a, b = aim(('192.0.2.1', 5000)), aim(('192.0.2.2', 5000))\n\
                 a[1](bytes(100)); b[1](bytes(200)); say('up'); hear()\n\
                 for x in (a, b):\n\
                 \x20   for n in range(2):\n\
                 \x20       try: say(x[1](bytes(7)))\n\
                 \x20       except PermissionError: say('EPERM')"
            ),
        );
        let mut buf = [0; 999];
        assert_eq!(
            (one.recv(&mut buf).unwrap(), two.recv(&mut buf).unwrap()),
            (100, 200)
        );
        apply(&bench, NEW, &[]);
        tell(&mut child);
        let heard: Vec<String> = (0..4).map(|_| line(&mut said)).collect();
        let out = bench.finish(child);
        assert_eq!(heard, ["EPERM", "EPERM", "7", "7"], "{}", out.stderr);
        assert!(one.recv(&mut buf).is_err(), "nothing after the cut");
        let denied = out.matching(&[("verdict", json!("DENIED"))]);
        for r in &denied {
            fields(
                r,
                &json!({"dst_ip": "192.0.2.1", "rule": "not one", "bytes_out": 0}),
            );
        }
        fields(
            out.only(&[("close_reason", json!("policy"))]),
            &json!({"verdict": "ALLOWED", "dst_ip": "192.0.2.1", "rule": "not one", "bytes_out": 100, "packets_out": 1}),
        );
        fields(
            out.only(&[("dst_ip", json!("192.0.2.2"))]),
            &json!({"verdict": "ALLOWED", "close_reason": "fin", "bytes_out": 214, "packets_out": 3, "rule": "two"}),
        );
    }
}

#[test]
fn a_wrong_policy_leaves_the_running_one() {
    let bench = Bench::new();
    let (mut child, mut said) = spawn(
        &bench,
        "say('up'); hear(); say(errno.errorcode[socket.socket().connect_ex(('192.0.2.1', 80))], errno.errorcode[socket.socket().connect_ex(('203.0.113.9', 80))])",
    );
    let file = bench.path("bad.yaml");
    fs::write(&file, "version: 1\nrules: 5\n").unwrap();
    let instance = bench.dump(&[])[0]["instance"].as_str().unwrap().to_owned();
    let before: Vec<Value> = bench.dump(&["--policy"]);
    let out = bench
        .manager()
        .args(["policy", "apply"])
        .arg(&file)
        .args(["--instance", &instance])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(bench.dump(&["--policy"]), before);
    tell(&mut child);
    assert_eq!(line(&mut said), "ECONNREFUSED EPERM");
    assert_eq!(bench.finish(child).code, 0);
}

#[test]
fn applying_again_and_again_under_load_neither_cuts_nor_denies_what_stays_allowed() {
    let bench = Bench::new();
    let server = once("192.0.2.2:8080", |mut s| drain(&mut s));
    let (mut child, mut said) = spawn(
        &bench,
        "import threading\n\
         s = socket.create_connection(('192.0.2.2', 8080)); say('up'); stop = []; n = 0\n\
         threading.Thread(target=lambda: (hear(), stop.append(1))).start()\n\
         while not stop:\n\
         \x20   s.sendall(bytes(100)); n += 100\n\
         \x20   assert socket.socket().connect_ex(('192.0.2.2', 81)) == 111\n\
         s.close(); say(n)",
    );
    for i in 0..10 {
        apply(&bench, if i % 2 == 0 { NEW } else { OLD }, &[]);
    }
    tell(&mut child);
    let n: u64 = line(&mut said).parse().unwrap();
    let out = bench.finish(child);
    assert_eq!(
        (out.code, server.join().unwrap().1),
        (0, n),
        "{}",
        out.stderr
    );
    fields(
        out.only(&[("dst_port", json!(8080))]),
        &json!({"bytes_out": n, "close_reason": "fin", "verdict": "ALLOWED"}),
    );
    assert!(out.records.iter().all(|r| r["verdict"] == "ALLOWED"));
    assert!(
        out.records
            .iter()
            .all(|r| r["rule"] == "two" || r["rule"] == "still two"),
        "{:?}",
        out.records
            .iter()
            .map(|r| r["rule"].clone())
            .collect::<std::collections::HashSet<_>>()
    );
}
