//! Evasion where the real Envoy is in the way: agents under `run --proxy`. The number is that of the case in the list
//! of abuses; each has its verdict, its flow record and Envoy's. An escape is judged by what servers were asked.

mod names;
mod places;
mod tunnels;

use kernel_tests::{
    check::fields,
    collector::{Collector, Received},
    dns::Resolver,
    eventually,
    run::{Bench, Outcome},
};
use proxy::Settings;
use serde_json::{Value, json};
use stack_tests::{
    envoy::{Envoy, authority, render},
    greeting::{Greeting, Tls},
    http1,
    inside::Inside,
    origin::Origin,
};
use std::{net::TcpStream, path::PathBuf};

/// Envoy's address, and so the one that an agent has who is led there.
const PROXY: &str = "192.0.2.1";
/// Envoy's address for a second agent.
const SECOND: &str = "192.0.2.2";
/// Where all names lead that somebody may ask for.
const SHARED: &str = "203.0.113.9";
/// A server of the agent's friends.
const FOREIGN: &str = "198.51.100.7";

/// What `run` and Envoy are both told.
const POLICY: &str = "version: 1
resolvers: [192.0.2.53]
rules:
  - name: api
    dst: api.example
    proto: https
    path_rules: [{ path: /v1/ }, { path: /svc. }]
  - { name: web, dst: web.example, proto: http }
  - { name: packages, dst: '*.pkg.example', proto: https }
  - { name: never, dst: evil.pkg.example, proto: any, action: deny }
  - { name: gate, dst: gate.example, proto: http }
  - { name: meta, dst: meta.example, proto: http, private: true }
";

const NAMES: [(&str, &str); 8] = [
    ("api.example", SHARED),
    ("web.example", SHARED),
    ("a.pkg.example", SHARED),
    ("evil.pkg.example", SHARED),
    ("dns.example", SHARED),
    ("foreign.example", FOREIGN),
    ("gate.example", "172.17.0.1"),
    ("meta.example", "169.254.169.254"),
];

/// An agent, Envoy, and servers that tell what they were asked.
struct World {
    bench: Bench,
    collector: Collector,
    ca: PathBuf,
    shared: [Origin; 2],
    foreign: [Origin; 2],
    inside: Inside,
    tried: Vec<(u16, Value, Value)>,
    _names: Resolver,
    _envoy: Envoy,
}

/// Something that the agent has tried; the body is for whoever reads of a failure.
#[derive(Debug)]
#[expect(dead_code, reason = "the derived text is what reads it")]
struct Tried {
    port: u16,
    status: u16,
    body: String,
}

impl World {
    fn start(policy: &str) -> Self {
        Self::of(policy, &format!("acme/reviewer@{PROXY}"))
    }

    fn of(policy: &str, agent: &str) -> Self {
        let bench = Bench::new();
        let collector = Collector::start(&bench);
        let names = Resolver::naming(&NAMES);
        let (dir, theirs) = (bench.path("envoy"), bench.path("servers"));
        let servers = authority(&theirs);
        let tls = |at: &str| {
            let names = NAMES.map(|(name, _)| name);
            Origin::tls(&format!("{at}:443"), &servers, &names)
        };
        let plain = |at: &str| Origin::plain(&format!("{at}:80"));
        let (shared, foreign) = ([tls(SHARED), plain(SHARED)], [tls(FOREIGN), plain(FOREIGN)]);
        let settings = Settings {
            intercept: true,
            upstream_ca: theirs.join("ca.pem").display().to_string(),
            ..super::envoy::settings(&dir)
        };
        let agents: Vec<&str> = agent.split(' ').collect();
        render(&super::envoy::policy(policy), &agents, &settings);
        let envoy = Envoy::start(&dir, &["192.0.2.1:10443", "192.0.2.1:10080"]);
        let args = ["--proxy", PROXY, "--agent", "reviewer", "--project", "acme"];
        let inside = Inside::start(&bench, policy, &args);
        Self {
            ca: dir.join("ca/ca.pem"),
            bench,
            collector,
            shared,
            foreign,
            inside,
            tried: Vec::new(),
            _names: names,
            _envoy: envoy,
        }
    }

    /// How an honest client greets, who believes the project's authority.
    fn honest<'a>(&'a self, name: &'a str, alpn: &'a [&'a str]) -> Greeting<'a> {
        Greeting {
            name: Some(name),
            ech: None,
            alpn,
            ca: Some(&self.ca),
        }
    }

    /// Greets so over a socket of the agent's.
    #[track_caller]
    fn greet(&self, name: &str, alpn: &str, stream: TcpStream) -> Tls {
        let greeting = self.honest(name, &[alpn]).over(stream);
        greeting.expect("the project's certificate is believed")
    }

    /// Greets so and sends a request.
    fn https(&self, stream: TcpStream, name: &str, text: &str) -> Tried {
        ask_over(&self.honest(name, &["http/1.1"]), stream, text)
    }

    /// What was tried must have left one flow record, and these of Envoy's.
    fn expect(&mut self, tried: &Tried, flow: Value, envoy: Value) {
        self.tried.push((tried.port, flow, envoy));
    }

    /// Ends the agent and holds the records against what was expected, and the servers against what they may
    /// have been asked: of [`SHARED`] over TLS and in the clear; of [`FOREIGN`] nothing.
    #[track_caller]
    fn end(self, asked: [&[&str]; 2]) -> Outcome {
        let out = self.inside.end(&self.bench);
        for (port, flow, envoy) in &self.tried {
            let one = out.only(&[("src_port", json!(port)), ("l4_proto", json!("tcp"))]);
            fields(one, flow);
            let common = json!({"src_ip": one["src_ip"], "agent": "reviewer", "project": "acme"});
            fields(one, &common);
            let wanted = envoy.as_array().expect("a list");
            let records = records_of(&self.collector, *port, wanted.len());
            for (record, wanted) in records.iter().zip(wanted) {
                // What there is not is a dash, which the collector leaves out.
                let known = record.attributes.iter().filter(|(_, value)| **value != "-");
                let record: Value = known.map(|(k, v)| (k.clone(), v.clone())).collect();
                fields(&record, wanted);
                fields(&record, &common);
            }
        }
        assert_eq!(self.shared.map(|one| one.asked()), asked);
        assert_eq!(self.foreign.map(|one| one.asked()), [[""; 0]; 2]);
        out
    }
}

/// Envoy's records of a connection, in order, when there are so many.
#[track_caller]
fn records_of(collector: &Collector, port: u16, n: usize) -> Vec<Received> {
    let own = port.to_string();
    eventually(&format!("{n} records of port {port}"), || {
        let mut all = collector.stream("clawker-envoy");
        all.retain(|r| r.attributes["src_port"] == own);
        let told: Vec<_> = all.iter().map(|r| &r.attributes).collect();
        assert!(all.len() <= n, "{told:?} instead of {n}");
        (all.len() == n).then_some(all)
    })
}

/// Greets, sends a request and hears the answer; status 0 where either comes to nothing.
fn ask_over(greeting: &Greeting<'_>, stream: TcpStream, text: &str) -> Tried {
    let port = stream.local_addr().expect("a socket").port();
    let (status, body) = match greeting.over(stream) {
        Ok(mut tls) => http1::ask(&mut tls, text),
        Err(e) => (0, e),
    };
    Tried { port, status, body }
}

/// The same in the clear.
fn ask_plainly(mut stream: TcpStream, text: &str) -> Tried {
    let port = stream.local_addr().expect("a socket").port();
    let (status, body) = http1::ask(&mut stream, text);
    Tried { port, status, body }
}

/// A request as clients write it.
fn get(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// The flow of a connection that was led to Envoy.
fn led(rule: &str, host: &str, port: u16) -> Value {
    json!({"verdict": "ALLOWED", "reason": "rule", "rule": rule, "dst_ip": SHARED, "dst_port": port, "dst_host": host,
           "proxy_ip": PROXY, "proxy_port": port + 10_000})
}

/// The same where the agent had looked up several names of the address.
fn led_by(rule: &str, hosts: &[&str], port: u16) -> Value {
    let mut flow = led(rule, "", port);
    (flow["dst_host"], flow["dst_hosts"]) = (json!(null), json!(hosts));
    flow
}
