//! The real CoreDNS, with a rendered Corefile, in the test's network namespace.

use crate::program::{self, Program};
use kernel_tests::{cached, eventually};
use policy::Policy;
use proxy::{Agent, Fleet, Settings, coredns};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Where it listens, for IPv4 and for IPv6.
pub const ADDRESSES: [&str; 2] = ["192.0.2.53", "2001:db8::53"];
/// Whom it asks.
pub const UPSTREAM: &str = "198.51.100.7";

/// What scripts/coredns.sh built.
fn binary() -> PathBuf {
    cached("bin/coredns", "coredns.sh")
}

/// Where it listens and whom it asks, in the namespace of a test.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        listen: ADDRESSES.map(|a| a.parse().expect("an address")).to_vec(),
        resolvers: vec![SocketAddr::new(UPSTREAM.parse().expect("an address"), 53)],
        ..Settings::default()
    }
}

/// A Corefile for agents.
#[must_use]
pub fn render(policy: &Policy, agents: &[&str]) -> String {
    let agents = agents
        .iter()
        .map(|text| Agent::parse(text).expect("an agent"));
    let fleet = Fleet::new(agents.collect()).expect("a fleet");
    coredns::render(policy, &fleet, &settings())
}

/// A CoreDNS that runs. It ends with this.
pub struct CoreDns {
    program: Program,
    dir: PathBuf,
}

impl CoreDns {
    /// Starts it with a Corefile in a directory, where its query log is, too, and waits until it answers.
    #[must_use]
    pub fn start(dir: &Path, corefile: &str, log: PathBuf) -> Self {
        let mut coredns = Self {
            program: Program::new("CoreDNS", log),
            dir: dir.to_owned(),
        };
        coredns.put(corefile);
        coredns.restart();
        coredns
    }

    /// Has another Corefile where it looks for one, as the loader does it.
    pub fn put(&self, corefile: &str) {
        let new = self.dir.join("Corefile.new");
        fs::write(&new, corefile).expect("the file is written");
        fs::rename(&new, self.dir.join("Corefile")).expect("it takes its place");
    }

    /// Starts it again, and waits until it answers.
    pub fn restart(&mut self) {
        let mut command = program::command(binary());
        command.arg("-conf").arg(self.dir.join("Corefile"));
        // Nothing of this machine's environment: it has variables of its own.
        command.env_clear();
        let before = self.said().len();
        self.program.start(command);
        eventually("CoreDNS to listen", || {
            self.program.must_run();
            self.said()[before..].contains("\nCoreDNS-").then_some(())
        });
    }

    /// What it has said so far: its query log and everything else.
    #[must_use]
    pub fn said(&self) -> String {
        self.program.said()
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.program.kill();
    }
}
