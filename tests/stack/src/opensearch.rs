//! A real OpenSearch node, started for one test: its own data, its own port in the test's own network
//! namespace (`kernel_tests::net::isolate`), ended with the test however the test ends.
//!
//! It refuses to run as root and must read its home, which lies in root's cache: so it runs in a user
//! namespace where the test's own user has another number.

mod ask;
mod secured;

pub use ask::{Answer, Asker};
pub use secured::{ADMIN, ADMIN_PASSWORD};

use kernel_tests::{cached, eventually_within};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use provision::{bodies, streams::Stream};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// How long a node may take to start or to stop. Alone on two cores it takes 10 s; six at once take a minute.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// Where it listens unless a test says otherwise.
pub const ADDRESS: &str = "127.0.0.1:9200";

/// Whether it looks how full its disk is.
const DISK: &str = "cluster.routing.allocation.disk.threshold_enabled";

/// Which node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// 3.8.0, the version that compose.yaml names, without plugins.
    Current,
    /// 3.4.0 with the plugins security and job-scheduler.
    Secured,
}

impl Version {
    fn number(self) -> &'static str {
        match self {
            Self::Current => "3.8.0",
            Self::Secured => "3.4.0",
        }
    }
}

/// A node. It ends with this.
pub struct OpenSearch {
    child: Option<Child>,
    dir: TempDir,
    version: Version,
    asker: Asker,
    /// What Java is told about memory and compiling.
    tuning: Vec<String>,
}

impl OpenSearch {
    /// Starts 3.8.0 at [`ADDRESS`], and waits until it answers.
    #[must_use]
    pub fn start() -> Self {
        let mut node = Self::prepare(Version::Current, ADDRESS);
        node.restart();
        node
    }

    /// Starts 3.4.0 at [`ADDRESS`] with TLS and users: [`ADMIN`] with [`ADMIN_PASSWORD`] may everything.
    #[must_use]
    pub fn secured() -> Self {
        let mut node = Self::prepare(Version::Secured, ADDRESS);
        node.restart();
        node
    }

    /// Lays one out without starting it. The address is `IP:PORT`; PORT + 100 is taken as well.
    #[must_use]
    pub fn prepare(version: Version, address: &str) -> Self {
        let dir = kernel_tests::temporary();
        for name in ["config", "data", "logs", "tmp"] {
            fs::create_dir(dir.path().join(name)).expect("a directory");
        }
        let mut settings = settings(dir.path(), address);
        let asker = match version {
            Version::Current => Asker::new(format!("http://{address}")),
            Version::Secured => {
                settings += secured::SETTINGS;
                let ca = secured::configure(&dir.path().join("config"), &home(version));
                Asker::new(format!("https://{address}")).with_ca(ca)
            }
        };
        let write = |name: &str, text: &str| {
            fs::write(dir.path().join("config").join(name), text).expect("a file is written");
        };
        write("opensearch.yml", &settings);
        write("log4j2.properties", LOG);
        Self {
            child: None,
            dir,
            version,
            asker,
            // Little of either: a test is over before more has paid.
            tuning: [
                "-Xms512m",
                "-Xmx512m",
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ]
            .map(str::to_owned)
            .into(),
        }
    }

    /// Gives its data a disk of this many bytes, which it watches as it does out of the box. The mount is this mount
    /// namespace's.
    pub fn small_disk(&self, bytes: u64) {
        let (file, data) = (self.dir.path().join("config/opensearch.yml"), self.data());
        let text = fs::read_to_string(&file).expect("it was written");
        // Every ten seconds is as often as it looks.
        let watched = format!("{DISK}: true\ncluster.info.update.interval: 10s");
        let text = text.replace(&format!("{DISK}: false"), &watched);
        fs::write(&file, text).expect("a file is written");
        let size = format!("size={bytes},mode=0700");
        mount(
            Some("data"),
            &data,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size.as_str()),
        )
        .expect("a tmpfs");
    }

    /// From its next start on it has so much memory, as `-Xmx` says it, and compiles as well as it can.
    pub fn full_size(&mut self, heap: &str) {
        self.tuning = vec![format!("-Xms{heap}"), format!("-Xmx{heap}")];
    }

    /// Makes the data streams as the provisioner makes them.
    #[track_caller]
    pub fn contracts(&self, streams: &[Stream]) {
        let put = |path: String, body: &Value| self.asker().ok("PUT", &path, Some(body));
        let pipeline = format!("/_ingest/pipeline/{}", bodies::PIPELINE);
        put(pipeline, &bodies::pipeline());
        for (name, body) in bodies::components() {
            put(format!("/_component_template/{name}"), &body);
        }
        for stream in streams.iter().filter(|s| s.made) {
            put(
                format!("/_index_template/{}", stream.name),
                &bodies::template(stream),
            );
            let path = format!("/_data_stream/{}", stream.name);
            self.asker().ok("PUT", &path, None);
        }
    }

    /// Where its data are.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Who asks it: as its administrator where it knows users.
    #[must_use]
    pub fn asker(&self) -> Asker {
        match self.version {
            Version::Current => self.asker.clone(),
            Version::Secured => self.asker.as_user(ADMIN, ADMIN_PASSWORD),
        }
    }

    /// Its address as a client is told of it.
    #[must_use]
    pub fn url(&self) -> &str {
        self.asker.url()
    }

    /// The authority that its certificate is from; only where it has one.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.asker.ca()
    }

    /// Where it keeps its data and log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the program without waiting for it.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::create(self.log()).expect("a file for its output");
        let mut command = command(self.version, self.dir.path(), &self.tuning);
        let both = log.try_clone().expect("a second descriptor");
        command.stdin(Stdio::null()).stdout(log).stderr(both);
        self.child = Some(command.spawn().expect("unshare is there"));
    }

    /// Waits until it answers as it should.
    #[track_caller]
    pub fn answers(&mut self) {
        let (asker, log) = (self.asker(), self.log());
        let child = self.child.as_mut().expect("it has been launched");
        eventually_within(PATIENCE, "OpenSearch to answer", || {
            if let Some(status) = child.try_wait().expect("it is our child") {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let from = said.len().saturating_sub(3000);
                panic!(
                    "OpenSearch has ended with {status}: {}",
                    &said[said.ceil_char_boundary(from)..]
                );
            }
            let up = asker.try_ask(
                "GET",
                "/_cluster/health?wait_for_status=yellow&timeout=1s",
                None,
            );
            up.is_ok_and(|a| a.status == 200).then_some(())
        });
    }

    /// Starts it again with the data it has, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        self.launch();
        self.answers();
    }

    /// Ends it as an operator does, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let pid = Pid::from_raw(child.id().try_into().expect("a process id"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        eventually_within(PATIENCE, "OpenSearch to end", || {
            child.try_wait().expect("it is our child")
        });
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be dead already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Makes what has been written visible to searches, and counts it.
    #[track_caller]
    pub fn count(&self, index: &str) -> u64 {
        self.asker().ok("POST", &format!("/{index}/_refresh"), None);
        let answer = self.asker().ok("GET", &format!("/{index}/_count"), None);
        answer["count"].as_u64().expect("a number")
    }

    /// Every document of an index, at most 10 000, as hits.
    #[track_caller]
    pub fn documents(&self, index: &str) -> Vec<Value> {
        self.asker().ok("POST", &format!("/{index}/_refresh"), None);
        let all = json!({"size": 10_000, "sort": ["_doc"]});
        let answer = self
            .asker()
            .ok("POST", &format!("/{index}/_search"), Some(&all));
        answer["hits"]["hits"].as_array().expect("hits").clone()
    }

    /// File of what it says.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.path().join("logs/console.log")
    }
}

impl Drop for OpenSearch {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lays out what is used here.
const SCRIPT: &str = "opensearch.sh";

/// What scripts/opensearch.sh laid out for a version; read only.
#[must_use]
pub fn home(version: Version) -> PathBuf {
    cached(&format!("opensearch-{}", version.number()), SCRIPT)
}

/// The Java that runs it, as scripts/opensearch.sh found it.
#[must_use]
pub fn java() -> PathBuf {
    cached("jdk", SCRIPT).join("bin/java")
}

/// Everything on the console; a file of its own would be rotated.
const LOG: &str = "status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
";

fn settings(dir: &Path, address: &str) -> String {
    let (host, port) = address.rsplit_once(':').expect("IP:PORT");
    let port: u16 = port.parse().expect("a port");
    let dir = dir.display();
    let mut text = String::new();
    for (key, value) in [
        ("cluster.name", "clawker-test"),
        ("node.name", "test"),
        ("discovery.type", "single-node"),
        ("network.host", host),
        // A test is not to fail because the machine's disk is nearly full.
        (DISK, "false"),
    ] {
        let _ = writeln!(text, "{key}: {value}");
    }
    let _ = writeln!(text, "http.port: {port}\ntransport.port: {}", port + 100);
    let _ = writeln!(text, "path.data: {dir}/data\npath.logs: {dir}/logs");
    text
}

/// How it is started: what its own start script would do.
fn command(version: Version, dir: &Path, tuning: &[String]) -> Command {
    let home = home(version);
    let agent = home.join(format!("agent/opensearch-agent-{}.jar", version.number()));
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=65534", "--map-group=65534", "--"]);
    // So that it does not outlive a test that is killed. Behind `unshare`, which would undo it.
    command.args(["setpriv", "--pdeathsig", "KILL"]).arg(java());
    command.args(tuning).args([
        "-Djna.nosys=true",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dlog4j2.disable.jmx=true",
        "-Djava.locale.providers=SPI,CLDR",
        "-Dopensearch.distribution.type=tar",
        "-Dopensearch.bundled_jdk=false",
        "--enable-native-access=ALL-UNNAMED",
    ]);
    let (tmp, config) = (dir.join("tmp"), dir.join("config"));
    command.arg(format!("-javaagent:{}", agent.display()));
    command.arg(format!("-Djava.io.tmpdir={}", tmp.display()));
    command.arg(format!("-Djna.tmpdir={}", tmp.display()));
    command.arg(format!("-Dopensearch.path.home={}", home.display()));
    command.arg(format!("-Dopensearch.path.conf={}", config.display()));
    command.arg("-cp").arg(format!("{}/lib/*", home.display()));
    command.arg("org.opensearch.bootstrap.OpenSearch");
    command
        .current_dir(dir)
        .env("HOME", &tmp)
        .env("OPENSEARCH_TMPDIR", &tmp);
    // The machine's own settings for Java are not the test's.
    command
        .env_remove("JAVA_TOOL_OPTIONS")
        .env_remove("JDK_JAVA_OPTIONS");
    command
}
