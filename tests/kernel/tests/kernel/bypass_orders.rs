//! `bypass` and `enforce` with a loader that lives: what passes, what is recorded, and who may.

use kernel_tests::{
    check::fields,
    eventually,
    peer::{drain, once},
    run::{Bench, binary},
    sniff::Sniffer,
    talk::Talk,
};
use serde_json::{Value, json};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    process::Command,
};

const POLICY: &str = "version: 1\nrules:\n- { name: one, dst: 192.0.2.1, proto: any }\n";
const NAMED: [&str; 4] = ["--agent", "reviewer", "--project", "acme"];

/// Runs commands that the test says, and says what came of each.
const AGENT: &str = "\
s = None\n\
said = 'up'\n\
while True:\n\
\x20   word = step(said)\n\
\x20   if not word: break\n\
\x20   said = eval(word)\n";

fn up(bench: &Bench, args: &[&str]) -> Talk {
    let mut talk = bench.talk(POLICY, args, AGENT);
    assert_eq!(talk.hear(), "up");
    let _ = bench.socket(talk.pid());
    talk
}

fn ask(talk: &mut Talk, what: &str) -> String {
    talk.say(what);
    talk.hear()
}

/// Seconds between two moments of a record.
fn seconds(change: &Value) -> i64 {
    let at = |key: &str| -> jiff::Timestamp { change[key].as_str().unwrap().parse().unwrap() };
    at("bypass_until")
        .duration_since(at("bypass_from"))
        .as_secs()
}

#[test]
fn a_bypass_lets_pass_and_records_exactly_and_enforce_ends_it_at_once() {
    let bench = Bench::new();
    let _server = once("203.0.113.9:8080", |mut s| drain(&mut s));
    let mut talk = up(&bench, &NAMED);
    let knock = "tcp('203.0.113.9', 8081)";
    assert_eq!(ask(&mut talk, knock), "EPERM");

    let on = bench.order(&[
        "bypass",
        "--agent",
        "reviewer",
        "--for",
        "5m",
        "--reason",
        "debug npm",
    ]);
    assert_eq!(on.len(), 1);
    fields(
        &on[0],
        &json!({
            "event_name": "clawker.overseer.bypass", "agent": "reviewer", "project": "acme", "cause": "operator",
            "instance": talk.instance(), "bypass_reason": "debug npm", "actor": "root", "actor_uid": 0, "actor_comm": "ebpf-manager",
        }),
    );
    assert!((299..=301).contains(&seconds(&on[0])), "{on:#?}");
    assert_eq!(ask(&mut talk, knock), "ECONNREFUSED");
    let open = "[s := dial('203.0.113.9'), s.sendall(bytes(1234))] and 'sent'";
    assert_eq!(ask(&mut talk, open), "sent");
    // Deny rules are lifted, the built-in deny set is not.
    assert_eq!(ask(&mut talk, "tcp('169.254.169.254', 80)"), "EPERM");
    assert_eq!(ask(&mut talk, "tcp('192.0.2.1', 81)"), "ECONNREFUSED");
    bench.acknowledged(1234);
    let row = &bench.dump(&["--agent", "reviewer"])[0];
    fields(
        row,
        &json!({"bypass_reason": "debug npm", "bypass_by": "root, uid 0"}),
    );

    let off = bench.order(&["enforce", "--agent", "reviewer", "--reason", "found it"]);
    fields(
        &off[0],
        &json!({
            "event_name": "clawker.overseer.enforce", "cause": "operator", "actor_uid": 0, "bypass_by": "root, uid 0",
            "bypass_reason": "debug npm", "message": "found it",
        }),
    );
    assert!(seconds(&off[0]) < 60, "{off:#?}");
    assert_eq!(ask(&mut talk, knock), "EPERM");
    // The live flow is cut: not a byte of this arrives.
    let wire = Sniffer::start();
    ask(&mut talk, "tried(lambda: s.send(b'SECRET'))");
    assert_eq!(wire.payload("203.0.113.9"), 0);
    assert_eq!(
        bench.order(&["enforce", "--agent", "reviewer"]),
        Vec::<Value>::new()
    );

    let out = talk.end(&bench);
    fields(
        out.only(&[("dst_port", json!(8080))]),
        &json!({"verdict": "BYPASSED", "reason": "bypass", "bytes_out": 1234, "bytes_in": 0, "close_reason": "policy"}),
    );
    let refused = out.only(&[("dst_port", json!(8081)), ("verdict", json!("BYPASSED"))]);
    fields(refused, &json!({"close_reason": "refused", "bytes_out": 0}));
    out.only_denied(&[
        ("dst_ip", json!("169.254.169.254")),
        ("reason", json!("builtin")),
    ]);
    assert_eq!(out.denied(&[("dst_port", json!(8081))]).len(), 2);
    // What was answered is what stands in the stream, and nothing else does.
    assert_eq!(out.events, [on, off].concat());
    for says in [
        "bypass on for acme/reviewer until",
        "bypass off for acme/reviewer",
    ] {
        assert!(out.stderr.contains(says), "{says}: {}", out.stderr);
    }
}

#[test]
fn a_bypass_that_still_runs_at_the_end_ends_with_its_record() {
    let bench = Bench::new();
    let talk = up(&bench, &NAMED);
    bench.order(&[
        "bypass",
        "--project",
        "acme",
        "--for",
        "1h",
        "--reason",
        "x",
    ]);
    let longer = bench.order(&[
        "bypass",
        "--project",
        "acme",
        "--for",
        "2h",
        "--reason",
        "y",
    ]);
    assert!(longer[0]["replaced_until"].is_string(), "{longer:#?}");
    let out = talk.end(&bench);
    assert_eq!(out.events.len(), 3, "{:#?}", out.events);
    fields(
        &out.events[2],
        &json!({"event_name": "clawker.overseer.enforce", "cause": "over", "bypass_reason": "y"}),
    );
    assert!(out.events[2].get("actor_uid").is_none());
}

#[test]
fn everybody_of_a_name_gets_it_and_a_name_that_nobody_has_is_told() {
    let bench = Bench::new();
    let other = bench.beside();
    let third = bench.beside();
    let mut one = up(&bench, &NAMED);
    // One directory of sockets, as on a real machine.
    for b in [&other, &third] {
        symlink(bench.control(), b.control()).unwrap();
    }
    let mut two = up(&other, &NAMED);
    let mut three = up(&third, &["--agent", "builder", "--project", "acme"]);
    let mut on = bench.order(&[
        "bypass", "--agent", "reviewer", "--for", "1h", "--reason", "x",
    ]);
    on.sort_by_key(|c| c["instance"].to_string());
    let mut both = [one.instance(), two.instance()];
    both.sort();
    assert_eq!(
        on.iter()
            .map(|c| c["instance"].as_str().unwrap())
            .collect::<Vec<_>>(),
        both
    );
    let knock = "tcp('203.0.113.9', 8081)";
    assert_eq!(ask(&mut one, knock), "ECONNREFUSED");
    assert_eq!(ask(&mut two, knock), "ECONNREFUSED");
    assert_eq!(ask(&mut three, knock), "EPERM");
    // One of them is back under the firewall, the other is not.
    bench.order(&["enforce", "--instance", &one.instance()]);
    assert_eq!(ask(&mut one, knock), "EPERM");
    assert_eq!(ask(&mut two, knock), "ECONNREFUSED");

    for nobody in [
        &["--agent", "revewer"][..],
        &["--agent", "reviewer", "--project", "Acme"],
    ] {
        let line = [&["bypass", "--for", "1h", "--reason", "x"], nobody].concat();
        let out = bench.operate(&line);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(
            said.contains("there are acme/builder, acme/reviewer"),
            "{said}"
        );
    }
    assert_eq!(ask(&mut three, knock), "EPERM");
    one.end(&bench);
    two.end(&other);
    three.end(&third);
}

#[test]
fn orders_without_bounds_are_wrong_use() {
    let bench = Bench::new();
    let mut talk = up(&bench, &NAMED);
    for (wrong, says) in [
        (
            &["bypass", "--agent", "reviewer", "--reason", "x"][..],
            "--for",
        ),
        (
            &["bypass", "--agent", "reviewer", "--for", "5m"],
            "--reason",
        ),
        (&["bypass", "--for", "5m", "--reason", "x"], "--agent"),
        (
            &[
                "bypass", "--agent", "reviewer", "--for", "25h", "--reason", "x",
            ],
            "24h",
        ),
        (
            &[
                "bypass", "--agent", "reviewer", "--for", "5", "--reason", "x",
            ],
            "unit",
        ),
        (
            &[
                "bypass", "--agent", "reviewer", "--for", "5m", "--reason", "",
            ],
            "say why",
        ),
        (&["enforce", "--instance", "run-0"], "no instance run-0"),
    ] {
        let out = bench.operate(wrong);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{wrong:?}: {said}");
        assert!(said.contains(says), "{says:?} in {said}");
    }
    assert_eq!(ask(&mut talk, "tcp('203.0.113.9', 80)"), "EPERM");
    assert_eq!(talk.end(&bench).events, Vec::<Value>::new());
}

/// The binary as somebody else.
fn as_other(bench: &Bench, groups: &str, args: &[&str]) -> (Option<i32>, String) {
    let copy = bench.path("ebpf-manager");
    if !copy.exists() {
        fs::copy(binary(), &copy).unwrap();
    }
    let mut c = Command::new("setpriv");
    c.args(["--reuid=65534", "--regid=65534", groups])
        .arg(&copy);
    c.arg("--control-dir").arg(bench.control()).args(args);
    let out = c.output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    (
        out.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn root_and_members_may_and_nobody_else() {
    let bench = Bench::new();
    fs::set_permissions(bench.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let mut talk = up(&bench, &[&NAMED[..], &["--control-group", "4711"]].concat());
    let lift = [
        "bypass", "--agent", "reviewer", "--for", "1h", "--reason", "x",
    ];
    let knock = "tcp('203.0.113.9', 80)";
    for groups in ["--clear-groups", "--groups=4712"] {
        let (code, said) = as_other(&bench, groups, &lift);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("is for root and another group"), "{said}");
        assert_eq!(ask(&mut talk, knock), "EPERM");
    }
    // Should the file's mode ever be wrong, the kernel is asked all the same.
    fs::set_permissions(bench.socket(talk.pid()), Permissions::from_mode(0o666)).unwrap();
    let (code, said) = as_other(&bench, "--groups=4712", &lift);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("only root and members"), "{said}");
    assert_eq!(ask(&mut talk, knock), "EPERM");

    let (code, said) = as_other(&bench, "--groups=4711", &lift);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("(by nobody, uid 65534): x"), "{said}");
    assert_eq!(ask(&mut talk, knock), "ECONNREFUSED");
    let out = talk.end(&bench);
    fields(
        &out.events[0],
        &json!({"actor": "nobody", "actor_uid": 65534, "actor_comm": "ebpf-manager"}),
    );
    assert!(out.events[0]["actor_pid"].as_u64().unwrap() > 0);
}

#[test]
fn garbage_lifts_nothing() {
    let bench = Bench::new();
    let mut talk = up(&bench, &NAMED);
    for said in [
        &br#"{"v":1,"bypass":{}}"#[..],
        br#"{"v":1,"bypass":{"for_ms":1000}}"#,
        br#"{"v":1,"bypass":{"for_ms":999999999999,"reason":"x"}}"#,
        br#"{"v":1,"bypass":{"for_ms":18446744073709551616,"reason":"x"}}"#,
        br#"{"v":1,"bypass":{"for_ms":-5,"reason":"x"}}"#,
        br#"{"v":1,"bypass":{"for_ms":5000,"reason":"x","uid":0}}"#,
        br#"{"v":1,"bypass":{"for_ms":5000,"reason":"a\nb"}}"#,
        br#"{"v":1,"bypass":{"for_ms":5000,"reason":"x"},"enforce":{}}"#,
        br#"{"v":2,"bypass":{"for_ms":5000,"reason":"x"}}"#,
        b"{\"v\":1,\"bypass\":{\"for_ms\":5000,\"reason\":\"\xff\"}}",
    ] {
        let mut client = bench.client(talk.pid());
        client.say(&[said, b"\n"].concat());
        let heard = client.hear().expect("an answer");
        assert!(heard["error"].is_string(), "{heard}");
        assert!(client.hear().is_none());
    }
    // Half an order, and a crowd that goes away before its answer.
    for _ in 0..50 {
        let mut client = bench.client(talk.pid());
        client.say(b"{\"v\":1,\"bypass\":{\"agent\":\"reviewer\",\"for_ms\":5000,\"rea");
        drop(client);
        let mut client = bench.client(talk.pid());
        client.say(b"{\"v\":1,\"enforce\":{\"agent\":\"no such agent\"}}\n");
        drop(client);
    }
    let mut client = bench.client(talk.pid());
    client.say(b"{\"v\":1,\"enforce\":{\"agent\":\"no such agent\"}}\n");
    let heard = eventually("an answer among all that", || {
        let heard = client.hear()?;
        if heard["error"].is_string() {
            client = bench.client(talk.pid());
            client.say(b"{\"v\":1,\"enforce\":{\"agent\":\"no such agent\"}}\n");
            return None;
        }
        Some(heard)
    });
    assert_eq!(heard["done"]["agents"], json!(["acme/reviewer"]));
    assert_eq!(ask(&mut talk, "tcp('203.0.113.9', 80)"), "EPERM");
    let out = talk.end(&bench);
    assert_eq!((out.code, out.events.len()), (0, 0), "{}", out.stderr);
}

#[test]
fn doctor_and_watchers_tell_of_it() {
    let bench = Bench::new();
    let talk = up(&bench, &NAMED);
    let mut watcher = bench.watcher(talk.pid());
    bench.order(&[
        "bypass",
        "--agent",
        "reviewer",
        "--for",
        "1h",
        "--reason",
        "debug npm",
    ]);
    let lifted =
        std::iter::from_fn(|| watcher.hear()).find_map(|said| said.get("bypasses").cloned());
    fields(
        &lifted.unwrap()[0],
        &json!({"agent": "reviewer", "by": "root, uid 0", "reason": "debug npm"}),
    );
    let told = bench.doctor(&["--agent", "reviewer"]);
    let notes = told.of("note");
    let bypass = notes.iter().find(|n| n.contains("is bypassed for"));
    assert!(bypass.is_some_and(|n| n.contains("by root, uid 0: debug npm") && n.contains("acme/reviewer")), "{notes:#?}");
    let nobody = bench.doctor(&["--agent", "somebody else"]);
    assert!(
        nobody.of("ok").contains(&"nobody of that name"),
        "{nobody:#?}"
    );
    bench.order(&["enforce"]);
    let empty = std::iter::from_fn(|| watcher.hear()).find(|said| said.get("bypasses").is_some());
    assert_eq!(empty.unwrap()["bypasses"], json!([]));
    talk.end(&bench);
}
