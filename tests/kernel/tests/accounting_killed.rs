//! A loader killed with -9: the kernel goes on enforcing and counting, and whoever cleans up tells exactly
//! what no record tells of.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as the tests themselves do"
)]

use kernel_tests::{
    check::flows,
    eventually, eventually_within,
    run::{Bench, line, signal, tell},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufReader, Write as _},
    process::{Child, ChildStdout},
    time::{Duration, Instant},
};

const POLICY: &str =
    "version: 1\nrules:\n  - { name: web, dst: 192.0.2.0/24, proto: tcp, port: 1-65535 }\n";

/// `flood(n)` makes n refusals by us and n by the other side, in two processes each.
const FLOOD: &str = "import os,socket,sys\n\
    def say(*a): print(*a, flush=True)\n\
    def hear(): return sys.stdin.readline()\n\
    def knock(ip, error):\n\
    \x20   s = socket.socket(); assert s.connect_ex((ip, 80)) == error; s.close()\n\
    def flood(n):\n\
    \x20   for p in range(2):\n\
    \x20       if os.fork() == 0:\n\
    \x20           for i in range(n // 2): knock('203.0.113.9', 1); knock('192.0.2.1', 111)\n\
    \x20           os._exit(0)\n\
    \x20   for p in range(2): assert os.wait()[1] == 0\n\
    say('up'); hear()\n";

fn start(bench: &Bench, args: &[&str], program: &str) -> (Child, BufReader<ChildStdout>) {
    let program = format!("{FLOOD}{program}");
    let mut child = bench.spawn(Some(POLICY), args, &["python3", "-c", &program]);
    let mut said = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut said), "up");
    (child, said)
}

/// Removes the instance as soon as nobody is left in the cgroup; what is said.
fn detach(bench: &Bench) -> String {
    eventually_within(Duration::from_secs(20), "detach to succeed", || {
        let out = bench.manager().args(["detach", "--all"]).output().unwrap();
        out.status
            .success()
            .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    })
}

/// How many flows of a verdict `detach` tells of.
fn told(text: &str, verdict: &str) -> u64 {
    let list = text.split_once("flows that no record tells of: ");
    let part = list.and_then(|(_, l)| l.split(',').find(|p| p.contains(verdict)));
    part.map_or(0, |p| {
        let digits: String = p.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    })
}

/// Whole records; a loader can be killed in the middle of a line.
fn records(bench: &Bench) -> Vec<Value> {
    let text = fs::read_to_string(bench.path("records.jsonl")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn of<'a>(records: &'a [Value], verdict: &str) -> Vec<&'a Value> {
    let wanted = json!(verdict.to_uppercase());
    records.iter().filter(|r| r["verdict"] == wanted).collect()
}

/// Asserts that everything is told: `flows` of each verdict are in records or declared. A record that
/// was being written when the loader died may be both. Returns how many flows are.
#[track_caller]
fn all_told(bench: &Bench, text: &str, wanted: &[(&str, u64)]) -> u64 {
    assert!(!text.contains("not seen"), "{text}");
    let records = records(bench);
    let mut twice = 0;
    for (verdict, n) in wanted {
        let recorded = flows(of(&records, verdict));
        let sum = recorded + told(text, verdict);
        assert!(
            sum >= *n,
            "{} of {n} {verdict} flows are silently lost: {recorded} recorded; {text}",
            n - sum
        );
        if sum > *n {
            let last = of(&records[records.len() - 1..], verdict);
            assert_eq!(
                sum - n,
                flows(last),
                "{verdict}, {recorded} recorded; {text}"
            );
            twice += sum - n;
        }
    }
    twice
}

#[test]
fn enforcement_and_books_go_on_without_the_loader() {
    let bench = Bench::new();
    let (mut child, mut said) = start(
        &bench,
        &["--ring-kib", "64"],
        "flood(1000); say('half'); flood(3000); say('done'); hear()\n\
         s = socket.socket(); say(s.connect_ex(('203.0.113.9', 80)))",
    );
    tell(&mut child);
    assert_eq!(line(&mut said), "half");
    eventually("the first records", || {
        (!records(&bench).is_empty()).then_some(())
    });
    signal(&child, Signal::SIGKILL);
    let mut input = child.stdin.take().unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
    assert_eq!(line(&mut said), "done");
    input.write_all(b"\n").unwrap();
    assert_eq!(line(&mut said), "1", "enforcement outlives the loader");
    let counters = eventually("the last refusal", || {
        (bench.counter("ended_denied") == 4001).then(|| bench.dump(&["--counters"]))
    });
    let counter = |name: &str| {
        let row = counters.iter().find(|r| r["counter"] == name);
        row.unwrap()["value"].as_u64().unwrap()
    };
    assert_eq!((counter("opened"), counter("ended_allowed")), (8001, 4000));
    let written = records(&bench);
    for verdict in ["allowed", "denied"] {
        let recorded = flows(of(&written, verdict));
        let counted = counter(&format!("recorded_{verdict}"));
        let last = flows(of(&written[written.len() - 1..], verdict));
        assert!(
            counted == recorded || counted + last == recorded,
            "{counted} counted, {recorded} {verdict} recorded"
        );
    }
    let row = &bench.dump(&[])[0];
    let missing = 8001 - counter("recorded_allowed") - counter("recorded_denied");
    assert_eq!(
        (row["unrecorded"].as_u64(), row["lost"].as_u64()),
        (Some(missing), Some(0))
    );
    let text = detach(&bench);
    all_told(&bench, &text, &[("allowed", 4000), ("denied", 4001)]);
    assert!(bench.dump(&[]).is_empty());
}

/// Kills the loader when its file has so many bytes and a little later.
fn kill_at(bench: &Bench, child: &Child, bytes: u64, later: Duration) {
    let file = bench.path("records.jsonl");
    let size = || fs::metadata(&file).map_or(0, |m| m.len());
    let deadline = Instant::now() + kernel_tests::PATIENCE;
    // Without a pause, or the moment would always be one at which the loader rests.
    while size() < bytes {
        assert!(Instant::now() < deadline, "{} of {bytes} bytes", size());
    }
    let now = Instant::now();
    while now.elapsed() < later {
        std::hint::spin_loop();
    }
    signal(child, Signal::SIGKILL);
}

#[test]
fn a_loader_killed_at_any_moment_leaves_no_flow_untold() {
    const N: u64 = 1000;
    let bench = Bench::new();
    for round in 0..rounds() {
        // Every other round lives on folded rows.
        let rate = if round % 2 == 0 { "100000000" } else { "50" };
        let bytes = 600 + (round * 7919) % 15_000;
        let later = Duration::from_micros((round * 613) % 4000);
        let args = ["--ring-kib", "256", "--rate", rate];
        let (mut child, mut said) = start(&bench, &args, &format!("flood({N}); say('done')"));
        tell(&mut child);
        kill_at(&bench, &child, bytes, later);
        child.wait().unwrap();
        assert_eq!(line(&mut said), "done");
        let text = detach(&bench);
        let twice = all_told(&bench, &text, &[("allowed", N), ("denied", N)]);
        println!("round {round}, at {bytes} bytes and {later:?}: {twice} told twice; {text}");
    }
    bench.nothing_left(&[]);
}

/// More by hand: `KILLS=500`.
fn rounds() -> u64 {
    std::env::var("KILLS").map_or(10, |n| n.parse().unwrap())
}

#[test]
fn the_next_run_goes_on_in_a_line_of_its_own() {
    let bench = Bench::new();
    let file = bench.path("records.jsonl");
    fs::write(&file, "{\"time\":\"2026-01-01T00:00:00Z\",\"agen").unwrap();
    let shell = "(exec 3<>/dev/tcp/203.0.113.9/80) 2>/dev/null; exit 0";
    let out = bench
        .command(Some(POLICY), &[], &["bash", "-c", shell])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(0));
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let record: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(record["dst_ip"], json!("203.0.113.9"));
}
