//! Policies exchanged again and again under load: what both allow never breaks, what both deny never
//! passes, and the records say the same as the servers.

use ebpf_manager::enrol;
use kernel_tests::{
    check::{fields, flows, sum},
    engine::exchange,
    eventually,
    follow::replace,
    peer::{Far, listen},
    run::{Bench, Outcome},
    server::Place,
    talk::Talk,
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// 192.0.2.1 is open in both and 203.0.113.9 in neither, each time for another reason; 192.0.2.2 is open
/// in one.
const POLICIES: [&str; 2] = [
    "rules:\n\
     - { name: open, dst: 192.0.2.1, proto: any }\n\
     - { name: sometimes, dst: 192.0.2.2, proto: any }\n\
     - { name: never, dst: 203.0.113.0/24, proto: any, action: deny }\n",
    "rules:\n\
     - { name: filler, dst: 198.51.100.7, proto: tcp, port: 1-9 }\n\
     - { name: no more, dst: 192.0.2.2, proto: any, action: deny }\n\
     - { name: also open, dst: 192.0.2.0/24, proto: any }\n",
];

/// One process a kind of traffic, each until the pipe is closed; then each says its numbers. `must`
/// says which error, if any, is the only one that a call may end with.
const LOAD: &str = r#"
import json, select
stop, end = os.pipe()
def over(): return select.select([stop], [], [], 0.0005)[0]
def attempt(ip, port):
    s = socket.socket(); s.settimeout(10)
    return s, s.connect_ex((ip, port))
def calls(n):
    s, e = attempt('192.0.2.1', 8080); assert e == 0, e
    s.sendall(b'ask'); assert s.recv(9) == b'ask'; s.close(); n['calls'] += 1
def refused(n):
    s, e = attempt('203.0.113.9', 80); assert e == errno.EPERM, e
    s.close(); n['refused'] += 1
streams = []
def stream(n):
    if not streams:
        for i in range(4): s, e = attempt('192.0.2.1', 8081); assert e == 0, e; streams.append(s)
    for s in streams: s.sendall(bytes(100)); n['stream'] += 100
    for s in streams:
        got = 0
        while got < 100: b = s.recv(100 - got); assert b; got += len(b)
def patient():
    s = dgram(); s.settimeout(10)
    return s
sockets = []
def datagrams(n):
    if not sockets:
        sockets.append(patient()); s = patient(); s.connect(('192.0.2.1', 9000)); sockets.append(s)
    sockets[0].sendto(bytes(20), ('192.0.2.1', 9000)); sockets[1].send(bytes(20)); n['datagrams'] += 2
    for s in sockets: assert len(s.recv(99)) == 10
def nothing(n):
    if not sockets: sockets.append(patient())
    try: sockets[0].sendto(b'secret', ('203.0.113.9', 9000)); assert 0, 'passed'
    except PermissionError: n['nothing'] += 1
held = []
def sometimes(n):
    if not held:
        s, e = attempt('192.0.2.2', 8080); n['sometimes'] += e == 0
        assert e in (0, errno.EPERM, errno.ECONNABORTED), e
        s.settimeout(0.05)
        if e == 0: held.append(s)
    else:
        try: held[0].sendall(b'tick'); held[0].recv(9)
        except OSError: held.pop().close()
kinds = [calls, refused, stream, datagrams, nothing, sometimes]
for kind in kinds:
    if os.fork() == 0:
        os.close(end); n = {kind.__name__: 0}
        while not over(): kind(n)
        for s in streams + sockets + held: s.close()
        os.write(1, (json.dumps(n) + '\n').encode()); os._exit(0)
step('up'); os.close(end)
sys.exit(sum(os.wait()[1] != 0 for k in kinds))
"#;

/// Answers what comes on every connection; the bytes that came.
fn echo(addr: &str) -> Arc<AtomicU64> {
    let listener = listen(addr);
    let bytes = Arc::new(AtomicU64::new(0));
    let sum = Arc::clone(&bytes);
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let sum = Arc::clone(&sum);
            thread::spawn(move || {
                let mut buf = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buf) {
                    sum.fetch_add(n as u64, Ordering::SeqCst);
                    // A connection that was cut takes no answer.
                    let _ = stream.write_all(&buf[..n]);
                }
            });
        }
    });
    bytes
}

struct Load {
    bench: Bench,
    talk: Talk,
    called: Arc<AtomicU64>,
    streamed: Arc<AtomicU64>,
    answered: Far,
    never: Place,
    nothing: Far,
}

impl Load {
    /// Starts all traffic under the first policy.
    fn start(args: &[&str]) -> Self {
        let bench = Bench::new();
        let called = echo("192.0.2.1:8080");
        let streamed = echo("192.0.2.1:8081");
        echo("192.0.2.2:8080");
        let answered = Far::start("192.0.2.1:9000", true);
        let (never, nothing) = (
            Place::open("203.0.113.9:80"),
            Far::start("203.0.113.9:9000", false),
        );
        let mut all = vec!["--rate", "100000000", "--ring-kib", "16384", "-q"];
        all.extend(args);
        let mut talk = bench.talk(POLICIES[0], &all, LOAD);
        assert_eq!(talk.hear(), "up");
        Self {
            bench,
            talk,
            called,
            streamed,
            answered,
            never,
            nothing,
        }
    }

    /// Stops the traffic, and compares what every side says of it.
    /// `named`: the rule of every cut is known, as it is where policies stay for a moment.
    fn judge(mut self, named: bool) -> Outcome {
        self.talk.say("go");
        let mut numbers = serde_json::Map::new();
        for _ in 0..6 {
            let text = self.talk.hear();
            let Ok(more) = serde_json::from_str::<Value>(&text) else {
                panic!("{text:?}: {}", self.talk.end(&self.bench).stderr);
            };
            numbers.extend(more.as_object().unwrap().clone());
        }
        let n = |name: &str| numbers[name].as_u64().unwrap();
        let out = self.talk.end(&self.bench);
        assert_eq!(out.code, 0, "{}", out.stderr);
        println!("{numbers:?}");
        for kind in [
            "calls",
            "refused",
            "stream",
            "datagrams",
            "nothing",
            "sometimes",
        ] {
            assert!(n(kind) > 0, "{numbers:?}");
        }
        // What neither allows has reached nobody.
        assert_eq!((self.never.calls(), self.nothing.end()), (0, (0, 0)));
        let denied = out.matching(&[
            ("verdict", json!("DENIED")),
            ("dst_ip", json!("203.0.113.9")),
        ]);
        assert_eq!(flows(denied), n("refused") + n("nothing"));
        let all = out.matching(&[("dst_ip", json!("203.0.113.9"))]);
        assert_eq!(flows(all), n("refused") + n("nothing"));
        // What both allow has arrived, in as many flows as were opened, none of which was cut.
        let open =
            |port: u64| out.matching(&[("dst_ip", json!("192.0.2.1")), ("dst_port", json!(port))]);
        for (port, opened, bytes) in [
            (8080, n("calls"), self.called.load(Ordering::SeqCst)),
            (8081, 4, self.streamed.load(Ordering::SeqCst)),
            (9000, 2, self.answered.end().1),
        ] {
            let records = open(port);
            assert!(
                records
                    .iter()
                    .all(|r| r["verdict"] == "ALLOWED" && r["close_reason"] == "fin"),
                "{records:#?}"
            );
            assert_eq!(flows(records.iter().copied()), opened, "flows to {port}");
            assert_eq!(sum(records, "bytes_out"), bytes, "bytes to {port}");
        }
        assert_eq!(self.called.load(Ordering::SeqCst), n("calls") * 3);
        assert_eq!(self.streamed.load(Ordering::SeqCst), n("stream"));
        // What one of them allows was cut by the other.
        let cut = out.matching(&[("close_reason", json!("policy"))]);
        assert!(!cut.is_empty(), "nothing was cut");
        for r in cut {
            fields(r, &json!({"dst_ip": "192.0.2.2"}));
            assert!(r["rule"] == "no more" || (!named && r.get("rule").is_none()));
        }
        out
    }
}

#[test]
fn a_thousand_changes_neither_break_nor_open_anything() {
    let load = Load::start(&[]);
    let pins = load.bench.pins_of(&load.talk.instance());
    for i in 1..=1000 {
        let replaced = exchange(&pins, POLICIES[i % 2]);
        replaced.cleaned.unwrap();
        assert_eq!(replaced.config.generation as usize, i + 1);
    }
    let out = load.judge(false);
    assert_eq!(out.events.last().unwrap()["generation"], json!(1001));
}

#[test]
fn fifty_changes_of_the_file_neither_break_nor_open_anything() {
    let load = Load::start(&["--reload"]);
    let file = load.bench.path("policy.yaml");
    let pins = load.bench.pins_of(&load.talk.instance());
    for i in 1..=50 {
        replace(&file, POLICIES[i % 2]);
        eventually("the change to be applied", || {
            let (_, config) = enrol::current(&pins, 1).unwrap().unwrap();
            (config.generation as usize == i + 1).then_some(())
        });
    }
    let out = load.judge(true);
    assert_eq!(out.events.len(), 50);
}
