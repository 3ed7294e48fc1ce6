//! Evasion by lifting the firewall itself, with root's powers inside the command's containment.

use kernel_tests::{
    cgroup_root,
    check::fields,
    evasion::TOOLS,
    eventually,
    run::{Bench, Outcome},
    server::Place,
    sniff::Sniffer,
};
use serde_json::json;
use std::{fs, path::Path};

const POLICY: &str = "rules:\n- { name: web, dst: 192.0.2.1, proto: tcp, port: 80 }\n";

/// Runs an attack, whose last two words are the outcome of two forbidden flows.
fn attack(program: &str) -> Outcome {
    let bench = Bench::new();
    let far = Place::open("203.0.113.9:80");
    let wire = Sniffer::start();
    let pins = bench.pins.display();
    let cgroups = cgroup_root();
    let place = format!("PINS = '{pins}'; CGROUPS = '{}'\n", cgroups.display());
    let out = bench.agent(POLICY, &format!("{TOOLS}\n{place}\n{program}\nout()\n"));
    let escaped = wire.to("203.0.113.9").len();
    assert_eq!(escaped, 0, "packets on the wire; {}", out.stdout);
    assert_eq!(far.calls(), 0);
    let n = out.denied(&[("dst_ip", json!("203.0.113.9"))]).len();
    let words = out.words();
    assert!(n >= 2, "{words:?} {:#?}", out.records);
    assert_eq!(words[words.len() - 2..], ["EPERM", "EPERM"]);
    out
}

#[test]
fn case_47_pinned_links_cannot_be_opened_and_detached() {
    let out = attack(
        "n = 0\n\
         for f in glob.glob(PINS + '/**', recursive=True):\n  \
         fd = obj_get(f)\n  \
         if fd >= 0: n += 1; bpf(34, struct.pack('I', fd))\n\
         print(n)",
    );
    assert_eq!(out.words()[0], "0", "pins that the command could open");
}

#[test]
fn case_56_pinned_maps_cannot_be_read_or_written() {
    let out = attack(
        "cg = os.stat(CGROUPS).st_ino; n = 0\n\
         for f in glob.glob(PINS + '/*/*/maps/*'):\n  \
         if obj_get(f) >= 0: n += 1\n\
         ids = sum(bpf(c, struct.pack('IIII', i, 0, 0, 0)) >= 0 for c in (13, 14, 30) for i in range(1, 3000))\n\
         print(n, ids)",
    );
    assert_eq!(
        out.words()[..2],
        ["0", "0"],
        "maps by path, objects by number"
    );
}

#[test]
fn case_47_pins_cannot_be_removed() {
    let out = attack(
        "gone = 0\n\
         for f in glob.glob(PINS + '/**', recursive=True):\n  \
         gone += or_error(lambda: os.unlink(f)) is None\n\
         print(gone)",
    );
    assert_eq!(out.words()[0], "0");
}

#[test]
fn case_47_nobody_starts_a_process_in_another_cgroup() {
    attack("r = into(CGROUPS, out)\nprint('clone', r)");
}

#[test]
fn case_47_nobody_moves_to_another_cgroup() {
    attack(
        "def move(path):\n  \
         with open(path + '/cgroup.procs', 'w') as f: f.write(str(os.getpid()))\n\
         for d in [CGROUPS] + glob.glob(CGROUPS + '/*/') + glob.glob(CGROUPS + '/clawker/*/'): or_error(lambda: move(d))\n\
         print(or_error(lambda: os.mkdir(CGROUPS + '/escape')))",
    );
    assert!(!Path::new(&cgroup_root().join("escape")).exists());
}

#[test]
fn case_47_remounting_and_new_namespaces_do_not_help() {
    // First as it is, then with a user namespace of its own, in which it has every capability.
    let out = attack(
        "c = lambda s: s.encode() if s else None\n\
         def mount(src, to, kind, flags): return libc.mount(c(src), c(to), c(kind), flags, None)\n\
         def every(root):\n  \
         for d in [root] + glob.glob(root + '/*/'):\n    \
         try:\n      \
         with open(d + '/cgroup.procs', 'w') as f: f.write(str(os.getpid()))\n    \
         except OSError: pass\n    \
         or_error(lambda: into(d, out))\n\
         before = [mount(None, CGROUPS, None, 4096 | 32), libc.umount2(CGROUPS.encode(), 2), mount('none', '/tmp', 'cgroup2', 0), mount('none', '/tmp', 'bpf', 0)]\n\
         print(before)\n\
         libc.unshare(0x10000000 | 0x20000 | 0x2000000)\n\
         after = [mount(None, CGROUPS, None, 4096 | 32), libc.umount2(CGROUPS.encode(), 2)]\n\
         every(CGROUPS)\n\
         mount('none', '/mnt', 'tmpfs', 0); or_error(lambda: os.mkdir('/mnt/2')); mount('none', '/mnt/2', 'cgroup2', 0); every('/mnt/2')\n\
         libc.umount2(b'/sys/fs/bpf', 2); mount('none', '/sys/fs/bpf', 'bpf', 0)\n\
         n = sum(obj_get(f) >= 0 for f in glob.glob('/sys/fs/bpf/**', recursive=True))\n\
         print(n)",
    );
    assert_eq!(out.words()[..4], ["[-1,", "-1,", "-1,", "-1]"]);
}

#[test]
fn case_07_and_47_other_processes_namespaces_are_out_of_reach() {
    attack(
        "n = 0\n\
         for p in glob.glob('/proc/[0-9]*'):\n  \
         for ns in ('mnt', 'cgroup', 'net'):\n    \
         fd = or_error(lambda: os.open(p + '/ns/' + ns, os.O_RDONLY))\n    \
         if isinstance(fd, int): n += libc.setns(fd, 0) == 0; os.close(fd)\n  \
         r = or_error(lambda: into(p + '/root' + CGROUPS, out))\n\
         print(n)",
    );
}

#[test]
fn case_15_packet_sockets_are_not_available() {
    // No hook of a cgroup sees them; the containment must.
    attack(
        "frame = bytes(12) + b'\\x08\\0' + b'E\\0\\0\\x1d\\0\\0@\\0@\\x11\\0\\0' + socket.inet_aton('192.0.2.1') + socket.inet_aton('203.0.113.9') + b'\\1\\1\\0P\\0\\x09\\0\\0x'\n\
         def inject():\n  s = socket.socket(17, 3, 0); s.bind(('lo', 0)); s.send(frame)\n\
         print(or_error(inject)); out()\n",
    );
}

#[test]
fn case_16_families_without_ip_carry_nothing_out() {
    let out = attack(
        "for f, t, p in ((1, 1, 0), (16, 3, 0), (40, 1, 0), (38, 5, 0), (31, 3, 0), (43, 1, 0)):\n  \
         s = or_error(lambda: socket.socket(f, t, p))\n  \
         if f == 43 and not isinstance(s, str): print(or_error(lambda: s.connect(('203.0.113.9', 80))))\n",
    );
    // They are no flows: only the two attempts of the end are recorded.
    assert_eq!(out.records.len(), 2);
}

#[test]
fn case_09_a_child_cgroup_is_judged_as_its_parent() {
    let bench = Bench::new();
    let far = Place::open("203.0.113.9:80");
    let near = Place::open("192.0.2.1:80");
    let mut agent = bench.talk(
        POLICY,
        &[],
        "step(os.getpid()); step(tcp('192.0.2.1', 80), tcp('203.0.113.9', 80))\n",
    );
    let pid = agent.hear();
    let child = agent.cgroup().join("inner/most");
    fs::create_dir_all(&child).unwrap();
    fs::write(child.join("cgroup.procs"), &pid).unwrap();
    assert_eq!(agent.go(), "ok EPERM");
    let out = agent.end(&bench);
    assert_eq!((near.calls(), far.calls()), (1, 0));
    fields(
        out.only(&[("verdict", json!("ALLOWED"))]),
        &json!({"rule": "web"}),
    );
    fields(
        out.only(&[("verdict", json!("DENIED"))]),
        &json!({"reason": "default"}),
    );
    assert!(!child.exists(), "nothing is left behind");
}

#[test]
fn case_48_a_dead_loader_changes_nothing() {
    let bench = Bench::new();
    let far = Place::open("203.0.113.9:80");
    let near = Place::open("192.0.2.1:80");
    let mut agent = bench.talk(
        POLICY,
        &["--quiet"],
        "step('up'); step(tcp('192.0.2.1', 80), tcp('203.0.113.9', 80), udp(b'x', '203.0.113.9', 80))\n",
    );
    assert_eq!(agent.hear(), "up");
    agent.kill_loader();
    assert_eq!(agent.go(), "ok EPERM EPERM");
    assert_eq!(bench.counter("ended_denied"), 2);
    eventually("the allowed flow's end", || {
        (bench.counter("ended_allowed") == 1).then_some(())
    });
    assert_eq!((near.calls(), far.calls()), (1, 0));
    agent.end(&bench);
}
