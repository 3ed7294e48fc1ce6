//! The engine goes away and comes back while agents are busy.

use docker_tests::{
    container::Container,
    engine::Engine,
    image::PYTHON,
    stack::{Stack, is_of, send},
};
use kernel_tests::{agent::code, collector::Received, eventually, peer};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Connects to an allowed and a denied port by turns, until it is told to stop; then says how often.
const BUSY: &str = "
denied = allowed = 0
while not os.path.exists('/tmp/stop'):
    assert tcp('192.0.2.1', 9000) == 'EPERM'; denied += 1
    assert tcp('192.0.2.1', 8000, b'x') == 'ok'; allowed += 1
tcp('192.0.2.1', 8001, f'{denied} {allowed}'.encode())
";

/// Takes connections to a port for as long as the test runs, and counts them.
fn taking(port: u16) -> Arc<AtomicU64> {
    let listener = peer::listen(&format!("192.0.2.1:{port}"));
    let taken = Arc::<AtomicU64>::default();
    let count = Arc::clone(&taken);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            peer::drain(&mut stream);
        }
    });
    taken
}

/// Starts a program that is nobody's child here, so that it does not need the engine.
fn leave_busy(agent: &Container<'_>, engine: &Engine) {
    engine.docker(&["exec", "--detach", &agent.id, PYTHON, "-c", &code(BUSY)]);
}

/// Waits until somebody has got further by this many.
#[track_caller]
fn goes_on(taken: &AtomicU64, by: u64) {
    let before = taken.load(Ordering::Relaxed);
    eventually("connections to go on", || {
        (taken.load(Ordering::Relaxed) >= before + by).then_some(())
    });
}

/// Flows that records tell of, to a port and with a verdict, all of one agent.
fn told(stack: &Stack, id: &str, port: u16, verdict: &str) -> u64 {
    let mut all = stack.collector.received();
    all.retain(|r| r.attributes.get("dst_port") == Some(&port.into()));
    let flows = |r: &Received| {
        assert_eq!(r.attributes["container_id"], id, "{r:?}");
        assert_eq!(r.attributes["agent"], "web");
        assert_eq!(r.attributes["verdict"], verdict, "{r:?}");
        r.attributes.get("count").map_or(1, |n| n.as_u64().unwrap())
    };
    all.iter().map(flows).sum()
}

#[test]
fn while_the_engine_is_away_nothing_escapes_and_every_flow_is_told() {
    let mut engine = Engine::start();
    let stack = Stack::start(&engine);
    let (taken, escaped) = (taking(8000), taking(9000));
    let (id, pid) = {
        let agent = stack.agent(&engine, "web", "shop", &[]);
        leave_busy(&agent, &engine);
        (agent.id.clone(), agent.pid())
    };
    goes_on(&taken, 20);
    engine.kill();
    goes_on(&taken, 100);
    engine.revive();
    // Who comes now is known as who he is, and the busy one is still whom it was.
    let late = stack.agent(&engine, "db", "shop", &[]);
    send(&late, 8002, 5);
    is_of(&stack.flow_to(8002), &late, ("db", "shop"));
    goes_on(&taken, 20);
    let report = peer::once("192.0.2.1:8001", |mut s| {
        use std::io::Read as _;
        let mut text = String::new();
        s.read_to_string(&mut text).unwrap();
        text
    });
    fs::write(format!("/proc/{pid}/root/tmp/stop"), "").unwrap();
    let report = report.join().unwrap().1;
    let numbers: Vec<u64> = report.split(' ').map(|n| n.parse().unwrap()).collect();
    let [denied, allowed] = numbers[..] else {
        panic!("{report}")
    };
    eventually("every flow to be told", || {
        let so_far = [
            told(&stack, &id, 9000, "DENIED"),
            told(&stack, &id, 8000, "ALLOWED"),
        ];
        assert!(
            so_far[0] <= denied && so_far[1] <= allowed,
            "{so_far:?} of {report}"
        );
        (so_far == [denied, allowed]).then_some(())
    });
    assert_eq!(escaped.load(Ordering::Relaxed), 0);
    assert_eq!(taken.load(Ordering::Relaxed), allowed);
    assert_eq!(stack.audits("enrolled").len(), 2);
    for none in ["gap", "left", "unguarded", "shut"] {
        assert!(stack.audits(none).is_empty(), "{none}");
    }
    is_of(
        &stack.flow_to(8001),
        &engine.container(&id),
        ("web", "shop"),
    );
    stack.end();
}

#[test]
fn containers_that_die_with_their_engine_are_told_to_the_end() {
    // The last one counts: an engine that ends its containers when it is started again.
    let mut engine = Engine::start_with(&["--live-restore=false"]);
    let stack = Stack::start(&engine);
    let (taken, escaped) = (taking(8000), taking(9000));
    let id = {
        let agent = stack.agent(&engine, "web", "shop", &[]);
        leave_busy(&agent, &engine);
        agent.id.clone()
    };
    goes_on(&taken, 20);
    engine.kill();
    goes_on(&taken, 50);
    engine.revive();
    let agent = engine.container(&id);
    stack.audit("left", &agent);
    let allowed = taken.load(Ordering::Relaxed);
    eventually("every flow to be told", || {
        let so_far = told(&stack, &id, 8000, "ALLOWED");
        assert!(so_far <= allowed + 1, "{so_far} of {allowed}");
        (so_far >= allowed).then_some(())
    });
    assert!(told(&stack, &id, 9000, "DENIED") >= told(&stack, &id, 8000, "ALLOWED"));
    assert_eq!(escaped.load(Ordering::Relaxed), 0);
    assert!(stack.audits("gap").is_empty());
    // Its next life is one like any other.
    engine.docker(&["start", &id]);
    eventually("the next life", || {
        (stack.audits("enrolled").len() == 2).then_some(())
    });
    send(&agent, 8003, 5);
    is_of(&stack.flow_to(8003), &agent, ("web", "shop"));
    stack.end();
}
