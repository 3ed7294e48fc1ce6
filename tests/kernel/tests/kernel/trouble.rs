//! `run` on machines that lack what it needs: one clear error that says what to do, the right exit code,
//! the command never starts, and nothing is left behind.

use kernel_tests::{cgroup_root, dns::RESOLVER, run::Bench};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Cgroups of ours that no other test could have made: none has a living process' number.
fn cgroups_of_the_dead() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(cgroup_root().join("clawker"))
        .into_iter()
        .flatten()
        .flatten();
    let is_dead = |p: &PathBuf| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix("run-")
            .map(|rest| rest.split('-').next().unwrap_or(rest).to_owned());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    entries.map(|e| e.path()).filter(is_dead).collect()
}

/// Runs `run -- echo ran` where a shell has changed something first, and asserts that it fails as it
/// should: `says` in one error, this exit code, no command, nothing left.
#[track_caller]
fn fails(bench: &Bench, setup: &str, code: i32, says: &[&str]) {
    let before = cgroups_of_the_dead();
    let mut c = bench.manager_where(RESOLVER, setup);
    failed(
        &c.args(["run", "--", "echo", "ran"]).output().unwrap(),
        code,
        says,
    );
    bench.nothing_left(&[]);
    let left: Vec<_> = cgroups_of_the_dead().difference(&before).cloned().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[track_caller]
fn failed(out: &Output, code: i32, says: &[&str]) {
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(
        (out.status.code(), out.stdout.as_slice()),
        (Some(code), &b""[..]),
        "{said}"
    );
    for s in says {
        assert!(said.contains(s), "{s:?} in {said}");
    }
    assert_eq!(
        said.lines().filter(|l| l.starts_with("error: ")).count(),
        1,
        "{said}"
    );
    let warned = said.lines().filter(|l| l.starts_with("warning: ")).count();
    assert_eq!(warned, 0, "{said}");
}

#[test]
fn an_old_kernel_is_told() {
    let bench = Bench::new();
    let mut old = bench.manager_on_an_old_kernel();
    let out = old.args(["run", "--", "echo", "ran"]).output().unwrap();
    failed(
        &out,
        1,
        &["this kernel is 2.6.", "5.17 or newer", "boot a newer one"],
    );
    bench.nothing_left(&[]);
}

#[test]
fn missing_and_damaged_types_are_told() {
    let bench = Bench::new();
    let types = "/sys/kernel/btf/vmlinux";
    fs::write(bench.path("empty"), "").unwrap();
    fs::write(bench.path("noise"), [0x5a; 4096]).unwrap();
    // Type information that is whole and tells nothing: a header, no types, one empty string.
    let mut blank = vec![0x9f, 0xeb, 1, 0];
    blank.extend([24u32, 0, 0, 0, 1].iter().flat_map(|w| w.to_ne_bytes()));
    blank.push(0);
    fs::write(bench.path("blank"), blank).unwrap();
    fs::write(bench.path("cut"), &fs::read(types).unwrap()[..100_000]).unwrap();
    for file in ["empty", "noise", "blank", "cut"] {
        let hide = format!("mount --bind {} {types}", bench.path(file).display());
        fails(&bench, &hide, 1, &[types, "CONFIG_DEBUG_INFO_BTF=y"]);
    }
    let absent = "mount -t tmpfs none /sys/kernel/btf";
    fails(
        &bench,
        absent,
        1,
        &[types, "No such file", "CONFIG_DEBUG_INFO_BTF=y"],
    );
}

#[test]
fn no_cgroup_v2_is_told() {
    let bench = Bench::new();
    let root = cgroup_root();
    let root = root.display();
    fails(
        &bench,
        &format!("umount {root}"),
        1,
        &["no cgroup v2", "mount -t cgroup2"],
    );
    let read_only = format!("mount -o remount,bind,ro {root}");
    fails(
        &bench,
        &read_only,
        1,
        &[
            "cannot create cgroup",
            "Read-only file system",
            "remount,rw",
        ],
    );
}

#[test]
fn no_bpffs_is_told_and_a_missing_mount_is_made() {
    let bench = Bench::new();
    let read_only = "mount -o remount,bind,ro /sys/fs/bpf";
    fails(
        &bench,
        read_only,
        1,
        &["/sys/fs/bpf", "Read-only file system", "remount,rw"],
    );
    // Without the directory there is no place to mount one.
    let absent = "mount -t tmpfs none /sys/fs && mkdir -p /sys/fs/cgroup";
    fails(
        &bench,
        absent,
        1,
        &["no BPF file system at /sys/fs/bpf", "mount -t bpf bpf"],
    );
    // With it, `run` mounts one, in the namespace that it was started in.
    let mut c = bench.manager_where(RESOLVER, "umount -l /sys/fs/bpf");
    let out = c.args(["run", "-q", "--", "echo", "ran"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(
        (out.status.code(), out.stdout.as_slice()),
        (Some(0), &b"ran\n"[..]),
        "{said}"
    );
}

#[test]
fn pins_on_another_file_system_are_wrong_use_and_leave_no_directory() {
    let bench = Bench::new();
    let root = bench.path("pins/of/mine");
    let mut c = Command::new(kernel_tests::run::binary());
    c.arg("--pin-root")
        .arg(&root)
        .args(["run", "--", "echo", "ran"]);
    let out = c.output().unwrap();
    failed(
        &out,
        2,
        &[
            root.to_str().unwrap(),
            "not on a BPF file system",
            "below /sys/fs/bpf",
        ],
    );
    assert!(!bench.path("pins").exists());
}

#[test]
fn root_without_its_capabilities_is_told() {
    let bench = Bench::new();
    for drop in ["-sys_admin", "-sys_admin,-bpf,-perfmon,-net_admin"] {
        let mut c = Command::new("setpriv");
        c.arg(format!("--bounding-set={drop}"))
            .arg(kernel_tests::run::binary());
        c.arg("--pin-root")
            .arg(&bench.pins)
            .args(["run", "--", "echo", "ran"]);
        failed(
            &c.output().unwrap(),
            1,
            &["not permitted", "root of the machine"],
        );
        bench.nothing_left(&[]);
    }
}
