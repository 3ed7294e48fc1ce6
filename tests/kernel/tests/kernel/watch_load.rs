//! Ten thousand flows a second while people watch: nothing is lost from the books, and nobody who watches
//! costs more than he should.
//!
//! The load lasts [`SECONDS`]; `CLAWKER_WATCH_SECONDS=60` makes it last a minute.

use kernel_tests::{agent::code, check::flows, eventually_within, pty::Terminal, run::Bench};
use nix::unistd::{SysconfVar, sysconf};
use std::{
    fs,
    time::{Duration, Instant},
};

/// How long the load lasts, unless `CLAWKER_WATCH_SECONDS` says otherwise.
const SECONDS: u64 = 10;
/// Flows a second that the command asks for.
const RATE: u64 = 10_000;
/// Memory of a watcher, KiB. Ten thousand flows take a quarter of it.
const MEMORY: u64 = 64 << 10;
/// Part of a processor that a watcher may take, of a debug build on a machine with two busy ones.
const SHARE: f64 = 0.6;

/// Denied datagrams, so many a second, in portions of a hundredth of one.
const LOAD: &str = "
seconds, rate = int(sys.argv[1]), int(sys.argv[2])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
step('ready')
sent, began = 0, time.monotonic()
while (now := time.monotonic() - began) < seconds:
  while sent < now * rate:
    try: s.sendto(b'x', ('203.0.113.9', 1 + sent % 60000)); print('passed')
    except PermissionError: pass
    sent += 1
  time.sleep(0.01)
step(sent)
";

fn seconds() -> u64 {
    let wanted = std::env::var("CLAWKER_WATCH_SECONDS").ok();
    wanted.map_or(SECONDS, |s| {
        s.parse().expect("CLAWKER_WATCH_SECONDS is a number")
    })
}

/// Processor time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    // The name, in parentheses, may have anything in it.
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..]
        .split(' ')
        .collect();
    let ticks: u64 = [12, 13]
        .iter()
        .map(|i| fields[*i].parse::<u64>().expect("ticks"))
        .sum();
    let hz = sysconf(SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .expect("ticks have a length");
    Duration::from_secs_f64(ticks as f64 / hz as f64)
}

/// The most memory that a process has had, KiB.
fn most_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .expect("a high-water mark");
    line.trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number")
}

/// The number before a word on the screen.
fn number(screen: &str, word: &str) -> u64 {
    let before = screen.split(word).next().expect("a part").trim_end();
    let digits = before
        .rsplit(|c: char| !c.is_ascii_digit() && c != ' ')
        .next();
    let digits: String = digits.expect("a part").split_whitespace().collect();
    digits.parse().unwrap_or(0)
}

#[test]
fn ten_thousand_flows_a_second_are_watched_and_all_accounted_for() {
    let bench = Bench::new();
    let (length, rate) = (seconds().to_string(), RATE.to_string());
    let code = code(LOAD);
    let args = ["--quiet", "--rate", "1000000"];
    let cmd = ["python3", "-c", &code, &length, &rate];
    let mut talk = bench.converse("version: 1\n", &args, &cmd);
    assert_eq!(talk.hear(), "ready");
    let loader = talk.pid();

    let mut command = bench.manager();
    command.arg("watch");
    let mut seen = Terminal::start(command, 40, 140);
    seen.reads(&format!("run-{loader}"));
    // A socket whose owner sleeps.
    let mut asleep = bench.watcher(loader);
    // The terminal's watcher came first, so the data path knows of it too.

    let (began, before) = (Instant::now(), cpu(seen.pid()));
    talk.say("go");
    // Somebody works with it meanwhile.
    seen.press("/port>1000\rb");
    let sent: u64 = talk.hear().parse().expect("a number of flows");
    let (took, used) = (began.elapsed(), cpu(seen.pid()) - before);
    assert!(sent >= RATE * seconds() / 2, "{sent} flows are no load");

    let patience = Duration::from_secs(60);
    let records = eventually_within(patience, "every flow in the file", || {
        let records = bench.records();
        (flows(&records) == sent).then_some(records.len() as u64)
    });
    let screen = {
        let mut last = String::new();
        eventually_within(patience, "the screen to have heard of every record", || {
            last = seen.text();
            let (heard, lost) = (number(&last, " ended"), number(&last, " lost"));
            (heard + lost == records && last.contains("port>1000")).then(|| last.clone())
        })
    };
    let share = used.as_secs_f64() / took.as_secs_f64();
    println!(
        "{sent} flows in {took:.1?}, {records} records; the terminal heard of {}, lost {}; {:.0} % of a processor, {} KiB",
        number(&screen, " ended"),
        number(&screen, " lost"),
        share * 100.0,
        most_memory(seen.pid()),
    );
    assert!(share < SHARE, "{used:?} of {took:?}");
    assert!(
        most_memory(seen.pid()) < MEMORY,
        "{} KiB",
        most_memory(seen.pid())
    );
    // The queues of watchers are what this could add to the loader.
    assert!(
        most_memory(loader) < 2 * MEMORY,
        "{} KiB",
        most_memory(loader)
    );

    let (mut got, mut lost) = (0, 0);
    while got + lost < records {
        let said = asleep.hear().expect("it goes on");
        got += u64::from(said.get("ended").is_some());
        lost += said["lost"].as_u64().unwrap_or(0);
    }
    assert_eq!(
        got + lost,
        records,
        "who slept knows exactly how much he missed"
    );
    println!("who slept got {got} and was told of {lost}");
    assert!(lost > 0, "that was too little to lose any");

    seen.press("q");
    assert_eq!(seen.ended(), 0);
    let out = talk.end(&bench);
    assert_eq!((out.code, flows(&out.records)), (0, sent), "{}", out.stderr);
    assert!(!out.stderr.contains("in no record"), "{}", out.stderr);
    bench.nothing_left(&[loader]);
}
