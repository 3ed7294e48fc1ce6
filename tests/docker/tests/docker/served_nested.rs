//! Cgroups below a container's: whoever makes them, what lives there is the agent's.

use docker_tests::{
    container::Container,
    engine::Engine,
    stack::{Stack, is_of},
};
use kernel_tests::{peer, talk::Talk};
use std::fs;

const LABELS: (&str, &str) = ("web", "shop");

/// A denied and an allowed connection, in this order, and what came of them.
fn both(port: u16) -> String {
    format!(
        "say(tcp('192.0.2.1', {}), tcp('192.0.2.1', {port}, b'12345'))",
        port + 1000
    )
}

#[track_caller]
fn are_told(stack: &Stack, agent: &Container<'_>, port: u16) {
    for (port, verdict, bytes) in [(port, "ALLOWED", 5), (port + 1000, "DENIED", 0)] {
        let r = stack.flow_to(port);
        is_of(&r, agent, LABELS);
        assert_eq!(r.attributes["verdict"], verdict);
        assert_eq!(r.attributes["bytes_out"], bytes);
    }
}

#[test]
fn a_process_that_is_moved_into_a_cgroup_below_stays_the_agents() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = stack.agent(&engine, "web", "shop", &[]);
    let server = peer::once("192.0.2.1:8000", |mut s| peer::drain(&mut s));
    let code = format!("step('here')\n{}", both(8000));
    let mut talk = Talk::start(&mut agent.program(&code));
    assert_eq!(talk.hear(), "here");
    let below = agent.cgroup().join("below/deeper");
    fs::create_dir_all(&below).unwrap();
    let all = fs::read_to_string(agent.cgroup().join("cgroup.procs")).unwrap();
    let first = agent.pid().to_string();
    let mut moved = 0;
    for pid in all.lines().filter(|pid| *pid != first) {
        fs::write(below.join("cgroup.procs"), pid).unwrap();
        moved += 1;
    }
    assert_eq!(moved, 1, "the one that speaks: {all}");
    assert_eq!(talk.go(), "EPERM ok");
    assert_eq!(server.join().unwrap().1, 5);
    are_told(&stack, &agent, 8000);
    drop(talk);
    // Its end is the end of them all.
    agent.remove();
    stack.audit("left", &agent);
    stack.end();
}

/// What an engine inside the container does: namespaces, a cgroup and a process of its own, whose first
/// process has nothing of the agent's but the cgroup above.
const NESTED: &str = "
CG = '/sys/fs/cgroup'
libc = ctypes.CDLL(None, use_errno=True)
# Read and write, as engines inside engines have it.
assert libc.mount(b'none', CG.encode(), None, 32, None) == 0, ctypes.get_errno()
def container(name, f):
    os.makedirs(f'{CG}/{name}')
    r, w = os.pipe()
    if os.fork() == 0:
        open(f'{CG}/{name}/cgroup.procs', 'w').write('0')
        # Cgroup, mount, UTS, IPC and process numbers.
        assert libc.unshare(0x02000000 | 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000) == 0, ctypes.get_errno()
        if os.fork() == 0:
            os.close(r); os.dup2(w, 1); f(); os._exit(0)
        os.wait(); os._exit(0)
    os.close(w); os.wait()
    return os.read(r, 1000).decode().strip()
";

#[test]
fn a_container_inside_the_container_is_the_agents_and_cannot_lift_the_firewall_from_its_cgroup() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let may_nest = [
        "--cap-add",
        "SYS_ADMIN",
        "--security-opt",
        "seccomp=unconfined",
    ];
    let agent = stack.agent(&engine, "web", "shop", &may_nest);
    let weak = stack.audit("weakness", &agent);
    assert_eq!(weak.attributes["weakness"], "capability");
    for port in [8000, 8001] {
        let server = peer::once(&format!("192.0.2.1:{port}"), |mut s| peer::drain(&mut s));
        let inner = both(port);
        let said = agent.exec(&format!(
            "{NESTED}\nprint(container('engine/c{port}', lambda: {inner}))"
        ));
        assert_eq!(said, "EPERM ok");
        assert_eq!(server.join().unwrap().1, 5);
        are_told(&stack, &agent, port);
    }
    assert_eq!(
        stack.audits("enrolled").len(),
        1,
        "what is inside is nobody of its own"
    );
    stack.end();
}
