//! Agents that do nothing: what each costs when it comes, and what all of them cost while they are there.

use crate::{median, row, stage::Stage};
use kernel_tests::fleet::Yard;
use std::time::{Duration, Instant};

/// How many are enrolled one after the other.
const ROUNDS: usize = 30;
/// How long to look at how little is done.
const WATCHED: Duration = Duration::from_secs(30);

/// From the engine's word that a container runs to its open slot.
pub(crate) fn enrolment() {
    let policy = "rules: [{ name: one, dst: 192.0.2.1, proto: tcp, port: 8000 }]\n";
    let mut yard = Yard::new(Some(policy), ROUNDS as u32);
    let mut times = Vec::new();
    let mut pods = Vec::new();
    for n in 0..ROUNDS {
        let pod = yard.pod(&format!("c{n}"), ("web", "shop"), "hear()");
        let began = Instant::now();
        yard.start(&pod);
        times.push(began.elapsed().as_secs_f64() * 1e3);
        pods.push(pod);
    }
    assert_eq!(yard.fleet.enrolled(), ROUNDS);
    let most = times.iter().copied().fold(0.0, f64::max);
    row(
        "enrolment of a container",
        &format!("{:.1} ms (at most {most:.1} ms of {ROUNDS})", median(times)),
        "≤ 10 ms",
    );
}

/// Memory and work of `serve` with so many agents.
pub(crate) fn with(agents: usize, goal: &str) {
    let stage = Stage::new(agents, None, &[]);
    // What it did for them is over, the first metrics included.
    pass(Duration::from_secs(3));
    let (before, began) = (stage.worked(), Instant::now());
    pass(WATCHED);
    let share = (stage.worked() - before) as f64 / began.elapsed().as_nanos() as f64;
    row(
        &format!("`serve`, {agents} idle agents"),
        &format!(
            "{:.1} MiB, {:.2} % of one core",
            stage.memory() as f64 / 1024.0,
            share * 100.0
        ),
        goal,
    );
}

/// Lets time pass: what is measured is that nothing happens.
fn pass(time: Duration) {
    nix::poll::poll(&mut [], u16::try_from(time.as_millis()).unwrap_or(u16::MAX)).ok();
}
