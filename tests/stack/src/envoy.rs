//! The real Envoy, with a rendered configuration, in the test's network namespace.

use crate::program::{self, Program};
use ebpf_manager::{
    ca::{self, Authority},
    proxy_files,
};
use jiff::Zoned;
use kernel_tests::{cached, eventually};
use policy::Policy;
use proxy::{Agent, Fleet, Settings, envoy};
use serde_json::{Value, json};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What scripts/envoy.sh fetched.
fn binary() -> PathBuf {
    cached("bin/envoy", "envoy.sh")
}

/// Renders a policy for agents into a directory, certificates of an authority of its own included.
pub fn render(policy: &Policy, agents: &[&str], settings: &Settings) -> envoy::Rendered {
    let dir = Path::new(&settings.directory);
    let authority = settings.intercept.then(|| authority(&dir.join("ca")));
    render_by(policy, agents, settings, authority.as_ref())
}

/// The same with certificates of an authority that is there.
pub fn render_by(
    policy: &Policy,
    agents: &[&str],
    settings: &Settings,
    authority: Option<&Authority>,
) -> envoy::Rendered {
    let agents = agents
        .iter()
        .map(|text| Agent::parse(text).expect("an agent"));
    let fleet = Fleet::new(agents.collect()).expect("a fleet");
    let rendered = envoy::render(policy, &fleet, settings);
    let dir = Path::new(&settings.directory);
    proxy_files::write_envoy(dir, &rendered, authority).expect("the files are written");
    rendered
}

/// Makes a certificate authority.
pub fn authority(dir: &Path) -> Authority {
    ca::init(dir, &Zoned::now()).expect("an authority is made");
    Authority::load(dir).expect("it is ours")
}

/// Has Envoy check what was rendered. Its check does not follow files to other files, so they are put
/// into one.
pub fn validate(rendered: &envoy::Rendered, dir: &Path) -> Output {
    let mut whole = rendered.bootstrap.clone();
    whole["dynamic_resources"].take();
    let bare = |list: &Value| -> Vec<Value> {
        let all = list["resources"].as_array().expect("a list");
        let bare = |resource: &Value| {
            let mut resource = resource.clone();
            resource.as_object_mut().expect("an object").remove("@type");
            resource
        };
        all.iter().map(bare).collect()
    };
    let mut clusters = bare(&rendered.clusters);
    clusters.push(whole["static_resources"]["clusters"][0].take());
    whole["static_resources"] =
        json!({"clusters": clusters, "listeners": bare(&rendered.listeners)});
    let file = dir.join("whole.json");
    fs::write(&file, whole.to_string()).expect("the file is written");
    Command::new(binary())
        .args(["--mode", "validate", "-l", "error", "-c"])
        .arg(&file)
        .output()
        .expect("envoy runs")
}

/// An Envoy that runs. It ends with the test.
pub struct Envoy {
    program: Program,
    dir: PathBuf,
}

impl Envoy {
    /// Starts it with what was rendered into a directory, and waits until it listens.
    #[must_use]
    pub fn start(dir: &Path, listening: &[&str]) -> Self {
        let mut envoy = Self {
            program: Program::new("Envoy", dir.join("envoy.log")),
            dir: dir.to_owned(),
        };
        envoy.restart(listening);
        envoy
    }

    /// Starts it again, and waits until it listens.
    #[track_caller]
    pub fn restart(&mut self, listening: &[&str]) {
        let mut command = program::command(binary());
        command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warn"]);
        // As it is shipped, but for how long: as short as it can be waited for.
        command.args(["--drain-strategy", "immediate", "--drain-time-s", "2"]);
        command.arg("-c").arg(self.dir.join("bootstrap.json"));
        self.program.start(command);
        eventually("envoy to listen", || {
            self.program.must_run();
            let up = listening.iter().all(|at| TcpStream::connect(at).is_ok());
            up.then_some(())
        });
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.program.kill();
    }

    /// What it has said of itself so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.program.said()
    }
}
