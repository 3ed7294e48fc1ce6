//! `provision` as a user runs it.

use crate::{
    opensearch::{ADDRESS, OpenSearch},
    standin::{StandIn, Upstream},
};
use kernel_tests::run::built;
use serde_json::Value;
use std::process::{Command, Stdio};

/// Where the stand-in answers as OpenSearch.
pub const STORE: &str = "127.0.0.1:9201";
/// Where it answers as Dashboards.
pub const BOARDS: &str = "127.0.0.1:5601";

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// The steps of `--json` with this outcome, as `kind name`.
    #[must_use]
    pub fn steps(&self, outcome: &str) -> Vec<String> {
        let report: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        let steps = report["steps"].as_array().expect("steps").iter();
        let name = |s: &Value| {
            let part = |key: &str| s[key].as_str().expect("a text").to_owned();
            format!("{} {}", part("kind"), part("name"))
        };
        steps
            .filter(|s| s["outcome"] == outcome)
            .map(name)
            .collect()
    }
}

/// A command for `provision` that is ready for more arguments, with nothing of this machine's environment.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(built("provision", "-p provision"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(arguments: &[&str]) -> Outcome {
    ended(&mut command(arguments))
}

/// Runs a prepared command to its end.
pub fn ended(command: &mut Command) -> Outcome {
    let out = command.output().expect("it starts");
    Outcome {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// The stand-in before a node, as OpenSearch and as Dashboards.
#[must_use]
pub fn stand_in(node: &OpenSearch) -> StandIn {
    let stand_in = StandIn::new(node.asker());
    let upstream = match node.ca() {
        None => Upstream::plain(ADDRESS),
        Some(ca) => Upstream::trusting(ADDRESS, ca),
    };
    stand_in.serve_store(STORE, upstream);
    stand_in.serve_boards(BOARDS);
    stand_in
}

/// Makes templates and data streams in a node that knows no users, with the shipped program.
#[track_caller]
pub fn prepare(node: &OpenSearch) -> StandIn {
    let stand_in = stand_in(node);
    let came = run(&["--opensearch", &format!("http://{STORE}")]);
    assert_eq!(came.code, Some(0), "{}{}", came.stdout, came.stderr);
    stand_in
}
