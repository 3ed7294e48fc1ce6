//! Containers as the fleet sees them: a cgroup with a process in it, and news about it. No engine.

use crate::{agent::code, cgroup_root, clear, eventually, run::Bench, talk::Talk};
use ebpf_manager::{
    cgroup::Cgroup,
    cli::LeadArgs,
    docker::{Container, Newborn, News},
    fleet::{self, Fleet, Setup},
    instance::Root,
    kernel::{Pins, Sizes},
    policy_file,
    session::boot_now,
    sink::{Format, Sink},
};
use serde_json::Value;
use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How long sockets may outlive their container, unless a test says otherwise.
pub const LINGER: Duration = Duration::from_secs(60);

/// A fleet and the place where its containers live. Everything goes with it.
pub struct Yard {
    /// Goes first: nobody lives there any more when the rest goes.
    ground: Ground,
    /// Files and pins.
    pub bench: Bench,
    /// The fleet.
    pub fleet: Fleet,
    /// Where its records go.
    pub sink: Sink,
}

/// The cgroup that holds those of the containers.
struct Ground(Cgroup);

impl Ground {
    fn new() -> Self {
        let name = format!("clawker-test-{}-yard", std::process::id());
        Self(Cgroup::create(cgroup_root().join(name)).expect("cgroup v2"))
    }
}

/// What is around the containers.
struct Around<'a> {
    /// Guarded parents.
    parents: &'a [String],
    /// Where connections and DNS are led.
    lead: LeadArgs,
}

/// A container.
pub struct Pod {
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// As the engine tells it.
    pub container: Container,
    /// What runs in it.
    pub agent: Talk,
}

/// Nanoseconds of wall time.
#[must_use]
pub fn wall() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_nanos() as i64)
}

impl Yard {
    /// An empty one in a namespace of its own, with room for so many agents.
    #[must_use]
    pub fn new(policy: Option<&str>, agents: u32) -> Self {
        Self::with(policy, fleet::sizes(agents), LINGER, |_, sink| sink)
    }

    /// The same beside proxies.
    #[must_use]
    pub fn beside(lead: LeadArgs, policy: &str, agents: u32) -> Self {
        let around = Around { parents: &[], lead };
        let sizes = fleet::sizes(agents);
        let ground = Ground::new();
        Self::open(
            (Bench::new(), ground),
            Some(policy),
            sizes,
            LINGER,
            around,
            |_, s| s,
        )
    }

    /// The same, with sizes, patience and a sink of the test's choice.
    #[must_use]
    pub fn with(
        policy: Option<&str>,
        sizes: Sizes,
        linger: Duration,
        sink: impl FnOnce(&Bench, Sink) -> Sink,
    ) -> Self {
        let ground = Ground::new();
        let around = Around {
            parents: &[],
            lead: LeadArgs::default(),
        };
        Self::open((Bench::new(), ground), policy, sizes, linger, around, sink)
    }

    /// The same with guarded parents, which are below the place where containers live.
    #[must_use]
    pub fn guarded(policy: Option<&str>, agents: u32) -> Self {
        let yard = Self::new(policy, agents);
        let parent = yard.parent();
        yard.again_with(policy, &[parent])
    }

    /// Kills the loader, as far as that can be done to oneself, and lets another one take over.
    #[must_use]
    pub fn again(self, policy: Option<&str>) -> Self {
        self.again_with(policy, &[])
    }

    /// The same, with something that happens when there is no loader.
    #[must_use]
    pub fn while_away(self, policy: Option<&str>, happens: impl FnOnce()) -> Self {
        self.follow(policy, &[], happens)
    }

    /// The same as [`Yard::again`], with guarded parents.
    #[must_use]
    pub fn again_with(self, policy: Option<&str>, parents: &[String]) -> Self {
        self.follow(policy, parents, || ())
    }

    fn follow(self, policy: Option<&str>, parents: &[String], happens: impl FnOnce()) -> Self {
        let Self {
            bench,
            fleet,
            sink,
            ground,
        } = self;
        drop((fleet, sink));
        happens();
        let sizes = fleet::sizes(2);
        let around = Around {
            parents,
            lead: LeadArgs::default(),
        };
        Self::open((bench, ground), policy, sizes, LINGER, around, |_, s| s)
    }

    /// Where containers live, as an engine is told it.
    #[must_use]
    pub fn parent(&self) -> String {
        let below = self.ground.0.path().strip_prefix(cgroup_root());
        below.expect("below the mount").display().to_string()
    }

    fn open(
        (bench, ground): (Bench, Ground),
        policy: Option<&str>,
        sizes: Sizes,
        linger: Duration,
        around: Around<'_>,
        sink: impl FnOnce(&Bench, Sink) -> Sink,
    ) -> Self {
        let file = bench.path("records.jsonl");
        let plain = Sink::open(Format::Quiet, Some(&file), None).expect("a file");
        let mut sink = sink(&bench, plain);
        let root = Root::new(&bench.pins);
        root.prepare().expect("a BPF file system");
        let policy = policy.map(|text| bench.policy(text));
        let policy = policy.map(|path| policy_file::load(&path, false).expect("a policy"));
        let leases = bench.path("leases.json");
        let setup = Setup {
            sizes,
            policy,
            mode: None,
            linger,
            leases: Some(&leases),
            leases_group: None,
            control_dir: &bench.control(),
            parents: around.parents,
            engine: None,
            own: &[],
            lead: &around.lead,
        };
        let fleet = Fleet::open(&root, setup, &mut sink).expect("the programs load");
        Self {
            bench,
            fleet,
            sink,
            ground,
        }
    }

    /// A container that nobody has heard of yet, with a Python program behind the prelude that begins when
    /// it is told to.
    #[must_use]
    pub fn pod(&self, id: &str, labels: (&str, &str), program: &str) -> Pod {
        let cgroup = Cgroup::create(self.ground.0.path().join(id)).expect("a new cgroup");
        let code = code(&format!("step('here')\n{program}"));
        let mut agent = Talk::start(Command::new("python3").args(["-c", &code]));
        assert_eq!(agent.hear(), "here");
        let procs = cgroup.path().join("cgroup.procs");
        std::fs::write(procs, agent.pid().to_string()).expect("it moves");
        let label = |l: &str| (!l.is_empty()).then(|| l.to_owned());
        let container = Container {
            id: id.to_owned(),
            name: format!("name-{id}"),
            is_agent: !labels.0.is_empty(),
            agent: label(labels.0),
            project: label(labels.1),
            pid: agent.pid(),
            cgroup: cgroup.path().to_owned(),
            netns: None,
            addresses: Vec::new(),
            networks: Vec::new(),
            weaknesses: Vec::new(),
            started: wall(),
        };
        Pod {
            cgroup,
            container,
            agent,
        }
    }

    /// Tells the fleet, and that this is all there is to tell by now.
    pub fn hear(&mut self, news: News) {
        self.fleet.hear(news, &mut self.sink);
        self.fleet.hear(News::Until(boot_now()), &mut self.sink);
    }

    /// Tells the fleet that a container runs.
    pub fn start(&mut self, pod: &Pod) {
        self.hear(News::Is(Box::new(pod.container.clone())));
    }

    /// Tells the fleet that these run, and nobody else.
    pub fn all(&mut self, pods: &[&Pod]) {
        let all = pods.iter().map(|p| p.container.clone()).collect();
        self.hear(News::All(all));
    }

    /// Tells the fleet that a container is being started.
    pub fn bear(&mut self, pod: &Pod) {
        let c = pod.container.clone();
        self.hear(News::Born(Box::new(Newborn {
            id: c.id,
            name: c.name,
            is_agent: c.is_agent,
            agent: c.agent,
            project: c.project,
            cgroup: c.cgroup,
            cgroup_id: pod.cgroup.id().expect("it is there"),
            ends: Vec::new(),
        })));
    }

    /// Ends everything in a container, as an engine does, and tells the fleet.
    pub fn stop(&mut self, pod: Pod) {
        clear(&pod.cgroup);
        drop(pod.agent);
        pod.cgroup.remove().expect("nobody lives there");
        self.hear(News::Ended {
            id: pod.container.id,
            at: wall(),
        });
    }

    /// Reads, and looks at what lives.
    pub fn turn(&mut self) {
        self.fleet.hear(News::Until(boot_now()), &mut self.sink);
        self.fleet.turn(&mut self.sink).expect("the maps are there");
        self.fleet.look(&mut self.sink).expect("the maps are there");
    }

    /// Lets the fleet go on until `probe` finds something.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, mut probe: impl FnMut(&mut Self) -> Option<T>) -> T {
        eventually(what, || {
            self.turn();
            probe(self)
        })
    }

    /// Lets the fleet go on until there are so many records; those of flows.
    #[track_caller]
    pub fn records(&mut self, n: usize) -> Vec<Value> {
        self.until(&format!("{n} records"), |y| {
            let records = y.bench.records();
            assert!(records.len() <= n, "{records:#?}");
            (records.len() == n).then_some(records)
        })
    }

    /// Audit records of a kind, as they are now.
    #[must_use]
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let mut all = self.bench.events();
        all.retain(|e| e["event_name"] == format!("clawker.overseer.{kind}"));
        all
    }

    /// What is pinned.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.bench.pins_of(fleet::INSTANCE)
    }

    /// Directories of links.
    #[must_use]
    pub fn links(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.pins().dir().join("links"));
        let entries = entries.into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    }

    /// Waits until everybody is gone, and asserts that nothing of them is left in the kernel.
    #[track_caller]
    pub fn is_empty(&mut self) {
        self.until("everybody to be gone", |y| {
            (y.fleet.members() == 0).then_some(())
        });
        assert_eq!(self.links(), Vec::<PathBuf>::new());
        let pins = self.pins();
        assert!(pins.infos().expect("a map").is_empty());
        assert!(pins.folded().expect("a map").is_empty());
        let learned = pins.learned().expect("maps");
        assert!(learned.names.is_empty() && learned.addrs.is_empty());
        for (i, row) in pins.books().expect("a map").iter().enumerate().skip(1) {
            let sum: u64 = row.ended.iter().sum();
            assert_eq!((row.slot, row.opened, sum), (0, 0, 0), "row {i}");
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        clear(&self.0);
        let _ = self.0.remove();
    }
}
