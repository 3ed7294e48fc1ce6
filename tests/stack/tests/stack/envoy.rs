//! What is rendered for Envoy, held by the real one: requests of every spelling against `policy explain`.

mod led;
mod plain;
mod reload;
mod tls;

use kernel_tests::{PATIENCE, dns::Resolver};
use policy::Policy;
use proxy::Settings;
use stack_tests::envoy::{render, validate};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

/// The agent; what connects to an address of the namespace comes from it.
const AGENT: &str = "192.0.2.1";
const NOBODY: &str = "192.0.2.2";

fn policy(source: &str) -> Policy {
    Policy::parse(source).policy.expect("a policy")
}

fn settings(dir: &Path) -> Settings {
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

/// Whether an answer has all of its body.
fn whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse() == Ok(body.len()))
}

/// Status and body of the answer to what is sent as it is; 0 where the connection is closed.
fn send(to: &str, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    let mut bytes = [0; 4096];
    // Until the whole answer is there; a connection that is closed or reset is an answer, too.
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        answer.push_str(&String::from_utf8_lossy(&bytes[..n]));
        if whole(&answer) {
            break;
        }
    }
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
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
