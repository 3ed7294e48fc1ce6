//! The real program: serve, status, check-health.

use crate::{
    receiver::Collector,
    support::{eventually, flow, open},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use otlp_bridge::incoming::Keeper as _;
use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const BRIDGE: &str = env!("CARGO_BIN_EXE_otlp-bridge");

fn bridge(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", BRIDGE])
        .args(args)
        .env("CLAWKER_BRIDGE_SOCKET", dir.join("run/bridge.sock"))
        .env("CLAWKER_BRIDGE_SPOOL", dir.join("spool"));
    command
}

fn out(dir: &Path, args: &[&str]) -> Output {
    bridge(dir, args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn serve(dir: &Path, to: &str) -> Child {
    let child = bridge(dir, &["serve", "--to", to])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the bridge to be healthy", || {
        out(dir, &["check-health"]).status.success().then_some(())
    });
    child
}

#[test]
fn it_delivers_what_is_in_the_spool_says_so_and_ends_on_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let spool = open(&dir.join("spool"), 64 << 20);
    let records: Vec<_> = (0..500).map(|n| flow(1, "DENIED", n)).collect();
    spool.keep(None, &records).unwrap();
    spool.close().unwrap();

    // Nobody runs: the store itself is read.
    let status = |args: &[&str]| {
        let done = out(dir, args);
        assert!(done.status.success(), "{}", text(&done.stderr));
        text(&done.stdout)
    };
    let waiting = || {
        let json: serde_json::Value = serde_json::from_str(&status(&["status", "--json"])).unwrap();
        let mut streams = json["streams"].as_array().unwrap().iter();
        let flows = streams.find(|s| s["stream"] == "clawker-egress").unwrap();
        flows["pending"].as_u64().unwrap()
    };
    assert_eq!(waiting(), 500);
    assert_eq!(out(dir, &["check-health"]).status.code(), Some(1));

    let mut collector = Collector::new();
    let mut child = serve(dir, &collector.url());
    assert_eq!(waiting(), 500);
    eventually("the outage to be told", || {
        status(&["status"]).contains("cannot connect").then_some(())
    });
    let second = out(dir, &["serve", "--to", &collector.url()]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("in use"),
        "{}",
        text(&second.stderr)
    );

    collector.start();
    eventually("delivery", || (waiting() == 0).then_some(()));
    eventually("the collector to have written", || {
        (collector.ids().len() == 500).then_some(())
    });
    let table = status(&["status"]);
    assert!(table.contains("clawker-egress"), "{table}");

    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(waiting(), 0);
}

#[test]
fn wrong_use_is_told_from_failure() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for wrong in [
        &["serve"][..],
        &["serve", "--to", "nowhere"],
        &["serve", "--to", "http://h:1/v1/logs", "--max-bytes", "much"],
        &["serve", "--to", "http://h:1/v1/logs", "--log", "a=b=c"],
    ] {
        let done = out(dir, wrong);
        assert_eq!(
            done.status.code(),
            Some(2),
            "{wrong:?}: {}",
            text(&done.stderr)
        );
    }
    std::fs::create_dir(dir.join("spool")).unwrap();
    std::fs::write(dir.join("spool/spool.redb"), "no store").unwrap();
    let done = out(dir, &["serve", "--to", "http://127.0.0.1:1/v1/logs"]);
    assert_eq!(done.status.code(), Some(1));
    let said = text(&done.stderr);
    assert!(said.contains("damaged") && said.contains("mv "), "{said}");
}
