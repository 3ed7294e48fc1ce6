//! The first thing a user sees: `make run` without a command.

use kernel_tests::run::{Bench, binary, built};
use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

/// The words that a flow line of each kind has, in order.
const SHOWN: [&[&str]; 6] = [
    &[
        "ALLOWED",
        "tcp",
        "127.0.0.201:8080",
        "700 B",
        "rule \"by address\"",
    ],
    &[
        "DENIED",
        "tcp",
        "127.0.0.204:8080",
        "default: no rule names",
    ],
    &["ALLOWED", "udp", "127.0.0.202:9000", "5 B", "rule \"echo\""],
    &[
        "ALLOWED",
        "tcp",
        "tour.example:8443",
        "127.0.0.200",
        "rule \"by name\"",
    ],
    &["ALLOWED", "tcp", "127.0.0.203:8080", "refused"],
    &["DENIED", "icmp", "protocol icmp is refused"],
];

fn shows(line: &str, words: &[&str]) -> bool {
    let mut rest = line;
    words.iter().all(|w| match rest.split_once(w) {
        Some((_, behind)) => {
            rest = behind;
            true
        }
        None => false,
    })
}

#[test]
fn the_tour_shows_what_it_promises_without_a_network() {
    let bench = Bench::new();
    // The tour takes the place of pins for granted.
    let manager = bench.path("manager");
    let script = format!(
        "#!/bin/sh\nexec {} --pin-root {} \"$@\"\n",
        binary().display(),
        bench.pins.display()
    );
    fs::write(&manager, script).unwrap();
    fs::set_permissions(&manager, fs::Permissions::from_mode(0o755)).unwrap();
    let out = Command::new(built("examples/tour", "--example tour"))
        .arg(&manager)
        .output()
        .unwrap();
    let (said, shown) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert_eq!(out.status.code(), Some(0), "{said}{shown}");
    assert!(
        said.contains("default: deny"),
        "the policy is shown: {said}"
    );
    for words in SHOWN {
        let lines = shown.lines().filter(|l| shows(l, words)).count();
        assert_eq!(lines, 1, "{words:?} in {shown}");
    }
    // Nobody was asked for the name before the client asked, and nobody for the other one.
    let before = ["DENIED", "127.0.0.200:8443"];
    let never = ["DENIED", "127.0.0.153:53", "secrets.exfil.example"];
    for words in [&before[..], &never] {
        assert_eq!(
            shown.lines().filter(|l| shows(l, words)).count(),
            1,
            "{shown}"
        );
    }
    assert!(shown.contains("5 allowed · 4 denied · 0 lost"), "{shown}");
    bench.nothing_left(&[]);
}
