//! Loader, bridge and collector beside an engine: the whole way of a record.

use crate::{container::Container, engine::Engine};
use ebpf_manager::{fleet, instance::Root, kernel::Pins};
use kernel_tests::{
    collector::{Collector, HTTP, Received},
    eventually, eventually_within, peer,
    run::Bench,
    talk::Talk,
};
use lease::{BootId, Leases};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// Everybody may reach one block of ports, the agents of one project another one besides.
pub const POLICY: &str = "version: 1\n\
rules:
  - { name: common, dst: 192.0.2.1, proto: tcp, port: 8000-8099 }
projects:
  shop:
    rules:
      - { name: shop, dst: 192.0.2.1, proto: tcp, port: 8100-8199 }
";

/// Where the bridge takes what the collector's intake hands it.
pub const INTAKE: &str = "192.0.2.1:4320";

/// Loader, bridge and collector. `end` says whether all of them went well; without it they are just gone.
pub struct Stack {
    /// Files and pins.
    pub bench: Bench,
    /// Behind the bridge.
    pub collector: Collector,
    /// Between the two.
    pub bridge: Talk,
    /// `ebpf-manager serve`.
    pub loader: Talk,
}

fn bridge_binary(bench: &Bench) -> PathBuf {
    let manager = PathBuf::from(bench.manager().get_program());
    manager.with_file_name("otlp-bridge")
}

pub(crate) fn start_bridge(bench: &Bench) -> Talk {
    let mut c = Command::new(bridge_binary(bench));
    c.args(["serve", "--to", &format!("http://{HTTP}/v1/logs")]);
    c.args(["--listen", INTAKE]);
    c.arg("--spool").arg(spool(bench));
    c.arg("--socket").arg(bench.path("bridge.sock"));
    c.arg("--leases").arg(leases(bench));
    let bridge = Talk::start(&mut c);
    eventually("the bridge to listen", || {
        let mut c = Command::new(bridge_binary(bench));
        c.arg("check-health").arg("--socket");
        let out = c.arg(bench.path("bridge.sock")).output().unwrap();
        out.status.success().then_some(())
    });
    bridge
}

pub(crate) fn start_loader(bench: &Bench, engine: &Path, policy: &Path, more: &[&str]) -> Talk {
    let mut c = bench.manager();
    c.arg("serve").arg("--policy").arg(policy);
    c.arg("--engine").arg(engine);
    c.arg("--leases").arg(leases(bench));
    let socket = bench.path("bridge.sock");
    c.args(["--otlp", &format!("unix://{}", socket.display())]);
    c.args(more);
    Talk::start(c.stdin(Stdio::null()))
}

/// Directory of the bridge's spool.
pub(crate) fn spool(bench: &Bench) -> PathBuf {
    bench.path("spool")
}

fn leases(bench: &Bench) -> PathBuf {
    bench.path("leases/leases.json")
}

impl Stack {
    /// Starts all of it. The thread must be in the engine's namespaces.
    #[must_use]
    pub fn start(engine: &Engine) -> Self {
        Self::with(engine, POLICY, &["--max-agents", "8", "--linger", "5"])
    }

    /// The same with a policy and arguments for `serve`.
    #[must_use]
    pub fn with(engine: &Engine, policy: &str, more: &[&str]) -> Self {
        let bench = Bench::without_network();
        let collector = Collector::start(&bench);
        let bridge = start_bridge(&bench);
        let policy = bench.policy(policy);
        let loader = start_loader(&bench, &engine.socket(), &policy, more);
        let stack = Self {
            bench,
            collector,
            bridge,
            loader,
        };
        stack.is_up();
        stack
    }

    /// Waits until `serve` is there.
    pub(crate) fn is_up(&self) {
        eventually("serve to be there", || {
            let out = self.bench.operate(&["dump", "--instance", "serve"]);
            out.status.success().then_some(())
        });
    }

    /// What is pinned.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins::new(&Root::new(&self.bench.pins).dir().join(fleet::INSTANCE))
    }

    /// The leases as published.
    #[must_use]
    pub fn leases(&self) -> Leases {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        lease::load(&leases(&self.bench), &BootId::parse(&boot).unwrap()).unwrap()
    }

    /// Audit records of a kind so far, in order.
    #[must_use]
    pub fn audits(&self, event: &str) -> Vec<Received> {
        let mut all = self.collector.stream("clawker-overseer");
        all.retain(|r| r.record["eventName"] == format!("clawker.overseer.{event}"));
        all
    }

    /// Waits for an audit record about a container.
    #[track_caller]
    pub fn audit(&self, event: &str, of: &Container<'_>) -> Received {
        eventually(&format!("{event} of {}", of.id), || {
            let id = Value::from(of.id.as_str());
            let mut all = self.audits(event).into_iter();
            all.find(|r| r.attributes.get("container_id") == Some(&id))
        })
    }

    /// Runs an agent and waits until it is enrolled.
    #[track_caller]
    pub fn agent<'e>(
        &self,
        engine: &'e Engine,
        name: &str,
        project: &str,
        arguments: &[&str],
    ) -> Container<'e> {
        let agent = engine.agent(name, project, arguments);
        self.audit("enrolled", &agent);
        agent
    }

    /// Waits until there are so many records of flows to a port, and never more.
    #[track_caller]
    pub fn flows_to(&self, port: u16, n: usize) -> Vec<Received> {
        eventually(&format!("{n} records of flows to port {port}"), || {
            let mut all = self.collector.received();
            all.retain(|r| r.attributes.get("dst_port") == Some(&port.into()));
            assert!(all.len() <= n, "{all:#?}");
            (all.len() == n).then_some(all)
        })
    }

    /// The one record of a flow to a port.
    #[track_caller]
    pub fn flow_to(&self, port: u16) -> Received {
        self.flows_to(port, 1).remove(0)
    }

    /// Waits until nobody is left: every container is gone, and everything of it is told. Then nothing
    /// of anybody may be left in the kernel, and nothing open in the leases.
    #[track_caller]
    pub fn is_empty(&self, within: Duration) {
        let pins = self.pins();
        eventually_within(within, "every agent to be gone", || {
            pins.infos().unwrap().is_empty().then_some(())
        });
        eventually_within(within, "every link to be gone", || {
            let links = fs::read_dir(pins.dir().join("links"));
            (links.into_iter().flatten().count() == 0).then_some(())
        });
        assert!(pins.folded().unwrap().is_empty());
        let learned = pins.learned().unwrap();
        assert!(learned.names.is_empty() && learned.addrs.is_empty());
        for (i, row) in pins.books().unwrap().iter().enumerate().skip(1) {
            let sum: u64 = row.ended.iter().sum();
            assert_eq!((row.slot, row.opened, sum), (0, 0, 0), "row {i}");
        }
        eventually("every lease to be closed", || {
            let leases = self.leases();
            let open = leases.iter().any(lease::Lease::is_open);
            (!open).then_some(())
        });
    }

    /// Ends what runs, and what would stay by design.
    #[track_caller]
    pub fn end(self) {
        self.loader.signal(Signal::SIGTERM);
        let out = self.loader.end(&self.bench);
        assert_eq!(out.code, 0, "{}", out.stderr);
        self.bridge.signal(Signal::SIGTERM);
        let out = self.bridge.end(&self.bench);
        assert_eq!(out.code, 0, "{}", out.stderr);
        let args = ["detach", "--instance", "serve", "--force"];
        assert!(self.bench.operate(&args).status.success());
    }
}

/// Sends so many bytes to a port of the test's, where somebody takes them.
#[track_caller]
pub fn send(agent: &Container<'_>, port: u16, bytes: u64) {
    let server = peer::once(&format!("192.0.2.1:{port}"), |mut stream| {
        peer::drain(&mut stream)
    });
    let said = agent.exec(&format!("print(tcp('192.0.2.1', {port}, b'x' * {bytes}))"));
    assert_eq!(said, "ok");
    assert_eq!(server.join().unwrap().1, bytes);
}

/// Asserts that a port of the test's is out of reach.
#[track_caller]
pub fn is_denied(agent: &Container<'_>, port: u16) {
    let said = agent.exec(&format!("print(tcp('192.0.2.1', {port}))"));
    assert_eq!(said, "EPERM");
}

/// Asserts whose a record is: labels as they are, the container as it is called now.
#[track_caller]
pub fn is_of(r: &Received, agent: &Container<'_>, labels: (&str, &str)) {
    let name = agent.inspect()["Name"].as_str().unwrap().to_owned();
    is_of_named(r, agent, labels, name.trim_start_matches('/'));
}

/// The same, with the name that the container had.
#[track_caller]
pub fn is_of_named(r: &Received, agent: &Container<'_>, labels: (&str, &str), name: &str) {
    for (field, value) in [
        ("agent", labels.0),
        ("project", labels.1),
        ("container_id", &agent.id),
        ("container_name", name),
    ] {
        assert_eq!(r.attributes.get(field), Some(&Value::from(value)), "{r:?}");
    }
}
