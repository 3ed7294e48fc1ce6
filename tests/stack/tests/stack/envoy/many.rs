//! Many hosts, and IPv6.

use super::{AGENT, policy, settings};
use kernel_tests::{
    check::fields,
    collector::Collector,
    dns::{Resolver, address},
    eventually, eventually_within,
    run::Bench,
};
use proxy::Settings;
use serde_json::json;
use stack_tests::{
    envoy::{Envoy, authority, render_by},
    greeting::Greeting,
    http1,
    inside::Inside,
    origin::Origin,
};
use std::{fmt::Write as _, path::Path, time::Duration};

const HOSTS: usize = 1000;

/// A rule for each of a thousand hosts, which all have one path of their own.
fn thousand(last: &str) -> String {
    let mut text = String::from("rules:\n");
    for n in 0..HOSTS {
        let name = if n + 1 == HOSTS {
            last.to_owned()
        } else {
            format!("h{n}.many.example")
        };
        let _ = writeln!(
            text,
            "  - {{ name: rule {n}, dst: {name}, proto: https, path_rules: [{{ path: /{n}/ }}] }}"
        );
    }
    text
}

/// Status of a request; 0 where the handshake fails.
fn status(ca: &Path, host: &str, path: &str) -> u16 {
    let greeting = Greeting {
        name: Some(host),
        ech: None,
        alpn: &["http/1.1"],
        ca: Some(ca),
    };
    let stream = http1::connect(&format!("{AGENT}:10443"));
    let Ok(mut tls) = greeting.over(stream) else {
        return 0;
    };
    http1::ask(
        &mut tls,
        &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
    )
    .0
}

#[test]
fn a_thousand_hosts_are_told_apart_and_a_new_policy_of_as_many_takes_their_place() {
    let bench = Bench::new();
    let hosts = [
        "h0.many.example",
        "h500.many.example",
        "h999.many.example",
        "new.many.example",
    ];
    let _names = Resolver::naming(&hosts.map(|host| (host, "203.0.113.9")));
    let (dir, theirs) = (bench.path("envoy"), bench.path("servers"));
    let origin = Origin::tls("203.0.113.9:443", &authority(&theirs), &hosts);
    let settings = Settings {
        intercept: true,
        upstream_ca: theirs.join("ca.pem").display().to_string(),
        ..settings(&dir)
    };
    let ours = authority(&dir.join("ca"));
    let agents = [format!("acme/reviewer@{AGENT}")];
    let agents = [agents[0].as_str()];
    render_by(
        &policy(&thousand("h999.many.example")),
        &agents,
        &settings,
        Some(&ours),
    );
    let _envoy = Envoy::start(&dir, &["192.0.2.1:10443"]);
    let ca = dir.join("ca/ca.pem");
    eventually("the first answer", || {
        (status(&ca, "h0.many.example", "/0/x") == 200).then_some(())
    });
    for (n, host) in [(0, hosts[0]), (500, hosts[1]), (999, hosts[2])] {
        assert_eq!(status(&ca, host, &format!("/{n}/x")), 200, "{host}");
        assert_eq!(status(&ca, host, "/1/x"), 403, "{host}");
    }
    assert_eq!(status(&ca, "new.many.example", "/999/x"), 0);
    render_by(
        &policy(&thousand("new.many.example")),
        &agents,
        &settings,
        Some(&ours),
    );
    eventually_within(Duration::from_secs(60), "the new policy", || {
        (status(&ca, "new.many.example", "/999/x") == 200).then_some(())
    });
    assert_eq!(status(&ca, "h999.many.example", "/999/x"), 0);
    assert_eq!(status(&ca, hosts[1], "/500/x"), 200);
    assert!(origin.asked().iter().all(|line| !line.contains(" /1/")));
}

#[test]
fn an_agent_of_ipv6_reaches_a_server_of_ipv6_through_envoy() {
    const POLICY: &str = "version: 1
resolvers: ['2001:db8::53']
rules: [{ name: six, dst: six.example, proto: http, path_rules: [{ path: /v1/ }] }]
";
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let names = Resolver::start("2001:db8::53");
    names.set("six.example", vec![address("2001:db8::2", 300)]);
    names.set("evil.example", vec![address("2001:db8::2", 300)]);
    let origin = Origin::plain("[2001:db8::2]:80");
    let dir = bench.path("envoy");
    let settings = Settings {
        resolvers: vec!["[2001:db8::53]:53".parse().unwrap()],
        listen: vec!["2001:db8::1".parse().unwrap()],
        ..settings(&dir)
    };
    render_by(
        &policy(POLICY),
        &["acme/reviewer@2001:db8::1"],
        &settings,
        None,
    );
    let _envoy = Envoy::start(&dir, &["[2001:db8::1]:10080"]);
    let args = [
        "--proxy",
        "2001:db8::1",
        "--agent",
        "reviewer",
        "--project",
        "acme",
    ];
    let mut inside = Inside::start(&bench, POLICY, &args);
    let six = inside
        .value("socket.inet_ntop(socket.AF_INET6, ask('six.example', 28, '2001:db8::53')[-16:])");
    assert_eq!(six, "2001:db8::2");
    let mut ports = Vec::new();
    for (path, host, wanted) in [
        ("/v1/x", "six.example", 200),
        ("/v2/x", "six.example", 403),
        ("/v1/x", "evil.example", 403),
        ("/v1/x", "[2001:db8::2]", 403),
    ] {
        let mut stream = inside.connect(&six, 80).unwrap();
        ports.push((stream.local_addr().unwrap().port(), wanted));
        let (status, body) = http1::ask(
            &mut stream,
            &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
        );
        assert_eq!(status, wanted, "{host} {path}: {body}");
    }
    let out = inside.end(&bench);
    for (port, status) in ports {
        fields(
            out.only(&[("src_port", json!(port)), ("dst_port", json!(80))]),
            &json!({"verdict": "ALLOWED", "rule": "six", "src_ip": "2001:db8::1", "dst_ip": "2001:db8::2", "dst_host": "six.example",
                    "proxy_ip": "2001:db8::1", "proxy_port": 10080}),
        );
        let own = port.to_string();
        let record = eventually("Envoy's record", || {
            let all = collector.stream("clawker-envoy");
            all.into_iter().find(|r| r.attributes["src_port"] == own)
        });
        let (verdict, upstream) = if status == 200 {
            ("ALLOWED", "2001:db8::2")
        } else {
            ("DENIED", "-")
        };
        fields(
            &json!(record.attributes),
            &json!({"verdict": verdict, "src_ip": "2001:db8::1", "upstream_ip": upstream, "response_code": status.to_string()}),
        );
    }
    assert_eq!(origin.asked(), ["GET /v1/x six.example"]);
}
