//! Several instances, living and dead: each has its own, and a dead one leaves a firewall behind.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as the tests themselves do"
)]

use kernel_tests::{
    cgroup_root,
    check::fields,
    eventually,
    run::{Bench, binary, line, signal},
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{
    fs,
    io::{BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
};

const POLICY: &str =
    "version: 1\nrules:\n  - { name: web, dst: 192.0.2.1, proto: tcp, port: 8080 }\n";

fn spawn(
    bench: &Bench,
    policy: Option<&str>,
    args: &[&str],
    shell: &str,
) -> (Child, BufReader<ChildStdout>) {
    let mut child = bench.spawn(policy, args, &["bash", "-c", shell]);
    let mut said = BufReader::new(child.stdout.take().unwrap());
    assert_eq!(line(&mut said), "up");
    (child, said)
}

fn start_many(bench: &Bench, n: usize) -> Vec<Child> {
    (0..n)
        .map(|i| {
            let mut c = bench.manager();
            c.args(["run", "-q", "--", "bash", "-c", &format!("echo {i}")]);
            c.stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect()
}

#[track_caller]
fn all_well(all: Vec<Child>) {
    for (i, child) in all.into_iter().enumerate() {
        let out = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        let text = String::from_utf8_lossy(&out.stdout);
        assert_eq!(
            (out.status.code(), text.trim(), &*said),
            (Some(0), i.to_string().as_str(), "")
        );
    }
}

#[test]
fn a_dead_loader_leaves_a_firewall_that_others_can_see_and_remove() {
    let bench = Bench::new();
    let shell = "echo up; while read l; do (exec 3<>/dev/tcp/203.0.113.9/80) 2>/dev/null && echo through || echo denied; done; exec sleep 1000";
    let (mut child, mut said) = spawn(
        &bench,
        Some(POLICY),
        &["--agent", "a", "--project", "p"],
        shell,
    );
    let pid = child.id();
    let id = format!("run-{pid}");
    let mut input = child.stdin.take().unwrap();
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    input.write_all(b"\n").unwrap();
    assert_eq!(line(&mut said), "denied");
    let rows = bench.dump(&[]);
    assert_eq!(rows.len(), 1);
    fields(
        &rows[0],
        &json!({"instance": id, "agent": "a", "project": "p", "mode": "enforce", "denied": 1}),
    );
    let text = bench.manager().arg("dump").output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&text).contains("loader not running"));
    // Another run does not touch what is still needed.
    assert_eq!(bench.run(None, &[], &["true"]).code, 0);
    assert_eq!(bench.dump(&[]).len(), 1);
    let out = bench
        .manager()
        .args(["detach", "--instance", &id])
        .output()
        .unwrap();
    let refusal = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        refusal.contains(&id) && refusal.contains("--force"),
        "{refusal}"
    );
    // Enforcement goes on, the next run sweeps when the last process is gone.
    input.write_all(b"\n").unwrap();
    assert_eq!(line(&mut said), "denied");
    fs::write(cgroup_root().join(format!("clawker/{id}/cgroup.kill")), "1").unwrap();
    let swept = eventually("the sweep", || {
        let out = bench.run(None, &[], &["true"]);
        out.stderr.contains("cleaned up").then_some(out.stderr)
    });
    assert!(swept.contains(&id) && swept.contains("2 denied"), "{swept}");
    bench.nothing_left(&[pid]);
}

#[test]
fn force_detaches_what_still_runs() {
    let bench = Bench::new();
    let (mut child, mut said) = spawn(
        &bench,
        Some(POLICY),
        &[],
        "echo up; read; (exec 3<>/dev/tcp/192.0.2.2/81) 2>&1 | head -1 | grep -o 'refused\\|permitted'",
    );
    let pid = child.id();
    let mut input = child.stdin.take().unwrap();
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    let out = bench
        .manager()
        .args(["detach", "--instance", &format!("run-{pid}"), "--force"])
        .output()
        .unwrap();
    let heard = String::from_utf8_lossy(&out.stderr).into_owned();
    input.write_all(b"\n").unwrap();
    assert_eq!(line(&mut said), "refused", "no firewall any more");
    assert!(bench.dump(&[]).is_empty(), "{heard}");
    // The cgroup had processes; it goes when they have.
    eventually("an empty cgroup", || {
        let _ = bench.manager().args(["detach", "--all"]).output();
        let path = cgroup_root().join(format!("clawker/run-{pid}"));
        let empty = fs::read_to_string(path.join("cgroup.procs")).map_or(true, |p| p.is_empty());
        (empty && (fs::remove_dir(&path).is_ok() || !path.exists())).then_some(())
    });
    assert_eq!(out.status.code(), Some(0), "{heard}");
}

#[test]
fn instances_at_once_have_policies_of_their_own() {
    let bench = Bench::new();
    let other = Bench::without_network();
    let connect = "echo up; read; for p in 8080 9090; do (exec 3<>/dev/tcp/192.0.2.1/$p) 2>&1 | head -1 | grep -o 'refused\\|permitted'; done";
    let second = POLICY.replace("8080", "9090");
    // Two policies, one root of pins.
    let mut b = other.command(Some(&second), &[], &["bash", "-c", connect]);
    b.arg("--pin-root").arg(&bench.pins);
    let (mut one, mut one_said) = spawn(&bench, Some(POLICY), &[], connect);
    let mut two = {
        let args: Vec<_> = b.get_args().map(ToOwned::to_owned).collect();
        // The root given last would be the command's argument: put it in front instead.
        let mut c = Command::new(binary());
        c.arg("--pin-root")
            .arg(&bench.pins)
            .args(&args[2..args.len() - 2]);
        c.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut two_said = BufReader::new(two.stdout.take().unwrap());
    assert_eq!(line(&mut two_said), "up");
    assert_eq!(bench.dump(&[]).len(), 2);
    for child in [&mut one, &mut two] {
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
    assert_eq!(
        (line(&mut one_said), line(&mut one_said)),
        ("refused".into(), "permitted".into())
    );
    assert_eq!(
        (line(&mut two_said), line(&mut two_said)),
        ("permitted".into(), "refused".into())
    );
    let (one, two) = (bench.finish(one), other.finish(two));
    for (out, good) in [(&one, 8080), (&two, 9090)] {
        assert_eq!(out.records.len(), 2);
        for r in &out.records {
            let verdict = if r["dst_port"] == good {
                "ALLOWED"
            } else {
                "DENIED"
            };
            fields(r, &json!({"verdict": verdict}));
        }
    }
    bench.nothing_left(&[]);
}

#[test]
fn many_starts_at_once_succeed() {
    let bench = Bench::new();
    for _ in 0..3 {
        all_well(start_many(&bench, 8));
    }
    bench.nothing_left(&[]);
}

#[test]
fn instances_that_come_and_go_do_not_disturb_a_dump_nor_it_them() {
    let bench = Bench::new();
    let all = start_many(&bench, 4);
    let failed: Vec<String> = (0..100).filter_map(|_| bench.try_dump(&[]).err()).collect();
    all_well(all);
    assert!(
        failed.is_empty(),
        "{} of 100 failed: {}",
        failed.len(),
        failed[0]
    );
    bench.nothing_left(&[]);
}
