//! Several instances, living and dead: each has its own, and a dead one leaves a firewall behind.

use ebpf_manager::cgroup::Cgroup;
use kernel_tests::{cgroup_root, check::fields, clear, eventually, policies::WEB, run::Bench};
use serde_json::json;
use std::{
    fs,
    process::{Child, Command, Stdio},
};

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
    let script = "echo up; while read l; do (exec 3<>/dev/tcp/203.0.113.9/80) 2>/dev/null && echo through || echo denied; done; exec sleep 1000";
    let mut shell = bench.shell(WEB, &["--agent", "a", "--project", "p"], script);
    let id = shell.instance();
    shell.kill_loader();
    assert_eq!(shell.go(), "denied");
    let rows = bench.dump(&[]);
    assert_eq!(rows.len(), 1);
    fields(
        &rows[0],
        &json!({"instance": id, "agent": "a", "project": "p", "mode": "enforce", "denied": 1}),
    );
    let text = bench.operate(&["dump"]).stdout;
    assert!(String::from_utf8_lossy(&text).contains("loader not running"));
    // Another run does not touch what is still needed.
    assert_eq!(bench.run(None, &[], &["true"]).code, 0);
    assert_eq!(bench.dump(&[]).len(), 1);
    let out = bench.operate(&["detach", "--instance", &id]);
    let refusal = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        refusal.contains(&id) && refusal.contains("--force"),
        "{refusal}"
    );
    // Enforcement goes on, the next run sweeps when the last process is gone.
    assert_eq!(shell.go(), "denied");
    fs::write(shell.cgroup().join("cgroup.kill"), "1").unwrap();
    let swept = eventually("the sweep", || {
        let out = bench.run(None, &[], &["true"]);
        out.stderr.contains("cleaned up").then_some(out.stderr)
    });
    assert!(swept.contains(&id) && swept.contains("2 denied"), "{swept}");
    bench.nothing_left(&[shell.pid()]);
}

#[test]
fn force_detaches_what_still_runs() {
    let bench = Bench::new();
    let mut shell = bench.shell(
        WEB,
        &[],
        "echo up; read; (exec 3<>/dev/tcp/192.0.2.2/81) 2>&1 | head -1 | grep -o 'refused\\|permitted'",
    );
    shell.kill_loader();
    let out = bench.operate(&["detach", "--instance", &shell.instance(), "--force"]);
    let heard = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(shell.go(), "refused", "no firewall any more");
    assert!(bench.dump(&[]).is_empty(), "{heard}");
    // The cgroup had processes; it goes when they have.
    eventually("an empty cgroup", || {
        let _ = bench.operate(&["detach", "--all"]);
        let path = shell.cgroup();
        let empty = fs::read_to_string(path.join("cgroup.procs")).map_or(true, |p| p.is_empty());
        (empty && (fs::remove_dir(&path).is_ok() || !path.exists())).then_some(())
    });
    assert_eq!(out.status.code(), Some(0), "{heard}");
}

#[test]
fn instances_at_once_have_policies_of_their_own() {
    let bench = Bench::new();
    let connect = "echo up; read; for p in 8080 9090; do (exec 3<>/dev/tcp/192.0.2.1/$p) 2>&1 | head -1 | grep -o 'refused\\|permitted'; done";
    // Two policies, one root of pins.
    let other = bench.beside();
    let second = WEB.replace("8080", "9090");
    let mut one = bench.shell(WEB, &[], connect);
    let mut two = other.shell(&second, &[], connect);
    assert_eq!(bench.dump(&[]).len(), 2);
    assert_eq!(
        (one.go(), one.hear()),
        ("refused".into(), "permitted".into())
    );
    assert_eq!(
        (two.go(), two.hear()),
        ("permitted".into(), "refused".into())
    );
    for (out, good) in [(one.end(&bench), 8080), (two.end(&other), 9090)] {
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
    for _ in 0..2 {
        all_well(start_many(&bench, 6));
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

/// Process ids come round. A shell that becomes the loader keeps its own, so it can leave something there before.
#[test]
fn a_run_with_the_number_of_a_dead_one_shares_nothing_with_what_that_left() {
    const BEFORE: &str = "cgroup=$0/run-$$; mkdir -p $cgroup; sleep 1000 <&- >&- 2>&- &
        echo $! > $cgroup/cgroup.procs; echo $cgroup $! >&2; exec \"$@\"";
    let bench = Bench::new();
    let ours = cgroup_root().join("clawker");
    let run = bench.command("default: allow", &[], &["cat", "/proc/self/cgroup"]);
    let mut shell = Command::new("bash");
    shell.args(["-c", BEFORE]).arg(&ours);
    shell.arg(run.get_program()).args(run.get_args());
    let out = shell.stdin(Stdio::null()).output().unwrap();
    let (said, told) = (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    );
    let (left, sleeper) = told.lines().next().unwrap().rsplit_once(' ').unwrap();
    let left = Cgroup::at(left);
    let lives = fs::read_to_string(left.path().join("cgroup.procs"));
    clear(&left);
    left.remove().unwrap();
    assert!(out.status.success(), "{told}");
    assert_eq!(lives.unwrap().trim(), sleeper);
    let own = left.path().file_name().unwrap().to_str().unwrap();
    assert!(
        !said.contains(&format!("{own}/")) && !said.trim().ends_with(own),
        "{said} is {own}"
    );
}
