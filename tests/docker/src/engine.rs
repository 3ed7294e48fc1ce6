//! A container engine of the test's own: data, state, socket, containerd, networks and cgroups.

use crate::{
    api::{self, Answer},
    container::Container,
    image,
    world::{CGROUPS, World},
};
use ebpf_manager::docker;
use kernel_tests::{PATIENCE, eventually};
use lease::{AGENT_LABEL, PROJECT_LABEL};
use serde_json::Value;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What daemons are found by: they are in places that are not everybody's.
const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A wait that people are told about.
const LONG: Duration = Duration::from_secs(2);
/// The resolver of containers: an address of the test's, where one may listen.
pub const RESOLVER: &str = "192.0.2.53";

/// An engine that runs. It ends with this, and so does everything it started.
pub struct Engine {
    // Its end comes first: what it still wants to tidy up is gone with the world.
    daemon: Daemon,
    arguments: Vec<String>,
    world: World,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // Who has ended cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Engine {
    /// Starts one with the image [`image::IMAGE`], and moves this thread into its namespaces. Containers
    /// live on when it is killed (`--live-restore`).
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments for `dockerd`.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|&a| a.to_owned()).collect();
        let world = World::enter();
        let daemon = daemon(world.dir(), &arguments);
        let mut engine = Self {
            daemon,
            arguments,
            world,
        };
        engine.answers();
        image::load(engine.command());
        engine
    }

    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.world.dir().join("docker.sock")
    }

    /// A directory for files, which goes with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.world.dir()
    }

    /// It, as the loader is told of it.
    #[must_use]
    pub fn described(&self) -> docker::Engine {
        docker::Engine {
            socket: self.socket(),
            cgroup_root: CGROUPS.into(),
            parents: Vec::new(),
        }
    }

    /// A `docker` command that is ready for arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut docker = Command::new("docker");
        docker
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        docker.stdin(Stdio::null()).env_remove("DOCKER_CONTEXT");
        docker
    }

    /// Runs `docker`, which must succeed; what it said.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        let out = self
            .command()
            .args(arguments)
            .output()
            .expect("docker starts");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "docker {arguments:?}: {error}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Asks the API, which must agree.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let Answer { status, body } =
            api::ask(&self.socket(), method, path, body).expect("the engine answers");
        assert!(status < 400, "{method} {path}: {status} {body}");
        body
    }

    /// Runs a container with more arguments for `docker run`, the command last and behind the image's
    /// name; none sleeps.
    #[track_caller]
    pub fn run(&self, name: &str, arguments: &[&str]) -> Container<'_> {
        let mut all = vec!["run", "--detach", "--stop-signal", "KILL", "--name", name];
        all.extend(arguments);
        if !arguments.contains(&image::IMAGE) {
            all.push(image::IMAGE);
        }
        let id = self.docker(&all);
        Container::new(self, id)
    }

    /// Runs an agent of a project, as [`Engine::run`] does. Its name is that of the agent.
    #[track_caller]
    pub fn agent(&self, name: &str, project: &str, arguments: &[&str]) -> Container<'_> {
        let labels = [
            format!("{AGENT_LABEL}={name}"),
            format!("{PROJECT_LABEL}={project}"),
        ];
        let mut all = vec!["--label", &labels[0], "--label", &labels[1]];
        all.extend(arguments);
        self.run(name, &all)
    }

    /// A container that was started before.
    #[must_use]
    pub fn container(&self, id: &str) -> Container<'_> {
        Container::new(self, id.to_owned())
    }

    /// Kills the engine; its containers live on.
    pub fn kill(&mut self) {
        self.daemon.0.kill().expect("it runs");
        self.daemon.0.wait().expect("the process is ours");
        // Its containerd goes with it, and is nobody's child then: one that waits to be buried looks
        // alive to the next engine, which would wait for it to answer.
        let file = self.dir().join("exec/containerd/containerd.pid");
        let pid = fs::read_to_string(&file).expect("its containerd");
        let stat = format!("/proc/{}/stat", pid.trim());
        eventually("containerd to end", || match fs::read_to_string(&stat) {
            Ok(text) => text.contains(") Z ").then_some(()),
            Err(_) => Some(()),
        });
        fs::remove_file(file).expect("the file is there");
    }

    /// Starts it again, on what the last one left.
    pub fn revive(&mut self) {
        self.daemon = daemon(self.world.dir(), &self.arguments);
        self.answers();
    }

    /// Waits until it answers.
    fn answers(&mut self) {
        let begin = Instant::now();
        let mut told = false;
        loop {
            let ping = api::ask(&self.socket(), "GET", "/_ping", None);
            if ping.is_ok_and(|answer| answer.status == 200) {
                return;
            }
            let ended = self.daemon.0.try_wait().expect("the process is ours");
            let waited = begin.elapsed();
            if ended.is_some() || waited > 3 * PATIENCE {
                panic!("the engine does not answer ({ended:?}):\n{}", self.log());
            }
            if waited > LONG && !told {
                eprintln!(
                    "waiting for the engine to answer (up to {:?})",
                    3 * PATIENCE
                );
                told = true;
            }
            nix::poll::poll(&mut [], 20u16).ok();
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read(self.dir().join("dockerd.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Starts `dockerd` with everything it writes below a directory. Its storage driver is the one it finds
/// good: overlay2, or vfs where a file system has no room for another. Its cgroup driver is cgroupfs: the
/// other one asks a systemd that runs as process 1.
fn daemon(dir: &Path, arguments: &[String]) -> Daemon {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("dockerd.log"));
    let log = log.expect("a log file");
    // Or the machine's would be read.
    fs::write(dir.join("daemon.json"), "{}").expect("a file");
    let at = |name: &str| dir.join(name).into_os_string().into_string().expect("text");
    let daemon = Command::new("dockerd")
        .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
        .args([
            "--pidfile",
            &at("docker.pid"),
            "--config-file",
            &at("daemon.json"),
        ])
        .args(["--host", &format!("unix://{}", at("docker.sock"))])
        .args([
            "--live-restore",
            "--dns",
            RESOLVER,
            "--exec-opt",
            "native.cgroupdriver=cgroupfs",
        ])
        .args(arguments)
        .env("PATH", SEARCH)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .spawn();
    Daemon(daemon.expect("dockerd is installed: run scripts/engine.sh"))
}
