//! What is rendered for Envoy, held by the real one: requests of every spelling against `policy explain`.

mod http2;
mod led;
mod many;
mod outages;
mod plain;
mod protocols;
mod reload;
mod streams;
mod tls;

use kernel_tests::dns::Resolver;
use policy::Policy;
use proxy::Settings;
use stack_tests::{
    envoy::{render, validate},
    http1,
};
use std::{fs, path::Path};

/// The agent; what connects to an address of the namespace comes from it.
const AGENT: &str = "192.0.2.1";
const NOBODY: &str = "192.0.2.2";

pub(super) fn policy(source: &str) -> Policy {
    Policy::parse(source).policy.expect("a policy")
}

pub(super) fn settings(dir: &Path) -> Settings {
    Settings {
        directory: dir.display().to_string(),
        resolvers: vec!["192.0.2.53:53".parse().unwrap()],
        collector_host: AGENT.to_owned(),
        collector_port: 4317,
        ..Settings::default()
    }
}

#[test]
fn every_golden_configuration_is_one_that_envoy_takes() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../loader/proxy/tests/golden");
    let mut tried = 0;
    for entry in fs::read_dir(golden).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path().join("policy.yaml")).unwrap();
        for mode in ["enforce", "audit"] {
            for default in ["deny", "allow"] {
                let dir = tempfile::tempdir().unwrap();
                let source = format!("mode: {mode}\ndefault: {default}\n{source}");
                let settings = Settings {
                    intercept: true,
                    upstream_ca: dir.path().join("ca/ca.pem").display().to_string(),
                    ..settings(dir.path())
                };
                let rendered = render(&policy(&source), &["a@192.0.2.1,2001:db8::1"], &settings);
                let out = validate(&rendered, dir.path());
                let said = String::from_utf8_lossy(&out.stderr);
                assert!(out.status.success(), "{source}\n{said}");
                tried += 1;
            }
        }
    }
    assert!(tried >= 12);
}

/// Status and body of the answer to what is sent as it is; 0 where the connection is closed.
fn send(to: &str, text: &str) -> (u16, String) {
    http1::ask(&mut http1::connect(to), text)
}

fn names() -> Resolver {
    Resolver::naming(&[
        ("api.example", "203.0.113.9"),
        ("a.pkg.example", "203.0.113.9"),
        ("b.a.pkg.example", "203.0.113.9"),
        ("evil.pkg.example", "203.0.113.9"),
        ("pkg.example", "203.0.113.9"),
        ("other.example", "203.0.113.9"),
        ("tls.example", "203.0.113.9"),
        ("wrong.example", "203.0.113.9"),
        ("unchecked.example", "203.0.113.9"),
        ("x.wild.example", "198.51.100.7"),
        ("y.wild.example", "198.51.100.7"),
        ("rebound.example", "127.0.0.1"),
        ("inside.example", "127.0.0.1"),
        ("meta.example", "169.254.169.254"),
    ])
}
