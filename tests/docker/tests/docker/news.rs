//! What the loader hears of single containers.

use docker_tests::{
    engine::Engine,
    hear::{Chronicle, Ear},
};
use ebpf_manager::docker::{News, Weakness};
use std::{fs, os::unix::fs::MetadataExt as _};

#[test]
fn a_container_is_told_as_it_is_and_its_end_when_it_was() {
    let engine = Engine::start();
    let chronicle = Chronicle::begin(&engine);
    let mut ear = Ear::new(&engine);
    assert_eq!(ear.all(), []);
    let odd = " ümläut \"x\" \\ {{.ID}} ";
    let label = format!("dev.clawker.agent={odd}");
    let c = engine.run(
        "one",
        &["--label", &label, "--label", "dev.clawker.project="],
    );
    let is = ear.is(&c.id);
    assert_eq!((is.name.as_str(), is.is_agent), ("one", true));
    assert_eq!(is.agent.as_deref(), Some(odd));
    assert_eq!(is.project.as_deref(), Some(""));
    assert_eq!(is.pid, c.pid());
    assert_eq!(is.cgroup, c.cgroup());
    let netns = fs::metadata(format!("/proc/{}/ns/net", is.pid))
        .unwrap()
        .ino();
    assert_eq!(is.netns, Some(netns));
    assert_eq!(
        is.addresses,
        [c.ip("bridge").parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(is.weaknesses, []);

    c.rename("two");
    assert_eq!(ear.is(&c.id).name, "two");
    c.act("pause");
    c.act("unpause");
    c.act("kill");
    let at = ear.ended(&c.id);
    assert_eq!(chronicle.times("die", &c.id), [at]);
    assert!(is.started < at);

    c.act("start");
    let again = ear.is(&c.id);
    assert!(again.started > at && again.pid != is.pid && again.name == "two");
    c.act("restart");
    let ended = ear.ended(&c.id);
    let last = ear.is(&c.id);
    assert!(again.started < ended && ended < last.started);
    c.act("stop");
    ear.ended(&c.id);
    // Pausing changes nothing that matters: nothing was said of it, nor anything twice.
    assert_eq!(chronicle.times("pause", &c.id).len(), 1);
    assert_eq!(chronicle.times("die", &c.id).len(), 3);
    assert!(
        !ear.heard
            .iter()
            .any(|n| matches!(n, News::Is(_) | News::Ended { .. })),
        "{:?}",
        ear.heard
    );
}

#[test]
fn networks_come_and_go() {
    let engine = Engine::start();
    let mut ear = Ear::new(&engine);
    engine.docker(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:1::/64",
        "six",
    ]);
    engine.docker(&["network", "create", "four"]);
    let c = engine.run("plain", &["--network", "six"]);
    let is = ear.is(&c.id);
    assert!(!is.is_agent && is.agent.is_none() && is.project.is_none());
    assert_eq!(is.addresses.len(), 2, "{:?}", is.addresses);
    c.connect("four");
    let more = ear.is(&c.id);
    assert_eq!(more.addresses.len(), 3, "{:?}", more.addresses);
    assert!(more.addresses.contains(&c.ip("four").parse().unwrap()));
    c.disconnect("six");
    let less = ear.is(&c.id);
    assert_eq!(
        less.addresses,
        [c.ip("four").parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!((less.netns, less.pid), (is.netns, is.pid));
}

#[test]
fn what_weakens_the_firewall_is_told() {
    use Weakness::{Capability, EngineSocket, HostNetwork, HostPid, SharedNetwork};
    let engine = Engine::start();
    let mut ear = Ear::new(&engine);
    let dir = engine.dir().display().to_string();
    let socket = engine.socket().display().to_string();
    let device = format!("device={dir}");
    engine.docker(&[
        "volume",
        "create",
        "--opt",
        "type=none",
        "--opt",
        "o=bind",
        "--opt",
        &device,
        "hidden",
    ]);
    let link = engine.dir().join("link");
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    let owner = engine.run("owner", &[]);
    let owner_net = ear.is(&owner.id).netns;

    let volume = |source: &str| format!("{source}:/mnt");
    let (plain, parent, linked) = (
        volume(&socket),
        volume(&dir),
        volume(link.to_str().unwrap()),
    );
    let harmless = volume("/usr");
    let cases: [(&[&str], &[Weakness]); 10] = [
        (&["--volume", &plain], &[EngineSocket]),
        (&["--volume", &parent], &[EngineSocket]),
        (&["--volume", &linked], &[EngineSocket]),
        (&["--volume", "/:/mnt:ro"], &[EngineSocket]),
        (&["--volume", "hidden:/mnt"], &[EngineSocket]),
        (&["--volume", &harmless], &[]),
        (
            &["--network", "host", "--pid", "host"],
            &[HostNetwork, HostPid],
        ),
        (&["--network", "container:owner"], &[SharedNetwork]),
        (
            &["--cap-add", "NET_ADMIN", "--cap-drop", "ALL"],
            &[Capability],
        ),
        (&["--cap-add", "NET_RAW"], &[]),
    ];
    for (n, (arguments, wanted)) in cases.iter().enumerate() {
        let c = engine.agent(&format!("weak-{n}"), "p", arguments);
        let is = ear.is(&c.id);
        assert_eq!(is.weaknesses, *wanted, "{arguments:?}");
        assert_eq!(is.netns == owner_net, wanted.contains(&SharedNetwork));
        c.remove();
    }
}

#[test]
fn a_parent_of_its_own_and_a_process_that_moves_keep_the_containers_cgroup() {
    let engine = Engine::start();
    let mut ear = Ear::new(&engine);
    let c = engine.agent("agent", "p", &["--cgroup-parent", "/agents/deep"]);
    let cgroup = ear.is(&c.id).cgroup;
    assert!(
        cgroup.ends_with(format!("agents/deep/{}", c.id)),
        "{cgroup:?}"
    );
    let below = cgroup.join("below");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), c.pid().to_string()).unwrap();
    c.rename("other");
    assert_eq!(ear.is(&c.id).cgroup, cgroup);
}
