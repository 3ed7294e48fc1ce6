//! The way of a record from its sender to the store: collector, bridge, collector, OpenSearch.

use crate::{
    bridge::{Bridge, Holder},
    collector::Collector,
    opensearch::OpenSearch,
};
use kernel_tests::{eventually_within, net};
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};
use tempfile::TempDir;

/// An agent.
pub const ANN: Holder = Holder {
    agent: "ann",
    project: "acme",
    ip: "192.0.2.1",
};
/// Another one.
pub const BOB: Holder = Holder {
    agent: "bob",
    project: "shop",
    ip: "192.0.2.2",
};
/// One that has an address of IPv6.
pub const CAT: Holder = Holder {
    agent: "cat",
    project: "acme",
    ip: "2001:db8::1",
};

/// How long a record may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Everything between a sender and the store.
pub struct Chain {
    /// The store.
    pub store: OpenSearch,
    /// The collector, which a record passes twice.
    pub collector: Collector,
    /// The bridge.
    pub bridge: Bridge,
    /// What the two keep and say.
    pub dir: TempDir,
}

impl Chain {
    /// Starts all of it in a network namespace of the test's own.
    #[must_use]
    pub fn start() -> Self {
        let mut chain = Self::without_store();
        chain.start_store();
        chain
    }

    /// The same, with a disk of this many bytes for the store's data.
    #[must_use]
    pub fn with_disk(bytes: u64) -> Self {
        let mut chain = Self::without_store();
        chain.store.small_disk(bytes);
        chain.start_store();
        chain
    }

    /// The same, with a store that is not there yet.
    #[must_use]
    pub fn without_store() -> Self {
        net::isolate();
        let dir = kernel_tests::temporary();
        let store = OpenSearch::prepare(
            crate::opensearch::Version::Current,
            crate::opensearch::ADDRESS,
        );
        let collector = Collector::start(dir.path());
        let bridge = Bridge::start(dir.path(), &[ANN, BOB, CAT]);
        Self {
            store,
            collector,
            bridge,
            dir,
        }
    }

    /// Starts the store, with templates before the first record.
    pub fn start_store(&mut self) {
        let store = &mut self.store;
        // In compose.yaml the collector waits for the templates; a record before them would make an index without.
        self.collector.held(|| {
            store.restart();
            prepare(store);
        });
    }

    /// Waits for so many documents in a data stream; more are a failure.
    #[track_caller]
    pub fn documents(&self, stream: &str, n: usize) -> Vec<Value> {
        eventually_within(PATIENCE, &format!("{n} documents in {stream}"), || {
            // There is nothing to ask before the first one.
            let there = self.store.asker().ask("GET", &format!("/{stream}"), None);
            let all = match there.status {
                200 => self.store.documents(stream),
                _ => Vec::new(),
            };
            assert!(
                all.len() <= n,
                "{} documents instead of {n} in {stream}",
                all.len()
            );
            (all.len() == n).then_some(all)
        })
    }

    /// Every place where something could be left, by name: documents, files, what the programs say and show.
    #[must_use]
    pub fn everything(&self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        walk(self.dir.path(), &mut all);
        let said = fs::read(self.store.log()).unwrap_or_default();
        all.push(("log of OpenSearch".to_owned(), said));
        let answer = self
            .store
            .asker()
            .ok("GET", "/clawker-*/_search?size=10000", None);
        all.push(("documents".to_owned(), answer.to_string().into_bytes()));
        all.push(("series".to_owned(), self.collector.series().into_bytes()));
        let own = self.collector.own_series();
        all.push(("series of the collector".to_owned(), own.into_bytes()));
        let status = self.bridge.status().to_string();
        all.push(("status of the bridge".to_owned(), status.into_bytes()));
        all
    }
}

fn walk(dir: &Path, all: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            walk(&path, all);
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("it can be read");
            all.push((path.display().to_string(), bytes));
        }
    }
}

/// Attributes of a document.
#[must_use]
pub fn of(document: &Value) -> &Value {
    &document["_source"]["attributes"]
}

/// Whether bytes are somewhere in others.
#[must_use]
pub fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// Models the templates of `opensearch/` as far as delivery is concerned: data streams, a document of a known
/// id refused, a value of a wrong type refused.
fn prepare(store: &OpenSearch) {
    let asker = store.asker();
    let script = "def a = ctx.attributes; if (a != null) { def id = a.flow_id != null ? a.flow_id : a.record_id; if (id != null) { ctx._id = id; } }";
    let pipeline = json!({"processors": [{"script": {"source": script}}]});
    asker.ok("PUT", "/_ingest/pipeline/ids", Some(&pipeline));
    let template = json!({
        "index_patterns": ["clawker-*"],
        "data_stream": {},
        "template": {
            "settings": {"index.final_pipeline": "ids", "index.number_of_replicas": 0},
            "mappings": {"properties": {"@timestamp": {"type": "date"}, "attributes": {"properties": {
                "dst_ip": {"type": "ip"}}}}},
        },
    });
    asker.ok("PUT", "/_index_template/clawker", Some(&template));
}
