//! TCP in bulk: large transfers, many flows at once, and flows that outlive their process.

use kernel_tests::{
    check::{fields, flows, sum},
    eventually,
    peer::{drain, many, once, send},
    run::Bench,
};
use nix::{
    libc,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use serde_json::json;
use std::{
    collections::HashMap, net::TcpListener, os::fd::AsRawFd as _, sync::mpsc, thread,
    time::Duration,
};

const POLICY: &str =
    "version: 1\nrules:\n  - { name: web, dst: 192.0.2.0/24, proto: tcp, port: 8080 }\n";

#[test]
fn fifty_megabytes_each_way_at_once() {
    const N: u64 = 50_000_000;
    let bench = Bench::new();
    let server = once("192.0.2.1:8080", |mut s| {
        let mut other = s.try_clone().unwrap();
        let reader = thread::spawn(move || drain(&mut other));
        send(&mut s, N as usize);
        s.shutdown(std::net::Shutdown::Write).unwrap();
        reader.join().unwrap()
    });
    let out = bench.python(
        Some(POLICY),
        &format!(
            "import socket,threading\n\
             s = socket.create_connection(('192.0.2.1', 8080)); got = []\n\
             def read():\n\
             \x20   n = 0\n\
             \x20   while b := s.recv(1 << 20): n += len(b)\n\
             \x20   got.append(n)\n\
             t = threading.Thread(target=read); t.start()\n\
             s.sendall(bytes({N})); s.shutdown(socket.SHUT_WR); t.join(); print(got[0])"
        ),
    );
    assert_eq!(
        (out.code, out.stdout.trim()),
        (0, N.to_string().as_str()),
        "{}",
        out.stderr
    );
    assert_eq!(server.join().unwrap().1, N);
    assert_eq!(out.records.len(), 1);
    fields(
        &out.records[0],
        &json!({"bytes_out": N, "bytes_in": N, "close_reason": "fin"}),
    );
}

#[test]
fn what_an_orphan_sends_after_its_process_was_killed_counts() {
    let bench = Bench::new();
    let listener = TcpListener::bind("192.0.2.1:8080").unwrap();
    let small: libc::c_int = 4096;
    // SAFETY: the value is an integer, whose size is given.
    let r = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const small).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    assert_eq!(r, 0);
    let (go, killed) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        killed.recv().unwrap();
        drain(&mut s)
    });
    let child = bench.spawn(
        Some(POLICY),
        &[],
        &[
            "python3",
            "-c",
            "import os,signal,socket,sys\n\
             s = socket.create_connection(('192.0.2.1', 8080)); s.setsockopt(1, 7, 4 << 20); s.setblocking(False); n = 0\n\
             try:\n\
             \x20   while True: n += s.send(bytes(10_000))\n\
             except BlockingIOError: pass\n\
             print(n, os.getpid(), flush=True); os.kill(os.getpid(), 9)",
        ],
    );
    // The loader has seen the process die when it begins to wait for what is left of it.
    let live = eventually("an orphan", || {
        let over = bench.try_dump(&[]).ok()?;
        let id = over.first()?["cgroup"].as_str()?.to_owned();
        let procs =
            std::fs::read_to_string(kernel_tests::cgroup_root().join(id).join("cgroup.procs"));
        let live = bench.try_dump(&["--flows"]).ok()?;
        (procs.ok()?.is_empty() && live.len() == 1).then_some(live)
    });
    fields(
        &live[0],
        &json!({"close_reason": null, "verdict": "ALLOWED"}),
    );
    go.send(()).unwrap();
    let got = server.join().unwrap();
    let out = bench.finish(child);
    assert_eq!(out.code, 137, "{}", out.stderr);
    let queued: u64 = out.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!(queued > 1_000_000, "{queued}");
    assert_eq!(got, queued);
    assert!(live[0]["bytes_out"].as_u64().unwrap() < queued / 2);
    assert_eq!(out.records.len(), 1);
    fields(
        &out.records[0],
        &json!({"bytes_out": queued, "bytes_in": 0, "close_reason": "fin"}),
    );
}

#[test]
fn a_connection_that_stays_open_beyond_the_linger_is_reported() {
    let bench = Bench::new();
    let (go, done) = mpsc::channel::<()>();
    let server = once("192.0.2.1:8080", move |mut s| {
        done.recv().unwrap();
        drain(&mut s)
    });
    let out = bench.run(
        Some(POLICY),
        &["--linger", "1"],
        &[
            "python3",
            "-c",
            "import socket\n\
             s = socket.create_connection(('192.0.2.1', 8080)); s.setsockopt(1, 7, 16 << 20); s.setblocking(False)\n\
             try:\n\
             \x20   while True: s.send(bytes(1 << 16))\n\
             except BlockingIOError: pass",
        ],
    );
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(out.records.len(), 1);
    fields(
        &out.records[0],
        &json!({"verdict": "ALLOWED", "close_reason": "container_exit"}),
    );
    go.send(()).unwrap();
    let (_, got) = server.join().unwrap();
    assert!(out.records[0]["bytes_out"].as_u64().unwrap() <= got.max(1 << 23));
}

#[test]
fn two_hundred_connections_in_threads_are_each_exact() {
    const N: usize = 200;
    let bench = Bench::new();
    let server = many("192.0.2.1:8080", N, 321);
    let out = bench.python(
        Some(POLICY),
        &format!(
            "import random,socket,threading\n\
             def talk(i):\n\
             \x20   s = socket.create_connection(('192.0.2.1', 8080))\n\
             \x20   s.sendall(bytes(random.randrange(1, 200_000))); s.shutdown(socket.SHUT_WR)\n\
             \x20   while s.recv(4096): pass\n\
             \x20   s.close()\n\
             t = [threading.Thread(target=talk, args=(i,)) for i in range({N})]\n\
             [x.start() for x in t]; [x.join() for x in t]"
        ),
    );
    assert_eq!(out.code, 0, "{}", out.stderr);
    let served = server.join().unwrap();
    let seen: HashMap<u64, u64> = served
        .iter()
        .map(|s| (u64::from(s.from.port()), s.received))
        .collect();
    assert_eq!((seen.len(), out.records.len()), (N, N));
    for r in &out.records {
        let bytes = seen[&r["src_port"].as_u64().unwrap()];
        fields(
            r,
            &json!({"bytes_out": bytes, "bytes_in": 321, "close_reason": "fin", "verdict": "ALLOWED"}),
        );
    }
    assert_eq!(
        sum(&out.records, "bytes_out"),
        served.iter().map(|s| s.received).sum::<u64>()
    );
}

#[test]
fn ten_thousand_flows_at_once() {
    const N: usize = 10_000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(
        most > 11_000,
        "{most} open files are too few: raise the hard limit"
    );
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let bench = Bench::new();
    let listener = TcpListener::bind("192.0.2.1:8080").unwrap();
    // SAFETY: a listening socket may be told to listen again.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 4096) }, 0);
    let server = thread::spawn(move || {
        let mut all: Vec<_> = (0..N).map(|_| listener.accept().unwrap().0).collect();
        all.iter_mut().map(drain).sum::<u64>()
    });
    let mut child = bench.spawn(
        Some(POLICY),
        &["--rate", "1000000", "--ring-kib", "16384"],
        &[
            "python3",
            "-c",
            &format!(
                "import socket,sys\n\
                 all = []\n\
                 for i in range({N}):\n\
                 \x20   s = socket.create_connection(('192.0.2.1', 8080)); s.send(bytes(i % 100 + 1)); all.append(s)\n\
                 sys.stdin.readline()\n\
                 for s in all: s.close()"
            ),
        ],
    );
    let live =
        kernel_tests::eventually_within(Duration::from_secs(60), "all flows to live", || {
            let live = bench.try_dump(&["--flows"]).ok()?;
            let all = live.len() == N && sum(&live, "bytes_out") == 505_000;
            all.then_some(live)
        });
    assert!(
        live.iter()
            .all(|l| l["verdict"] == "ALLOWED" && l["close_reason"].is_null())
    );
    drop(child.stdin.take());
    let out = bench.finish(child);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(server.join().unwrap(), 505_000);
    assert_eq!((out.records.len(), flows(&out.records)), (N, N as u64));
    assert_eq!(
        (
            sum(&out.records, "bytes_out"),
            sum(&out.records, "bytes_in")
        ),
        (505_000, 0)
    );
    let ids: std::collections::HashSet<_> =
        out.records.iter().map(|r| r["flow_id"].as_str()).collect();
    assert_eq!(ids.len(), N);
    assert!(out.records.iter().all(|r| r["close_reason"] == "fin"));
}
