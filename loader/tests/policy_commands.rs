//! What the `policy` commands print, compared whole with the files in `tests/golden`, and their exit
//! codes. After a wanted change run with `UPDATE_GOLDEN=1` and read the difference.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use policy::{Action, Policy, Question, Severity};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ebpf-manager"))
        .arg("policy")
        .args(args)
        .current_dir(golden())
        .output()
        .unwrap()
}

/// One question after the other; each with its exit code and what it says on both outputs.
#[track_caller]
fn compare(name: &str, questions: &[&[&str]]) {
    let mut text = String::new();
    for args in questions {
        let out = run(args);
        text.push_str(&format!("$ ebpf-manager policy {}\n", args.join(" ")));
        text.push_str(&String::from_utf8(out.stdout).unwrap());
        text.push_str(&String::from_utf8(out.stderr).unwrap());
        text.push_str(&format!("= {}\n\n", out.status.code().unwrap()));
    }
    let file = golden().join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap(), "{name}");
}

#[test]
fn explain_tells_who_decides_and_why_the_others_do_not() {
    let explain = |rest: &'static str| {
        let mut args = vec!["explain", "egress.yaml"];
        args.extend(rest.split(' '));
        args
    };
    let questions = [
        "--to x.pkg.example.net:443",
        "--to evil.pkg.example.net:443 --agent watcher",
        "--to dev.internal:443 --addr 10.1.2.3",
        "--to dev.internal:443 --addr 10.1.2.3 --agent acme/reviewer",
        "--to build.internal --proto ssh --addr 10.1.2.3",
        "--to 203.0.113.9:5432",
        "--to 203.0.113.9:80 --agent reviewer --project acme",
        "--to 169.254.169.254:80 --agent watcher",
        "--to 192.0.2.53:53 --proto udp",
        "--to 8.8.8.8:53 --proto udp --agent watcher",
        "--to 8.8.8.8:853",
        "--to [2001:db8::1]:443 --all",
        "--to 198.51.100.7 --proto icmp",
        "--to 127.0.0.1:5432",
        "--to unknown.example.org:443",
        "--to api.github.com:443",
        "--to api.github.com:443 --method GET --path /repos/acme/x",
        "--to api.github.com:443 --method POST --path /repos/acme/x",
        "--to api.github.com:443 --method PUT --path /other --agent acme/reviewer",
        "--to dev.internal:443 --addr 10.1.2.3 --agent acme/reviewer --json",
        "--to api.github.com:443 --method POST --path /repos/acme/x --json",
    ];
    let questions: Vec<Vec<&str>> = questions.into_iter().map(explain).collect();
    let questions: Vec<&[&str]> = questions.iter().map(Vec::as_slice).collect();
    compare("explain", &questions);
}

#[test]
fn explain_says_what_is_wrong_with_a_question() {
    compare(
        "explain-mistakes",
        &[
            &["explain", "egress.yaml", "--to", "api.github.com"],
            &[
                "explain",
                "egress.yaml",
                "--to",
                "https://api.github.com/x:1",
            ],
            &["explain", "egress.yaml", "--to", "10.0.0.0/8:80"],
            &[
                "explain",
                "egress.yaml",
                "--to",
                "192.0.2.1:80",
                "--addr",
                "192.0.2.2",
            ],
            &[
                "explain",
                "egress.yaml",
                "--to",
                "192.0.2.1:80",
                "--proto",
                "icmp",
            ],
            &[
                "explain",
                "egress.yaml",
                "--to",
                "a.example:1",
                "--method",
                "get",
                "--path",
                "/",
            ],
            &[
                "explain",
                "egress.yaml",
                "--to",
                "a.example:1",
                "--method",
                "GET",
                "--path",
                "/?q",
            ],
            &[
                "explain",
                "egress.yaml",
                "--to",
                "a.example:1",
                "--agent",
                "p/a",
                "--project",
                "p",
            ],
            &["explain", "no-such.yaml", "--to", "a.example:1"],
        ],
    );
}

#[test]
fn tests_list_every_difference() {
    compare(
        "test",
        &[
            &["test", "egress.yaml", "--expect", "expect-right.yaml"],
            &["test", "egress.yaml", "--expect", "expect-wrong.yaml"],
            &[
                "test",
                "egress.yaml",
                "--expect",
                "expect-wrong.yaml",
                "--json",
            ],
            &["test", "egress.yaml"],
            &["test", "egress.yaml", "--expect", "expect-broken.yaml"],
        ],
    );
}

#[test]
fn learning_prints_a_policy_and_what_is_not_in_it() {
    compare(
        "learn",
        &[
            &["learn", "flows.jsonl"],
            &["learn", "flows.jsonl", "--wildcards"],
            &["learn", "flows.jsonl", "--base", "egress.yaml"],
            &["learn", "flows.jsonl", "flows.jsonl"],
            &["learn", "broken.jsonl"],
            &["learn", "no-such.jsonl"],
        ],
    );
}

#[test]
fn a_learned_policy_passes_the_check() {
    for args in [
        &["learn", "flows.jsonl"][..],
        &["learn", "flows.jsonl", "--wildcards"],
        &["learn", "flows.jsonl", "--base", "egress.yaml"],
    ] {
        let out = run(args);
        let source = String::from_utf8(out.stdout).unwrap();
        let found = Policy::parse(&source).diagnostics;
        assert!(found.is_empty(), "{source}\n{found:#?}");
    }
}

#[test]
fn denied_flows_turn_into_rules_or_reasons() {
    let flows: Vec<String> = (1..=15)
        .map(|n| {
            let kind = match n {
                11 | 13 | 14 => 'a',
                12 => 'b',
                _ => 'd',
            };
            format!("7-{kind}{n}")
        })
        .collect();
    let mut questions: Vec<Vec<&str>> = flows
        .iter()
        .map(|flow| vec!["allow", "--from", "denied.jsonl", "--flow", flow])
        .collect();
    questions.push(vec![
        "allow",
        "--from",
        "denied.jsonl",
        "--flow",
        "b007-7-d3",
        "--json",
    ]);
    questions.push(vec![
        "allow",
        "--from",
        "denied.jsonl",
        "--flow",
        "b007-7-d6",
        "--json",
    ]);
    questions.push(vec!["allow", "--from", "denied.jsonl", "--flow", "d99"]);
    questions.push(vec!["allow", "--from", "flows.jsonl", "--flow", "b007"]);
    let questions: Vec<&[&str]> = questions.iter().map(Vec::as_slice).collect();
    compare("allow", &questions);
}

#[test]
fn an_allowed_flow_is_appended_and_passes() {
    let source = std::fs::read_to_string(golden().join("egress.yaml")).unwrap();
    // The list of rules must be the end of the file.
    let (rules, _) = source.split_once("projects:").unwrap();
    let out = run(&["allow", "--from", "denied.jsonl", "--flow", "7-d3"]);
    let next = format!("{rules}{}", String::from_utf8(out.stdout).unwrap());
    let parsed = Policy::parse(&next);
    let errors = parsed
        .diagnostics
        .iter()
        .any(|d| d.severity == Severity::Error);
    assert!(!errors, "{next}\n{:#?}", parsed.diagnostics);
    let policy = parsed.policy.unwrap();
    let ask = |host, port| {
        let question = Question {
            hosts: &[host],
            addr: "10.1.2.3".parse().ok(),
            proto: 6,
            port,
            resolver: false,
        };
        policy.select(None, None).decide(&question).action
    };
    assert_eq!(ask("dev.internal", 8443), Action::Allow);
    assert_eq!(ask("dev.internal", 8444), Action::Deny);
    assert_eq!(ask("new.internal", 8443), Action::Deny);
}

/// The fenced blocks of a page: what stands behind the fence, and the text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = page.split("\n```").skip(1).step_by(2).collect();
    parts
        .into_iter()
        .filter_map(|block| block.split_once('\n'))
        .collect()
}

#[test]
fn the_page_about_these_commands_shows_what_they_print() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy-commands.md");
    let page = std::fs::read_to_string(page).unwrap();
    let dir = tempfile::TempDir::with_prefix("clawker-test-").unwrap();
    let mut shown = 0;
    for (kind, text) in blocks(&page) {
        if kind == "yaml egress.yaml" {
            std::fs::write(dir.path().join("egress.yaml"), text).unwrap();
        }
        let commands = text.split("$ ebpf-manager ").skip(1);
        // What is shown without output is there for the command.
        for (line, output) in commands.filter_map(|part| part.split_once('\n')) {
            let out = Command::new(env!("CARGO_BIN_EXE_ebpf-manager"))
                .args(line.split(' '))
                .current_dir(dir.path())
                .output()
                .unwrap();
            let printed = String::from_utf8(out.stdout).unwrap();
            assert_eq!(printed.trim_end(), output, "{line}");
            shown += 1;
        }
    }
    assert_eq!(shown, 3);
}
