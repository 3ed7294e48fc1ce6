//! From the start of a command to the last pin: exit codes, signals, and what is left behind.

use kernel_tests::{
    eventually,
    policies::WEB,
    run::{Bench, Outcome, binary},
};
use nix::{
    mount::{MsFlags, mount, umount},
    sys::signal::Signal,
};
use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

#[test]
fn the_exit_code_and_stdout_are_the_commands() {
    let bench = Bench::new();
    for (shell, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        let out = bench.run(
            WEB,
            &[],
            &["bash", "-c", &format!("echo out; echo err >&2; {shell}")],
        );
        assert_eq!((out.code, out.stdout.as_str()), (code, "out\n"), "{shell}");
        assert!(out.stderr.contains("err\n"));
        bench.nothing_left(&[]);
    }
}

#[test]
fn mistakes_are_2_and_failures_1_with_one_error_and_nothing_left() {
    let bench = Bench::new();
    let bad = "version: 1\nrules:\n  - { dst: 192.0.2.1, proto: tcp, port: 70000 }\n";
    let wrong = |out: &Outcome, code: i32, says: &str| {
        assert_eq!(out.code, code, "{}", out.stderr);
        assert!(out.stderr.contains(says), "{says:?} in {}", out.stderr);
        assert_eq!(out.stdout, "");
        bench.nothing_left(&[]);
    };
    wrong(
        &bench.run(None, &[], &["/no/such/command"]),
        2,
        "/no/such/command",
    );
    wrong(
        &bench.run(None, &[], &["no-such-command-in-path"]),
        2,
        "no-such-command-in-path",
    );
    wrong(&bench.run(None, &[], &["/etc/passwd"]), 2, "/etc/passwd");
    wrong(&bench.run(bad, &[], &["echo", "ran"]), 2, "70000");
    wrong(
        &bench.run(None, &["--policy", "/no/such/file"], &["echo", "ran"]),
        2,
        "/no/such/file",
    );
    wrong(
        &bench.run(None, &["--no-such-flag"], &["echo", "ran"]),
        2,
        "--no-such-flag",
    );
    wrong(
        &bench.run(None, &["--user", "no-such-user"], &["echo", "ran"]),
        2,
        "no-such-user",
    );
    wrong(
        &bench.run(None, &["--cap-add", "CAP_CHOWN"], &["echo", "ran"]),
        2,
        "CAP_CHOWN",
    );
    wrong(
        &bench.run(None, &["--ring-kib", "5"], &["echo", "ran"]),
        2,
        "--ring-kib",
    );
    let full: String = (1..130)
        .map(|p| format!("- {{ dst: 192.0.2.1, proto: tcp, port: {p} }}\n"))
        .collect();
    wrong(
        &bench.run(&format!("rules:\n{full}"), &[], &["echo", "ran"]),
        2,
        "at most 128 fit",
    );
    let directory = bench.dir.path().to_str().unwrap();
    wrong(
        &bench.run(None, &["--policy", directory], &["echo", "ran"]),
        2,
        directory,
    );
    fs::write(bench.path("latin1.yaml"), b"rules: []  # caf\xe9\n").unwrap();
    let latin1 = bench.path("latin1.yaml");
    wrong(
        &bench.run(
            None,
            &["--policy", latin1.to_str().unwrap()],
            &["echo", "ran"],
        ),
        2,
        "latin1.yaml",
    );
    let paths =
        "version: 1\nrules:\n  - { dst: a.example, path_rules: [{ path: /x, methods: [GET] }] }\n";
    wrong(&bench.run(paths, &[], &["echo", "ran"]), 2, "proxy");
    let out = bench
        .manager()
        .args(["run", "--out", "/no/such/dir/file", "--", "echo", "ran"])
        .output()
        .unwrap();
    assert_eq!(
        (out.status.code(), out.stdout.as_slice()),
        (Some(1), &b""[..])
    );
}

#[test]
fn without_root_there_is_one_clear_error() {
    let bench = Bench::new();
    let copy = bench.path("ebpf-manager");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for args in [
        &["run", "--", "echo", "ran"][..],
        &["dump"],
        &["detach", "--all"],
    ] {
        let out = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy)
            .args(args)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(
            (out.status.code(), out.stdout.as_slice()),
            (Some(1), &b""[..]),
            "{said}"
        );
        assert!(
            said.contains("needs root") && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[test]
fn signals_are_passed_on() {
    let bench = Bench::new();
    for (name, s) in [
        ("TERM", Signal::SIGTERM),
        ("INT", Signal::SIGINT),
        ("QUIT", Signal::SIGQUIT),
        ("HUP", Signal::SIGHUP),
        ("USR1", Signal::SIGUSR1),
        ("USR2", Signal::SIGUSR2),
    ] {
        let mut shell = bench.shell(
            None,
            &[],
            &format!(
                "trap 'echo got {name}; exit 33' {name}; echo up; while :; do read -t 0.05; done"
            ),
        );
        shell.signal(s);
        assert_eq!(shell.hear(), format!("got {name}"));
        assert_eq!(shell.end(&bench).code, 33);
    }
    // One that the command does not handle ends it, and the loader says so as a shell would.
    let shell = bench.shell(None, &[], "echo up; exec sleep 100");
    let pid = shell.pid();
    eventually("exec", || {
        let process = fs::read_to_string(shell.cgroup().join("cgroup.procs")).ok()?;
        let comm = fs::read_to_string(format!("/proc/{}/comm", process.trim())).ok()?;
        (comm == "sleep\n").then_some(())
    });
    shell.signal(Signal::SIGTERM);
    assert_eq!(shell.end(&bench).code, 143);
    bench.nothing_left(&[pid]);
}

#[test]
fn background_processes_end_with_the_command() {
    let bench = Bench::new();
    let out = bench.run(
        None,
        &[],
        &[
            "bash",
            "-c",
            "(setsid sleep 1000 >/dev/null 2>&1 & echo $!); exit 5",
        ],
    );
    assert_eq!(out.code, 5, "{}", out.stderr);
    // Whoever inherits it may not have reaped it yet.
    let stat = fs::read_to_string(format!("/proc/{}/stat", out.stdout.trim()));
    let runs = stat.is_ok_and(|s| s.contains("(sleep)") && !s.contains("(sleep) Z"));
    assert!(!runs, "it runs on");
    bench.nothing_left(&[]);
}

#[test]
fn a_full_disk_is_told_once_and_counted() {
    let bench = Bench::new();
    let disk = bench.path("disk");
    fs::create_dir(&disk).unwrap();
    mount(
        Some("tmpfs"),
        &disk,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("size=4k"),
    )
    .unwrap();
    let shell = "for i in {1..40}; do (exec 3<>/dev/tcp/192.0.2.1/8080) 2>/dev/null; done";
    let runs: Vec<_> = ["exit 0", "exit 4"]
        .iter()
        .map(|end| {
            let mut c = bench.manager();
            c.args(["run", "--policy"])
                .arg(bench.policy(WEB))
                .arg("--out")
                .arg(disk.join("o.jsonl"));
            c.args(["--", "bash", "-c", &format!("{shell}; {end}")])
                .output()
                .unwrap()
        })
        .collect();
    let kept = fs::read_to_string(disk.join("o.jsonl")).unwrap();
    umount(&disk).unwrap();
    assert_eq!(
        (runs[0].status.code(), runs[1].status.code()),
        (Some(1), Some(4))
    );
    let said = String::from_utf8_lossy(&runs[0].stderr);
    assert_eq!(said.matches("error:").count(), 1, "{said}");
    let whole = kept
        .lines()
        .filter(|l| serde_json::from_str::<serde_json::Value>(l).is_ok())
        .count();
    assert!(whole > 0);
    // A record that found no room leaves no half of itself for the next one to be glued to.
    assert_eq!(kept.lines().count(), whole, "{kept}");
    assert!(
        said.contains(&format!("{} records were not written", 40 - whole)),
        "{whole} of 40 written: {said}"
    );
    let said = String::from_utf8_lossy(&runs[1].stderr);
    assert!(said.contains("40 records were not written"), "{said}");
}

#[test]
fn records_do_not_go_through_a_link() {
    let bench = Bench::new();
    let (target, link) = (bench.path("precious"), bench.path("records"));
    std::fs::write(&target, "kept\n").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let out = bench.operate(&["run", "--out", link.to_str().unwrap(), "--", "true"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("it is a symbolic link"), "{said}");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept\n");
    bench.nothing_left(&[]);
    // The system's own are another matter.
    let out = bench.operate(&["run", "--quiet", "--out", "/dev/stderr", "--", "true"]);
    assert_eq!(out.status.code(), Some(0));
}
