//! A policy that changes while flows live.

use kernel_tests::{
    PATIENCE,
    check::fields,
    eventually,
    net::{HERE, THERE, neighbour},
    peer::{drain, once, take},
    run::Bench,
    sniff::Sniffer,
    talk::Talk,
};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    net::{TcpStream, UdpSocket},
    time::Duration,
};

const OLD: &str = "version: 1\nrules:\n\
    - { name: one, dst: 192.0.2.1, proto: any }\n\
    - { name: two, dst: 192.0.2.2, proto: any }\n";
/// What allowed `one` is gone; `two` is allowed under another name and number.
const NEW: &str = "version: 1\nrules:\n\
    - { name: filler, dst: 198.51.100.7, proto: any }\n\
    - { name: not one, dst: 192.0.2.1, proto: any, action: deny }\n\
    - { name: still two, dst: 192.0.2.2, proto: any }\n";

/// Starts a program under [`OLD`] and waits until it says that it is up.
fn up(bench: &Bench, program: &str) -> Talk {
    let roomy = ["--rate", "1000000", "--ring-kib", "16384"];
    let mut talk = bench.talk(OLD, &roomy, program);
    assert_eq!(talk.hear(), "up");
    talk
}

#[test]
fn an_established_connection_that_the_new_policy_denies_is_cut() {
    let bench = Bench::new();
    let hold = |n| {
        move |mut s: TcpStream| {
            take(&mut s, n);
            drain(&mut s)
        }
    };
    let (one, two) = (
        once("192.0.2.1:8080", hold(1000)),
        once("192.0.2.2:8080", hold(2000)),
    );
    let mut agent = up(
        &bench,
        "a = socket.create_connection(('192.0.2.1', 8080)); b = socket.create_connection(('192.0.2.2', 8080))\n\
         a.sendall(bytes(1000)); b.sendall(bytes(2000)); step('up')\n\
         a.sendall(bytes(77)); b.sendall(bytes(33)); b.close()\n\
         say(errno.errorcode[socket.socket().connect_ex(('192.0.2.1', 8080))]); hear()",
    );
    bench.acknowledged(3000);
    let sniffer = Sniffer::start();
    bench.apply(NEW);
    assert_eq!(agent.go(), "EPERM");
    eventually("the cut flow's record", || {
        bench
            .records()
            .iter()
            .any(|r| r["close_reason"] == "policy")
            .then_some(())
    });
    assert_eq!(
        sniffer.payload("192.0.2.1"),
        0,
        "not a byte after the new policy"
    );
    agent.say("go");
    let out = agent.end(&bench);
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
    let mut agent = up(
        &bench,
        "a = socket.create_connection(('192.0.2.1', 8080)); a.sendall(bytes(10)); say('up'); say(a.recv(6).decode()); hear()\n\
         a.settimeout(0.3)\n\
         try: say(a.recv(5))\n\
         except (TimeoutError, ConnectionAbortedError): say('silence')",
    );
    assert_eq!(agent.hear(), "before");
    bench.apply(NEW);
    go.send(()).unwrap();
    let stream = server.join().unwrap().1;
    assert_eq!(agent.go(), "silence");
    let out = agent.end(&bench);
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
            s.set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
        }
        let open = if connected {
            "s.connect(to); send = s.send"
        } else {
            "send = lambda b: s.sendto(b, to)"
        };
        let mut agent = up(
            &bench,
            &format!(
                "def aim(to):\n\
                 \x20   s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); {open}\n\
                 \x20   return s, send\n\
                 a, b = aim(('192.0.2.1', 5000)), aim(('192.0.2.2', 5000))\n\
                 a[1](bytes(100)); b[1](bytes(200)); step('up')\n\
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
        bench.apply(NEW);
        agent.say("go");
        let heard: Vec<String> = (0..4).map(|_| agent.hear()).collect();
        let out = agent.end(&bench);
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
fn the_answer_to_a_peer_passes_under_another_policy_than_its_question() {
    let bench = Bench::new();
    // No rule of either policy allows the peer's address: the answer is not egress.
    let mut agent = up(
        &bench,
        "s = dgram(); s.bind(('0.0.0.0', 7000)); say('up')\n\
         d, a = s.recvfrom(999); step('heard'); s.sendto(bytes(2 * len(d)), a)",
    );
    let peer = neighbour(|| {
        let peer = UdpSocket::bind((THERE, 0)).unwrap();
        peer.send_to(&[0; 333], (HERE, 7000)).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer
    });
    assert_eq!(agent.hear(), "heard");
    bench.apply(NEW);
    agent.say("go");
    let answer = peer.recv(&mut [0; 999]);
    let out = agent.end(&bench);
    assert_eq!((out.code, answer.unwrap()), (0, 666), "{}", out.stderr);
    out.is_one(&json!({
        "verdict": "ALLOWED", "direction": "ingress", "src_ip": THERE, "dst_ip": HERE, "dst_port": 7000,
        "bytes_in": 333, "bytes_out": 666, "packets_in": 1, "packets_out": 1, "close_reason": "fin",
    }));
}

#[test]
fn a_wrong_policy_leaves_the_running_one() {
    let bench = Bench::new();
    let mut agent = up(
        &bench,
        "step('up'); say(errno.errorcode[socket.socket().connect_ex(('192.0.2.1', 80))], errno.errorcode[socket.socket().connect_ex(('203.0.113.9', 80))])",
    );
    let before: Vec<Value> = bench.dump(&["--policy"]);
    let ports: String = (1..130)
        .map(|p| format!("- {{ dst: 192.0.2.1, proto: tcp, port: {p} }}\n"))
        .collect();
    for wrong in ["rules: 5\n", &format!("rules:\n{ports}")] {
        let out = bench.try_apply(wrong);
        assert_eq!(out.status.code(), Some(2));
        assert_eq!(bench.dump(&["--policy"]), before);
    }
    assert_eq!(agent.go(), "ECONNREFUSED EPERM");
    assert_eq!(agent.end(&bench).code, 0);
}

#[test]
fn applying_again_and_again_under_load_neither_cuts_nor_denies_what_stays_allowed() {
    let bench = Bench::new();
    let server = once("192.0.2.2:8080", |mut s| drain(&mut s));
    let mut agent = up(
        &bench,
        "s = socket.create_connection(('192.0.2.2', 8080)); say('up'); stop = []; n = 0\n\
         threading.Thread(target=lambda: (hear(), stop.append(1))).start()\n\
         while not stop:\n\
         \x20   s.sendall(bytes(100)); n += 100\n\
         \x20   assert socket.socket().connect_ex(('192.0.2.2', 81)) == 111\n\
         s.close(); say(n)",
    );
    for i in 0..10 {
        bench.apply(if i % 2 == 0 { NEW } else { OLD });
    }
    agent.say("go");
    let n: u64 = agent.hear().parse().unwrap();
    let out = agent.end(&bench);
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
