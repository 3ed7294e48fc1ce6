//! compose.yaml as it is shipped, in an engine of the test's own, on images that are made here.

use crate::images::{self, repository};
use docker_tests::engine::Engine;
use kernel_tests::cached;
use nix::mount::{MsFlags, mount};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long a service may take to become healthy: OpenSearch starts in half a minute when it is alone.
const PATIENCE: Duration = Duration::from_secs(240);
/// Within this a record is to be found in the store, and a change to be in force, on a machine with more to do.
const SOON: Duration = Duration::from_secs(60);
/// Services that do their work and are gone.
const ONCE: [&str; 2] = ["authority", "provision"];
/// What compose.yaml mounts, and what makes the secrets.
const SHIPPED: [&str; 6] = [
    "compose.yaml",
    "collector-config",
    "opensearch/security",
    "prometheus",
    "scripts",
    "stack",
];

/// The shipped files in a directory, as a user has them after `make stack-secrets`.
#[derive(Debug)]
pub struct Installation {
    dir: PathBuf,
}

impl Installation {
    /// Copies them there and makes the secrets.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        let new = Self::copied(dir);
        new.secrets(&[]);
        new
    }

    /// Copies them there, with words that tell their place for secrets.
    #[must_use]
    pub fn with_words(dir: &Path) -> Self {
        let new = Self::copied(dir);
        let text = fs::read_to_string(dir.join("compose.yaml")).expect("it is there");
        // ${NAME:?…}: what has no default.
        let names = text.split("${").filter_map(|rest| rest.split_once(":?"));
        let names = names
            .map(|(name, _)| name)
            .filter(|name| !name.contains('}'));
        let lines: String = names.map(|n| format!("{n}=word-of-{n}\n")).collect();
        fs::write(dir.join(".env"), lines).expect("it can be written");
        new
    }

    fn copied(dir: &Path) -> Self {
        for name in SHIPPED {
            let to = dir.join(name);
            fs::create_dir_all(to.parent().expect("it is below")).expect("a directory");
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(repository().join(name)).arg(&to);
            assert!(copy.status().expect("cp starts").success(), "{name}");
        }
        Self { dir: dir.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Runs scripts/stack-secrets.sh, which must succeed; all that it said.
    #[track_caller]
    pub fn secrets(&self, arguments: &[&str]) -> String {
        let script = self.dir.join("scripts/stack-secrets.sh");
        let out = Command::new(script).args(arguments).output();
        text(&out.expect("bash starts"), "stack-secrets.sh")
    }

    /// The lines of `.env`.
    #[must_use]
    pub fn environment(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.dir.join(".env")).expect("a .env");
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// What compose makes of the file, all profiles included.
    #[must_use]
    pub fn resolved(&self) -> Value {
        let mut compose = Command::new(plugin().join("cli-plugins/docker-compose"));
        compose.args(["--profile", "*", "config", "--format", "json"]);
        compose.current_dir(&self.dir);
        let out = compose.output().expect("compose starts");
        serde_json::from_str(&text(&out, "compose config")).expect("JSON")
    }
}

/// A configuration of the docker client with compose in it.
fn plugin() -> PathBuf {
    cached("compose-2.40.3", "compose.sh")
}

#[track_caller]
fn text(out: &Output, what: &str) -> String {
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{what}: {said}{error}");
    said
}

/// An engine with the images, and the shipped files beside it. All of it goes with this.
pub struct Stack {
    /// The engine. Agents of the test are started in it.
    pub engine: Engine,
    /// The shipped files.
    pub files: Installation,
}

impl Stack {
    /// Lays it out; nothing is started.
    #[must_use]
    pub fn lay_out() -> Self {
        let engine = Engine::start();
        // What the file names on its host: the engine's socket, and a place for pins that ends with the test.
        symlink(engine.socket(), "/run/docker.sock").expect("a place for the socket");
        let (none, flags) = (None::<&str>, MsFlags::empty());
        mount(none, "/sys/fs/bpf", Some("bpf"), flags, none).expect("a bpffs of its own");
        images::load(&engine);
        let files = Installation::new(&engine.dir().join("clawker"));
        Self { engine, files }
    }

    /// `docker compose` in the installation, ready for arguments.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut docker = Command::new("docker");
        docker.arg("--config").arg(plugin());
        docker
            .arg("--host")
            .arg(format!("unix://{}", self.engine.socket().display()));
        docker.arg("compose").args(arguments);
        docker.current_dir(self.files.dir()).stdin(Stdio::null());
        docker.env_remove("DOCKER_CONTEXT");
        docker
    }

    /// Runs `docker compose`, which must succeed; what it said on standard output.
    #[track_caller]
    pub fn compose(&self, arguments: &[&str]) -> String {
        let out = self.command(arguments).output().expect("docker starts");
        if !out.status.success() {
            eprintln!("{}", self.told());
        }
        text(&out, &format!("docker compose {arguments:?}"))
    }

    /// Each container of the project: service, state and health, exit code.
    #[track_caller]
    #[must_use]
    pub fn services(&self) -> BTreeMap<String, String> {
        let told = self.compose(&["--profile", "*", "ps", "--all", "--format", "json"]);
        let lines = told.lines().map(|l| serde_json::from_str(l).expect("JSON"));
        lines
            .map(|one: Value| {
                let word = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
                let state = format!("{} {} {}", word("State"), word("Health"), one["ExitCode"]);
                (word("Service"), state)
            })
            .collect()
    }

    /// Waits until `probe` finds something; panics with what was waited for and what all services say.
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, probe: impl FnMut() -> Option<T>) -> T {
        self.eventually_within(SOON, what, probe)
    }

    #[track_caller]
    fn eventually_within<T>(
        &self,
        patience: Duration,
        what: &str,
        mut probe: impl FnMut() -> Option<T>,
    ) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            // Asked for at the end alone: it takes a while.
            let told = || self.told();
            assert!(begin.elapsed() < patience, "waited for {what}\n{}", told());
            // Each probe starts programs.
            nix::poll::poll(&mut [], 250u16).ok();
        }
    }

    /// Waits until every one of these services is healthy, and those that end by themselves have done so well.
    #[track_caller]
    pub fn healthy(&self, services: &[&str]) {
        self.eventually_within(PATIENCE, &format!("{services:?} to be well"), || {
            let seen = self.services();
            let is_well = |service: &&str| {
                let wanted = if ONCE.contains(service) {
                    "exited  0"
                } else {
                    "running healthy 0"
                };
                seen.get(*service).is_some_and(|state| state == wanted)
            };
            services.iter().all(is_well).then_some(())
        });
    }

    /// A record of an agent with these attributes, once it is in an index.
    #[track_caller]
    pub fn record(&self, index: &str, agent: &str, wanted: &[(&str, Value)]) -> Value {
        let of = serde_json::json!({"term": {"attributes.agent": agent}});
        self.eventually(&format!("{index}, {agent}: {wanted:?}"), || {
            let is = |hit: &Value| {
                let got = &hit["_source"]["attributes"];
                wanted.iter().all(|(key, value)| got[key] == *value)
            };
            self.search(index, &of).into_iter().find(is)
        })
    }

    /// State and last lines of every service: for a test that has failed.
    #[must_use]
    pub fn told(&self) -> String {
        let states = ["--profile", "*", "ps", "--all"];
        let logs = ["--profile", "*", "logs", "--no-color", "--tail", "15"];
        let mut told = String::new();
        for arguments in [&states[..], &logs[..]] {
            let out = self.command(arguments).output().expect("docker starts");
            told += &String::from_utf8_lossy(&out.stdout);
        }
        for (service, state) in self.services() {
            let all = self.inspect(&service);
            let checks = all["State"]["Health"]["Log"].as_array();
            let last = checks.and_then(|all| all.last());
            if let Some(check) = last.filter(|check| check["ExitCode"] != 0) {
                told += &format!("{service} is {state}: {}\n", check["Output"]);
            }
        }
        told
    }

    /// The engine's description of a service's container.
    #[track_caller]
    #[must_use]
    pub fn inspect(&self, service: &str) -> Value {
        let name = format!("/containers/clawker-{service}-1/json");
        self.engine.api("GET", &name, None)
    }

    /// Address of a service on a network.
    #[track_caller]
    #[must_use]
    pub fn address(&self, service: &str, network: &str) -> String {
        let all = self.inspect(service);
        let ip = all["NetworkSettings"]["Networks"][network]["IPAddress"].as_str();
        ip.expect("an address").to_owned()
    }

    /// Asks OpenSearch as one of the stack's users; status and body.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, user: &str, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let password = match user {
            "admin" => "OPENSEARCH_INITIAL_ADMIN_PASSWORD",
            "clawker-collector" => "CLAWKER_COLLECTOR_PASSWORD",
            "clawker-viewer" => "CLAWKER_VIEWER_PASSWORD",
            "clawker-dashboards" => "CLAWKER_DASHBOARDS_PASSWORD",
            other => panic!("{other} is no user of the stack"),
        };
        let password = &self.files.environment()[password];
        let place = self.address("opensearch", "clawker-stack");
        let mut curl = Command::new("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--config",
            "-",
        ]);
        curl.args(["--write-out", "\n%{http_code}", "--request", method]);
        curl.args(["--header", "Content-Type: application/json"]);
        curl.arg("--cacert")
            .arg(self.files.dir().join("secrets/ca.pem"));
        curl.args(["--resolve", &format!("opensearch:9200:{place}")]);
        if let Some(body) = body {
            curl.args(["--data-binary", &body.to_string()]);
        }
        curl.arg(format!("https://opensearch:9200{path}"));
        curl.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = curl.spawn().expect("curl is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        writeln!(stdin, "user = \"{user}:{password}\"").expect("it reads all");
        drop(stdin);
        let out = child.wait_with_output().expect("it is our child");
        let said = text(&out, &format!("{method} {path}"));
        let (body, status) = said.rsplit_once('\n').expect("--write-out");
        let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
        (status.parse().expect("a status"), body)
    }

    /// Documents of an index that a query finds, at most a thousand; none while there is no index.
    #[track_caller]
    #[must_use]
    pub fn search(&self, index: &str, query: &Value) -> Vec<Value> {
        let _ = self.ask("admin", "POST", &format!("/{index}/_refresh"), None);
        let wanted = serde_json::json!({"size": 1000, "query": query});
        let path = format!("/{index}/_search?ignore_unavailable=true");
        let (status, body) = self.ask("clawker-viewer", "POST", &path, Some(&wanted));
        assert_eq!(status, 200, "{body}");
        let hits = body["hits"]["hits"].as_array().cloned();
        hits.unwrap_or_default()
    }
}
