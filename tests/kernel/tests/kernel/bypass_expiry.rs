//! The end of a bypass by time: with the loader and without it, and whatever happened meanwhile.

use kernel_tests::{
    check::fields,
    peer::{drain, once},
    run::Bench,
    sniff::{Seen, Sniffer},
    talk::Talk,
};
use serde_json::json;
use std::net::UdpSocket;

const POLICY: &str = "version: 1\nrules:\n- { name: one, dst: 192.0.2.1, proto: any }\n";

/// Opens a connection and a datagram flow to a denied peer under a bypass, and goes on until it ends.
const AGENT: &str = "\
step('up')\n\
s = dial('203.0.113.9'); s.sendall(bytes(100))\n\
u = dgram(); u.connect(('203.0.113.9', 81)); u.send(b'12')\n\
w = dgram(); w.sendto(b'123', ('203.0.113.9', 82))\n\
step('open')\n\
until('EPERM', lambda: told(b'x', '203.0.113.9', 83))\n\
step('over')\n\
def quiet(f):\n\
\x20   try: f()\n\
\x20   except OSError: pass\n\
for i in range(20):\n\
\x20   quiet(lambda: s.send(b'SECRET')); quiet(lambda: u.send(b'SECRET')); quiet(lambda: w.sendto(b'SECRET', ('203.0.113.9', 82)))\n\
\x20   quiet(lambda: dial('203.0.113.9')); time.sleep(0.01)\n\
step('tried')\n";

fn up(bench: &Bench) -> Talk {
    let mut talk = bench.talk(POLICY, &["--agent", "reviewer"], AGENT);
    assert_eq!(talk.hear(), "up");
    let _ = bench.socket(talk.pid());
    talk
}

fn lift(bench: &Bench, time: &str) {
    let done = bench.order(&[
        "bypass", "--agent", "reviewer", "--for", time, "--reason", "x",
    ]);
    assert_eq!(done.len(), 1);
}

/// Whether a packet goes to the denied peer and carries what must not leave.
fn secret(p: &Seen) -> bool {
    p.rest.windows(6).any(|w| w == b"SECRET")
}

/// Somebody at the ports of the denied peer. A connection that is cut there has no end.
fn servers() -> [UdpSocket; 3] {
    drop(once("203.0.113.9:8080", |mut s| drain(&mut s)));
    [81, 82, 83].map(|p| UdpSocket::bind(("203.0.113.9", p)).unwrap())
}

#[test]
fn it_ends_by_time_with_a_record() {
    let bench = Bench::new();
    let _heard = servers();
    let mut talk = up(&bench);
    lift(&bench, "2s");
    assert_eq!(talk.go(), "open");
    assert_eq!(talk.go(), "over");
    let wire = Sniffer::start();
    assert_eq!(talk.go(), "tried");
    assert!(!wire.packets().iter().any(secret));
    let ended = bench.audited("enforce", 1);
    fields(
        &ended[0],
        &json!({"cause": "expired", "agent": "reviewer", "bypass_by": "root, uid 0", "bypass_reason": "x"}),
    );
    assert!(ended[0].get("actor_uid").is_none());
    let out = talk.end(&bench);
    assert_eq!(out.events.len(), 2, "{:#?}", out.events);
    let begun: jiff::Timestamp = out.events[0]["bypass_until"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let over: jiff::Timestamp = out.events[1]["bypass_until"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        begun.duration_since(over).abs().as_millis() < 500,
        "{:#?}",
        out.events
    );
    for (port, bytes) in [(8080, 100), (81, 2), (82, 3)] {
        fields(
            out.only(&[("dst_port", json!(port)), ("verdict", json!("BYPASSED"))]),
            &json!({"close_reason": "policy", "bytes_out": bytes, "reason": "bypass"}),
        );
    }
}

#[test]
fn a_killed_loader_does_not_leave_it_open() {
    let bench = Bench::new();
    let _heard = servers();
    let mut talk = up(&bench);
    lift(&bench, "3s");
    assert_eq!(talk.go(), "open");
    talk.kill_loader();
    assert_eq!(talk.go(), "over");
    let wire = Sniffer::start();
    assert_eq!(talk.go(), "tried");
    assert!(
        !wire.packets().iter().any(secret),
        "something left after the bypass"
    );
    // Live flows were cut: whatever is alive was never bypassed.
    let live = bench.dump(&["--flows"]);
    assert!(live.iter().all(|f| f["verdict"] != "BYPASSED"), "{live:#?}");
    let row = &bench.dump(&[])[0];
    assert_eq!(
        (&row["bypass_until"], &row["bypass_by"]),
        (&json!(null), &json!(null))
    );
    fields(row, &json!({"mode": "enforce"}));
    talk.end(&bench);
}

#[test]
fn what_was_judged_again_under_a_bypass_ends_with_it_all_the_same() {
    let bench = Bench::new();
    let _heard = servers();
    let mut talk = bench.talk(POLICY, &["--agent", "reviewer"], &format!(
        "a = dial('192.0.2.1', 8081); a.sendall(b'x'); b = dgram(); b.connect(('192.0.2.1', 84)); b.send(b'x')\n\
         {}",
        AGENT.replace("step('open')", "step('open'); a.sendall(b'yy'); b.send(b'yy'); s.sendall(b'z'); u.send(b'z'); w.sendto(b'z', ('203.0.113.9', 82)); step('again')")
             .replace("quiet(lambda: s.send", "quiet(lambda: a.send(b'SECRET')); quiet(lambda: b.send(b'SECRET')); quiet(lambda: s.send")
    ));
    let _old = UdpSocket::bind("192.0.2.1:84").unwrap();
    let _older = once("192.0.2.1:8081", |mut s| drain(&mut s));
    assert_eq!(talk.hear(), "up");
    let _ = bench.socket(talk.pid());
    lift(&bench, "4s");
    assert_eq!(talk.go(), "open");
    // Under the bypass every live flow is judged again, by a policy that denies all of them.
    bench.apply("version: 1\nrules: []\n");
    lift(&bench, "4s");
    assert_eq!(talk.go(), "again");
    assert_eq!(talk.go(), "over");
    let wire = Sniffer::start();
    assert_eq!(talk.go(), "tried");
    assert!(
        !wire.packets().iter().any(secret),
        "a judgement of the bypass has outlived it"
    );
    let out = talk.end(&bench);
    for (port, bytes, verdict) in [
        (8080, 101, "BYPASSED"),
        (81, 3, "BYPASSED"),
        (82, 4, "BYPASSED"),
        (8081, 3, "ALLOWED"),
        (84, 3, "ALLOWED"),
    ] {
        fields(
            out.only(&[("dst_port", json!(port)), ("verdict", json!(verdict))]),
            &json!({"close_reason": "policy", "bytes_out": bytes}),
        );
    }
}

#[test]
fn what_the_policy_allows_lives_on_after_it() {
    let bench = Bench::new();
    let server = once("192.0.2.1:8081", |mut s| drain(&mut s));
    let mut talk = bench.talk(
        POLICY,
        &["--agent", "reviewer"],
        "step('up'); a = dial('192.0.2.1', 8081); a.sendall(b'123'); step('open')\n\
         until('EPERM', lambda: told(b'x', '203.0.113.9', 83)); a.sendall(b'4567'); a.close(); step('done')",
    );
    assert_eq!(talk.hear(), "up");
    let _ = bench.socket(talk.pid());
    lift(&bench, "1s");
    assert_eq!(talk.go(), "open");
    assert_eq!(talk.go(), "done");
    assert_eq!(server.join().unwrap().1, 7);
    let out = talk.end(&bench);
    fields(
        out.only(&[("dst_port", json!(8081))]),
        &json!({"verdict": "BYPASSED", "close_reason": "fin", "bytes_out": 7}),
    );
}
