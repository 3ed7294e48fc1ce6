//! The accounting identity: every flow that ended in the kernel is in a record or told as lost, to the
//! last one, however fast they come and whoever dies.

use kernel_tests::{
    check::{fields, flows, sum},
    eventually,
    net::room_for,
    operate::counter,
    peer::{all_open, in_turn},
    run::{Bench, Outcome},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const POLICY: &str = "rules:\n  - { name: web, dst: 192.0.2.0/24, proto: tcp, port: 1-65535 }\n";

/// A flood of refused connections, four processes of 5000.
const DENIED_FLOOD: &str = "def flood():\n  \
    for i in range(5000): s = socket.socket(); assert s.connect_ex(('203.0.113.9', 80)) == 1; s.close()\n\
    crowd(4, flood)";

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
    let out = bench.agent(POLICY, DENIED_FLOOD);
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
    let out = bench.agent_with(POLICY, &args, DENIED_FLOOD);
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
    const N: usize = 8000;
    let bench = Bench::new();
    let server = in_turn("192.0.2.1:8080", N);
    let out = bench.agent_with(
        POLICY,
        &["--ring-kib", "4", "--rate", "10"],
        "def flood():\n  \
         for i in range(2000): s = dial('192.0.2.1'); s.send(bytes(i % 97 + 1)); s.shutdown(1); s.recv(1); s.close()\n\
         crowd(4, flood)",
    );
    let sent = 4 * (0..2000).map(|i| i % 97 + 1).sum::<u64>();
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
    room_for(N);
    let listeners: Vec<_> = (0..N)
        .map(|i| in_turn(&format!("192.0.2.1:{}", 10_000 + i), 1))
        .collect();
    let out = bench.agent_with(
        POLICY,
        &["--rate", "0"],
        &format!(
            "for i in range({N}):\n  \
             s = dial('192.0.2.1', 10_000 + i); s.send(bytes(i + 1)); s.close()\n  \
             assert tcp('203.0.113.9', i + 1000) == 'EPERM'"
        ),
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

#[test]
fn rows_overflow_into_the_one_without_destination() {
    // The loader is stopped while the flood runs, so that nobody empties the table.
    let bench = Bench::new();
    let mut agent = bench.talk(
        POLICY,
        &["--rate", "0"],
        "step('up')\n\
         for i in range(3000):\n\
         \x20   assert tcp('203.0.113.9', i + 1000) == 'EPERM'\n\
         step('done')",
    );
    assert_eq!(agent.hear(), "up");
    agent.signal(Signal::SIGSTOP);
    assert_eq!(agent.go(), "done");
    agent.signal(Signal::SIGCONT);
    let out = agent.end(&bench);
    nothing_lost(&out);
    assert_eq!(flows(&out.records), 3000);
    let nowhere = out.only(&[("reason", json!("folded"))]);
    fields(
        nowhere,
        &json!({"verdict": "DENIED", "dst_ip": null, "dst_port": null, "count": 3000 - 256, "l4_proto": "any"}),
    );
    assert_eq!(out.records.len(), 257);
}

#[test]
fn opened_is_ended_and_live_at_any_time() {
    let bench = Bench::new();
    let far = all_open("192.0.2.1:8080", 50);
    let mut agent = bench.talk(
        POLICY,
        &[],
        "all = [dial('192.0.2.1') for i in range(50)]\n\
         for s in all[:20]: s.send(b'abc'); s.close()\n\
         for i in range(30): s = socket.socket(); assert s.connect_ex(('203.0.113.9', 80)) == 1\n\
         step('ready')",
    );
    assert_eq!(agent.hear(), "ready");
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
    let out = agent.end(&bench);
    nothing_lost(&out);
    assert_eq!((far.join().unwrap(), flows(&out.records)), (60, 80));
}
