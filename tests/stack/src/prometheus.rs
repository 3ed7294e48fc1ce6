//! A real Prometheus with the shipped configuration and series of the test's choice. It listens in the test's own
//! network namespace (`kernel_tests::net::isolate`), and ends with the test however the test ends.

use crate::{
    demo::{Series, openmetrics},
    opensearch::Asker,
    program::{self, Program},
};
use kernel_tests::{cached, eventually_within};
use nix::mount::{MsFlags, mount};
use serde_json::Value;
use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// Where it listens.
pub const ADDRESS: &str = "127.0.0.1:9090";
/// How long it may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus.
pub struct Prometheus {
    program: Program,
    _dir: TempDir,
    asker: Asker,
}

/// A program that scripts/prometheus.sh fetched.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    cached(&format!("bin/{name}"), "prometheus.sh")
}

/// The shipped configuration.
#[must_use]
pub fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../prometheus/prometheus.yml")
}

/// Runs promtool, which must succeed; what it says.
#[track_caller]
pub fn promtool(args: &[&str]) -> String {
    let out = Command::new(binary("promtool"))
        .args(args)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "promtool {args:?}: {said}");
    said
}

impl Prometheus {
    /// Starts one that has had these series all the time.
    #[must_use]
    pub fn with(series: &[Series]) -> Self {
        let dir = kernel_tests::temporary();
        let (text, data) = (dir.path().join("series"), dir.path().join("data"));
        fs::write(&text, openmetrics(series)).expect("a file is written");
        let text = text.to_str().expect("a plain path");
        promtool(&[
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            text,
            data.to_str().expect("a plain path"),
        ]);
        Self::start(dir)
    }

    /// Starts one that reads what a collector shows which listens at this address. Who is called `collector` is written
    /// down for this mount namespace.
    #[must_use]
    pub fn reading(collector: &str) -> Self {
        let dir = kernel_tests::temporary();
        let hosts = dir.path().join("hosts");
        fs::write(&hosts, format!("{collector} collector\n")).expect("a file is written");
        let none: Option<&str> = None;
        mount(Some(&hosts), "/etc/hosts", none, MsFlags::MS_BIND, none).expect("a bind mount");
        Self::start(dir)
    }

    fn start(dir: TempDir) -> Self {
        let mut command = program::command(binary("prometheus"));
        command.arg(format!("--config.file={}", config().display()));
        command.arg(format!(
            "--storage.tsdb.path={}",
            dir.path().join("data").display()
        ));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let mut program = Program::new("Prometheus", dir.path().join("log"));
        program.start(command);
        let asker = Asker::new(format!("http://{ADDRESS}"));
        let mut started = Self {
            program,
            _dir: dir,
            asker,
        };
        eventually_within(PATIENCE, "Prometheus to be ready", || {
            started.program.must_run();
            let answer = started.asker.try_ask("GET", "/-/ready", None);
            answer.is_ok_and(|a| a.status == 200).then_some(())
        });
        started
    }

    /// What a panel of Dashboards that asks for metrics shows at this moment: labels and value of each series.
    #[track_caller]
    #[must_use]
    pub fn panel(&self, id: &str) -> Vec<(Value, f64)> {
        let mut all = dashboards::explore().iter();
        let object = all
            .find(|o| o.id() == id)
            .unwrap_or_else(|| panic!("no panel {id}"));
        let source = object.text("searchSourceJSON").expect("a search source");
        let query = source["query"]["query"].as_str().expect("a query");
        let answer = self.ask("/api/v1/query", &format!("query={}", encoded(query)));
        let series = answer["data"]["result"].as_array().expect("series");
        let value = |s: &Value| {
            s["value"][1]
                .as_str()
                .and_then(|v| v.parse().ok())
                .expect("a number")
        };
        series
            .iter()
            .map(|s| (s["metric"].clone(), value(s)))
            .collect()
    }

    /// Asks for a range, as Dashboards does: the series of the answer.
    #[track_caller]
    #[must_use]
    pub fn range(&self, query: &str, from: i64, to: i64, step: i64) -> Vec<Value> {
        let body = format!("query={}&start={from}&end={to}&step={step}", encoded(query));
        let answer = self.ask("/api/v1/query_range", &body);
        assert_eq!(answer["data"]["resultType"], "matrix", "{query}");
        answer["data"]["result"].as_array().expect("series").clone()
    }

    /// Asks by a form.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, path: &str, form: &str) -> Value {
        let kind = "application/x-www-form-urlencoded";
        let answer = self
            .asker
            .send("POST", path, kind, form)
            .expect("an answer");
        assert_eq!(answer.status, 200, "{form}: {}", answer.body);
        answer.body
    }

    /// Asks for a page.
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        self.asker.ok("GET", path, None)
    }
}

/// As a form wants it.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut so_far, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => so_far.push(char::from(byte)),
            _ => {
                let _ = write!(so_far, "%{byte:02X}");
            }
        }
        so_far
    })
}
