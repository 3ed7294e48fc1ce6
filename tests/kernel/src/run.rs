//! `ebpf-manager run` as a user runs it, and what came of it.

use crate::check::fields;
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;

/// Where test instances pin; one directory a process, removed with it.
const PIN_BASE: &str = "/sys/fs/bpf";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A place for one or more runs: pins, policy and record files. Removed at the end, whatever happened.
pub struct Bench {
    /// Files.
    pub dir: TempDir,
    /// Root for pins.
    pub pins: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// Exit code of `ebpf-manager`.
    pub code: i32,
    /// Standard output: the command's alone.
    pub stdout: String,
    /// Standard error of both.
    pub stderr: String,
    /// Every flow's record, in the order written.
    pub records: Vec<Value>,
    /// What else is in the stream: changes of policy.
    pub events: Vec<Value>,
}

/// A policy as tests give one; none means to observe.
pub trait PolicyText {
    /// The text of the file.
    fn text(&self) -> Option<&str>;
}

impl PolicyText for &str {
    fn text(&self) -> Option<&str> {
        Some(self)
    }
}

impl PolicyText for &String {
    fn text(&self) -> Option<&str> {
        Some(self)
    }
}

impl PolicyText for Option<&str> {
    fn text(&self) -> Option<&str> {
        *self
    }
}

impl Bench {
    /// Moves the test into its own network namespace and makes room for it.
    #[must_use]
    pub fn new() -> Self {
        crate::net::isolate();
        Self::without_network()
    }

    /// Room for a test that keeps the machine's network.
    #[must_use]
    pub fn without_network() -> Self {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!(
            "{PIN_BASE}/clawker-test-{}-{n}",
            std::process::id()
        ));
        Self {
            dir: TempDir::with_prefix("clawker-test-").expect("a temporary directory"),
            pins,
        }
    }

    /// Room for another run with the same pins.
    #[must_use]
    pub fn beside(&self) -> Self {
        let mut other = Self::without_network();
        other.pins.clone_from(&self.pins);
        other
    }

    /// Path of a file of this bench.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Directory of the control sockets.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.path("control")
    }

    /// Writes a policy file and returns its path.
    pub fn policy(&self, text: &str) -> PathBuf {
        let path = self.path("policy.yaml");
        fs::write(&path, text).expect("the policy is written");
        path
    }

    /// The binary with its pin root and control directory.
    #[must_use]
    pub fn manager(&self) -> Command {
        let mut c = Command::new(binary());
        c.arg("--pin-root").arg(&self.pins);
        c.arg("--control-dir").arg(self.control());
        c
    }

    /// A `serve` beside an engine in the bench's own directory, and its files there, not started yet.
    #[must_use]
    pub fn serve(&self) -> Command {
        let mut c = self.manager();
        c.arg("serve");
        for (option, file) in [
            ("--engine", "engine.sock"),
            ("--out", "records.jsonl"),
            ("--leases", "leases/leases.json"),
        ] {
            c.arg(option).arg(self.path(file));
        }
        c.args(["--max-agents", "4"]).stdin(Stdio::null());
        c
    }

    /// A `run` with a policy (none: observe), extra arguments and a command, not started yet.
    #[must_use]
    pub fn command(&self, policy: impl PolicyText, args: &[&str], cmd: &[&str]) -> Command {
        // Records are those of the last run.
        let _ = fs::remove_file(self.path("records.jsonl"));
        let mut c = self.manager();
        c.arg("run").arg("--out").arg(self.path("records.jsonl"));
        if let Some(text) = policy.text() {
            c.arg("--policy").arg(self.policy(text));
        }
        c.args(args).arg("--").args(cmd).stdin(Stdio::null());
        c
    }

    /// Runs a command to its end.
    pub fn run(&self, policy: impl PolicyText, args: &[&str], cmd: &[&str]) -> Outcome {
        let out = self.command(policy, args, cmd).output();
        let out = out.expect("ebpf-manager starts");
        Outcome {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
            records: self.records(),
            events: self.events(),
        }
    }

    /// Records of flows written so far.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let mut all = self.stream();
        all.retain(|r| r.get("event_name").is_none());
        all
    }

    /// Changes of policy written so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        let mut all = self.stream();
        all.retain(|r| r.get("event_name").is_some());
        all
    }

    fn stream(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("records.jsonl")).unwrap_or_default();
        // What has no end yet is being written.
        text.split_inclusive('\n')
            .filter(|l| l.ends_with('\n'))
            .map(|l| serde_json::from_str(l).expect("a record is one JSON object a line"))
            .collect()
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // After a failure too: nothing may stay attached.
        let _ = self.manager().args(["detach", "--all", "--force"]).output();
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// The binary under test: the one of the same build profile.
#[must_use]
pub fn binary() -> PathBuf {
    built("ebpf-manager", "--bins")
}

/// Something of the package under test, of the same build profile, and the option that builds it.
#[must_use]
pub fn built(name: &str, option: &str) -> PathBuf {
    let me = std::env::current_exe().expect("the test has a path");
    let profile = me.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let path = profile.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo build -p ebpf-manager {option}` first",
        path.display()
    );
    path
}

impl Outcome {
    /// Words that the command said.
    #[must_use]
    pub fn words(&self) -> Vec<&str> {
        self.stdout.split_whitespace().collect()
    }

    /// Records that have all of these values.
    #[must_use]
    pub fn matching(&self, wanted: &[(&str, Value)]) -> Vec<&Value> {
        self.records
            .iter()
            .filter(|r| wanted.iter().all(|(k, v)| r.get(k) == Some(v)))
            .collect()
    }

    /// Denied records that have all of these values.
    #[must_use]
    pub fn denied(&self, wanted: &[(&str, Value)]) -> Vec<&Value> {
        self.matching(&[wanted, &[("verdict", json!("DENIED"))]].concat())
    }

    /// The one record that has all of these values.
    #[must_use]
    #[track_caller]
    pub fn only(&self, wanted: &[(&str, Value)]) -> &Value {
        let found = self.matching(wanted);
        assert_eq!(
            found.len(),
            1,
            "records with {wanted:?} among {:#?}\nstderr: {}",
            self.records,
            self.stderr
        );
        found[0]
    }

    /// The one denied record that has all of these values, of which nothing left or arrived.
    #[track_caller]
    pub fn only_denied(&self, wanted: &[(&str, Value)]) -> &Value {
        let record = self.only(&[wanted, &[("verdict", json!("DENIED"))]].concat());
        fields(
            record,
            &json!({"bytes_out": 0, "bytes_in": 0, "close_reason": "denied"}),
        );
        record
    }

    /// Asserts that there is one record, with these fields.
    #[track_caller]
    pub fn is_one(&self, wanted: &Value) {
        assert_eq!(self.records.len(), 1, "{:#?}", self.records);
        fields(&self.records[0], wanted);
    }
}
