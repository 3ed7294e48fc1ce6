//! What a command under `run` can not do to what holds it, even as root, and whom it runs as.

use kernel_tests::{
    cgroup_root, eventually, own_mounts,
    run::{Bench, Outcome},
};
use nix::mount::{MsFlags, mount};
use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
};

const POLICY: &str = "version: 1\n";

fn bash(bench: &Bench, args: &[&str], shell: &str) -> Outcome {
    let out = bench.run(POLICY, args, &["bash", "-c", shell]);
    assert_eq!(out.code, 0, "{}", out.stderr);
    out
}

/// A capability set of `/proc/self/status`.
fn set(out: &Outcome, name: &str) -> u64 {
    let line = out.stdout.lines().find(|l| l.starts_with(name)).unwrap();
    u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
}

/// SYS_ADMIN, BPF, PERFMON, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_MODULE, SYS_RAWIO, SYS_BOOT.
const WITHHELD: [u32; 9] = [21, 39, 38, 12, 13, 19, 16, 17, 22];

#[test]
fn capabilities_that_could_lift_the_firewall_are_withheld() {
    let bench = Bench::new();
    let out = bash(&bench, &[], "cat /proc/self/status");
    for name in ["CapBnd:", "CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        for cap in WITHHELD {
            assert_eq!(set(&out, name) >> cap & 1, 0, "{name} {cap}");
        }
    }
    assert_eq!((set(&out, "CapInh:"), set(&out, "CapAmb:")), (0, 0));
    let out = bash(&bench, &["--cap-add", "net_admin"], "cat /proc/self/status");
    assert_eq!(
        (
            set(&out, "CapEff:") >> 12 & 1,
            set(&out, "CapEff:") >> 21 & 1
        ),
        (1, 0)
    );
    assert!(out.stderr.contains("--cap-add net_admin"), "{}", out.stderr);
}

#[test]
fn its_cgroup_can_not_be_left_and_nothing_can_be_remounted() {
    let bench = Bench::new();
    let root = cgroup_root();
    let (root, pins) = (root.display(), bench.pins.display());
    let out = bash(
        &bench,
        &[],
        &format!(
            "cat /proc/self/cgroup | grep ^0:\n\
             try() {{ \"$@\" 2>/dev/null && echo \"did: $*\"; }}\n\
             try eval 'echo $$ > {root}/cgroup.procs'; try eval 'echo $$ > {root}/clawker/cgroup.procs'\n\
             try mkdir {root}/mine; try umount {root}; try umount -l {root}; try umount /sys/fs/bpf; try mount -o remount,rw {root}\n\
             try mount -o remount,rw,bind {root}; try mount -o remount,rw,bind /sys/fs/bpf\n\
             try mount -t cgroup2 none /mnt; try mount -t bpf none /mnt; try unshare -m true; try unshare -C true; try nsenter -t 1 -m true\n\
             ls {pins} 2>/dev/null; true"
        ),
    );
    assert_eq!(out.stdout, "0::/\n");
}

#[test]
fn a_user_namespace_gives_no_way_out_of_the_cgroup() {
    let bench = Bench::new();
    let out = bash(
        &bench,
        &[],
        "unshare -Urm bash -c 'mkdir -p /tmp/cg.$$ && mount -t cgroup2 none /tmp/cg.$$ && echo $$ > /tmp/cg.$$/../cgroup.procs' 2>/dev/null\n\
         unshare -UrmC bash -c 'mount -t cgroup2 none /mnt 2>/dev/null && ls -d /mnt/clawker; (exec 3<>/dev/tcp/192.0.2.1/80) 2>&1 | head -1 | grep -o permitted'",
    );
    assert_eq!(out.stdout, "permitted\n");
    assert_eq!(
        (out.records.len(), &out.records[0]["verdict"]),
        (1, &serde_json::json!("DENIED"))
    );
}

#[test]
fn pinned_maps_can_not_be_opened_from_inside() {
    let bench = Bench::new();
    // BPF_OBJ_GET asks the file's mode, not the mount: read-only is not enough to keep root from writing.
    let out = bench.run(
        POLICY,
        &[],
        &[
            "python3",
            "-c",
            "import ctypes,os,sys\n\
             libc = ctypes.CDLL(None, use_errno=True); got = []\n\
             for d, _, names in os.walk(sys.argv[1]):\n\
             \x20   for n in names:\n\
             \x20       path = ctypes.create_string_buffer(os.path.join(d, n).encode())\n\
             \x20       attr = (ctypes.c_uint64 * 16)(ctypes.addressof(path), 0)\n\
             \x20       if libc.syscall(321, 7, attr, 128) >= 0: got.append(n)\n\
             print(sorted(got))",
            bench.pins.to_str().unwrap(),
        ],
    );
    assert_eq!(
        (out.code, out.stdout.as_str()),
        (0, "[]\n"),
        "{}",
        out.stderr
    );
}

#[test]
fn descriptors_above_two_are_closed_unless_asked_for() {
    let bench = Bench::new();
    let file = fs::File::open("/etc/hostname").unwrap();
    let list = "import os; print(*sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)))";
    let mut kept = Vec::new();
    for args in [&[][..], &["--keep-fds"]] {
        // SAFETY: a duplicate that the child inherits, closed below.
        let fd = unsafe { nix::libc::fcntl(file.as_raw_fd(), nix::libc::F_DUPFD, 50) };
        assert!(fd >= 50);
        let out = bench.run(POLICY, args, &["python3", "-c", list]);
        let open: Vec<i32> = out
            .stdout
            .split_whitespace()
            .map(|n| n.parse().unwrap())
            .collect();
        kept.push(open.contains(&fd));
        assert!(!args.is_empty() || open == [0, 1, 2], "{open:?}");
        // SAFETY: ours.
        unsafe { nix::libc::close(fd) };
    }
    assert_eq!(kept, [false, true]);
}

#[test]
fn the_command_becomes_the_user_it_is_told() {
    let bench = Bench::new();
    let who = "id -u; id -g; id -G; echo $HOME $USER $LOGNAME; grep ^CapEff /proc/self/status";
    let home = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let wanted = format!(
        "{0}\n{1}\n{1}\n{2} nobody nobody\nCapEff:\t0000000000000000\n",
        home.uid,
        home.gid,
        home.dir.display()
    );
    assert_eq!(bash(&bench, &["--user", "nobody"], who).stdout, wanted);
    // Under sudo it is whoever called.
    let _ = fs::remove_file(bench.path("records.jsonl"));
    let run = |env: Option<&str>, args: &[&str]| {
        let mut c = bench.command(POLICY, args, &["bash", "-c", who]);
        if let Some(uid) = env {
            c.env("SUDO_UID", uid).env("SUDO_GID", uid);
        }
        String::from_utf8(c.output().unwrap().stdout).unwrap()
    };
    assert_eq!(run(Some("65534"), &[]), wanted);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(
        fs::metadata(bench.path("records.jsonl")).unwrap().uid(),
        65534,
        "the file is the caller's"
    );
    assert!(run(Some("65534"), &["--user", "root"]).starts_with("0\n0\n"));
    assert!(run(Some("0"), &[]).starts_with("0\n"));
    assert!(run(None, &[]).starts_with("0\n"));
}

#[test]
fn cgroups_made_below_are_held_too_and_removed() {
    let bench = Bench::new();
    let mut shell = bench.shell(
        POLICY,
        &[],
        "echo up; read; (exec 3<>/dev/tcp/192.0.2.1/80) 2>&1 | head -1 | grep -o permitted",
    );
    let mine = shell.cgroup();
    let below = mine.join("a/b");
    fs::create_dir_all(&below).unwrap();
    let pid = fs::read_to_string(mine.join("cgroup.procs")).unwrap();
    fs::write(below.join("cgroup.procs"), pid.trim()).unwrap();
    assert_eq!(shell.go(), "permitted");
    let out = shell.end(&bench);
    assert_eq!(out.records.len(), 1, "{}", out.stderr);
    eventually("the cgroups to be gone", || (!mine.exists()).then_some(()));
}

#[test]
fn case_46_a_socket_that_starts_things_elsewhere_is_told_of() {
    let bench = Bench::new();
    // A /run of our own.
    own_mounts();
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .unwrap();
    let warning = "the command can reach /run/docker.sock";
    // Whatever resolv.conf is, it may have been in there.
    let policy = "resolvers: []\n";
    let warned = |args: &[&str]| bench.run(policy, args, &["true"]).stderr.contains(warning);
    assert!(!warned(&[]));
    let _docker = std::os::unix::net::UnixListener::bind("/run/docker.sock").unwrap();
    assert!(warned(&[]));
    // Whoever may not write to it cannot use it.
    fs::set_permissions("/run/docker.sock", fs::Permissions::from_mode(0o660)).unwrap();
    assert!(!warned(&["--user", "nobody"]));
    fs::set_permissions("/run/docker.sock", fs::Permissions::from_mode(0o666)).unwrap();
    assert!(warned(&["--user", "nobody"]));
}
