//! The firewall as the library puts it around a cgroup, without a loader.

use crate::{cgroup_root, run::Bench};
use abi::SlotConfig;
use ebpf_manager::{
    cgroup::Cgroup,
    enrol::{self, Identity, Replaced},
    instance::{Instance, Root},
    kernel::{Engine, KernelError, Pins, Sizes},
    resolvers::Place,
    session,
};
use policy::{Compiled, Policy};
use std::net::IpAddr;

/// A policy as the maps hold it.
#[must_use]
pub fn compile(text: &str, id: u32) -> Compiled {
    let policy = Policy::parse(text).policy.expect("a policy");
    let selected = policy.select(None, None);
    selected.compile(id).expect("a policy that fits")
}

/// Puts a policy in the place of the one that holds in row 1.
pub fn exchange(pins: &Pins, text: &str) -> Replaced {
    let make = |id, _: &SlotConfig| Ok((compile(text, id), Vec::new()));
    let replaced = enrol::replace_policy::<KernelError>(pins, 1, "file", make);
    replaced.expect("the maps").expect("somebody in row 1")
}

impl Bench {
    /// Attaches an instance to a cgroup, with its slot still zero.
    #[must_use]
    pub fn attach(&self, cgroup: &Cgroup) -> (Instance, Engine) {
        let root = Root::new(&self.pins);
        root.prepare().expect("a BPF file system");
        let instance = root.create("run", |_| false).expect("a new instance");
        let engine = Engine::load(instance.pins.dir(), Sizes::default());
        let mut engine = engine.expect("the kernel takes the programs");
        let fd = cgroup.open().expect("it is there");
        engine.attach(&fd, "1").expect("nothing is in the way");
        (instance, engine)
    }

    /// Opens an instance's slot under a policy.
    pub fn open(
        &self,
        (instance, engine): (&Instance, &mut Engine),
        cgroup: &Cgroup,
        policy: &str,
        resolvers: &[IpAddr],
    ) -> SlotConfig {
        let compiled = compile(policy, 1);
        let mut rules = instance.pins.policy().expect("the maps of a policy");
        rules.write(&compiled).expect("room for the policy");
        let slot = Root::new(&self.pins).draw_slot().expect("a number");
        let below = cgroup.path().strip_prefix(cgroup_root());
        let identity = Identity {
            cgroup: below.expect("below the root").display().to_string(),
            cgroup_id: cgroup.id().expect("it is there"),
            ..Identity::default()
        };
        let config = enrol::config((slot, 1), 1, &compiled, resolvers, Place::Host);
        let info = identity.info(slot, session::boot_now());
        engine.enrol(&info, &config).expect("a free row");
        config
    }
}
