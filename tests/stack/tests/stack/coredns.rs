//! What is rendered for CoreDNS, held by the real one: queries of every spelling against the policy.

mod answers;
mod changes;
mod evasion;
mod kept;
mod log;

use kernel_tests::net;
use policy::{Mode, Policy};
use stack_tests::{
    coredns::{ADDRESSES, CoreDns, UPSTREAM, render},
    dns::{Answer, Query, Upstream, anything},
};
use std::{fs, path::Path};
use tempfile::TempDir;

/// An agent, by both of its addresses.
const ANN: &str = "192.0.2.1";
const ANN6: &str = "2001:db8::1";
/// Another one.
const BOB: &str = "192.0.2.2";
/// Nobody that is known, by both addresses.
const NOBODY: &str = "203.0.113.9";
const NOBODY6: &str = "2001:db8::2";

/// The two, as the rendering is told of them.
const AGENTS: [&str; 2] = ["acme/ann@192.0.2.1,2001:db8::1", "shop/bob@192.0.2.2"];

fn policy(source: &str) -> Policy {
    Policy::parse(source).policy.expect("a policy")
}

/// CoreDNS with a policy for both agents, and whom it asks.
struct Bench {
    _dir: TempDir,
    upstream: Upstream,
    coredns: CoreDns,
}

impl Bench {
    fn start(source: &str) -> Self {
        net::isolate();
        let dir = kernel_tests::temporary();
        let upstream = Upstream::start(UPSTREAM, anything);
        let corefile = render(&policy(source), &AGENTS);
        let log = dir.path().join("queries.log");
        let coredns = CoreDns::start(dir.path(), &corefile, log);
        Self {
            _dir: dir,
            upstream,
            coredns,
        }
    }
}

/// Asks from an address, over UDP or TCP, by the server's address of the same version.
fn ask(query: &Query, from: &str, tcp: bool) -> Answer {
    let to = ADDRESSES[usize::from(from.contains(':'))];
    match tcp {
        true => query.tcp(from, to),
        false => query.udp(from, to),
    }
}

#[test]
fn every_golden_corefile_is_one_that_coredns_takes() {
    net::isolate();
    // Addresses that golden files listen on.
    for address in ["10.237.64.3/32", "fd00::3/128"] {
        net::ip(&["addr", "add", address, "dev", "lo"]);
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../loader/proxy/tests/golden");
    let mut tried = 0;
    let mut takes = |corefile: &str| {
        let dir = kernel_tests::temporary();
        let coredns = CoreDns::start(dir.path(), corefile, dir.path().join("queries.log"));
        let said = coredns.said();
        assert!(
            !said.contains("[ERROR]") && !said.contains("[WARNING]"),
            "{said}"
        );
        tried += 1;
    };
    for entry in fs::read_dir(golden).unwrap() {
        let dir = entry.unwrap().path();
        if let Ok(corefile) = fs::read_to_string(dir.join("Corefile")) {
            takes(&corefile);
        }
        let source = fs::read_to_string(dir.join("policy.yaml")).unwrap();
        for mode in [Mode::Enforce, Mode::Audit, Mode::Observe] {
            for default in ["deny", "allow"] {
                let mode = format!("{mode:?}").to_lowercase();
                let source = format!("mode: {mode}\ndefault: {default}\n{source}");
                takes(&render(&policy(&source), &AGENTS));
            }
        }
    }
    assert!(tried >= 20, "{tried}");
}
