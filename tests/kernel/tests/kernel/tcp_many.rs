//! TCP in bulk: large transfers, many flows at once, and flows that outlive their process.

use kernel_tests::{
    check::{fields, flows, sum},
    eventually, eventually_within,
    net::room_for,
    peer::{all_open, drain, many, once, send},
    policies::WEB,
    run::Bench,
};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use serde_json::json;
use std::{
    collections::HashMap,
    net::{Shutdown, TcpListener},
    os::fd::AsRawFd as _,
    sync::mpsc,
    thread,
    time::Duration,
};

#[test]
fn fifty_megabytes_each_way_at_once() {
    const N: u64 = 50_000_000;
    let bench = Bench::new();
    let server = once("192.0.2.1:8080", |mut s| {
        let mut other = s.try_clone().unwrap();
        let reader = thread::spawn(move || drain(&mut other));
        send(&mut s, N as usize);
        s.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap()
    });
    let out = bench.agent(
        WEB,
        &format!(
            "s = dial('192.0.2.1'); got = []\n\
             t = threading.Thread(target=lambda: got.append(read(s))); t.start()\n\
             s.sendall(bytes({N})); s.shutdown(socket.SHUT_WR); t.join(); print(got[0])"
        ),
    );
    assert_eq!(out.stdout.trim(), N.to_string());
    assert_eq!(server.join().unwrap().1, N);
    out.is_one(&json!({"bytes_out": N, "bytes_in": N, "close_reason": "fin"}));
}

#[test]
fn more_than_four_gibibytes_both_counted_and_numbered() {
    const N: u64 = (4 << 30) + 12_345;
    let bench = Bench::new();
    let server = once("192.0.2.1:8080", |s| {
        // The kernel throws away what it does not have to copy.
        let drop = |n| recv(s.as_raw_fd(), &mut vec![0; n], MsgFlags::MSG_TRUNC);
        let mut got = 0;
        while let Ok(n @ 1..) = drop(1 << 20) {
            got += n as u64;
        }
        got
    });
    let out = bench.agent(
        WEB,
        &format!(
            "f = os.memfd_create('x'); os.truncate(f, 1 << 20); s = dial('192.0.2.1'); n = {N}\n\
             while n: n -= os.sendfile(s.fileno(), f, 0, min(n, 1 << 20))"
        ),
    );
    assert_eq!(server.join().unwrap().1, N);
    out.is_one(&json!({"bytes_out": N, "bytes_in": 0, "close_reason": "fin"}));
}

#[test]
fn what_an_orphan_sends_after_its_process_was_killed_counts() {
    let bench = Bench::new();
    let listener = TcpListener::bind("192.0.2.1:8080").unwrap();
    setsockopt(&listener, sockopt::RcvBuf, &4096).unwrap();
    let (go, killed) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let (mut s, _) = listener.accept().unwrap();
        killed.recv().unwrap();
        drain(&mut s)
    });
    let agent = bench.talk(
        WEB,
        &[],
        "s = dial('192.0.2.1'); s.setsockopt(1, 7, 4 << 20); s.setblocking(False); n = 0\n\
         try:\n  \
         while True: n += s.send(bytes(10_000))\n\
         except BlockingIOError: pass\n\
         say(n, os.getpid()); os.kill(os.getpid(), 9)",
    );
    // The loader has seen the process die when it begins to wait for what is left of it.
    let live = eventually("an orphan", || {
        let procs = std::fs::read_to_string(agent.cgroup().join("cgroup.procs"));
        let live = bench.try_dump(&["--flows"]).ok()?;
        (procs.ok()?.is_empty() && live.len() == 1).then_some(live)
    });
    fields(
        &live[0],
        &json!({"close_reason": null, "verdict": "ALLOWED"}),
    );
    go.send(()).unwrap();
    let got = server.join().unwrap();
    let out = agent.end(&bench);
    assert_eq!(out.code, 137, "{}", out.stderr);
    let queued: u64 = out.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!(queued > 1_000_000, "{queued}");
    assert_eq!(got, queued);
    assert!(live[0]["bytes_out"].as_u64().unwrap() < queued / 2);
    out.is_one(&json!({"bytes_out": queued, "bytes_in": 0, "close_reason": "fin"}));
}

#[test]
fn a_connection_that_stays_open_beyond_the_linger_is_reported() {
    let bench = Bench::new();
    let (go, done) = mpsc::channel::<()>();
    let server = once("192.0.2.1:8080", move |mut s| {
        done.recv().unwrap();
        drain(&mut s)
    });
    let out = bench.agent_with(
        WEB,
        &["--linger", "1"],
        "s = dial('192.0.2.1'); s.setsockopt(1, 7, 16 << 20); s.setblocking(False)\n\
         try:\n  \
         while True: s.send(bytes(1 << 16))\n\
         except BlockingIOError: pass",
    );
    out.is_one(&json!({"verdict": "ALLOWED", "close_reason": "container_exit"}));
    go.send(()).unwrap();
    let (_, got) = server.join().unwrap();
    assert!(out.records[0]["bytes_out"].as_u64().unwrap() <= got.max(1 << 23));
}

#[test]
fn two_hundred_connections_in_threads_are_each_exact() {
    const N: usize = 200;
    let bench = Bench::new();
    let server = many("192.0.2.1:8080", N, 321);
    let out = bench.agent(
        WEB,
        &format!(
            "import random\n\
             def talk(i):\n  \
             s = dial('192.0.2.1'); s.sendall(bytes(random.randrange(1, 200_000)))\n  \
             s.shutdown(socket.SHUT_WR); read(s); s.close()\n\
             t = [threading.Thread(target=talk, args=(i,)) for i in range({N})]\n\
             [x.start() for x in t]; [x.join() for x in t]"
        ),
    );
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
    room_for(N);
    let bench = Bench::new();
    let server = all_open("192.0.2.1:8080", N);
    let agent = bench.talk(
        WEB,
        &["--rate", "1000000", "--ring-kib", "16384"],
        &format!(
            "all = []\n\
             for i in range({N}): s = dial('192.0.2.1'); s.send(bytes(i % 100 + 1)); all.append(s)\n\
             hear()\n\
             for s in all: s.close()"
        ),
    );
    let live = eventually_within(Duration::from_secs(60), "all flows to live", || {
        let live = bench.try_dump(&["--flows"]).ok()?;
        let all = live.len() == N && sum(&live, "bytes_out") == 505_000;
        all.then_some(live)
    });
    assert!(
        live.iter()
            .all(|l| l["verdict"] == "ALLOWED" && l["close_reason"].is_null())
    );
    let out = agent.end(&bench);
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
