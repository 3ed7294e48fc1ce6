//! The engine as the bench attaches it, and what its maps weigh.

use crate::row;
use aya::programs::Program;
use ebpf_manager::{
    cgroup::{self, Cgroup},
    enrol::{self, Identity},
    instance::{Instance, Root},
    kernel::{Engine, Rings, Sizes},
    resolvers::Place,
};
use policy::Policy;
use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// An attached engine with a reader, beside an empty cgroup.
pub(crate) struct World {
    engine: Engine,
    with: Cgroup,
    without: Cgroup,
    instance: Option<Instance>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<u64>>,
}

/// A policy with `rules` rules besides those that the bench needs.
fn policy(rules: usize) -> String {
    let mut text = String::from(
        "version: 1\nrules:\n  - { dst: 192.0.2.1, proto: any }\n  - { dst: host.example, proto: https }\n",
    );
    for i in 0..rules {
        let a = Ipv4Addr::from(0x0b00_0000 + u32::try_from(i).unwrap_or(0) * 7);
        text.push_str(&format!(
            "  - {{ dst: {a}, proto: tcp, port: {} }}\n",
            1000 + i % 5000
        ));
    }
    text
}

impl World {
    pub(crate) fn new(rules: usize) -> Self {
        let root = Root::new(Path::new(&format!(
            "/sys/fs/bpf/clawker-test-bench-{}",
            std::process::id()
        )));
        root.prepare().expect("a root for pins");
        let instance = root.create("bench", |_| false).expect("an instance");
        let below = format!("clawker-test-bench-{}", std::process::id());
        let mount = cgroup::root().expect("cgroup v2");
        let with = Cgroup::create(mount.join(&below).join("with")).expect("a cgroup");
        let without = Cgroup::create(mount.join(&below).join("without")).expect("a cgroup");
        let sizes = Sizes {
            rate: 10_000_000,
            ..Sizes::default()
        };
        let mut engine = Engine::load(instance.pins.dir(), sizes).expect("the object loads");
        engine
            .attach(&with.open().expect("open"), "1")
            .expect("attach");
        let parsed = Policy::parse(&policy(rules))
            .policy
            .expect("the policy is good");
        let compiled = parsed.select(None, None).compile(1).expect("it compiles");
        instance
            .pins
            .policy()
            .and_then(|mut p| p.write(&compiled))
            .expect("it fits");
        let slot = root.draw_slot().expect("a slot");
        let id = Identity {
            cgroup_id: with.id().expect("id"),
            ..Identity::default()
        };
        let config = enrol::config((slot, 1), 1, &compiled, &[], Place::Host);
        engine.enrol(&id.info(slot, 0), &config).expect("enrolled");
        let mut world = Self {
            engine,
            with,
            without,
            instance: Some(instance),
            stop: Arc::default(),
            reader: None,
        };
        world.read();
        world
    }

    /// Drains in a thread of its own, as the loader does.
    fn read(&mut self) {
        let mut rings = self.rings();
        let stop = Arc::clone(&self.stop);
        self.reader = Some(thread::spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                rings.drain(|_| {
                    n += 1;
                    true
                });
                nix::poll::poll(&mut [], 5u16).ok();
            }
            n
        }));
    }

    pub(crate) fn rings(&self) -> Rings {
        self.engine.rings().expect("rings")
    }

    pub(crate) fn stop_reading(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// Moves this process under the programs, or from under them.
    pub(crate) fn enter(&self, with: bool) {
        let cgroup = if with { &self.with } else { &self.without };
        fs::write(cgroup.path().join("cgroup.procs"), "0").expect("the process moves");
    }

    /// See [`run_ns`].
    pub(crate) fn run_ns(&self, name: &'static str) -> (u64, u64) {
        run_ns(&self.engine, name)
    }
}

/// Nanoseconds and runs of a program so far.
pub(crate) fn run_ns(engine: &Engine, name: &'static str) -> (u64, u64) {
    let info = match engine.program(name).expect("a program") {
        Program::CgroupSkb(p) => p.info(),
        Program::CgroupSock(p) => p.info(),
        Program::CgroupSockAddr(p) => p.info(),
        Program::SchedClassifier(p) => p.info(),
        Program::SockOps(p) => p.info(),
        _ => unreachable!("only programs that are attached are asked for"),
    }
    .expect("info");
    (
        u64::try_from(info.run_time().as_nanos()).unwrap_or(0),
        info.run_count(),
    )
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop_reading();
        let root = cgroup::root().expect("cgroup v2");
        fs::write(root.join("cgroup.procs"), "0").expect("the process moves out");
        if let Some(instance) = self.instance.take() {
            let dir = instance.pins.dir().to_owned();
            let _ = ebpf_manager::instance::remove_pins(&dir);
            let _ = dir.ancestors().nth(2).map(fs::remove_dir_all);
        }
        let _ = self.with.path().parent().map(|p| Cgroup::at(p).remove());
    }
}

/// Bytes of the maps, as the kernel accounts them; each map once, however often it is open.
pub(crate) fn memory() {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").expect("proc").flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let value = |key: &str| {
            text.lines()
                .find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (value("map_id:"), value("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    let total: u64 = maps.values().sum();
    row(
        "map memory, 1 container",
        &format!("{:.2} MB", total as f64 / 1e6),
        "≤ 4 MB",
    );
}
