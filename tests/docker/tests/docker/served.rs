//! The whole way: real containers, the loader, the bridge, a real collector.

use docker_tests::{container::Container, engine::Engine};
use kernel_tests::{
    collector::{Collector, HTTP, Received},
    eventually, peer,
    run::Bench,
    talk::Talk,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Everybody may reach one block of ports, the agents of one project another one besides.
const POLICY: &str = "version: 1\n\
rules:
  - { name: common, dst: 192.0.2.1, proto: tcp, port: 8000-8099 }
projects:
  shop:
    rules:
      - { name: shop, dst: 192.0.2.1, proto: tcp, port: 8100-8199 }
";

/// Loader, bridge and collector beside an engine.
struct Stack {
    bench: Bench,
    collector: Collector,
    bridge: Talk,
    loader: Talk,
}

fn bridge_binary(bench: &Bench) -> PathBuf {
    let manager = PathBuf::from(bench.manager().get_program());
    manager.with_file_name("otlp-bridge")
}

fn start_bridge(bench: &Bench) -> Talk {
    let mut c = Command::new(bridge_binary(bench));
    c.args(["serve", "--to", &format!("http://{HTTP}/v1/logs")]);
    c.arg("--spool").arg(bench.path("spool"));
    c.arg("--socket").arg(bench.path("bridge.sock"));
    c.arg("--leases").arg(bench.path("leases/leases.json"));
    let bridge = Talk::start(&mut c);
    eventually("the bridge to listen", || {
        let mut c = Command::new(bridge_binary(bench));
        c.arg("check-health").arg("--socket");
        let out = c.arg(bench.path("bridge.sock")).output().unwrap();
        out.status.success().then_some(())
    });
    bridge
}

fn start_loader(bench: &Bench, engine: &Path, policy: &Path) -> Talk {
    let mut c = bench.manager();
    c.arg("serve").arg("--policy").arg(policy);
    c.arg("--engine").arg(engine);
    c.arg("--leases").arg(bench.path("leases/leases.json"));
    let socket = bench.path("bridge.sock");
    c.args(["--otlp", &format!("unix://{}", socket.display())]);
    c.args(["--max-agents", "8", "--linger", "5"]);
    Talk::start(c.stdin(Stdio::null()))
}

impl Stack {
    /// To be started when the thread is in the engine's namespaces.
    fn start(engine: &Engine) -> Self {
        let bench = Bench::without_network();
        let collector = Collector::start(&bench);
        let bridge = start_bridge(&bench);
        let policy = bench.policy(POLICY);
        let loader = start_loader(&bench, &engine.socket(), &policy);
        Self {
            bench,
            collector,
            bridge,
            loader,
        }
    }

    /// Waits for an audit record about a container.
    fn audit(&self, event: &str, of: &Container<'_>) -> Received {
        eventually(&format!("{event} of {}", of.id), || {
            let all = self.collector.stream("clawker-overseer").into_iter();
            let mut mine =
                all.filter(|r| r.attributes.get("container_id") == Some(&of.id.as_str().into()));
            mine.find(|r| r.record["eventName"] == event)
        })
    }

    /// Ends what runs, and what would stay by design.
    fn end(self) {
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
fn send(agent: &Container<'_>, port: u16, bytes: u64) {
    let server = peer::once(&format!("192.0.2.1:{port}"), |mut stream| {
        peer::drain(&mut stream)
    });
    let said = agent.exec(&format!("print(tcp('192.0.2.1', {port}, b'x' * {bytes}))"));
    assert_eq!(said, "ok");
    assert_eq!(server.join().unwrap().1, bytes);
}

fn is_denied(agent: &Container<'_>, port: u16) {
    let said = agent.exec(&format!("print(tcp('192.0.2.1', {port}))"));
    assert_eq!(said, "EPERM");
}

/// Who an agent must be in its records: labels as they are.
fn is_of(r: &Received, agent: &Container<'_>, labels: (&str, &str)) {
    let name = agent.inspect()["Name"].as_str().unwrap().to_owned();
    for (field, value) in [
        ("agent", labels.0),
        ("project", labels.1),
        ("container_id", &agent.id),
        ("container_name", name.trim_start_matches('/')),
    ] {
        assert_eq!(r.attributes.get(field), Some(&Value::from(value)), "{r:?}");
    }
}

#[test]
fn flows_of_several_agents_arrive_at_a_collector_under_their_names() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let label = |key: &str, value: &str| format!("--label=dev.clawker.{key}={value}");
    let odd = ("größe/1 \"x\"", "täg lich");
    let agents = [
        (engine.agent("web", "shop", &[]), ("web", "shop")),
        (engine.agent("db", "shop", &[]), ("db", "shop")),
        (
            engine.run("odd", &[&label("agent", odd.0), &label("project", odd.1)]),
            odd,
        ),
    ];
    let stranger = engine.run("stranger", &[]);
    for (agent, _) in &agents {
        stack.audit("clawker.overseer.enrolled", agent);
    }
    // The number of bytes tells whose flow it is.
    for (n, (agent, labels)) in (0u16..).zip(&agents) {
        send(agent, 8000 + n, 1000 + u64::from(n));
        if labels.1 == "shop" {
            send(agent, 8100 + n, 2000 + u64::from(n));
        } else {
            is_denied(agent, 8150);
        }
        is_denied(agent, 9000 + n);
    }
    send(&stranger, 9500, 77);
    let flows = stack.collector.wait_for(9);
    for (n, (agent, labels)) in (0u64..).zip(&agents) {
        let to = |port: u64| {
            let at = |r: &&Received| r.attributes.get("dst_port") == Some(&port.into());
            let mut found = flows.iter().filter(at);
            let r = found
                .next()
                .unwrap_or_else(|| panic!("port {port}: {flows:?}"));
            assert!(found.next().is_none(), "once");
            is_of(r, agent, *labels);
            r
        };
        let allowed = to(8000 + n);
        assert_eq!(allowed.attributes["verdict"], "ALLOWED");
        assert_eq!(allowed.attributes["bytes_out"], 1000 + n);
        assert_eq!(allowed.attributes["rule"], "common");
        assert_eq!(to(9000 + n).attributes["verdict"], "DENIED");
        if labels.1 == "shop" {
            assert_eq!(to(8100 + n).attributes["rule"], "shop");
        } else {
            assert_eq!(to(8150).attributes["verdict"], "DENIED");
        }
    }
    stack.end();
}

#[test]
fn an_agent_stays_under_its_policy_when_every_process_of_ours_is_dead() {
    let engine = Engine::start();
    let mut stack = Stack::start(&engine);
    let agent = engine.agent("web", "shop", &[]);
    stack.audit("clawker.overseer.enrolled", &agent);
    send(&agent, 8000, 10);
    stack.loader.kill_loader();
    stack.bridge.kill_loader();
    stack.collector.kill();
    send(&agent, 8001, 10);
    is_denied(&agent, 9000);
    let pins = &stack.bench;
    let out = pins.operate(&["dump", "--json"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("\"web\""), "{text}");
    let args = ["detach", "--instance", "serve", "--force"];
    assert!(pins.operate(&args).status.success());
}

#[test]
fn a_restarted_agent_is_another_life_with_the_same_policy() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = engine.agent("web", "shop", &[]);
    stack.audit("clawker.overseer.enrolled", &agent);
    for life in 1..=3u16 {
        send(&agent, 8000 + life, u64::from(life));
        is_denied(&agent, 9000 + life);
        agent.act("restart");
        eventually("the next life to be enrolled", || {
            let all = stack.collector.stream("clawker-overseer");
            let of = |r: &&Received| r.record["eventName"] == "clawker.overseer.enrolled";
            (all.iter().filter(of).count() == usize::from(life) + 1).then_some(())
        });
    }
    let flows = stack.collector.wait_for(6);
    let mut slots = std::collections::BTreeSet::new();
    for r in &flows {
        is_of(r, &agent, ("web", "shop"));
        let id = r.attributes["flow_id"].as_str().unwrap();
        slots.insert(id.split('-').nth(1).unwrap().to_owned());
    }
    assert_eq!(slots.len(), 3, "a slot a life: {slots:?}");
    stack.end();
}
