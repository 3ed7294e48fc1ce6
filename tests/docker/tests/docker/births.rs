//! Births: how long before the engine's word a container's cgroup is known.

use docker_tests::{
    engine::Engine,
    hear::{Chronicle, Ear},
};
use ebpf_manager::docker::{Newborn, News};
use ipnet::IpNet;
use kernel_tests::eventually;
use std::{
    os::unix::fs::MetadataExt as _,
    time::{SystemTime, UNIX_EPOCH},
};

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap()
}

/// The next birth, and when it was heard.
fn born(ear: &mut Ear) -> (ebpf_manager::docker::Newborn, i64) {
    let born = ear.next("a birth", |news| match news {
        News::Born(born) => Some((**born).clone()),
        _ => None,
    });
    (born, now())
}

/// Its addresses, which may be told behind the birth, and when they were heard.
fn addressed(ear: &mut Ear, newborn: Newborn, heard: i64) -> (Vec<IpNet>, i64) {
    if newborn.ends.is_empty() {
        let (again, heard) = born(ear);
        return (again.ends, heard);
    }
    (newborn.ends, heard)
}

#[test]
fn a_birth_is_heard_before_anything_of_the_container_runs() {
    let engine = Engine::start();
    let chronicle = Chronicle::begin(&engine);
    let mut ear = Ear::new(&engine);
    ear.all();
    engine.docker(&["network", "create", "agents"]);
    let (mut leads, mut address_leads) = (Vec::new(), Vec::new());
    for n in 0..10 {
        let name = format!("agent-{n}");
        let parent = format!("parents/{n}");
        let own = ["--cgroup-parent", &parent, "--network", "agents"];
        let arguments: &[&str] = if n % 2 == 0 { &[] } else { &own };
        let label = format!("dev.clawker.agent={name}");
        let mut create = vec!["create", "--name", &name, "--label", &label];
        create.extend(arguments);
        create.push("agent");
        let id = engine.docker(&create);
        let mut start = engine.command().args(["start", &id]).spawn().unwrap();
        let (newborn, heard) = born(&mut ear);
        assert_eq!((&newborn.id, newborn.name.as_str()), (&id, name.as_str()));
        assert_eq!(newborn.agent.as_deref(), Some(name.as_str()));
        assert!(newborn.is_agent);
        let (ends, told) = addressed(&mut ear, newborn.clone(), heard);
        let is = ear.is(&id);
        let addresses: Vec<_> = ends.iter().map(IpNet::addr).collect();
        let networks: Vec<_> = ends.iter().map(IpNet::trunc).collect();
        assert_eq!(
            (addresses, networks),
            (is.addresses.clone(), is.networks.clone())
        );
        assert_eq!(is.cgroup, newborn.cgroup);
        assert_eq!(is.cgroup.metadata().unwrap().ino(), newborn.cgroup_id);
        let started = eventually("the event", || {
            chronicle.times("start", &id).first().copied()
        });
        leads.push((started - heard) / 1_000_000);
        address_leads.push((started - told) / 1_000_000);
        assert!(start.wait().unwrap().success());
    }
    leads.sort_unstable();
    println!("births are heard this long before the start event, ms: {leads:?}");
    assert!(leads[0] > 0, "{leads:?}");
    address_leads.sort_unstable();
    println!("addresses are heard this long before the start event, ms: {address_leads:?}");
    assert!(address_leads[0] > 0, "{address_leads:?}");
}

#[test]
fn a_start_that_fails_is_born_and_ends() {
    let engine = Engine::start();
    let mut ear = Ear::new(&engine);
    ear.all();
    let id = engine.docker(&[
        "create",
        "--label",
        "dev.clawker.agent=x",
        "agent",
        "/no/such/program",
    ]);
    let start = engine.command().args(["start", &id]).output().unwrap();
    assert!(!start.status.success());
    let (newborn, _) = born(&mut ear);
    assert_eq!(newborn.id, id);
    ear.ended(&id);
    assert!(!ear.heard.iter().any(|n| matches!(n, News::Is(_))));
}
