//! A conversation with a command that is running under `run`.

use crate::{
    clear, instance_cgroup,
    run::{Bench, Outcome, PolicyText},
};
use ebpf_manager::cgroup::Cgroup;
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
};

/// A command that speaks a line and waits for one, in turns.
pub struct Talk {
    loader: Loader,
    said: BufReader<ChildStdout>,
    errors: JoinHandle<String>,
    to: Option<ChildStdin>,
}

/// Ends what it started, whatever becomes of the test.
struct Loader {
    child: Child,
    /// How it ended, and the id of the cgroup that it left.
    ended: Option<(ExitStatus, Option<u64>)>,
}

impl Loader {
    fn cgroup(&self) -> Cgroup {
        Cgroup::at(instance_cgroup(self.child.id()))
    }

    /// Waits for its end. Its number is another's from then on, and so is the cgroup of that name: what is its own is
    /// looked at before.
    fn wait(&mut self) -> ExitStatus {
        if let Some((status, _)) = self.ended {
            return status;
        }
        let pid = Pid::from_raw(self.child.id() as i32);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), flags).expect("the process is ours");
        let left = self.cgroup().id().ok();
        let status = self.child.wait().expect("the process is ours");
        self.ended = Some((status, left));
        status
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // What has ended already cannot be killed.
            let _ = self.child.kill();
            self.wait();
        }
        let left = self.ended.and_then(|(_, left)| left);
        if left.is_some() && self.cgroup().id().ok() == left {
            clear(&self.cgroup());
        }
    }
}

impl Bench {
    /// Starts any command.
    pub fn converse(&self, policy: impl PolicyText, args: &[&str], cmd: &[&str]) -> Talk {
        Talk::start(&mut self.command(policy, args, cmd))
    }

    /// Starts a shell script and waits until it says that it is up.
    pub fn shell(&self, policy: impl PolicyText, args: &[&str], script: &str) -> Talk {
        let mut talk = self.converse(policy, args, &["bash", "-c", script]);
        assert_eq!(talk.hear(), "up");
        talk
    }
}

impl Talk {
    /// Starts a command that is ready to go: a `run`, or one without a firewall.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ebpf-manager starts");
        let mut errors = child.stderr.take().expect("a pipe");
        // Read at once: a full pipe would stop the loader.
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            errors.read_to_end(&mut text).expect("a pipe can be read");
            String::from_utf8_lossy(&text).into_owned()
        });
        Self {
            said: BufReader::new(child.stdout.take().expect("a pipe")),
            to: child.stdin.take(),
            loader: Loader { child, ended: None },
            errors,
        }
    }

    /// The next line that the program says, without its end; empty when there is none.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line of text");
        line.trim_end().to_owned()
    }

    /// Lets the program go on.
    pub fn say(&mut self, word: &str) {
        let to = self.to.as_mut().expect("not closed yet");
        writeln!(to, "{word}").expect("the program listens");
    }

    /// Lets the program go on and returns what it says next.
    pub fn go(&mut self) -> String {
        self.say("go");
        self.hear()
    }

    /// Process id of `ebpf-manager`, or of whatever was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.loader.child.id()
    }

    /// Name of the instance.
    #[must_use]
    pub fn instance(&self) -> String {
        format!("run-{}", self.pid())
    }

    /// Cgroup of the command.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        instance_cgroup(self.pid())
    }

    /// Sends a signal to `ebpf-manager`.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("the process is ours");
    }

    /// Kills `ebpf-manager` as nothing can prevent; the command lives on.
    pub fn kill_loader(&mut self) {
        self.signal(Signal::SIGKILL);
        assert_eq!(self.loader.wait().code(), None, "killed, not ended");
    }

    /// Closes the program's input and waits for its end.
    pub fn end(mut self, bench: &Bench) -> Outcome {
        drop(self.to.take());
        let mut stdout = String::new();
        self.said.read_to_string(&mut stdout).expect("text");
        let code = self.loader.wait().code();
        Outcome {
            code: code.unwrap_or(-1),
            stdout,
            stderr: self.errors.join().expect("the reader ends"),
            records: bench.records(),
            events: bench.events(),
        }
    }
}
