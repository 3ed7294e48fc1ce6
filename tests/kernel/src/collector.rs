//! A real OpenTelemetry Collector, and what it has received.

use crate::{eventually, run::Bench};
use serde_json::{Map, Value};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Where it takes OTLP over gRPC.
pub const GRPC: &str = "192.0.2.1:4317";
/// Where it takes OTLP over HTTP.
pub const HTTP: &str = "192.0.2.1:4318";

/// A collector in the test's namespace. It ends with the test.
pub struct Collector {
    child: Child,
    out: PathBuf,
    /// Where it takes OTLP over gRPC on a unix socket.
    pub socket: PathBuf,
}

/// A record as the collector took it.
#[derive(Debug)]
pub struct Received {
    /// Attributes of its resource.
    pub resource: Map<String, Value>,
    /// Its own attributes, of the types they came with.
    pub attributes: Map<String, Value>,
    /// Everything else about it.
    pub record: Value,
}

/// A point of a metric as the collector took it.
#[derive(Debug)]
pub struct Point {
    /// Attributes of its resource.
    pub resource: Map<String, Value>,
    /// Name of the metric.
    pub name: String,
    /// The metric, with all its points.
    pub metric: Value,
    /// Labels of the point.
    pub labels: Map<String, Value>,
    /// Its value.
    pub value: i64,
    /// Everything else about it.
    pub point: Value,
}

/// What scripts/collector.sh built.
#[must_use]
pub fn binary() -> PathBuf {
    crate::cached("bin/otelcol", "collector.sh")
}

impl Collector {
    /// Starts it and waits until it listens.
    #[must_use]
    pub fn start(bench: &Bench) -> Self {
        Self::start_at(bench, &bench.path("otlp.sock"))
    }

    /// The same, with a unix socket of the test's choice.
    #[must_use]
    pub fn start_at(bench: &Bench, socket: &Path) -> Self {
        let out = bench.path("received.jsonl");
        let file = format!(
            "file: {{ path: '{}', flush_interval: 10ms }}",
            out.display()
        );
        Self::with(bench, socket, &file, "file")
    }

    /// Starts one that hands on what it gets before it answers, as the shipped one does: to a receiver of
    /// OTLP/HTTP in JSON at this URL.
    #[must_use]
    pub fn handing_on(bench: &Bench, url: &str) -> Self {
        let on = format!(
            "otlp_http: {{ endpoint: '{url}', encoding: json, compression: none, \
             sending_queue: {{ enabled: false }}, retry_on_failure: {{ enabled: false }} }}"
        );
        Self::with(bench, &bench.path("otlp.sock"), &on, "otlp_http")
    }

    fn with(bench: &Bench, socket: &Path, exporter: &str, name: &str) -> Self {
        let (out, socket) = (bench.path("received.jsonl"), socket.to_owned());
        // One that was killed has left it.
        let _ = fs::remove_file(&socket);
        let config = format!(
            "receivers:\n\
             \x20 otlp: {{ protocols: {{ grpc: {{ endpoint: '{GRPC}' }}, http: {{ endpoint: '{HTTP}' }} }} }}\n\
             \x20 otlp/unix: {{ protocols: {{ grpc: {{ endpoint: '{}', transport: unix }} }} }}\n\
             exporters: {{ {exporter} }}\n\
             service:\n\
             \x20 telemetry: {{ metrics: {{ level: none }}, logs: {{ level: warn }} }}\n\
             \x20 pipelines:\n\
             \x20   logs: {{ receivers: [otlp, otlp/unix], exporters: [{name}] }}\n\
             \x20   metrics: {{ receivers: [otlp, otlp/unix], exporters: [{name}] }}\n",
            socket.display(),
        );
        let file = bench.path("collector.yaml");
        fs::write(&file, config).expect("the configuration is written");
        // So that it does not outlive a test that is killed.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binary())
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .expect("the collector starts");
        eventually("the collector to listen", || {
            let ended = child.try_wait().expect("it is our child");
            assert_eq!(ended, None, "the collector has ended");
            let up = [GRPC, HTTP].iter().all(|a| TcpStream::connect(a).is_ok());
            (up && socket.exists()).then_some(())
        });
        Self { child, out, socket }
    }

    /// Every request that has been written so far.
    fn requests(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        // The last line may be half there.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let requests = whole.lines().map(|line| {
            serde_json::from_str::<Value>(line)
                .expect("the collector writes one JSON object a line")
        });
        requests.collect()
    }

    /// Every record of a stream that has been written so far.
    #[must_use]
    pub fn stream(&self, name: &str) -> Vec<Received> {
        let all = self.requests();
        let all = all.iter().flat_map(records_of);
        all.filter(|r| r.resource["service.name"] == name).collect()
    }

    /// Every flow's record that has been written so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.stream("clawker-egress")
    }

    /// Every point of every metric that has been written so far.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        self.requests().iter().flat_map(points).collect()
    }

    /// Waits for this many flows' records.
    #[track_caller]
    pub fn wait_for(&self, n: usize) -> Vec<Received> {
        eventually(&format!("{n} records at the collector"), || {
            let got = self.received();
            assert!(got.len() <= n, "{} records instead of {n}", got.len());
            (got.len() == n).then_some(got)
        })
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Elements of a list; none if there is no list.
fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

/// The records of a request in OTLP's JSON.
#[must_use]
pub fn records_of(request: &Value) -> Vec<Received> {
    let mut all = Vec::new();
    for from in list(request, "resourceLogs") {
        for scope in list(from, "scopeLogs") {
            for record in list(scope, "logRecords") {
                all.push(Received {
                    resource: attributes(&from["resource"]),
                    attributes: attributes(record),
                    record: record.clone(),
                });
            }
        }
    }
    all
}

fn points(request: &Value) -> Vec<Point> {
    let mut all = Vec::new();
    for from in list(request, "resourceMetrics") {
        for scope in list(from, "scopeMetrics") {
            for metric in list(scope, "metrics") {
                for kind in ["sum", "gauge"] {
                    let of = |point: &Value| Point {
                        resource: attributes(&from["resource"]),
                        name: metric["name"].as_str().expect("a metric has a name").into(),
                        metric: metric.clone(),
                        labels: attributes(point),
                        value: number(&point["asInt"]),
                        point: point.clone(),
                    };
                    all.extend(list(&metric[kind], "dataPoints").iter().map(of));
                }
            }
        }
    }
    all
}

/// A number of OTLP's JSON, which is a text there.
fn number(text: &Value) -> i64 {
    let text = text.as_str().expect("numbers are texts in OTLP's JSON");
    text.parse().expect("a number")
}

/// Attributes as plain JSON.
#[track_caller]
fn attributes(of: &Value) -> Map<String, Value> {
    let mut map = Map::new();
    for a in list(of, "attributes") {
        let key = a["key"].as_str().expect("a key is a text").to_owned();
        let old = map.insert(key, plain(&a["value"]));
        assert_eq!(old, None, "a key is there twice: {of}");
    }
    map
}

/// A value of OTLP as plain JSON: numbers are texts there.
fn plain(value: &Value) -> Value {
    let (kind, inner) = value
        .as_object()
        .and_then(|v| v.iter().next())
        .unwrap_or_else(|| panic!("a value without a type: {value}"));
    match kind.as_str() {
        "stringValue" | "boolValue" => inner.clone(),
        "intValue" => number(inner).into(),
        "arrayValue" => list(inner, "values").iter().map(plain).collect(),
        other => panic!("nothing of ours is {other}: {value}"),
    }
}
