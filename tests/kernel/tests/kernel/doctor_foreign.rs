//! `doctor` beside programs of somebody else: it says which, where, and whether they come first.

use ebpf_manager::{cgroup::Cgroup, instance::Instance, kernel::Engine};
use kernel_tests::{
    bpf, cgroup_root,
    dns::{RESOLVER, Resolver},
    doctor::Checkup,
    run::Bench,
};
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
        let (instance, mut engine) = self.bench.attach(&self.cgroup);
        let policy = "resolvers: [192.0.2.53]\nrules: []\n";
        let resolvers = [RESOLVER.parse().unwrap()];
        let both = (&instance, &mut engine);
        self.bench.open(both, &self.cgroup, policy, &resolvers);
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
