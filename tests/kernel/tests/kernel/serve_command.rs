//! The command itself, beside an engine that never answers.

use kernel_tests::{eventually, run::Bench, talk::Talk};
use nix::sys::signal::Signal;
use std::os::unix::net::UnixDatagram;

#[test]
fn it_says_when_it_is_ready_is_there_once_and_leaves_everything_in_force() {
    let bench = Bench::new();
    let manager = bench.path("notify.sock");
    let notify = UnixDatagram::bind(&manager).unwrap();
    let mut command = bench.serve();
    command.env("NOTIFY_SOCKET", &manager);
    let running = Talk::start(&mut command);
    let mut word = [0; 64];
    let n = notify.recv(&mut word).unwrap();
    assert_eq!(&word[..n], b"READY=1");
    eventually("the leases", || {
        bench.path("leases/leases.json").exists().then_some(())
    });
    assert!(
        bench.control().join("serve.sock").exists(),
        "it can be watched"
    );
    let again = bench.serve().output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{said}");
    assert!(said.contains("has a loader that is running"), "{said}");
    running.signal(Signal::SIGHUP);
    running.signal(Signal::SIGTERM);
    let out = running.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert!(out.stderr.contains("the engine is away"), "{}", out.stderr);
    assert!(bench.pins_of("serve").dir().exists(), "pins stay");
    // The next one takes over.
    let next = Talk::start(&mut command);
    let n = notify.recv(&mut word).unwrap();
    assert_eq!(&word[..n], b"STOPPING=1");
    let n = notify.recv(&mut word).unwrap();
    assert_eq!(&word[..n], b"READY=1");
    next.signal(Signal::SIGTERM);
    let out = next.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let gone = bench.operate(&["detach", "--instance", "serve"]);
    assert!(
        gone.status.success(),
        "{}",
        String::from_utf8_lossy(&gone.stderr)
    );
    bench.nothing_left(&[]);
}

#[test]
fn mistakes_in_the_policy_are_told_before_anything_is_touched() {
    let bench = Bench::new();
    let out = bench
        .serve()
        .arg("--policy")
        .arg(bench.policy("rules: [{ dst: no name }]\n"))
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(!bench.pins.exists());
}
