//! The same requests straight to their server, through Envoy, and led to Envoy.

use crate::{client, median, row};
use kernel_tests::{dns::Resolver, run::Bench};
use policy::Policy;
use proxy::Settings;
use stack_tests::{
    envoy::{Envoy, authority, render_by},
    origin::Origin,
};
use std::{env, process::Command};

const ROUNDS: usize = 5;
const PROXY: &str = "192.0.2.1";
const SERVER: &str = "203.0.113.9";
const NAME: &str = "api.example";
const RESOLVER: &str = "192.0.2.53";

/// What is compared.
pub(crate) struct Kind {
    title: &'static str,
    /// Of the server, where requests are over TLS.
    name: Option<&'static str>,
    /// As the client under the firewall knows it.
    server: &'static str,
    port: u16,
    /// Policies that lead requests to Envoy, and that let them go.
    led: &'static str,
    direct: &'static str,
}

pub(crate) const PLAIN: Kind = Kind {
    title: "in the clear",
    name: None,
    server: "203.0.113.9:80",
    port: 80,
    led: "version: 1
rules: [{ name: web, dst: 203.0.113.9, proto: http, path_rules: [{ path: /v1/ }] }]
",
    direct: "version: 1
rules: [{ name: web, dst: 203.0.113.9, proto: tcp, port: 80 }]
",
};

/// Read by Envoy, with a handshake on each side of it.
pub(crate) const TLS: Kind = Kind {
    title: "over TLS",
    name: Some(NAME),
    server: "api.example:443",
    port: 443,
    led: "version: 1
rules: [{ name: web, dst: api.example, proto: https, insecure_skip_tls_verify: true, path_rules: [{ path: /v1/ }] }]
",
    direct: "version: 1
rules: [{ name: web, dst: api.example, proto: tcp, port: 443 }]
",
};

/// What a client printed.
fn values(out: &str) -> Vec<f64> {
    let values = out.lines().map(|line| line.parse().expect("a number"));
    values.collect()
}

fn outside(program: &str, to: &str, kind: &Kind) -> Vec<f64> {
    let mut command = Command::new(program);
    command.args([client::WORD, to]).args(kind.name);
    let out = command.output();
    let out = out.expect("it is this program");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    values(&String::from_utf8_lossy(&out.stdout))
}

fn inside(bench: &Bench, policy: &str, args: &[&str], program: &str, kind: &Kind) -> Vec<f64> {
    let mut command = vec![program, client::WORD, kind.server];
    command.extend(kind.name);
    let args = [&["--dns", RESOLVER], args].concat();
    let out = bench.run(policy, &args, &command);
    assert_eq!(out.code, 0, "{}", out.stderr);
    values(&out.stdout)
}

/// Prints a row for each value, with a column for each way.
pub(crate) fn compare(kind: &Kind) {
    let bench = Bench::new();
    let dir = bench.path("envoy");
    let ours = authority(&dir.join("ca"));
    let server = format!("{SERVER}:{}", kind.port);
    let _origin = match kind.name {
        Some(name) => Origin::tls(&server, &ours, &[name]),
        None => Origin::plain(&server),
    };
    let _names = Resolver::naming(&[(NAME, SERVER)]);
    let settings = Settings {
        directory: dir.display().to_string(),
        collector_host: PROXY.to_owned(),
        resolvers: vec!["192.0.2.53:53".parse().expect("an address")],
        intercept: kind.name.is_some(),
        ..Settings::default()
    };
    let policy = Policy::parse(kind.led).policy.expect("a policy");
    render_by(&policy, &[&format!("a@{PROXY}")], &settings, Some(&ours));
    let proxy = format!("{PROXY}:{}", kind.port + 10_000);
    let _envoy = Envoy::start(&dir, &[&proxy]);
    let program = env::current_exe().expect("it has a path");
    let program = program.to_str().expect("a path that is text");
    let mut all: [Vec<Vec<f64>>; 4] = Default::default();
    // In turns, so that all meet the same machine.
    for _ in 0..ROUNDS {
        all[0].push(outside(program, &server, kind));
        all[1].push(inside(&bench, kind.direct, &[], program, kind));
        all[2].push(outside(program, &proxy, kind));
        all[3].push(inside(&bench, kind.led, &["--proxy", PROXY], program, kind));
    }
    println!(
        "\n| {} | direct, no firewall | direct, firewall | Envoy alone | firewall and Envoy |\n|---|---|---|---|---|",
        kind.title
    );
    for (n, what) in client::VALUES.iter().enumerate() {
        let of = |rounds: &Vec<Vec<f64>>| {
            let value = median(rounds.iter().map(|round| round[n]).collect());
            format!("{value:.0}")
        };
        row(what, &all.each_ref().map(of));
    }
}
