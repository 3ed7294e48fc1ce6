//! The tests' own engine: whole, apart from the machine, and gone when it is over.

use docker_tests::{engine::Engine, world::CGROUPS};
use kernel_tests::peer;
use std::{fs, os::fd::AsRawFd as _, path::Path, thread};

#[test]
fn agents_reach_the_test_and_nothing_of_the_machine() {
    let engine = Engine::start();
    engine.docker(&[
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:1::/64",
        "mesh",
    ]);
    let agent = engine.agent("agent", "p", &["--network", "mesh"]);
    let server = peer::once("192.0.2.1:8080", |mut stream| peer::drain(&mut stream));
    assert_eq!(agent.exec("print(tcp('192.0.2.1', 8080, b'12345'))"), "ok");
    assert_eq!(server.join().unwrap().1, 5);
    assert_eq!(
        agent.exec("print(ctypes.sizeof(ctypes.c_long), os.getpid() > 1)"),
        "8 True"
    );
    assert!(agent.cgroup().is_dir());
    // The network is the engine's own: no way out.
    let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    for line in links.lines().skip(2) {
        let name = line.split(':').next().unwrap().trim();
        let ours = ["lo", "docker0", "br-", "veth"]
            .iter()
            .any(|p| name.starts_with(p));
        assert!(ours, "{links}");
    }
}

#[test]
fn nothing_is_left_of_an_engine() {
    let root = fs::File::open(kernel_tests::cgroup_root()).unwrap();
    // In a thread of its own: this one stays outside to look.
    let (dir, pid, cgroup) = thread::spawn(|| {
        let engine = Engine::start();
        let agent = engine.agent("agent", "p", &[]);
        let own = fs::read_to_string("/proc/thread-self/cgroup").unwrap();
        assert!(own.ends_with("0::/tests\n"), "{own}");
        assert!(Path::new(CGROUPS).join("tests/cgroup.procs").exists());
        let name = engine.dir().file_name().unwrap().to_owned();
        (engine.dir().to_owned(), agent.pid(), name)
    })
    .join()
    .unwrap();
    assert!(!dir.exists());
    // Who was killed is reaped by somebody else, a moment later.
    kernel_tests::eventually("the agent to be gone", || {
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    let cgroup = Path::new(&format!("/proc/self/fd/{}", root.as_raw_fd())).join(cgroup);
    assert!(!cgroup.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "{mounts}");
}
