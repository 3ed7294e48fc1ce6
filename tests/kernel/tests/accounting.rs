//! The accounting identity: every flow that ended in the kernel is in a record or told as lost, to the
//! last one, however fast they come and whoever dies.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as the tests themselves do"
)]

use kernel_tests::{
    check::{fields, flows, sum},
    eventually,
    peer::drain,
    run::{Bench, Outcome, line, signal, tell},
};
use nix::{libc, sys::signal::Signal};
use serde_json::{Value, json};
use std::{
    io::BufReader,
    net::TcpListener,
    os::fd::AsRawFd as _,
    process::{Child, ChildStdout},
    thread::{self, JoinHandle},
};

const POLICY: &str =
    "version: 1\nrules:\n  - { name: web, dst: 192.0.2.0/24, proto: tcp, port: 1-65535 }\n";

/// A flood of refused connections, four processes of 5000.
const DENIED_FLOOD: &str = "import os,socket\n\
    for p in range(4):\n\
    \x20   if os.fork() == 0:\n\
    \x20       for i in range(5000):\n\
    \x20           s = socket.socket(); assert s.connect_ex(('203.0.113.9', 80)) == 1; s.close()\n\
    \x20       os._exit(0)\n\
    for p in range(4): assert os.wait()[1] == 0";

/// Accepts `n` connections and reads each to its end; the bytes that came.
fn server(addr: &str, n: usize) -> JoinHandle<u64> {
    let listener = TcpListener::bind(addr).unwrap();
    // SAFETY: a listening socket may be told to listen again.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4096) }, 0);
    thread::spawn(move || {
        (0..n)
            .map(|_| drain(&mut listener.accept().unwrap().0))
            .sum()
    })
}

fn counter(rows: &[Value], name: &str) -> u64 {
    let row = rows.iter().find(|r| r["counter"] == name);
    row.unwrap_or_else(|| panic!("no counter {name} in {rows:#?}"))["value"]
        .as_u64()
        .unwrap()
}

fn ended(rows: &[Value]) -> u64 {
    ["ended_allowed", "ended_denied", "ended_bypassed"]
        .iter()
        .map(|n| counter(rows, n))
        .sum()
}

#[track_caller]
fn nothing_lost(out: &Outcome) {
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains(" 0 lost"), "{}", out.stderr);
    let mut ids: Vec<_> = out
        .records
        .iter()
        .map(|r| r["flow_id"].as_str().unwrap())
        .collect();
    let n = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), n, "flow ids repeat");
}

#[test]
fn twenty_thousand_refusals_are_all_there() {
    let bench = Bench::new();
    let out = bench.run(Some(POLICY), &[], &["python3", "-c", DENIED_FLOOD]);
    nothing_lost(&out);
    assert_eq!(flows(&out.records), 20_000);
    for r in &out.records {
        fields(
            r,
            &json!({"verdict": "DENIED", "reason": "default", "dst_ip": "203.0.113.9", "dst_port": 80, "bytes_out": 0}),
        );
    }
    assert!(
        out.records.iter().any(|r| r["count"].is_u64()),
        "nothing was folded"
    );
}

#[test]
fn a_full_ring_folds_what_it_cannot_take() {
    let bench = Bench::new();
    let args = ["--ring-kib", "4", "--rate", "100000000"];
    let out = bench.run(Some(POLICY), &args, &["python3", "-c", DENIED_FLOOD]);
    nothing_lost(&out);
    assert_eq!(flows(&out.records), 20_000);
    let folded: Vec<_> = out.records.iter().filter(|r| r["count"].is_u64()).collect();
    assert!(!folded.is_empty(), "the ring never filled up");
    for r in folded {
        fields(
            r,
            &json!({"verdict": "DENIED", "reason": "default", "dst_ip": "203.0.113.9", "close_reason": null}),
        );
        assert!(r["first_time"].as_str() <= r["time"].as_str());
    }
}

#[test]
fn allowed_flows_fold_with_their_bytes() {
    const N: usize = 20_000;
    let bench = Bench::new();
    let server = server("192.0.2.1:8080", N);
    let out = bench.run(
        Some(POLICY),
        &["--ring-kib", "4", "--rate", "10"],
        &[
            "python3",
            "-c",
            "import os,socket\n\
             for p in range(4):\n\
             \x20   if os.fork() == 0:\n\
             \x20       for i in range(5000): s = socket.create_connection(('192.0.2.1', 8080)); s.send(bytes(i % 97 + 1)); s.shutdown(1); s.recv(1); s.close()\n\
             \x20       os._exit(0)\n\
             for p in range(4): assert os.wait()[1] == 0",
        ],
    );
    let sent = 4 * (0..5000).map(|i| i % 97 + 1).sum::<u64>();
    nothing_lost(&out);
    assert_eq!(server.join().unwrap(), sent);
    assert_eq!(flows(&out.records), N as u64);
    assert_eq!(
        (
            sum(&out.records, "bytes_out"),
            sum(&out.records, "bytes_in")
        ),
        (sent, 0)
    );
    assert!(
        out.records
            .iter()
            .all(|r| r["verdict"] == "ALLOWED" && r["rule"] == "web" && r["dst_port"] == 8080)
    );
}

#[test]
fn more_destinations_than_fold_rows_still_add_up() {
    const N: usize = 3000;
    let bench = Bench::new();
    bench_ports(N);
    let listeners: Vec<_> = (0..N)
        .map(|i| server(&format!("192.0.2.1:{}", 10_000 + i), 1))
        .collect();
    let out = bench.run(
        Some(POLICY),
        &["--rate", "0"],
        &[
            "python3",
            "-c",
            &format!(
                "import socket\n\
                 for i in range({N}):\n\
                 \x20   s = socket.create_connection(('192.0.2.1', 10_000 + i)); s.send(bytes(i + 1)); s.close()\n\
                 \x20   s = socket.socket(); assert s.connect_ex(('203.0.113.9', i + 1000)) == 1; s.close()"
            ),
        ],
    );
    nothing_lost(&out);
    let sent = (1..=N as u64).sum::<u64>();
    assert_eq!(
        listeners
            .into_iter()
            .map(|l| l.join().unwrap())
            .sum::<u64>(),
        sent
    );
    for (verdict, bytes) in [("ALLOWED", sent), ("DENIED", 0)] {
        let of = out.matching(&[("verdict", json!(verdict))]);
        assert!(
            of.iter().all(|r| r["count"].is_u64()),
            "a rate of 0 folds every flow"
        );
        assert_eq!(flows(of.iter().copied()), N as u64, "{verdict}");
        assert_eq!(sum(of.iter().copied(), "bytes_out"), bytes, "{verdict}");
    }
}

/// Room for this many sockets.
fn bench_ports(n: usize) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        most > n as u64 + 100,
        "{most} open files are too few: raise the hard limit"
    );
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[test]
fn rows_overflow_into_the_one_without_destination() {
    // The loader is stopped while the flood runs, so that nobody empties the table.
    let bench = Bench::new();
    let (mut child, mut said) = start(
        &bench,
        &["--rate", "0"],
        "for i in range(3000):\n\
         \x20   s = socket.socket(); assert s.connect_ex(('203.0.113.9', i + 1000)) == 1; s.close()\n\
         say('done'); hear()",
    );
    signal(&child, Signal::SIGSTOP);
    tell(&mut child);
    assert_eq!(line(&mut said), "done");
    signal(&child, Signal::SIGCONT);
    tell(&mut child);
    let out = bench.finish(child);
    nothing_lost(&out);
    assert_eq!(flows(&out.records), 3000);
    let nowhere = out.only(&[("reason", json!("folded"))]);
    fields(
        nowhere,
        &json!({"verdict": "DENIED", "dst_ip": null, "dst_port": null, "count": 3000 - 256, "l4_proto": "any"}),
    );
    assert_eq!(out.records.len(), 257);
}

/// Starts a program that can `say` a line and `hear` one.
fn start(bench: &Bench, args: &[&str], program: &str) -> (Child, BufReader<ChildStdout>) {
    let program = format!(
        "import os,socket,sys\n\
         def say(*a): print(*a, flush=True)\n\
         def hear(): return sys.stdin.readline()\n\
         say('up'); hear()\n{program}"
    );
    let mut child = bench.spawn(Some(POLICY), args, &["python3", "-c", &program]);
    let mut said = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut said), "up");
    (child, said)
}

#[test]
fn opened_is_ended_and_live_at_any_time() {
    let bench = Bench::new();
    let listener = TcpListener::bind("192.0.2.1:8080").unwrap();
    let far = thread::spawn(move || {
        let mut all: Vec<_> = (0..50).map(|_| listener.accept().unwrap().0).collect();
        all.iter_mut().map(drain).sum::<u64>()
    });
    let (mut child, mut said) = start(
        &bench,
        &[],
        "all = [socket.create_connection(('192.0.2.1', 8080)) for i in range(50)]\n\
         for s in all[:20]: s.send(b'abc'); s.close()\n\
         for i in range(30): s = socket.socket(); assert s.connect_ex(('203.0.113.9', 80)) == 1\n\
         say('ready'); hear()",
    );
    tell(&mut child);
    assert_eq!(line(&mut said), "ready");
    // The last of the twenty may still wait for the other side's word.
    eventually("thirty live flows", || {
        let live = bench.dump(&["--flows"]).len();
        (live == 30).then_some(())
    });
    let rows = eventually("the loader to note what it recorded", || {
        let rows = bench.dump(&["--counters"]);
        (counter(&rows, "recorded_allowed") + counter(&rows, "recorded_denied") == 50)
            .then_some(rows)
    });
    assert_eq!((counter(&rows, "opened"), ended(&rows)), (80, 50));
    assert_eq!(
        (
            counter(&rows, "ended_denied"),
            counter(&rows, "denied_default")
        ),
        (30, 30)
    );
    assert_eq!(counter(&rows, "bytes_out_allowed"), 60);
    fields(
        &bench.dump(&[])[0],
        &json!({"live": 30, "allowed": 20, "denied": 30, "bypassed": 0, "unrecorded": 0, "lost": 0, "mode": "enforce"}),
    );
    tell(&mut child);
    let out = bench.finish(child);
    nothing_lost(&out);
    assert_eq!((far.join().unwrap(), flows(&out.records)), (60, 80));
}
