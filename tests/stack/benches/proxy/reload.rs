//! A thousand rules that change: from the policy to Envoy's answers.

use crate::{median, row};
use kernel_tests::{dns::Resolver, eventually_within, run::Bench};
use policy::Policy;
use proxy::Settings;
use stack_tests::{
    envoy::{Envoy, authority, render_by},
    greeting::Greeting,
    http1,
};
use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

const RULES: usize = 1000;
const ROUNDS: usize = 5;
const PROXY: &str = "192.0.2.1";

/// A thousand hosts, and one that is new with each number.
fn policy(proto: &str, number: usize) -> Policy {
    let mut text = String::from("rules:\n");
    for n in 1..RULES {
        let _ = writeln!(
            text,
            "  - {{ dst: h{n}.example, proto: {proto}, path_rules: [{{ path: /{n}/ }}] }}"
        );
    }
    let _ = writeln!(text, "  - {{ dst: new{number}.example, proto: {proto} }}");
    Policy::parse(&text).policy.expect("a policy")
}

/// Whether a host is allowed; nobody knows its address, so the answer to an allowed request is 503.
fn allowed(ca: &Path, proto: &str, host: &str) -> bool {
    let ask = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
    if proto == "http" {
        return http1::ask(&mut http1::connect("192.0.2.1:10080"), &ask).0 == 503;
    }
    let greeting = Greeting {
        name: Some(host),
        ech: None,
        alpn: &["http/1.1"],
        ca: Some(ca),
    };
    let greeted = greeting.over(http1::connect("192.0.2.1:10443"));
    greeted.is_ok_and(|mut tls| http1::ask(&mut tls, &ask).0 == 503)
}

/// Milliseconds to render and write, and until Envoy answers by it.
fn reloads(proto: &str) -> [Vec<f64>; 2] {
    let bench = Bench::without_network();
    let dir = bench.path("envoy");
    let ours = authority(&dir.join("ca"));
    let ca = dir.join("ca/ca.pem");
    let settings = Settings {
        directory: dir.display().to_string(),
        collector_host: PROXY.to_owned(),
        resolvers: vec!["192.0.2.53:53".parse().expect("an address")],
        intercept: true,
        ..Settings::default()
    };
    let write = |number| {
        render_by(
            &policy(proto, number),
            &["a@192.0.2.1"],
            &settings,
            Some(&ours),
        );
    };
    write(0);
    let port = if proto == "http" { 10_080 } else { 10_443 };
    let _envoy = Envoy::start(&dir, &[&format!("{PROXY}:{port}")]);
    let mut took: [Vec<f64>; 2] = Default::default();
    for number in 1..=ROUNDS {
        let host = format!("new{number}.example");
        assert!(!allowed(&ca, proto, &host));
        let began = Instant::now();
        write(number);
        took[0].push(began.elapsed().as_secs_f64() * 1e3);
        eventually_within(Duration::from_secs(120), "the new policy", || {
            allowed(&ca, proto, &host).then_some(())
        });
        took[1].push(began.elapsed().as_secs_f64() * 1e3);
    }
    took
}

pub(crate) fn thousand() {
    let _place = Bench::new();
    let _names = Resolver::naming(&[]);
    println!(
        "\n| a policy of {RULES} rules changes by one | rendered and written, ms | in force, ms |\n|---|---|---|"
    );
    for proto in ["http", "https"] {
        let took = reloads(proto).map(|all| format!("{:.0}", median(all)));
        row(proto, &took);
    }
}
