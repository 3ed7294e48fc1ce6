//! The same requests straight to their server, through Envoy, and led to Envoy.

use crate::{client, median, row};
use kernel_tests::run::Bench;
use policy::Policy;
use proxy::Settings;
use stack_tests::{
    envoy::{Envoy, render},
    origin::Origin,
};
use std::{env, process::Command};

const ROUNDS: usize = 5;
const PROXY: &str = "192.0.2.1";
const SERVER: &str = "203.0.113.9:80";

const LED: &str = "version: 1
rules: [{ name: web, dst: 203.0.113.9, proto: http, path_rules: [{ path: /v1/ }] }]
";
const DIRECT: &str = "version: 1
rules: [{ name: web, dst: 203.0.113.9, proto: tcp, port: 80 }]
";

/// What a client printed.
fn values(out: &str) -> Vec<f64> {
    let values = out.lines().map(|line| line.parse().expect("a number"));
    values.collect()
}

fn outside(program: &str, to: &str) -> Vec<f64> {
    let out = Command::new(program).args([client::WORD, to]).output();
    let out = out.expect("it is this program");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    values(&String::from_utf8_lossy(&out.stdout))
}

fn inside(bench: &Bench, policy: &str, args: &[&str], program: &str) -> Vec<f64> {
    let out = bench.run(policy, args, &[program, client::WORD, SERVER]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    values(&out.stdout)
}

/// Prints a row for each value, with a column for each way.
pub(crate) fn compare() {
    let bench = Bench::new();
    let _origin = Origin::plain(SERVER);
    let dir = bench.path("envoy");
    let settings = Settings {
        directory: dir.display().to_string(),
        collector_host: PROXY.to_owned(),
        ..Settings::default()
    };
    let policy = Policy::parse(LED).policy.expect("a policy");
    render(&policy, &[&format!("a@{PROXY}")], &settings);
    let _envoy = Envoy::start(&dir, &["192.0.2.1:10080"]);
    let program = env::current_exe().expect("it has a path");
    let program = program.to_str().expect("a path that is text");
    let mut all: [Vec<Vec<f64>>; 4] = Default::default();
    // In turns, so that all meet the same machine.
    for _ in 0..ROUNDS {
        all[0].push(outside(program, SERVER));
        all[1].push(inside(&bench, DIRECT, &[], program));
        all[2].push(outside(program, "192.0.2.1:10080"));
        all[3].push(inside(&bench, LED, &["--proxy", PROXY], program));
    }
    println!(
        "| what | direct, no firewall | direct, firewall | Envoy alone | firewall and Envoy |\n|---|---|---|---|---|"
    );
    for (n, what) in client::VALUES.iter().enumerate() {
        let of = |rounds: &Vec<Vec<f64>>| {
            let value = median(rounds.iter().map(|round| round[n]).collect());
            format!("{value:.0}")
        };
        row(what, &all.each_ref().map(of));
    }
}
