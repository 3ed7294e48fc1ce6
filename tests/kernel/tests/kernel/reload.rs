//! A policy file that changes while the command runs, in every way that files change.

use kernel_tests::{
    check::fields,
    follow::{KNOCK, ONE, TWO, World, replace},
    peer::{drain, once},
    run::Bench,
};
use serde_json::{Value, json};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Seek as _, Write as _},
    os::unix::fs::{FileExt as _, symlink},
    process::{Command, Stdio},
};

/// A way to write a file, and what does it.
type Way<'a> = (&'a str, &'a dyn Fn(&str));

#[test]
fn every_way_of_writing_a_file_is_seen() {
    let mut w = World::new();
    let path = w.file.clone();
    let ways: [Way; 8] = [
        ("written in place", &|text| fs::write(&path, text).unwrap()),
        ("replaced", &|text| replace(&path, text)),
        ("moved away and written anew", &|text| {
            fs::rename(&path, path.with_extension("bak")).unwrap();
            fs::write(&path, text).unwrap();
        }),
        ("removed and written anew", &|text| {
            fs::remove_file(&path).unwrap();
            fs::write(&path, text).unwrap();
        }),
        // Both texts have one length: neither size nor inode differ.
        ("overwritten byte by byte", &|text| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            for (at, byte) in (0..).zip(text.bytes()) {
                file.write_all_at(&[byte], at).unwrap();
            }
        }),
        ("copied over", &|text| {
            let other = path.with_extension("other");
            fs::write(&other, text).unwrap();
            let cp = Command::new("cp").arg(&other).arg(&path).status().unwrap();
            assert!(cp.success());
        }),
        ("replaced by a link", &|text| {
            let far = path.with_extension("far");
            let link = path.with_extension("link");
            fs::write(&far, text).unwrap();
            symlink(&far, &link).unwrap();
            fs::rename(&link, &path).unwrap();
        }),
        ("replaced behind the link", &|text| {
            replace(&path.with_extension("far"), text);
        }),
    ];
    for (generation, (how, write)) in (2..).zip(ways) {
        let (text, reached) = if generation % 2 == 0 {
            (TWO, "- two")
        } else {
            (ONE, "one -")
        };
        write(text);
        w.applied(generation);
        assert_eq!(w.reached(), reached, "{how}");
    }
    let said = w.end().stderr;
    assert_eq!(said.matches("applied: generation").count(), 8, "{said}");
    assert!(
        said.contains("egress.yaml applied: generation 9\n"),
        "{said}"
    );
}

#[test]
fn directories_that_are_exchanged_further_up_are_seen() {
    // As Kubernetes publishes: name/..data/egress.yaml, where ..data is a link to a directory.
    let bench = Bench::new();
    let mount = bench.path("mount");
    for (version, text) in [("v1", ONE), ("v2", TWO), ("v3", ONE)] {
        fs::create_dir_all(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("egress.yaml"), text).unwrap();
    }
    let publish = |version: &str| {
        symlink(version, mount.join("..tmp")).unwrap();
        fs::rename(mount.join("..tmp"), mount.join("..data")).unwrap();
    };
    publish("v1");
    symlink("..data/egress.yaml", mount.join("egress.yaml")).unwrap();
    let mut w = World::at(bench, "mount/egress.yaml", &["--reload"], KNOCK);
    assert_eq!(w.talk.hear(), "one -");
    publish("v2");
    w.applied(2);
    assert_eq!(w.reached(), "- two");
    // And the whole directory.
    let other = w.bench.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("egress.yaml"), ONE).unwrap();
    fs::rename(w.bench.path("mount"), w.bench.path("old")).unwrap();
    fs::rename(&other, w.bench.path("mount")).unwrap();
    w.applied(3);
    assert_eq!(w.reached(), "one -");
    w.end();
}

#[test]
fn a_file_that_cannot_be_used_changes_nothing_and_says_why() {
    let mut w = World::new();
    let path = w.file.clone();
    let rules = w.bench.dump(&["--policy"]);
    let wide = format!("rules: []\n{}", " ".repeat(16 << 20));
    let paths = "rules: [{ dst: a.example, path_rules: [{ path: /x }] }]\n";
    for (text, says) in [
        (
            "rules:\n  - { dst: 192.0.2.2, prto: any }\n",
            "egress.yaml:2:23",
        ),
        ("rules:\n  - { dst: 192.0.2.2, proto: any\n", "egress.yaml:"),
        ("", "the file is empty"),
        (paths, "path rules, which need a proxy"),
        (
            "resolvers: [coredns]\nrules: []\n",
            "needs to know where CoreDNS is: give --dns",
        ),
        (wide.as_str(), "more than 16777216 bytes"),
        (
            "rules: [{ dst: 192.0.2.2, proto: any, port: 70000 }]\n",
            "must be 1–65535",
        ),
    ] {
        replace(&path, text);
        w.refused(1, says);
        assert_eq!(w.reached(), "one -", "{says}");
    }
    fs::write(&path, b"rules: []\n# \xff\n").unwrap();
    w.refused(1, "utf-8");
    assert_eq!(w.bench.dump(&["--policy"]), rules);
    // What holds is written again: nothing to tell. Then something new.
    replace(&path, ONE);
    assert_eq!(w.reached(), "one -");
    replace(&path, TWO);
    w.applied(2);
    assert_eq!(w.reached(), "- two");
    let said = w.end().stderr;
    for says in [
        "2 |   - { dst: 192.0.2.2, prto: any }",
        "did you mean `proto`?",
        "1 error, 0 warnings; nothing was changed",
        "egress.yaml refused: generation 1 stays",
        "egress.yaml applied: generation 2",
    ] {
        assert!(said.contains(says), "{says:?} in {said}");
    }
}

#[test]
fn what_is_no_file_any_more_is_told_once() {
    let mut w = World::new();
    let path = w.file.clone();
    fs::remove_file(&path).unwrap();
    w.refused(1, "No such file");
    // Neither is read, which would wait for ever.
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    w.refused(1, "not a file");
    fs::remove_file(&path).unwrap();
    w.refused(1, "No such file");
    fs::create_dir(&path).unwrap();
    w.refused(1, "not a file");
    fs::remove_dir(&path).unwrap();
    w.refused(1, "No such file");
    assert_eq!(w.reached(), "one -");
    fs::write(&path, TWO).unwrap();
    w.applied(2);
    assert_eq!(w.reached(), "- two");
    w.end();
}

#[test]
fn a_file_that_is_being_written_is_read_when_its_writer_is_done() {
    let mut w = World::new();
    // Half of it would be a policy as well.
    let mut file = File::create(&w.file).unwrap();
    file.write_all(TWO.as_bytes()).unwrap();
    w.refused(1, "open for writing");
    assert_eq!(w.reached(), "one -");
    file.write_all(b"  - { dst: 192.0.2.0/24, proto: any, action: deny }\n")
        .unwrap();
    drop(file);
    w.applied(2);
    assert_eq!(w.reached(), "- -");
    // A writer may also take back what it wrote.
    let mut file = OpenOptions::new().write(true).open(&w.file).unwrap();
    file.set_len(0).unwrap();
    file.rewind().unwrap();
    file.write_all(ONE.as_bytes()).unwrap();
    drop(file);
    w.applied(3);
    assert_eq!(w.reached(), "one -");
    w.end();
}

#[test]
fn a_flow_that_the_changed_file_denies_is_cut_and_recorded() {
    let server = |addr: &str| once(addr, |mut s| drain(&mut s));
    let bench = Bench::new();
    let (_one, two) = (server("192.0.2.1:8080"), server("192.0.2.2:8080"));
    fs::write(
        bench.path("egress.yaml"),
        format!("{ONE}  - {{ name: two, dst: 192.0.2.2, proto: any }}\n"),
    )
    .unwrap();
    let program = "a, b = [socket.create_connection((f'192.0.2.{i}', 8080)) for i in (1, 2)]\n\
        u = socket.socket(type=socket.SOCK_DGRAM); u.sendto(b'x' * 10, ('192.0.2.1', 9))\n\
        def both(): a.sendall(bytes(100)); b.sendall(bytes(100))\n\
        both(); step('up'); both()\n\
        try: u.sendto(b'y', ('192.0.2.1', 9)); step('passed')\n\
        except PermissionError: step('refused')\n\
        b.close()";
    let mut w = World::at(bench, "egress.yaml", &["--reload"], program);
    assert_eq!(w.talk.hear(), "up");
    w.bench.acknowledged(210);
    replace(&w.file, TWO);
    w.applied(2);
    assert_eq!(w.reached(), "refused");
    w.talk.say("go");
    let out = w.end();
    for (proto, bytes) in [("tcp", 100), ("udp", 10)] {
        fields(
            out.only(&[
                ("close_reason", json!("policy")),
                ("l4_proto", json!(proto)),
            ]),
            &json!({"verdict": "ALLOWED", "dst_ip": "192.0.2.1", "bytes_out": bytes}),
        );
    }
    fields(
        out.only(&[("dst_port", json!(8080)), ("dst_ip", json!("192.0.2.2"))]),
        &json!({"verdict": "ALLOWED", "close_reason": "fin", "bytes_out": 200}),
    );
    assert_eq!(two.join().unwrap().1, 200);
}

#[test]
fn what_was_chosen_at_the_start_holds_for_every_change() {
    let agents = |common: &str| {
        format!(
            "{common}mode: enforce\nudp_idle: 7s\nagents:\n  p/a: {{ rules: [{{ dst: 192.0.2.2, proto: any, name: own }}] }}\n"
        )
    };
    let bench = Bench::new();
    fs::write(bench.path("egress.yaml"), agents(ONE)).unwrap();
    let args = [
        "--reload",
        "--agent",
        "a",
        "--project",
        "p",
        "--mode",
        "audit",
    ];
    let mut w = World::at(bench, "egress.yaml", &args, KNOCK);
    assert_eq!(w.talk.hear(), "one two");
    replace(&w.file, &agents("rules: []\n"));
    let event = w.applied(2);
    fields(&event, &json!({"agent": "a", "project": "p"}));
    assert_eq!(w.reached(), "one two");
    fields(&w.bench.dump(&[])[0], &json!({"mode": "audit"}));
    let out = w.end();
    let at = |ip: &str| out.matching(&[("dst_ip", json!(ip))]);
    assert_eq!(at("192.0.2.1")[1]["would_deny"], json!(true));
    assert!(at("192.0.2.2").iter().all(|r| r["rule"] == "own"));
}

#[test]
fn a_policy_applied_from_outside_is_told_and_the_file_goes_on() {
    let mut w = World::new();
    w.bench.apply(TWO);
    let event = w.event();
    let other = w.bench.path("next.yaml");
    fields(
        &event,
        &json!({"outcome": "applied", "generation": 2, "policy": other.to_str().unwrap()}),
    );
    assert_eq!(w.reached(), "- two");
    // The same text as at the start, but no longer what holds.
    replace(&w.file, "rules: 5\n");
    w.refused(2, "egress.yaml:1");
    replace(&w.file, ONE);
    w.applied(3);
    assert_eq!(w.reached(), "one -");
    w.end();
}

#[test]
fn json_on_stderr_stays_one_object_a_line() {
    let bench = Bench::new();
    let file = bench.path("egress.yaml");
    fs::write(&file, ONE).unwrap();
    let mut c = bench.manager();
    c.args(["run", "--json", "--reload", "--policy"]).arg(&file);
    c.args(["--", "sh", "-c", "echo up; read x"]);
    c.stdin(Stdio::piped());
    let mut child = c
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        line
    };
    assert!(next().starts_with("warning: --reload"));
    replace(&file, "rules: 5\n");
    let refused: Value = serde_json::from_str(&next()).unwrap();
    fields(&refused, &json!({"outcome": "refused", "generation": 1}));
    replace(&file, TWO);
    let applied: Value = serde_json::from_str(&next()).unwrap();
    fields(&applied, &json!({"outcome": "applied", "generation": 2}));
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(child.wait().unwrap().success());
}
