//! `bypass` and `enforce` where no loader answers: straight into the pins, with the record in a file.

use kernel_tests::{check::fields, eventually, run::Bench, talk::Talk};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

const POLICY: &str = "version: 1\nrules: []\n";
const LIFT: [&str; 7] = [
    "bypass",
    "--agent",
    "reviewer",
    "--for",
    "1h",
    "--reason",
    "break glass",
];

const AGENT: &str = "\
word = step('up')\n\
while word: word = step(tcp('203.0.113.9', 80))\n";

fn up(bench: &Bench) -> Talk {
    let mut talk = bench.talk(POLICY, &["--agent", "reviewer"], AGENT);
    assert_eq!(talk.hear(), "up");
    let _ = bench.socket(talk.pid());
    talk
}

fn journal(bench: &Bench, talk: &Talk) -> PathBuf {
    bench
        .control()
        .join(format!("{}.audit.jsonl", talk.instance()))
}

fn read(path: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn a_dead_loader_is_no_hindrance_and_the_record_is_kept() {
    let bench = Bench::new();
    let mut talk = up(&bench);
    assert_eq!(talk.go(), "EPERM");
    talk.kill_loader();
    let out = bench.operate(&LIFT);
    let (said, told) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert_eq!(out.status.code(), Some(0), "{told}");
    assert!(
        said.contains("bypass on for reviewer until") && said.contains("break glass"),
        "{said}"
    );
    let file = journal(&bench, &talk);
    assert!(told.contains(file.to_str().unwrap()), "{told}");
    assert_eq!(talk.go(), "ECONNREFUSED");
    let row = &bench.dump(&["--agent", "reviewer"])[0];
    fields(
        row,
        &json!({"bypass_reason": "break glass", "bypass_by": "root, uid 0", "agent": "reviewer"}),
    );
    let doctor = bench.doctor(&[]);
    assert!(
        doctor
            .of("note")
            .iter()
            .any(|n| n.contains("root, uid 0: break glass")),
        "{doctor:#?}"
    );

    let off = bench.order(&["enforce", "--agent", "reviewer"]);
    assert_eq!(talk.go(), "EPERM");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o600));
    let kept = read(&file);
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[1], off[0]);
    for key in [
        "actor_uid",
        "actor_pid",
        "actor_comm",
        "bypass_by",
        "bypass_reason",
        "bypass_from",
        "bypass_until",
        "instance",
        "slot",
    ] {
        assert!(!kept[0][key].is_null(), "{key} in {kept:#?}");
    }
    // Whoever takes the instance down is told where the record is.
    let out = bench.operate(&["detach", "--all", "--force"]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains(file.to_str().unwrap()), "{said}");
    talk.end(&bench);
}

#[test]
fn nothing_is_lifted_without_a_record_but_enforcing_goes_ahead() {
    let bench = Bench::new();
    let mut talk = up(&bench);
    talk.kill_loader();
    bench.order(&LIFT);
    assert_eq!(talk.go(), "ECONNREFUSED");
    // The file cannot be written to any more.
    let file = journal(&bench, &talk);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let out = bench.operate(&["enforce", "--agent", "reviewer"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("it is enforced, but no record of that can be kept"),
        "{said}"
    );
    assert_eq!(talk.go(), "EPERM");
    let out = bench.operate(&LIFT);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("nothing is lifted without a record"),
        "{said}"
    );
    assert_eq!(talk.go(), "EPERM");
    talk.end(&bench);
}

#[test]
fn a_loader_that_hangs_is_gone_around_and_records_it_later() {
    let bench = Bench::new();
    let mut talk = up(&bench);
    talk.signal(Signal::SIGSTOP);
    let out = bench.operate(&[&LIFT[..], &["--json"]].concat());
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(0), "{told}");
    assert!(
        told.contains("does not answer") && told.contains("without a loader"),
        "{told}"
    );
    assert_eq!(talk.go(), "ECONNREFUSED");
    let off = bench.operate(&["enforce"]);
    assert_eq!(off.status.code(), Some(0), "{off:?}");
    assert_eq!(talk.go(), "EPERM");
    let kept = read(&journal(&bench, &talk));
    assert_eq!(kept.len(), 2);
    talk.signal(Signal::SIGCONT);
    // The loader finds the file and writes what is in it; the orders that it did not hear are void.
    let taken = eventually("the loader to take it over", || {
        let all = bench.events();
        (all.len() >= 2).then_some(all)
    });
    assert_eq!(taken, kept);
    eventually("the file to go", || {
        (!journal(&bench, &talk).exists()).then_some(())
    });
    assert_eq!(talk.go(), "EPERM");
    let out = talk.end(&bench);
    assert_eq!(out.events, kept);
}

#[test]
fn without_a_control_socket_a_running_loader_still_records_how_it_ends() {
    let bench = Bench::new();
    let mut talk = up(&bench);
    fs::remove_file(bench.socket(talk.pid())).unwrap();
    let out = bench.operate(&[
        "bypass", "--agent", "reviewer", "--for", "2s", "--reason", "x",
    ]);
    let told = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(0), "{told}");
    assert!(
        told.contains("nobody listens on its control socket"),
        "{told}"
    );
    assert_eq!(talk.go(), "ECONNREFUSED");
    let ended = bench.audited("enforce", 1);
    fields(
        &ended[0],
        &json!({"cause": "expired", "bypass_by": "root, uid 0"}),
    );
    assert_eq!(bench.audit("bypass").len(), 1);
    assert_eq!(talk.go(), "EPERM");
    talk.end(&bench);
}
