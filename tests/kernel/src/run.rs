//! `ebpf-manager run` as a user runs it, and what came of it.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
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

    /// A `run` with a policy (none: observe), extra arguments and a command, not started yet.
    #[must_use]
    pub fn command(&self, policy: Option<&str>, args: &[&str], cmd: &[&str]) -> Command {
        let mut c = self.manager();
        c.arg("run").arg("--out").arg(self.path("records.jsonl"));
        if let Some(text) = policy {
            c.arg("--policy").arg(self.policy(text));
        }
        c.args(args).arg("--").args(cmd).stdin(Stdio::null());
        c
    }

    /// Runs a command to its end.
    pub fn run(&self, policy: Option<&str>, args: &[&str], cmd: &[&str]) -> Outcome {
        let _ = fs::remove_file(self.path("records.jsonl"));
        let out = self
            .command(policy, args, cmd)
            .output()
            .expect("ebpf-manager starts");
        self.outcome(&out)
    }

    /// Runs a Python program under a policy.
    pub fn python(&self, policy: Option<&str>, program: &str) -> Outcome {
        self.run(policy, &[], &["python3", "-c", program])
    }

    /// Starts a command and leaves it running.
    pub fn spawn(&self, policy: Option<&str>, args: &[&str], cmd: &[&str]) -> Child {
        let _ = fs::remove_file(self.path("records.jsonl"));
        let mut c = self.command(policy, args, cmd);
        c.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        c.spawn().expect("ebpf-manager starts")
    }

    /// Waits for a spawned run.
    pub fn finish(&self, child: Child) -> Outcome {
        self.outcome(&child.wait_with_output().expect("ebpf-manager ends"))
    }

    fn outcome(&self, out: &Output) -> Outcome {
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
        text.lines()
            .map(|l| serde_json::from_str(l).expect("a record is one JSON object a line"))
            .collect()
    }

    /// `dump … --json` as objects.
    #[track_caller]
    pub fn dump(&self, args: &[&str]) -> Vec<Value> {
        self.try_dump(args).unwrap_or_else(|e| panic!("dump: {e}"))
    }

    /// `dump … --json` as objects, or what it says on stderr when it fails.
    pub fn try_dump(&self, args: &[&str]) -> Result<Vec<Value>, String> {
        let out = self
            .manager()
            .arg("dump")
            .arg("--json")
            .args(args)
            .output()
            .expect("dump starts");
        if !out.status.success() {
            return Err(String::from_utf8_lossy(&out.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&out.stdout)
            .lines()
            .map(|l| serde_json::from_str(l).expect("dump --json is one object a line"))
            .collect())
    }
}

impl Bench {
    /// Asserts that nothing is pinned but the counter of slot numbers, and that the cgroups of these
    /// loaders are gone.
    #[track_caller]
    pub fn nothing_left(&self, loaders: &[u32]) {
        assert!(self.dump(&[]).is_empty(), "something is attached");
        let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
        let pins: Vec<_> = entries(&self.pins)
            .flat_map(|version| entries(&version.path()))
            .map(|e| e.file_name())
            .filter(|n| n != "next_slot")
            .collect();
        assert!(pins.is_empty(), "{pins:?}");
        for pid in loaders {
            let cgroup = crate::cgroup_root().join(format!("clawker/run-{pid}"));
            assert!(!cgroup.exists(), "{}", cgroup.display());
        }
    }
}

/// The next line that a command says, without its end; empty when there is none.
#[must_use]
pub fn line(said: &mut BufReader<ChildStdout>) -> String {
    let mut text = String::new();
    said.read_line(&mut text).expect("the command writes text");
    text.trim_end().to_owned()
}

/// Gives a command that waits for a line an empty one.
pub fn tell(child: &mut Child) {
    let input = child.stdin.as_mut().expect("standard input is piped");
    input.write_all(b"\n").expect("the command reads");
}

/// Sends a signal.
pub fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("the process is ours");
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
    let me = std::env::current_exe().expect("the test has a path");
    let profile = me.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let path = profile.join("ebpf-manager");
    assert!(
        path.exists(),
        "{} is not built: run `cargo build -p ebpf-manager` first",
        path.display()
    );
    path
}

impl Outcome {
    /// Records that have all of these values.
    #[must_use]
    pub fn matching(&self, wanted: &[(&str, Value)]) -> Vec<&Value> {
        self.records
            .iter()
            .filter(|r| wanted.iter().all(|(k, v)| r.get(k) == Some(v)))
            .collect()
    }

    /// The one record that has all of these values.
    #[must_use]
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
}
