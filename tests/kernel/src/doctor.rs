//! `doctor` as an operator runs it, and what it said.

use crate::{
    dns::RESOLVER,
    run::{Bench, binary},
};
use serde_json::Value;
use std::{fs, process::Command};

/// What `doctor` said.
#[derive(Debug)]
pub struct Checkup {
    /// Its exit code.
    pub code: i32,
    /// Every finding.
    pub findings: Vec<Value>,
    /// Standard error.
    pub stderr: String,
}

impl Bench {
    /// The binary in a mount namespace of its own, where a shell has changed something first.
    /// `/etc/resolv.conf` names `resolver` there.
    #[must_use]
    pub fn manager_where(&self, resolver: &str, setup: &str) -> Command {
        let file = self.path(&format!("resolv.conf.{resolver}"));
        fs::write(&file, format!("nameserver {resolver}\n")).expect("a file in our own directory");
        let script = format!(
            "mount --bind {} /etc/resolv.conf && {{ {setup}; }} && exec \"$@\"",
            file.display()
        );
        let mut c = Command::new("unshare");
        c.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(binary())
        .arg("--pin-root")
        .arg(&self.pins);
        c
    }

    /// The same where the kernel says that it is an old one.
    #[must_use]
    pub fn manager_on_an_old_kernel(&self) -> Command {
        let inner = self.manager_where(RESOLVER, "true");
        let mut old = Command::new("setarch");
        old.arg("--uname-2.6").arg(inner.get_program());
        old.args(inner.get_args());
        old
    }

    /// `doctor --json`.
    #[track_caller]
    pub fn doctor(&self, args: &[&str]) -> Checkup {
        self.doctor_where("true", args)
    }

    /// `doctor --json` where a shell has changed something first.
    #[track_caller]
    pub fn doctor_where(&self, setup: &str, args: &[&str]) -> Checkup {
        let mut c = self.manager_where(RESOLVER, setup);
        checkup(c.args(["doctor", "--json"]).args(args))
    }
}

/// Runs a `doctor --json` to its end.
#[track_caller]
pub fn checkup(command: &mut Command) -> Checkup {
    let out = command.output().expect("it starts");
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    let text = String::from_utf8_lossy(&out.stdout);
    let findings = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}\n{stderr}")))
        .collect();
    Checkup {
        code: out.status.code().unwrap_or(-1),
        findings,
        stderr,
    }
}

impl Checkup {
    /// What the findings of a state say.
    #[must_use]
    pub fn of(&self, state: &str) -> Vec<&str> {
        let of_state = self.findings.iter().filter(|f| f["state"] == state);
        of_state
            .map(|f| f["what"].as_str().expect("a text"))
            .collect()
    }

    /// Asserts that there is exactly one problem for each of these, that it says all its words, what it
    /// costs and what to do, and that the exit code is 1. What other tests leave for a moment does not
    /// count.
    #[track_caller]
    pub fn names(&self, problems: &[(&str, &[&str])]) {
        let found: Vec<&Value> = self
            .findings
            .iter()
            .filter(|f| f["state"] == "problem" && f["check"] != "leftover")
            .collect();
        let said = format!("{found:#?}\n{}", self.stderr);
        for (check, words) in problems {
            let fits = |f: &&&Value| {
                let text = |key: &str| f[key].as_str().unwrap_or_default().to_owned();
                let all = text("what") + &text("mend");
                f["check"] == *check
                    && words.iter().all(|w| all.contains(w))
                    && !text("cost").is_empty()
                    && !text("mend").is_empty()
            };
            let n = found.iter().filter(fits).count();
            assert_eq!(n, 1, "{check} {words:?} in {said}");
        }
        assert_eq!(found.len(), problems.len(), "{said}");
        assert_eq!(self.code, 1, "{said}");
    }

    /// Asserts that there is no problem.
    #[track_caller]
    pub fn well(&self) {
        let problems = self.of("problem");
        assert_eq!(self.code, 0, "{problems:#?}\n{}", self.stderr);
        assert!(
            problems.is_empty() && !self.findings.is_empty(),
            "{problems:#?}"
        );
    }
}
