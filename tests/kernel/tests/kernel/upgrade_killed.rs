//! Loaders that are killed with -9 and followed by others, at any moment of an upgrade too.

use crate::upgrade_other::{ID, old_loader};
use ebpf_manager::instance::Root;
use kernel_tests::{
    agent::code,
    check::flows,
    eventually,
    run::built,
    talk::Talk,
    traffic::{POLICY, SIZES, Traffic},
};
use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Lines},
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant},
};

/// A loader in a process of its own. It ends with the test.
struct Loader {
    child: Child,
    said: Lines<BufReader<ChildStderr>>,
}

impl Loader {
    fn start(traffic: &Traffic) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(traffic.bench.path("records"))
            .unwrap();
        let mut child = Command::new(built("examples/take_over", "--examples"))
            .arg(&traffic.bench.pins)
            .args([ID, traffic.bench.policy(POLICY).to_str().unwrap()])
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, said }
    }

    /// Waits until it has something in hand: an upgrade, or else records.
    #[track_caller]
    fn busy(&mut self) -> String {
        self.said.next().expect("it works on").unwrap()
    }

    /// Kills it; how many flows it gave up before.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let lost = |line: String| line.strip_prefix("lost: ").map(number);
        self.said
            .by_ref()
            .map_while(Result::ok)
            .filter_map(lost)
            .sum()
    }

    /// Waits until it reads records; how many flows it gave up.
    #[track_caller]
    fn ready(&mut self) -> u64 {
        let mut lost = 0;
        loop {
            let line = self.busy();
            match line.strip_prefix("lost: ") {
                Some(told) => lost = number(told),
                None if line == "ready" => return lost,
                None => assert!(line.starts_with("taking over"), "{line}"),
            }
        }
    }
}

/// The numbers of a sentence, added up.
fn number(text: &str) -> u64 {
    let parts = text
        .split(',')
        .map(|p| p.chars().filter(char::is_ascii_digit).collect::<String>());
    parts.filter_map(|d| d.parse::<u64>().ok()).sum()
}

impl Drop for Loader {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("KILLS").map_or(default, |n| n.parse().unwrap())
}

fn pass(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        nix::poll::poll(&mut [], 1u16).ok();
    }
}

/// Kills a number of loaders some time after their start, and lets the last one live. Every flow is in a
/// record or given up; a record that was being written when its loader died may be both.
fn kill(other_abi: bool) {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    let old = if other_abi {
        Some(old_loader(&traffic))
    } else {
        let mut taken = root.take_over(ID, SIZES).unwrap();
        let fd = traffic.cgroup.open().unwrap();
        taken.engine.attach(&fd, "a").unwrap();
        let (info, config) = traffic.seat(&taken.engine, 1, 1);
        taken.engine.enrol(&info, &config).unwrap();
        None
    };
    traffic.begin();
    let mut given_up = 0;
    for round in 0..rounds(8) {
        let mut loader = Loader::start(&traffic);
        if round % 4 == 0 {
            // While it loads.
            pass(Duration::from_millis(50 + (round * 7919) % 1500));
        } else {
            let at = loader.busy();
            pass(Duration::from_micros((round * 7919) % 90_000));
            let half = old.as_ref().is_some_and(|dir| dir.exists());
            println!("round {round}: killed while {at}, before its end: {half}");
        }
        given_up += loader.kill();
        traffic.go_on();
    }
    let mut last = Loader::start(&traffic);
    given_up += last.ready();
    assert!(old.as_ref().is_none_or(|dir| !dir.exists()));
    traffic.go_on();
    let ended = traffic.end();
    let pins = root.find(ID).unwrap().pins;
    eventually("every flow to end and be read", || {
        let b = pins.books().unwrap()[1];
        let over = b.opened == b.ended.iter().sum::<u64>();
        // What dead loaders took with them stays missing; the living one reads all else.
        (over && pins.folded().unwrap().is_empty()).then_some(())
    });
    let mut at_rest = 0;
    let mut before = Vec::new();
    eventually("the last record", || {
        let now = fs::read(traffic.bench.path("records")).unwrap();
        at_rest = if now.len() == before.len() {
            at_rest + 1
        } else {
            0
        };
        before = now;
        (at_rest > 40).then_some(())
    });
    let text = String::from_utf8(before).unwrap();
    let whole = text
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    traffic.records.extend(whole);
    let b = pins.books().unwrap()[1];
    assert_eq!(b.opened, b.ended.iter().sum::<u64>());
    let missing: u64 = b
        .ended
        .iter()
        .zip(b.recorded)
        .map(|(e, r)| e.saturating_sub(r))
        .sum();
    assert_eq!(
        pins.config(pins.infos().unwrap()[0].1.cgroup_id)
            .unwrap()
            .unwrap()
            .phase,
        abi::PHASE_ALONE
    );
    traffic.nothing_escaped();
    let denied = flows(traffic.records.iter().filter(|r| r["verdict"] == "DENIED"));
    assert!(
        denied + given_up + missing >= ended.get("refused"),
        "{denied} in records, {given_up} and {missing} given up, of {ended:?}"
    );
}

#[test]
fn killed_loaders_of_one_abi_leave_nobody_without_a_firewall() {
    kill(false);
}

#[test]
fn an_upgrade_that_is_killed_again_and_again_comes_to_its_end() {
    kill(true);
}

/// What programs note meanwhile takes no room from what they are to take over, however much there is of it.
#[test]
fn a_flood_of_datagrams_between_two_loaders_costs_no_connection() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    let old = old_loader(&traffic);
    traffic.begin();
    let loader = Loader::start(&traffic);
    let waits = || {
        let pins = root.find(ID).ok()?.pins;
        let (_, info) = pins.infos().ok()?.into_iter().next()?;
        let config = pins.config(info.cgroup_id).ok()??;
        (config.phase == abi::PHASE_HEIR).then_some(())
    };
    while waits().is_none() {}
    loader.kill();
    assert!(old.exists(), "it was killed half-way");
    let sockets = SIZES.slots * 5000;
    let flood = format!(
        "step('here')\n\
         for n in range({sockets}):\n    with dgram() as s: s.sendto(b'x', ('192.0.2.1', 83))\n\
         say('sent')"
    );
    let mut agent = Talk::start(Command::new("python3").args(["-c", &code(&flood)]));
    assert_eq!(agent.hear(), "here");
    let procs = traffic.cgroup.path().join("cgroup.procs");
    fs::write(procs, agent.pid().to_string()).unwrap();
    assert_eq!(agent.go(), "sent");
    let mut last = Loader::start(&traffic);
    last.ready();
    assert!(!old.exists());
    traffic.go_on();
    traffic.end();
    traffic.nothing_escaped();
}
