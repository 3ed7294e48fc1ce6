//! `doctor` beside programs of somebody else: it says which, where, and whether they come first.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as the tests themselves do"
)]

use ebpf_manager::{
    cgroup::Cgroup,
    enrol::{self, Identity},
    instance::{Instance, Root},
    kernel::{Engine, Sizes},
    session,
};
use kernel_tests::{
    bpf, cgroup_root,
    dns::Resolver,
    doctor::{Checkup, RESOLVER},
    run::Bench,
};
use policy::Policy;
use std::fs;

/// A firewall around a cgroup below another, both ours, with a place for others to attach first.
struct World {
    bench: Bench,
    above: Cgroup,
    cgroup: Cgroup,
    instance: Option<(Instance, Engine)>,
    _resolver: Resolver,
}

impl World {
    fn new() -> Self {
        let bench = Bench::new();
        let above = cgroup_root().join(format!("clawker-test-{}", std::process::id()));
        let cgroup = Cgroup::create(above.join("agent")).unwrap();
        Self {
            bench,
            above: Cgroup::at(above),
            cgroup,
            instance: None,
            _resolver: Resolver::start(RESOLVER),
        }
    }

    /// Attaches the firewall and opens it.
    fn attach(&mut self) {
        let root = Root::new(&self.bench.pins);
        root.prepare().unwrap();
        let instance = root.create("run").unwrap();
        let mut engine = Engine::load(instance.pins.dir(), Sizes::default()).unwrap();
        engine.attach(&self.cgroup.open().unwrap(), "1").unwrap();
        let parsed = Policy::parse("resolvers: [192.0.2.53]\nrules: []\n");
        let compiled = parsed
            .policy
            .unwrap()
            .select(None, None)
            .compile(1)
            .unwrap();
        let slot = root.draw_slot().unwrap();
        let below = self.cgroup.path().strip_prefix(cgroup_root()).unwrap();
        let identity = Identity {
            cgroup: below.display().to_string(),
            cgroup_id: self.cgroup.id().unwrap(),
            ..Identity::default()
        };
        let resolvers = [RESOLVER.parse().unwrap()];
        let config = enrol::config(slot, 1, 1, &compiled, &resolvers);
        let info = identity.info(slot, session::boot_now());
        engine.enrol(&info, &config).unwrap();
        self.instance = Some((instance, engine));
    }

    fn doctor(&self) -> Checkup {
        let (instance, _) = self.instance.as_ref().unwrap();
        self.bench.doctor(&["--instance", &instance.id])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.instance = None;
        let mut detach = self.bench.manager();
        let _ = detach.args(["detach", "--all", "--force"]).output();
        let _ = self.above.remove();
    }
}

#[test]
fn a_foreign_program_in_front_is_named() {
    let mut w = World::new();
    let theirs = bpf::attach(w.cgroup.path(), bpf::CONNECT4, "their_connect");
    w.attach();
    let place = format!("clawker-test-{}/agent", std::process::id());
    w.doctor().names(&[(
        "foreign",
        &[
            "their_connect",
            "runs before ours at connect4",
            &format!("attached to {place}"),
            "detach it",
        ],
    )]);
    drop(theirs);
    w.doctor().well();
}

#[test]
fn a_foreign_program_behind_is_noted_and_is_no_problem() {
    let mut w = World::new();
    w.attach();
    let above = bpf::attach(w.above.path(), bpf::EGRESS, "their_egress");
    let same = bpf::attach(w.cgroup.path(), bpf::CONNECT4, "their_connect");
    let check = w.doctor();
    check.well();
    let place = format!("clawker-test-{}/agent", std::process::id());
    let notes = check.of("note");
    for says in [
        format!("(their_egress) runs after ours at egress, attached to a cgroup above {place}"),
        format!("(their_connect) runs after ours at connect4, attached to {place}"),
    ] {
        assert!(
            notes.iter().any(|n| n.ends_with(&says)),
            "{says} in {notes:#?}"
        );
    }
    drop((above, same));
    let check = w.doctor();
    assert!(
        !check.of("note").iter().any(|n| n.contains("foreign")),
        "{check:#?}"
    );
}

#[test]
fn a_foreign_program_below_runs_first_and_is_named() {
    let mut w = World::new();
    w.attach();
    let inner = w.cgroup.path().join("inner/most");
    fs::create_dir_all(&inner).unwrap();
    let _theirs = bpf::attach(&inner, bpf::EGRESS, "their_egress");
    w.doctor().names(&[(
        "foreign",
        &[
            "their_egress",
            "runs before ours at egress",
            "/agent/inner/most",
        ],
    )]);
}

#[test]
fn a_foreign_program_for_callbacks_is_named_wherever_it_is() {
    let mut w = World::new();
    w.attach();
    let _theirs = bpf::attach(w.above.path(), bpf::SOCK_OPS, "their_ops");
    w.bench
        .doctor(&[])
        .names(&[("foreign", &["their_ops", "runs after ours at sock_ops"])]);
}
