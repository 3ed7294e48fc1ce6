//! Envoy between clients of every protocol and servers of every protocol.

use super::{AGENT, policy, settings};
use kernel_tests::{collector::Collector, dns::Resolver, eventually, run::Bench};
use proxy::Settings;
use serde_json::{Map, Value};
use stack_tests::{
    envoy::{Envoy, authority, render},
    greeting::{Greeting, Tls},
    origin::Origin,
};
use std::{net::TcpStream, path::PathBuf};

/// Where agents reach Envoy.
pub(super) const AGENT_AT: &str = AGENT;

const POLICY: &str = "
rules:
  - name: api
    dst: api.example
    proto: https
    path_rules: [{ path: /v1/, methods: [GET, POST, PUT] }, { path: /ok.Service/ }]
  - name: old
    dst: old.example
    proto: https
    path_rules: [{ path: /v1/, methods: [GET, POST, PUT] }]
  - name: web
    dst: web.example
    proto: http
    path_rules: [{ path: /v1/, methods: [GET, POST, PUT] }]
  - { name: other, dst: other.example, proto: https }
";

/// Servers and Envoy; there is no kernel in between.
pub(super) struct World {
    pub(super) collector: Collector,
    pub(super) ca: PathBuf,
    origins: Vec<Origin>,
    _names: Resolver,
    _envoy: Envoy,
    _bench: Bench,
}

impl World {
    pub(super) fn start() -> Self {
        let bench = Bench::new();
        let collector = Collector::start(&bench);
        let names = Resolver::naming(&[
            ("api.example", "203.0.113.9"),
            ("web.example", "203.0.113.9"),
            ("other.example", "203.0.113.9"),
            ("old.example", "198.51.100.7"),
        ]);
        let (dir, theirs) = (bench.path("envoy"), bench.path("servers"));
        let servers = authority(&theirs);
        let origins = vec![
            Origin::tls(
                "203.0.113.9:443",
                &servers,
                &["api.example", "other.example"],
            ),
            Origin::plain("203.0.113.9:80"),
            Origin::tls_http1("198.51.100.7:443", &servers, &["old.example"]),
        ];
        let settings = Settings {
            intercept: true,
            upstream_ca: theirs.join("ca.pem").display().to_string(),
            ..settings(&dir)
        };
        render(
            &policy(POLICY),
            &[&format!("acme/reviewer@{AGENT}")],
            &settings,
        );
        let envoy = Envoy::start(&dir, &["192.0.2.1:10080", "192.0.2.1:10443"]);
        Self {
            collector,
            ca: dir.join("ca/ca.pem"),
            origins,
            _names: names,
            _envoy: envoy,
            _bench: bench,
        }
    }

    /// How an honest client greets.
    pub(super) fn honest<'a>(&'a self, name: &'a str, alpn: &'a [&'a str]) -> Greeting<'a> {
        Greeting {
            name: Some(name),
            ech: None,
            alpn,
            ca: Some(&self.ca),
        }
    }

    #[track_caller]
    pub(super) fn greet(&self, name: &str, alpn: &str, stream: TcpStream) -> Tls {
        let greeting = self.honest(name, &[alpn]).over(stream);
        greeting.expect("the project's certificate is believed")
    }

    /// What all servers were asked.
    pub(super) fn asked(&self) -> Vec<String> {
        self.origins.iter().flat_map(Origin::asked).collect()
    }

    /// The one record of a connection.
    #[track_caller]
    pub(super) fn record(&self, port: u16) -> Value {
        let own = port.to_string();
        eventually(&format!("a record of port {port}"), || {
            let mut all = self.collector.stream("clawker-envoy");
            all.retain(|r| r.attributes["src_port"] == own);
            let known = |one: Map<String, Value>| {
                one.into_iter().filter(|(_, value)| *value != "-").collect()
            };
            all.pop().map(|one| known(one.attributes))
        })
    }
}
