//! A program of the stack that runs for a test. It ends with the test however the test ends.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// One that runs, or has run and may be started again; what it says goes into one file.
pub struct Program {
    child: Option<Child>,
    name: &'static str,
    log: PathBuf,
}

/// A command for a program that does not outlive a test that is killed.
#[must_use]
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

impl Program {
    /// One that does not run yet.
    #[must_use]
    pub fn new(name: &'static str, log: PathBuf) -> Self {
        Self {
            child: None,
            name,
            log,
        }
    }

    /// Starts it.
    #[track_caller]
    pub fn start(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let mut log = File::options();
        let log = log.create(true).append(true).open(&self.log);
        let log = log.expect("a file for its output");
        let both = log.try_clone().expect("a second descriptor");
        command.stdin(Stdio::null()).stdout(log).stderr(both);
        self.child = Some(command.spawn().expect("its program is there"));
    }

    /// Fails if it has ended by itself, with what it has said.
    #[track_caller]
    pub fn must_run(&mut self) {
        let child = self.child.as_mut().expect("it has been started");
        let ended = child.try_wait().expect("it is our child");
        let (name, said) = (self.name, self.said());
        assert_eq!(ended, None, "{name} has ended: {said}");
    }

    /// File of what it says.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has said.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a process");
        kill(Pid::from_raw(pid), signal).expect("it is our child");
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
