//! Receivers: a real OpenTelemetry Collector, and one that answers as a test wants.

use crate::support::eventually;
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value,
};
use prost::Message as _;
use std::{
    env, fs,
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

/// What scripts/collector.sh built.
fn binary() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Path::new(&env::var_os("HOME").expect("HOME is set")).join(".cache");
    let path = cache.unwrap_or_else(home).join("clawker/bin/otelcol");
    assert!(
        path.exists(),
        "{} is not there: run scripts/collector.sh",
        path.display()
    );
    path
}

/// A real collector. It can be killed and started again; what it has written stays.
pub(crate) struct Collector {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Option<Child>,
    starts: u32,
}

impl Collector {
    /// An address for one, and nothing else.
    pub(crate) fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            dir: tempfile::tempdir().unwrap(),
            address: free.local_addr().unwrap(),
            child: None,
            starts: 0,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/logs", self.address)
    }

    fn out(&self, start: u32) -> PathBuf {
        self.dir.path().join(format!("received-{start}.jsonl"))
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&mut self) {
        self.starts += 1;
        let config = format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '{}' }} }} }} }}\n\
             exporters: {{ file: {{ path: '{}', flush_interval: 10ms }} }}\n\
             service:\n\
             \x20 telemetry: {{ metrics: {{ level: none }}, logs: {{ level: warn }} }}\n\
             \x20 pipelines: {{ logs: {{ receivers: [otlp], exporters: [file] }} }}\n",
            self.address,
            self.out(self.starts).display(),
        );
        let file = self.dir.path().join("collector.yaml");
        fs::write(&file, config).unwrap();
        // So that it does not outlive a test that is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(binary())
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        eventually("the collector to listen", || {
            TcpStream::connect(self.address).ok()
        });
    }

    /// Ends it without a warning.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ids of all records that it has written, in order, repetitions included.
    pub(crate) fn ids(&self) -> Vec<String> {
        const BEFORE: &str = r#"{"key":"flow_id","value":{"stringValue":""#;
        let starts = 1..=self.starts;
        let text: String = starts
            .filter_map(|n| fs::read_to_string(self.out(n)).ok())
            .collect();
        let ids = text
            .split(BEFORE)
            .skip(1)
            .filter_map(|rest| rest.split_once('"'));
        ids.map(|(id, _)| id.to_owned()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) streams: Vec<String>,
    pub(crate) ids: Vec<String>,
}

/// Answers requests.
type Answer = Arc<dyn Fn(&Request) -> (StatusCode, String) + Send + Sync>;

/// A receiver inside the test. It ends with the runtime.
pub(crate) struct Stub {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Stub {
    pub(crate) async fn start(
        answer: impl Fn(&Request) -> (StatusCode, String) + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let state: (Answer, _) = (Arc::new(answer), Arc::clone(&seen));
        let router = Router::new()
            .route("/v1/logs", post(take))
            .with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

async fn take(
    State((answer, seen)): State<(Answer, Arc<Mutex<Vec<Request>>>)>,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    let mut plain = Vec::new();
    GzDecoder::new(body.as_ref())
        .read_to_end(&mut plain)
        .expect("it is gzip");
    let request = read(&ExportLogsServiceRequest::decode(plain.as_slice()).expect("it is OTLP"));
    seen.lock().unwrap().push(request.clone());
    match answer(&request) {
        (StatusCode::OK, _) => (StatusCode::OK, Vec::new()),
        (code, text) => (code, text.into_bytes()),
    }
}

fn read(request: &ExportLogsServiceRequest) -> Request {
    let text = |all: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str| {
        let found = all.iter().find(|a| a.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            any_value::Value::StringValue(s) => Some(s.clone()),
            _ => None,
        }
    };
    let of = &request.resource_logs;
    let resources = of.iter().map(|r| r.resource.as_ref().unwrap());
    let mut streams: Vec<_> = resources
        .filter_map(|r| text(&r.attributes, "service.name"))
        .collect();
    streams.dedup();
    let scopes = of.iter().flat_map(|r| &r.scope_logs);
    let records = scopes.flat_map(|s| &s.log_records);
    let id = |attributes: &[_]| text(attributes, "flow_id").unwrap_or_default();
    Request {
        streams,
        ids: records.map(|r| id(&r.attributes)).collect(),
    }
}
