//! A parent cgroup, cgroups below it, and one engine for all of them, as beside a container engine.

use crate::{agent::code, cgroup_root, clear, engine::compile, eventually, run::Bench, talk::Talk};
use abi::{FlowEvent, SlotConfig};
use ebpf_manager::{
    cgroup::Cgroup,
    enrol::{self, Identity},
    instance::{Instance, Root},
    kernel::{Engine, Rings, Sizes},
    resolvers::Place,
    session,
};
use std::{fs, net::IpAddr, process::Command};

/// Children that there is room for.
const SLOTS: u32 = 4;

/// What tests ask of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// Slot; 0 is nobody.
    pub slot: u32,
    /// `VERDICT_*`.
    pub verdict: u8,
    /// [`abi::reason`].
    pub reason: u8,
    /// IANA protocol number.
    pub proto: u8,
    /// Where to.
    pub dst: IpAddr,
    /// Port.
    pub port: u16,
}

/// The cgroup above, and the engine.
pub struct Parent {
    /// Files and pins.
    pub bench: Bench,
    /// The cgroup.
    pub cgroup: Cgroup,
    /// The instance.
    pub instance: Instance,
    /// The engine.
    pub engine: Engine,
    rings: Rings,
    told: Vec<Told>,
}

impl Parent {
    /// A parent in a network namespace of its own, without a guard.
    #[must_use]
    pub fn new() -> Self {
        let bench = Bench::new();
        let name = format!("clawker-test-{}-above", std::process::id());
        let cgroup = Cgroup::create(cgroup_root().join(name)).expect("a cgroup");
        let root = Root::new(&bench.pins);
        root.prepare().expect("a BPF file system");
        let instance = root.create("serve", |_| false).expect("a new instance");
        let sizes = Sizes {
            slots: SLOTS,
            ..Sizes::default()
        };
        let engine =
            Engine::load(instance.pins.dir(), sizes).expect("the kernel takes the programs");
        let rings = engine.rings().expect("rings");
        Self {
            bench,
            cgroup,
            instance,
            engine,
            rings,
            told: Vec::new(),
        }
    }

    /// Guards the parent.
    pub fn guard(&mut self) {
        let fd = self.cgroup.open().expect("it is there");
        self.engine.guard(&fd, "agents").expect("a guard");
    }

    /// A cgroup below.
    #[must_use]
    pub fn child(&self, name: &str) -> Cgroup {
        Cgroup::create(self.cgroup.path().join(name)).expect("a cgroup")
    }

    /// Attaches the programs to a child, which is closed then.
    pub fn attach(&mut self, child: &Cgroup, index: u32) {
        let fd = child.open().expect("it is there");
        let attached = self.engine.attach(&fd, &index.to_string());
        attached.expect("nothing is in the way");
    }

    /// Opens a child under a policy; what comes back is in force.
    pub fn open(&mut self, child: &Cgroup, index: u32, policy: &str) -> SlotConfig {
        self.open_as(child, index, policy, |_| {})
    }

    /// The same with a configuration that the test has a say in.
    pub fn open_as(
        &mut self,
        child: &Cgroup,
        index: u32,
        policy: &str,
        change: impl FnOnce(&mut SlotConfig),
    ) -> SlotConfig {
        let compiled = compile(policy, index);
        let mut rules = self.instance.pins.policy().expect("the maps of a policy");
        rules.write(&compiled).expect("room for the policy");
        let slot = Root::new(&self.bench.pins).draw_slot().expect("a number");
        let below = child.path().strip_prefix(cgroup_root());
        let identity = Identity {
            cgroup: below.expect("below the root").display().to_string(),
            cgroup_id: child.id().expect("it is there"),
            ..Identity::default()
        };
        let mut config = enrol::config((slot, index), index, &compiled, &[], Place::Host);
        change(&mut config);
        let info = identity.info(slot, session::boot_now());
        self.engine.enrol(&info, &config).expect("a free row");
        config
    }

    /// Attaches and opens.
    pub fn enrol(&mut self, child: &Cgroup, index: u32, policy: &str) -> SlotConfig {
        self.attach(child, index);
        self.open(child, index, policy)
    }

    /// Starts a Python program in a cgroup; it goes on at the first `go`.
    #[must_use]
    pub fn agent(&self, cgroup: &Cgroup, program: &str) -> Talk {
        let code = code(&format!("step('here')\n{program}"));
        let mut agent = Talk::start(Command::new("python3").args(["-c", &code]));
        assert_eq!(agent.hear(), "here");
        into(cgroup, &agent);
        agent
    }

    /// Every record so far, sorted.
    pub fn told(&mut self) -> Vec<Told> {
        let told = &mut self.told;
        let malformed = self.rings.drain(|e| {
            told.push(tell(e));
            true
        });
        assert_eq!(malformed, 0);
        let mut all = self.told.clone();
        all.sort();
        all
    }

    /// Waits until there are this many records that are `wanted`, and returns them, sorted.
    #[track_caller]
    pub fn eventually(&mut self, n: usize, wanted: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut last = Vec::new();
        eventually("the records", || {
            last = self.told();
            last.retain(&wanted);
            (last.len() >= n).then_some(())
        });
        assert_eq!(last.len(), n, "{last:#?}");
        last
    }

    /// Denied flows of a row and a reason, by the books.
    #[must_use]
    pub fn denied(&self, index: u32, reason: u8) -> u64 {
        let row = self.engine.books().row(index).expect("a row");
        row.denied[usize::from(reason)]
    }
}

impl Default for Parent {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        clear(&self.cgroup);
        let _ = ebpf_manager::instance::remove_pins(self.instance.pins.dir());
        let _ = self.cgroup.remove();
    }
}

/// Moves a program into a cgroup; what it makes from now on is made there.
pub fn into(cgroup: &Cgroup, agent: &Talk) {
    let procs = cgroup.path().join("cgroup.procs");
    fs::write(procs, agent.pid().to_string()).expect("the process moves");
}

fn tell(e: &FlowEvent) -> Told {
    Told {
        slot: e.flow.slot,
        verdict: e.flow.verdict,
        reason: e.flow.reason,
        proto: e.flow.proto,
        dst: enrol::addr(&e.flow.dst),
        port: e.flow.dst_port,
    }
}
