//! A bridge without disk and without delivery, and what is needed to talk to it.

use lease::{BootTime, Hold, Lease, Leases, Publisher, Reading, WallTime};
use nix::time::{ClockId, clock_gettime};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs},
};
use otlp_bridge::{
    incoming::{BatchId, Held, Incoming, Keeper},
    intake::{Bounds, Intake, Settings, boot_id, open},
    stamp::Limits,
};
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use wire::{Batch, Client, Endpoint, LogRecord as Record, Options, Payload, Source};

/// Nothing takes longer on a healthy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
#[error("the disk is full")]
pub(crate) struct Full;

/// Models a spool that never loses anything: all records of a request or none, a batch once, and yes only
/// when it is told to say so.
#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    batches: HashSet<String>,
    records: Vec<Incoming>,
    full: bool,
    slow: bool,
    waiting: usize,
}

impl Memory {
    pub(crate) fn records(&self) -> Vec<Incoming> {
        self.state.lock().unwrap().records.clone()
    }

    /// From now on it refuses, or does not.
    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().unwrap().full = full;
    }

    /// From now on it does not answer, or answers.
    pub(crate) fn set_slow(&self, slow: bool) {
        self.state.lock().unwrap().slow = slow;
        self.changed.notify_all();
    }

    /// Requests that wait for an answer.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting
    }
}

impl Keeper for Memory {
    type Error = Full;

    fn keep(&self, batch: Option<&BatchId>, records: &[Incoming]) -> Result<(), Full> {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        state = self.changed.wait_while(state, |state| state.slow).unwrap();
        state.waiting -= 1;
        if state.full {
            return Err(Full);
        }
        if batch.is_none_or(|batch| state.batches.insert(batch.to_string())) {
            state.records.extend_from_slice(records);
        }
        Ok(())
    }

    fn held(&self, boot: &str) -> Result<Vec<Held>, Full> {
        let state = self.state.lock().unwrap();
        if state.full {
            return Err(Full);
        }
        let mut sums: BTreeMap<(u32, String), u64> = BTreeMap::new();
        let flows = state.records.iter().filter_map(|r| r.flows.as_ref());
        for one in flows.filter(|one| one.boot == boot) {
            *sums.entry((one.slot, one.verdict.clone())).or_default() += one.count;
        }
        let held = |((slot, verdict), flows)| Held {
            slot,
            verdict,
            flows,
        };
        Ok(sums.into_iter().map(held).collect())
    }
}

/// A bridge with open entrances.
pub(crate) struct House {
    pub(crate) dir: TempDir,
    pub(crate) keeper: Arc<Memory>,
    pub(crate) intake: Intake,
    pub(crate) socket: PathBuf,
    pub(crate) address: SocketAddr,
}

/// What is asked of a bridge unless a test asks for something else.
pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        socket: dir.join("bridge.sock"),
        group: None,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        leases: dir.join("leases.json"),
        boot: boot_id().unwrap(),
        metrics: None,
        limits: Limits::default(),
        bounds: Bounds::default(),
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(dir.path());
        change(&mut settings);
        Self::of(dir, settings).await
    }

    pub(crate) async fn of(dir: TempDir, settings: Settings) -> Self {
        let keeper = Arc::<Memory>::default();
        let socket = settings.socket.clone();
        let status = || serde_json::Map::from_iter([("spool".to_owned(), "empty".into())]);
        let intake = open(settings, Arc::clone(&keeper), Arc::new(status))
            .await
            .unwrap();
        Self {
            address: intake.addresses()[0],
            dir,
            keeper,
            intake,
            socket,
        }
    }

    pub(crate) fn loader(&self) -> Endpoint {
        endpoint(&format!("unix://{}", self.socket.display()))
    }

    /// A client of an entrance of the collector, by the path of its URL: none for gRPC.
    pub(crate) fn client(&self, path: &str) -> Client {
        Client::new(&endpoint(&format!("http://{}{path}", self.address)))
    }
}

pub(crate) fn endpoint(url: &str) -> Endpoint {
    let options = Options {
        connect_timeout: LONG,
        timeout: LONG,
        ..Options::default()
    };
    Endpoint::new(url, &options).unwrap()
}

/// Waits for a condition.
pub(crate) async fn eventually(mut condition: impl FnMut() -> bool) {
    let all = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, all).await.expect("it never came true");
}

pub(crate) fn says(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

/// A record of now.
pub(crate) fn record(attributes: Vec<KeyValue>) -> Record {
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    LogRecord {
        time_unix_nano: now,
        observed_time_unix_nano: now,
        attributes,
        ..LogRecord::default()
    }
}

/// A request of a stream.
pub(crate) fn payload(stream: &str, records: Vec<Record>) -> Payload {
    let source = Source::new(stream, "test", "1", "1");
    let mut batch = Batch::new(&source, wire::Limits::default());
    for record in records {
        assert!(batch.push(record).is_none(), "too many for one request");
    }
    batch.take()
}

/// A request of the agents' lane.
pub(crate) fn sent_by(peer: &str) -> Payload {
    let way = vec![says("clawker.lane", "agents"), says("clawker.peer", peer)];
    payload("", vec![record(way)])
}

/// The text of an attribute of a kept record.
pub(crate) fn said(incoming: &Incoming, key: &str) -> Option<String> {
    let mut group = ResourceLogs::decode(&*incoming.bytes).unwrap();
    let record = group.scope_logs.remove(0).log_records.remove(0);
    let pair = record.attributes.into_iter().find(|pair| pair.key == key)?;
    match pair.value?.value? {
        Value::StringValue(text) => Some(text),
        other => panic!("{key} is {other:?}"),
    }
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).unwrap();
    u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).unwrap()
}

pub(crate) fn now() -> BootTime {
    BootTime(nanos(ClockId::CLOCK_BOOTTIME))
}

/// Leases of containers that have had their addresses for an hour, complete up to `as_of`.
pub(crate) fn leases(holders: &[(&str, &str)], as_of: BootTime) -> Leases {
    let mut book = Leases::new(boot_id().unwrap());
    let since = BootTime(now().0.saturating_sub(3_600_000_000_000));
    book.observe(Reading {
        before: since,
        wall: WallTime(nanos(ClockId::CLOCK_REALTIME) - (now().0 - since.0)),
        after: since,
    });
    for (name, ip) in holders {
        let ip = ip.parse().unwrap();
        let hold = Hold {
            ip,
            since,
            until: None,
        };
        book.open(Lease {
            agent: Some((*name).to_owned()),
            project: None,
            container_id: (*name).to_owned(),
            name: (*name).to_owned(),
            slot: None,
            cgroup_id: None,
            netns: None,
            since,
            until: None,
            ips: vec![hold],
        })
        .unwrap();
    }
    book.complete_until(as_of);
    book
}

pub(crate) fn publish(path: &Path, leases: &Leases) {
    Publisher::open(path, None)
        .unwrap()
        .publish(leases)
        .unwrap();
}

/// An answer over HTTP/1.1.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: bytes[end + 4..].to_vec(),
        }
    }
}

/// Posts over HTTP/1.1.
pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    kind: &str,
    more: &str,
    body: &[u8],
) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bridge\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{more}\r\n",
        body.len()
    );
    let bytes = talk(address, &[head.as_bytes(), body].concat()).await;
    Answer::of(&bytes)
}

/// Says something over TCP and listens until the other side ends the connection.
pub(crate) async fn talk(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have ended it before everything was said.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = timeout(LONG, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection was not ended");
    answer
}

/// A question over HTTP/1.1 on the unix socket.
pub(crate) async fn get(socket: &Path, path: &str) -> Answer {
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let question = format!("GET {path} HTTP/1.1\r\nhost: bridge\r\nconnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    Answer::of(&answer)
}
