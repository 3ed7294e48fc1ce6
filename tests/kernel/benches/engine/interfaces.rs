//! Guard and backstop: a program in a network namespace and cgroup of its own, as in a container.

use crate::{row, swallow, world::run_ns};
use abi::programs::{BACKSTOP, EGRESS, GUARD};
use aya::sys::{Stats, enable_stats};
use kernel_tests::{container::Container, parent::Parent};

const POLICY: &str = "rules:\n- { dst: 192.0.2.1, proto: any, port: \"1-65535\" }\n";

/// How often both are taken away and put back.
const ROUNDS: usize = 9;

/// Sends when told to, then says how long a connection took in microseconds, again and again.
const PROGRAM: &str = "\
    s = dial('192.0.2.1', 7001); d = dgram(); d.connect(('192.0.2.1', 7002)); step('ready')\n\
    for i in range(20000): s.sendall(bytes(100))\n\
    step('tcp')\n\
    for i in range(20000): tried(lambda: d.send(b'x'))\n\
    step('udp')\n\
    while True:\n  \
        start = time.monotonic()\n  \
        for i in range(500):\n    \
            c = dial('192.0.2.1', 7001); c.setsockopt(1, 13, struct.pack('ii', 1, 0)); c.close()\n  \
        step((time.monotonic() - start) / 500 * 1e6)\n";

/// Cost of each a packet, and of both a connection.
pub(crate) fn guarded() {
    let mut parent = Parent::new();
    swallow();
    let _datagrams = std::net::UdpSocket::bind(crate::DATAGRAMS).expect("bind");
    let mut container = Container::start(&parent, 1, "", PROGRAM);
    parent.guard();
    let config = parent.stop(&container, POLICY);
    assert_eq!(container.talk.go(), "ready");
    let stats = enable_stats(Stats::RunTime).expect("run time statistics");
    for word in ["tcp", "udp"] {
        let before = [EGRESS, GUARD, BACKSTOP].map(|p| run_ns(&parent.engine, p));
        assert_eq!(container.talk.go(), word);
        for (name, before) in [EGRESS, GUARD, BACKSTOP].iter().zip(before) {
            let after = run_ns(&parent.engine, name);
            let ns = (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
            let goal = if *name == EGRESS { "≤ 200" } else { "–" };
            row(
                &format!("{name}, {word} of a container"),
                &format!("{ns:.0} ns a run"),
                goal,
            );
        }
    }
    drop(stats);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let interface = container.interfaces()[0];
    let timed = |container: &mut Container| container.talk.go().parse().expect("microseconds");
    for _ in 0..ROUNDS {
        with.push(timed(&mut container));
        let pins = &parent.instance.pins;
        pins.unguard("agents").expect("unpinned");
        pins.lift("1", interface).expect("unpinned");
        without.push(timed(&mut container));
        parent.guard();
        parent.back(&container, &config, interface);
    }
    // The best of each: another process in a round only ever makes it longer.
    let best = |v: Vec<f64>| v.into_iter().fold(f64::INFINITY, f64::min);
    let (with, without) = (best(with), best(without));
    row(
        "connection of a container, guard and backstop",
        &format!("{:+.2} µs ({without:.2} µs → {with:.2} µs)", with - without),
        "–",
    );
}
