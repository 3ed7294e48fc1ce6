//! A loader killed with -9: the kernel goes on enforcing and counting, and whoever cleans up tells exactly
//! what no record tells of.

use kernel_tests::{
    check::flows, eventually, eventually_within, operate::counter, run::Bench, talk::Talk,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};

const POLICY: &str =
    "version: 1\nrules:\n  - { name: web, dst: 192.0.2.0/24, proto: tcp, port: 1-65535 }\n";

/// `flood(n)` makes n refusals by us and n by the other side, in two processes each.
const FLOOD: &str = "def knock(ip, error):\n\
    \x20   s = socket.socket(); assert s.connect_ex((ip, 80)) == error; s.close()\n\
    def knocks(n):\n\
    \x20   for i in range(n): knock('203.0.113.9', 1); knock('192.0.2.1', 111)\n\
    def flood(n): crowd(2, lambda: knocks(n // 2))\n\
    step('up')\n";

fn start(bench: &Bench, args: &[&str], program: &str) -> Talk {
    let mut talk = bench.talk(POLICY, args, &format!("{FLOOD}{program}"));
    assert_eq!(talk.hear(), "up");
    talk
}

/// Removes the instance as soon as nobody is left in the cgroup; what is said.
fn detach(bench: &Bench) -> String {
    eventually_within(Duration::from_secs(20), "detach to succeed", || {
        let out = bench.operate(&["detach", "--all"]);
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
    let mut talk = start(
        &bench,
        &["--ring-kib", "64"],
        "flood(1000); say('half'); flood(3000); say('done'); hear()\n\
         s = socket.socket(); say(s.connect_ex(('203.0.113.9', 80)))",
    );
    assert_eq!(talk.go(), "half");
    eventually("the first records", || {
        (!records(&bench).is_empty()).then_some(())
    });
    talk.kill_loader();
    assert_eq!(talk.hear(), "done");
    assert_eq!(talk.go(), "1", "enforcement outlives the loader");
    let counters = eventually("the last refusal", || {
        (bench.counter("ended_denied") == 4001).then(|| bench.dump(&["--counters"]))
    });
    let counter = |name: &str| counter(&counters, name);
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
fn kill_at(bench: &Bench, talk: &Talk, bytes: u64, later: Duration) {
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
    // It may have come to its end before.
    talk.signal(Signal::SIGKILL);
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
        let mut talk = start(&bench, &args, &format!("flood({N}); say('done')"));
        talk.say("go");
        kill_at(&bench, &talk, bytes, later);
        assert_eq!(talk.hear(), "done");
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
    let shell = "(exec 3<>/dev/tcp/203.0.113.9/80) 2>/dev/null; exit 0";
    let mut run = bench.command(POLICY, &[], &["bash", "-c", shell]);
    fs::write(&file, "{\"time\":\"2026-01-01T00:00:00Z\",\"agen").unwrap();
    let out = run.output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let record: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!(record["dst_ip"], json!("203.0.113.9"));
}
