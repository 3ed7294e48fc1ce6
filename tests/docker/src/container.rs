//! A container of a test, and what can be done to it.

use crate::{engine::Engine, image::PYTHON, world::CGROUPS};
use kernel_tests::agent;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// One container. It stays when this is dropped, and goes with its engine.
pub struct Container<'e> {
    engine: &'e Engine,
    /// The engine's full id.
    pub id: String,
}

impl<'e> Container<'e> {
    pub(crate) fn new(engine: &'e Engine, id: String) -> Self {
        Self { engine, id }
    }

    /// `docker VERB ID`: start, stop, kill, restart, pause, unpause, wait.
    #[track_caller]
    pub fn act(&self, verb: &str) -> String {
        self.engine.docker(&[verb, &self.id])
    }

    /// Gives it another name.
    #[track_caller]
    pub fn rename(&self, name: &str) {
        self.engine.docker(&["rename", &self.id, name]);
    }

    /// Connects it to a network.
    #[track_caller]
    pub fn connect(&self, network: &str) {
        self.engine
            .docker(&["network", "connect", network, &self.id]);
    }

    /// Takes it off a network.
    #[track_caller]
    pub fn disconnect(&self, network: &str) {
        self.engine
            .docker(&["network", "disconnect", network, &self.id]);
    }

    /// Removes it, whether it runs or not.
    #[track_caller]
    pub fn remove(&self) {
        self.engine.docker(&["rm", "--force", &self.id]);
    }

    /// The engine's description.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self) -> Value {
        self.engine
            .api("GET", &format!("/containers/{}/json", self.id), None)
    }

    /// Its first process; 0 if it does not run.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> u32 {
        let pid = self.inspect()["State"]["Pid"].as_u64().expect("a number");
        u32::try_from(pid).expect("a process id")
    }

    /// Its IPv4 address on a network; `bridge` is the engine's default.
    #[track_caller]
    #[must_use]
    pub fn ip(&self, network: &str) -> String {
        let all = self.inspect();
        let ip = all["NetworkSettings"]["Networks"][network]["IPAddress"].as_str();
        ip.expect("an address").to_owned()
    }

    /// The directory of its cgroup, if it has the engine's default parent.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        Path::new(CGROUPS).join("docker").join(&self.id)
    }

    /// A Python program behind [`agent::PRELUDE`] in it, ready to go: also for
    /// [`kernel_tests::talk::Talk::start`].
    #[must_use]
    pub fn program(&self, python: &str) -> Command {
        let mut docker = self.engine.command();
        docker.args([
            "exec",
            "--interactive",
            &self.id,
            PYTHON,
            "-c",
            &agent::code(python),
        ]);
        docker
    }

    /// Runs a Python program behind [`agent::PRELUDE`] in it to its end, which must be good; what it said.
    #[track_caller]
    pub fn exec(&self, python: &str) -> String {
        let out = self.program(python).output().expect("docker starts");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{python}: {error}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
}
