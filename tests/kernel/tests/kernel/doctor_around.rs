//! `doctor` on machines that are not as they should be, as somebody who may not look, on a terminal, and
//! misused; and `version`.

use ebpf_manager::cgroup::Cgroup;
use kernel_tests::{
    dns::{RESOLVER, Resolver},
    doctor::checkup,
    eventually,
    net::{BLACK_HOLE, black_hole},
    run::{Bench, binary},
};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

#[test]
fn a_resolver_that_refuses_or_is_silent_is_named() {
    let bench = Bench::new();
    black_hole();
    for (resolver, says) in [
        (
            "203.0.113.9",
            "203.0.113.9 cannot be reached: Connection refused",
        ),
        (BLACK_HOLE, "198.51.100.200 does not answer within 3 s"),
        (
            "192.0.2.200",
            "192.0.2.200 cannot be reached: Network is unreachable",
        ),
    ] {
        let check = checkup(
            bench
                .manager_where(resolver, "true")
                .args(["doctor", "--json"]),
        );
        check.names(&[("resolver", &[says, "/etc/resolv.conf"])]);
    }
}

#[test]
fn an_old_kernel_and_one_without_types_are_named() {
    let bench = Bench::new();
    let _resolver = Resolver::start(RESOLVER);
    let mut old = bench.manager_on_an_old_kernel();
    let check = checkup(old.args(["doctor", "--json"]));
    check.names(&[(
        "kernel",
        &["kernel 2.6.", "older than 5.17", "boot Linux 5.17"],
    )]);

    fs::write(bench.path("empty"), "").unwrap();
    let types = "/sys/kernel/btf/vmlinux";
    let hide = format!("mount --bind {} {types}", bench.path("empty").display());
    let check = bench.doctor_where(&hide, &[]);
    check.names(&[
        ("btf", &["no usable BTF", types, "CONFIG_DEBUG_INFO_BTF=y"]),
        ("programs", &["cannot be loaded", types]),
    ]);
    assert!(
        check
            .of("note")
            .iter()
            .any(|n| n.contains("iterator could not be checked"))
    );
}

#[test]
fn root_without_its_capabilities_is_named() {
    let bench = Bench::new();
    let _resolver = Resolver::start(RESOLVER);
    let mut c = bench.manager_where(RESOLVER, "true");
    // The shell drops them last of all.
    let script = c.get_args().nth(5).unwrap().to_string_lossy().replace(
        "exec \"$@\"",
        "exec setpriv --bounding-set=-sys_admin,-bpf,-perfmon,-net_admin \"$@\"",
    );
    let rest: Vec<_> = c.get_args().skip(6).map(ToOwned::to_owned).collect();
    c = Command::new("unshare");
    c.args(["--mount", "--propagation", "private", "sh", "-c", &script])
        .args(rest);
    let check = checkup(c.args(["doctor", "--json"]));
    check.names(&[
        ("capabilities", &["CAP_SYS_ADMIN", "root of the machine"]),
        ("programs", &["cannot be loaded", "not permitted"]),
    ]);
}

#[test]
fn without_root_it_says_what_it_did_not_check() {
    let bench = Bench::new();
    let _resolver = Resolver::start(RESOLVER);
    let copy = bench.path("ebpf-manager");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let conf = bench.path("resolv.conf");
    fs::write(&conf, format!("nameserver {RESOLVER}\n")).unwrap();
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec setpriv --reuid=65534 --regid=65534 --clear-groups {} doctor --json",
        conf.display(),
        copy.display()
    );
    let mut c = Command::new("unshare");
    c.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let check = checkup(&mut c);
    check.well();
    let notes = check.of("note");
    for says in [
        "not checked without root: kernel features, programs, instances",
        "lacks CAP_SYS_ADMIN",
    ] {
        assert!(
            notes.iter().any(|n| n.contains(says)),
            "{says} in {notes:#?}"
        );
    }
    // What needs no root was looked at; what does is not called well.
    let ok = check.of("ok");
    assert!(
        ok.iter()
            .any(|n| n.starts_with("resolver 192.0.2.53 answers")),
        "{ok:#?}"
    );
    assert!(
        !ok.iter()
            .any(|n| n.contains("no instance") || n.contains("accepts")),
        "{ok:#?}"
    );
}

#[test]
fn on_a_terminal_it_has_colours_and_says_that_it_waits() {
    let bench = Bench::new();
    black_hole();
    let c = bench.manager_where(BLACK_HOLE, "true");
    let quoted: Vec<String> = [c.get_program()]
        .into_iter()
        .chain(c.get_args())
        .map(|a| format!("'{}'", a.to_string_lossy().replace('\'', "'\\''")))
        .collect();
    let on_a_terminal = |env: &[(&str, &str)]| {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("{} doctor", quoted.join(" ")), "/dev/null"]);
        script
            .env("TERM", "xterm")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("NO_COLOR");
        script.envs(env.iter().copied()).stdin(Stdio::null());
        let out = script.output().unwrap();
        assert_eq!(out.status.code(), Some(1));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let text = on_a_terminal(&[]);
    assert!(text.contains("something is slow to answer"), "{text:?}");
    assert!(
        text.contains("\x1b[31m✘\x1b[0m resolver 198.51.100.200"),
        "{text:?}"
    );
    let text = on_a_terminal(&[("NO_COLOR", "1")]);
    assert!(
        text.contains("✘ resolver") && !text.contains("\x1b[31m"),
        "{text:?}"
    );
}

#[test]
fn wrong_use_is_2_and_help_teaches() {
    let bench = Bench::new();
    for (args, says) in [
        (&["doctor", "--no-such-flag"][..], "--no-such-flag"),
        (&["doctor", "--instance", "run-0"], "no instance run-0"),
        (&["version", "extra"], "extra"),
    ] {
        let out = bench.operate(args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(
            (out.status.code(), out.stdout.as_slice()),
            (Some(2), &b""[..]),
            "{said}"
        );
        assert!(said.contains(says), "{said}");
    }
    let out = bench.operate(&["doctor", "--help"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        text.contains("sudo ebpf-manager doctor --instance") && text.contains("Exit codes"),
        "{text}"
    );
}

#[test]
fn the_version_tells_which_object_and_which_kernel() {
    let bench = Bench::without_network();
    let object = bench.path("object");
    fs::write(&object, ebpf_manager::kernel::object()).unwrap();
    let sum = Command::new("sha256sum")
        .arg(&object)
        .output()
        .unwrap()
        .stdout;
    let sum = String::from_utf8(sum).unwrap();
    let hash = sum.split_whitespace().next().unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let release = release.trim();

    let out = bench.operate(&["version", "--json"]);
    let v: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(v["object_sha256"], hash);
    assert_eq!(v["object_bytes"], fs::metadata(&object).unwrap().len());
    assert_eq!(
        (v["abi"].as_u64(), v["kernel"].as_str()),
        (Some(abi::ABI_VERSION.into()), Some(release))
    );
    assert!(v["target"].as_str().unwrap().contains("-linux-"), "{v}");
    assert!(v["version"].is_string());

    let out = bench.operate(&["version"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains(hash) && text.contains(release), "{text}");
}

#[test]
fn processes_that_were_left_without_a_firewall_are_named() {
    let bench = Bench::new();
    let _resolver = Resolver::start(RESOLVER);
    let mut talk = bench.converse(None, &[], &["sleep", "1000"]);
    let (id, cgroup) = (talk.instance(), talk.cgroup());
    eventually("the command", || {
        Cgroup::at(&cgroup).populated().unwrap().then_some(())
    });
    talk.kill_loader();
    let detach = bench.operate(&["detach", "--instance", &id, "--force"]);
    assert!(detach.status.success());
    let kill = format!("echo 1 > {}", cgroup.join("cgroup.kill").display());
    let check = bench.doctor(&[]);
    let named = check.findings.iter().any(|f| {
        f["check"] == "leftover"
            && f["what"].as_str().unwrap().contains(&id)
            && f["mend"].as_str().unwrap().contains(&kill)
    });
    assert!(named && check.code == 1, "{:#?}", check.findings);
    fs::write(cgroup.join("cgroup.kill"), "1").unwrap();
    eventually("an empty cgroup", || {
        fs::remove_dir(&cgroup).is_ok().then_some(())
    });
    let named = bench
        .doctor(&[])
        .findings
        .iter()
        .any(|f| f["what"].as_str().unwrap().contains(&id));
    assert!(!named);
}
