//! Loader, bridge, collector and the stand-in engine, and what one of them tells of itself.

use abi::{SlotMetrics, VERDICTS};
use ebpf_manager::fleet;
use kernel_tests::{
    agent::code,
    collector::{Collector, HTTP},
    eventually_within,
    run::Bench,
    stand_in::StandIn,
    talk::Talk,
};
use serde_json::Value;
use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Enough for a thousand agents on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const POLICY: &str = "rules: [{ name: one, dst: 192.0.2.1, proto: tcp, port: 8000 }]\n";

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) loader: Talk,
    pub(crate) collector: Collector,
    _bridge: Talk,
    pub(crate) agent: Option<Talk>,
    _idle: Vec<Idle>,
    _engine: StandIn,
    pub(crate) bench: Bench,
}

/// A process that does nothing, as most of them do most of the time.
struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bridge(bench: &Bench) -> PathBuf {
    PathBuf::from(bench.manager().get_program()).with_file_name("otlp-bridge")
}

impl Stage {
    /// With so many agents that do nothing, and one that runs a Python program if there is one.
    pub(crate) fn new(idle: usize, program: Option<&str>, arguments: &[&str]) -> Self {
        let bench = Bench::without_network();
        let engine = StandIn::start(bench.dir.path());
        let sleeping: Vec<_> = (1..=idle)
            .map(|n| {
                let mut c = Command::new("setpriv");
                c.args(["--pdeathsig", "KILL", "sleep", "infinity"]);
                let one = Idle(c.stdin(Stdio::null()).spawn().expect("sleep starts"));
                engine.add(n, one.0.id());
                one
            })
            .collect();
        let agent = program.map(|program| {
            let code = code(&format!("step('here')\n{program}"));
            let mut agent = Talk::start(Command::new("python3").args(["-c", &code]));
            assert_eq!(agent.hear(), "here");
            engine.add(0, agent.pid());
            agent
        });
        let collector = Collector::start(&bench);
        let socket = bench.path("bridge.sock");
        let mut c = Command::new(bridge(&bench));
        c.args(["serve", "--to", &format!("http://{HTTP}/v1/logs")]);
        c.arg("--spool").arg(bench.path("spool"));
        c.arg("--socket").arg(&socket);
        c.arg("--leases").arg(bench.path("leases/leases.json"));
        let bridge = Talk::start(&mut c);
        eventually_within(PATIENCE, "the bridge to listen", || {
            socket.exists().then_some(())
        });
        let mut c = bench.manager();
        c.arg("serve").arg("--policy").arg(bench.policy(POLICY));
        c.arg("--engine").arg(&engine.socket);
        c.arg("--leases").arg(bench.path("leases/leases.json"));
        c.args(["--otlp", &format!("unix://{}", socket.display())]);
        let most = (idle + 1).to_string();
        c.args(["--max-agents", &most]).args(arguments);
        let stage = Self {
            loader: Talk::start(&mut c),
            collector,
            _bridge: bridge,
            _idle: sleeping,
            _engine: engine,
            bench,
            agent,
        };
        let all = idle + usize::from(stage.agent.is_some());
        stage.until("everybody to be enrolled", |s| {
            let pins = s.bench.pins_of(fleet::INSTANCE);
            let infos = pins.infos().ok()?;
            (infos.len() == all).then_some(())
        });
        stage
    }

    pub(crate) fn until<T>(&self, what: &str, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        eventually_within(PATIENCE, what, || probe(self))
    }

    /// Books of the one that does something: row by its number.
    pub(crate) fn books(&self) -> SlotMetrics {
        let pins = self.bench.pins_of(fleet::INSTANCE);
        let (index, _) = pins.infos().expect("a map")[0];
        pins.books().expect("a map")[index as usize]
    }

    /// Records that the collector has taken, and those that wait.
    pub(crate) fn delivered(&self) -> (u64, u64) {
        let mut c = Command::new(bridge(&self.bench));
        c.args(["status", "--json", "--socket"]);
        let out = c.arg(self.bench.path("bridge.sock")).output();
        let out = out.expect("the bridge starts").stdout;
        let told: Value = serde_json::from_slice(&out).expect("JSON");
        let streams = told["streams"].as_array().expect("streams");
        let Some(egress) = streams.iter().find(|s| s["stream"] == "clawker-egress") else {
            return (0, 0);
        };
        let number = |name: &str| egress[name].as_u64().expect("a number");
        (number("delivered"), number("pending"))
    }

    /// Memory of the loader in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.loader.pid());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("VmRSS:"));
        let number = line.and_then(|l| l.split_whitespace().nth(1));
        number.and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Time on a processor of all its threads, nanoseconds.
    pub(crate) fn worked(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.loader.pid()));
        let each = tasks.expect("it runs").flatten().map(|t| {
            let text = fs::read_to_string(t.path().join("schedstat")).unwrap_or_default();
            let first = text.split(' ').next().and_then(|n| n.parse::<u64>().ok());
            first.unwrap_or(0)
        });
        each.sum()
    }
}

/// Flows of all verdicts that have ended, and those of them that records tell of.
pub(crate) fn flows(books: &SlotMetrics) -> (u64, u64) {
    let all = |of: &[u64; VERDICTS]| of.iter().sum();
    (all(&books.ended), all(&books.recorded))
}
