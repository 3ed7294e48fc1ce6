//! The real collector with the shipped configuration, as it is.

use crate::program::{self, Program};
use kernel_tests::{collector::binary, eventually_within};
use nix::sys::signal::Signal;
use std::{
    env, fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Where agents reach it.
pub const AGENTS: &str = "192.0.2.53";
/// Where the rest of the stack reaches it.
pub const STACK: &str = "127.0.0.1";
/// Where it looks for the bridge.
pub const BRIDGE: &str = "127.0.0.3:4317";
/// Where it looks for OpenSearch.
pub const OPENSEARCH: &str = "http://127.0.0.1:9200";

/// What it is told besides its configuration. A test holds this against compose.yaml.
pub const FLAGS: [&str; 1] = ["--feature-gates=stanza.synchronousLogEmitter"];

/// How long it may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every entrance and exit that listens.
const LISTENS: [&str; 7] = [
    "192.0.2.53:4317",
    "192.0.2.53:4318",
    "127.0.0.1:4319",
    "127.0.0.1:4320",
    "127.0.0.1:8888",
    "127.0.0.1:8889",
    "127.0.0.1:13133",
];

/// A collector in the test's network namespace. It ends with this.
pub struct Collector {
    program: Program,
    dir: PathBuf,
}

/// Directory of the shipped configuration.
#[must_use]
pub fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../collector-config")
}

/// Its files, as they are given to the collector.
#[must_use]
pub fn files() -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(config())
        .expect("collector-config/ is there")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(
        !files.is_empty(),
        "there are none in {}",
        config().display()
    );
    files
}

impl Collector {
    /// Starts it with what it keeps and says below a directory, and waits until it listens everywhere.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        fs::create_dir_all(dir.join("coredns")).expect("a directory for the query log");
        let mut collector = Self {
            program: Program::new("the collector", dir.join("collector.log")),
            dir: dir.to_owned(),
        };
        collector.restart();
        collector
    }

    /// Starts it again.
    #[track_caller]
    pub fn restart(&mut self) {
        let mut command = program::command(binary());
        for file in files() {
            command.arg("--config").arg(file);
        }
        command.args(FLAGS);
        // Of this machine's environment it gets nothing: what compose.yaml does not set, tests do not either.
        command.env_clear();
        command.env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("CLAWKER_AGENTS_ADDRESS", AGENTS);
        command.env("CLAWKER_STACK_ADDRESS", STACK);
        command.env("CLAWKER_COLLECTOR_PASSWORD", "of no use here");
        command.env("CLAWKER_COLLECTOR_STATE", self.dir.join("offsets"));
        command.env("CLAWKER_PROXIES_ADDRESS", STACK);
        command.env("CLAWKER_COREDNS_LOGS", self.dir.join("coredns"));
        command.env("CLAWKER_CA", "");
        command.env("OPENSEARCH_URL", OPENSEARCH);
        command.env("BRIDGE_URL", format!("http://{BRIDGE}"));
        self.program.start(command);
        eventually_within(PATIENCE, "the collector to listen", || {
            self.program.must_run();
            let up = LISTENS.iter().all(|a| TcpStream::connect(a).is_ok());
            up.then_some(())
        });
    }

    /// File of the query log that it reads.
    #[must_use]
    pub fn queries(&self) -> PathBuf {
        self.dir.join("coredns/current")
    }

    /// What Prometheus would read of the agents, the loader and the bridge.
    #[must_use]
    pub fn series(&self) -> String {
        scrape(&format!("http://{STACK}:8889/metrics"))
    }

    /// What Prometheus would read of the collector itself.
    #[must_use]
    pub fn own_series(&self) -> String {
        scrape(&format!("http://{STACK}:8888/metrics"))
    }

    /// Has it do nothing while something is done.
    pub fn held<T>(&self, what: impl FnOnce() -> T) -> T {
        self.program.signal(Signal::SIGSTOP);
        let done = what();
        self.program.signal(Signal::SIGCONT);
        done
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.program.kill();
    }
}

fn scrape(url: &str) -> String {
    let out = Command::new("curl")
        .args([
            "--silent",
            "--noproxy",
            "*",
            "--fail",
            "--max-time",
            "20",
            url,
        ])
        .output()
        .expect("curl is installed");
    String::from_utf8(out.stdout).expect("series are text")
}
