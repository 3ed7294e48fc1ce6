//! What the policy file says, seen from the program under it: modes, defaults, openings of the built-in set,
//! and how destinations, ports, protocols and sections are meant.

use kernel_tests::{
    check::fields,
    net::ip,
    run::{Bench, Outcome, PolicyText},
};
use serde_json::{Value, json};
use std::net::TcpListener;

/// Connects (TCP) or sends (UDP) to each `proto ip port` and prints what became of it.
fn attempt(bench: &Bench, policy: impl PolicyText, args: &[&str], to: &[&str]) -> Outcome {
    let program: String = to
        .iter()
        .map(|target| match target.split(' ').collect::<Vec<_>>()[..] {
            ["tcp", ip, port] => format!("print(tcp('{ip}', {port}))\n"),
            ["udp", ip, port] => format!("print(udp(b'hello', '{ip}', {port}, 0))\n"),
            _ => panic!("{target} is no target"),
        })
        .collect();
    bench.agent_with(policy, args, &program)
}

/// What became of each attempt, and the fields that the record of the last has.
#[track_caller]
fn expect(policy: &str, to: &[(&str, &str, Value)]) {
    let bench = Bench::new();
    let targets: Vec<&str> = to.iter().map(|t| t.0).collect();
    let out = attempt(&bench, policy, &[], &targets);
    let said: Vec<&str> = out.stdout.lines().collect();
    let wanted: Vec<&str> = to.iter().map(|t| t.1).collect();
    assert_eq!(said, wanted, "{targets:?}");
    assert_eq!(out.records.len(), to.len(), "{:#?}", out.records);
    for (target, said, rest) in to {
        let mut parts = target.split(' ');
        let proto = parts.next().unwrap();
        let (dst, port): (_, u16) = (
            parts.next().unwrap(),
            parts.next().unwrap().parse().unwrap(),
        );
        let key = [
            ("l4_proto", json!(proto)),
            ("dst_ip", json!(dst)),
            ("dst_port", json!(port)),
        ];
        let verdict = if *said == "EPERM" {
            "DENIED"
        } else {
            "ALLOWED"
        };
        fields(out.only(&key), &json!({"verdict": verdict}));
        fields(out.only(&key), rest);
    }
}

#[test]
fn default_allow_with_deny_rules() {
    expect(
        "version: 1\ndefault: allow\nrules:\n\
         \x20 - { name: no, dst: 192.0.2.0/24, proto: tcp, port: 80, action: deny }\n\
         \x20 - { name: yes, dst: 192.0.2.1, proto: tcp, port: 1-65535 }\n",
        &[
            (
                "tcp 192.0.2.1 80",
                "EPERM",
                json!({"reason": "rule", "rule": "no"}),
            ),
            (
                "tcp 192.0.2.1 81",
                "ECONNREFUSED",
                json!({"reason": "rule", "rule": "yes"}),
            ),
            (
                "tcp 192.0.2.2 81",
                "ECONNREFUSED",
                json!({"reason": "default", "rule": null}),
            ),
            (
                "udp 192.0.2.2 80",
                "sent",
                json!({"reason": "default", "bytes_out": 5}),
            ),
            (
                "tcp 203.0.113.9 80",
                "ECONNREFUSED",
                json!({"reason": "default"}),
            ),
        ],
    );
}

#[test]
fn networks_port_ranges_and_any_protocol() {
    expect(
        "version: 1\nrules:\n\
         \x20 - { name: net, dst: 192.0.2.0/31, proto: tcp, port: \"1000-1999\" }\n\
         \x20 - { name: list, dst: 192.0.2.2, proto: tcp, port: [80, 443] }\n\
         \x20 - { name: any, dst: 198.51.100.7, proto: any }\n\
         \x20 - { name: six, dst: \"2001:db8::/127\", proto: udp, port: 9 }\n\
         \x20 - { name: not this, dst: 198.51.100.7, proto: udp, port: 7, action: deny }\n",
        &[
            ("tcp 192.0.2.1 999", "EPERM", json!({"reason": "default"})),
            ("tcp 192.0.2.1 1000", "ECONNREFUSED", json!({"rule": "net"})),
            ("tcp 192.0.2.1 1999", "ECONNREFUSED", json!({"rule": "net"})),
            ("tcp 192.0.2.1 2000", "EPERM", json!({"rule": null})),
            ("tcp 192.0.2.2 1500", "EPERM", json!({})),
            ("tcp 192.0.2.2 80", "ECONNREFUSED", json!({"rule": "list"})),
            ("tcp 192.0.2.2 443", "ECONNREFUSED", json!({"rule": "list"})),
            ("tcp 192.0.2.2 81", "EPERM", json!({})),
            ("tcp 198.51.100.7 1", "ECONNREFUSED", json!({"rule": "any"})),
            ("udp 198.51.100.7 65535", "sent", json!({"rule": "any"})),
            (
                "udp 198.51.100.7 7",
                "EPERM",
                json!({"rule": "not this", "reason": "rule"}),
            ),
            ("udp 2001:db8::1 9", "sent", json!({"rule": "six"})),
            ("udp 2001:db8::2 9", "EPERM", json!({})),
            ("tcp 2001:db8::1 9", "EPERM", json!({})),
        ],
    );
}

#[test]
fn audit_denies_nothing_and_says_what_it_would_deny() {
    expect(
        "version: 1\nmode: audit\nrules:\n\
         \x20 - { name: web, dst: 192.0.2.1, proto: tcp, port: 80 }\n\
         \x20 - { name: no, dst: 192.0.2.2, proto: any, action: deny }\n",
        &[
            (
                "tcp 192.0.2.1 80",
                "ECONNREFUSED",
                json!({"would_deny": null, "rule": "web"}),
            ),
            (
                "tcp 192.0.2.1 81",
                "ECONNREFUSED",
                json!({"would_deny": true, "reason": "default", "rule": null}),
            ),
            (
                "udp 192.0.2.2 81",
                "sent",
                json!({"would_deny": true, "reason": "rule", "rule": "no", "bytes_out": 5}),
            ),
        ],
    );
}

#[test]
fn without_a_policy_everything_is_observed() {
    let bench = Bench::new();
    let server = TcpListener::bind("203.0.113.9:80").unwrap();
    let out = attempt(
        &bench,
        None,
        &[],
        &["tcp 203.0.113.9 80", "udp 2001:db8::2 99"],
    );
    assert_eq!(out.words(), ["ok", "sent"]);
    assert!(out.stderr.starts_with("observing only"), "{}", out.stderr);
    fields(
        out.only(&[("l4_proto", json!("tcp"))]),
        &json!({"verdict": "ALLOWED", "reason": "observe", "rule": null, "would_deny": null}),
    );
    fields(
        out.only(&[("l4_proto", json!("udp"))]),
        &json!({"verdict": "ALLOWED", "reason": "observe", "bytes_out": 5}),
    );
    drop(server);
}

#[test]
fn the_command_line_overrides_the_mode() {
    let policy = "version: 1\nmode: enforce\n";
    for (mode, said, wanted) in [
        (
            "enforce",
            "EPERM\n",
            json!({"verdict": "DENIED", "reason": "default"}),
        ),
        (
            "audit",
            "ECONNREFUSED\n",
            json!({"verdict": "ALLOWED", "would_deny": true}),
        ),
        (
            "observe",
            "ECONNREFUSED\n",
            json!({"verdict": "ALLOWED", "reason": "observe", "would_deny": null}),
        ),
    ] {
        let bench = Bench::new();
        let out = attempt(&bench, policy, &["--mode", mode], &["tcp 192.0.2.1 80"]);
        assert_eq!(out.stdout, said);
        out.is_one(&wanted);
    }
}

#[test]
fn a_builtin_address_opens_only_by_name() {
    let bench = Bench::new();
    ip(&["addr", "add", "169.254.169.254/32", "dev", "lo"]);
    let policy = "version: 1\nallow_builtin: [169.254.169.254]\nrules:\n  - { name: meta, dst: 169.254.169.254, proto: tcp, port: 80 }\n";
    let out = attempt(
        &bench,
        policy,
        &[],
        &[
            "tcp 169.254.169.254 80",
            "tcp 169.254.169.253 80",
            "tcp 169.254.169.254 81",
        ],
    );
    assert_eq!(out.stdout, "ECONNREFUSED\nEPERM\nEPERM\n");
    let of = |ip: &str, port: u16| {
        out.only(&[("dst_ip", json!(ip)), ("dst_port", json!(port))])
            .clone()
    };
    fields(
        &of("169.254.169.254", 80),
        &json!({"verdict": "ALLOWED", "rule": "meta"}),
    );
    fields(
        &of("169.254.169.253", 80),
        &json!({"verdict": "DENIED", "reason": "builtin"}),
    );
    fields(
        &of("169.254.169.254", 81),
        &json!({"verdict": "DENIED", "reason": "default"}),
    );
}

#[test]
fn sections_of_projects_and_agents_add_to_the_common_rules() {
    let policy = "version: 1\n\
        rules: [{ name: common, dst: 192.0.2.1, proto: tcp, port: 80 }]\n\
        projects: { acme: { rules: [{ name: of acme, dst: 192.0.2.1, proto: tcp, port: 81 }] } }\n\
        agents: { acme/reviewer: { mode: audit, rules: [{ name: of reviewer, dst: 192.0.2.1, proto: tcp, port: 82 }] }, bob: { rules: [{ name: of bob, dst: 192.0.2.1, proto: tcp, port: 83 }] } }\n";
    let to = [
        "tcp 192.0.2.1 80",
        "tcp 192.0.2.1 81",
        "tcp 192.0.2.1 82",
        "tcp 192.0.2.1 83",
    ];
    let (yes, no) = ("ECONNREFUSED", "EPERM");
    for (args, said) in [
        (&[][..], [yes, no, no, no]),
        (&["--project", "acme"], [yes, yes, no, no]),
        (
            &["--project", "acme", "--agent", "reviewer"],
            [yes, yes, yes, yes],
        ),
        (
            &["--project", "other", "--agent", "reviewer"],
            [yes, no, no, no],
        ),
        (&["--agent", "bob"], [yes, no, no, yes]),
        (
            &["--project", "acme", "--agent", "bob"],
            [yes, yes, no, yes],
        ),
    ] {
        let bench = Bench::new();
        let out = attempt(&bench, policy, args, &to);
        assert_eq!(out.stdout.lines().collect::<Vec<_>>(), said, "{args:?}");
        let named = |flag: &str| {
            args.iter()
                .position(|a| *a == flag)
                .map_or(Value::Null, |i| json!(args[i + 1]))
        };
        for r in &out.records {
            fields(
                r,
                &json!({"agent": named("--agent"), "project": named("--project")}),
            );
        }
        if args.contains(&"reviewer") && args.contains(&"acme") {
            fields(
                out.only(&[("dst_port", json!(83))]),
                &json!({"would_deny": true, "verdict": "ALLOWED"}),
            );
            fields(
                out.only(&[("dst_port", json!(82))]),
                &json!({"would_deny": null, "rule": "of reviewer"}),
            );
        }
    }
}
