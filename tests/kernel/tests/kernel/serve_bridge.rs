//! Records on their way to a receiver that keeps them: none is lost while it is away, and what it has
//! confirmed is what counts as recorded.

use ebpf_manager::{export::Export, fleet, kernel::Sizes};
use kernel_tests::{
    check::fields,
    collector::{Collector, Received},
    fleet::{LINGER, Yard},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};
use wire::{BatchId, Endpoint, Options};

const POLICY: &str = "rules: [{ name: all, dst: 192.0.2.0/24, proto: any }]\n";

/// As many refusals as it is told, in two processes.
const FLOOD: &str = "def some(n):\n\
    \x20   for i in range(n):\n\
    \x20       with socket.socket() as s: assert s.connect_ex(('203.0.113.9', 80)) == 1\n\
    n = int(step('up'))\n\
    while n: crowd(2, lambda: some(n // 2)); n = int(step('done'))";

/// A yard whose records go to a socket where a collector may come to listen.
fn yard(sizes: Sizes) -> Yard {
    Yard::with(Some(POLICY), sizes, LINGER, |bench, mut sink| {
        let url = format!("unix://{}", bench.path("otlp.sock").display());
        let endpoint = Endpoint::new(&url, &Options::default()).unwrap();
        sink.export = Some(Export::keeping(
            endpoint,
            BatchId::first("0123").expect("a name"),
        ));
        sink
    })
}

/// Flows of records of a stream, and the records.
fn of(received: Vec<Received>, stream: &str) -> (u64, Vec<Received>) {
    let mut all = received;
    all.retain(|r| r.resource["service.name"] == stream);
    let flows = all
        .iter()
        .map(|r| r.attributes.get("count").map_or(1, |n| n.as_u64().unwrap()));
    (flows.sum(), all)
}

#[test]
fn a_receiver_that_is_away_loses_nothing_and_counts_nothing() {
    const FLOWS: u64 = 30_000;
    let mut yard = yard(Sizes {
        ring_bytes: 1 << 22,
        rate: 100_000_000,
        ..fleet::sizes(2)
    });
    let mut pod = yard.pod("c1", ("web", "shop"), FLOOD);
    yard.start(&pod);
    assert_eq!(pod.agent.go(), "up");
    pod.agent.say(&FLOWS.to_string());
    let books = |y: &Yard| y.pins().books().unwrap()[1];
    yard.until("the flood to be over", |y| {
        (books(y).ended[1] == FLOWS).then_some(())
    });
    assert_eq!(pod.agent.hear(), "done");
    for _ in 0..10 {
        yard.turn();
    }
    let row = books(&yard);
    assert_eq!(row.recorded[1], 0, "nobody has confirmed anything");
    assert!(row.folded[1] > 0, "what finds no room is folded");
    assert!(!yard.sink.has_room());
    let collector = Collector::start(&yard.bench);
    yard.until("everything to be confirmed", |y| {
        (books(y).recorded[1] == FLOWS).then_some(())
    });
    // What it has confirmed is in its file a moment later.
    let records = yard.until("everything to be written", |_| {
        let (flows, records) = of(collector.received(), "clawker-egress");
        assert!(flows <= FLOWS, "{flows}");
        (flows == FLOWS).then_some(records)
    });
    let ids: std::collections::BTreeSet<String> = records
        .iter()
        .map(|r| r.attributes["flow_id"].to_string())
        .collect();
    assert_eq!(ids.len(), records.len(), "ids repeat");
    for r in &records {
        let attributes = Value::Object(r.attributes.clone());
        fields(
            &attributes,
            &json!({"agent": "web", "project": "shop", "container_id": "c1",
                "container_name": "name-c1", "verdict": "DENIED"}),
        );
    }
    pod.agent.say("0");
    yard.stop(pod);
    yard.is_empty();
    let audit = |name: &str| {
        let all = collector.stream("clawker-overseer");
        let named = |r: &&Received| r.record["eventName"] == format!("clawker.overseer.{name}");
        all.iter().filter(named).count()
    };
    yard.until("the end to be told", |_| (audit("left") == 1).then_some(()));
    assert_eq!((audit("enrolled"), audit("gap")), (1, 0));
}

/// Passes connections on to a socket, until they are cut in the middle of whatever they carry.
struct Way {
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Way {
    fn start(at: &Path, to: PathBuf) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let open = Arc::<Mutex<Vec<UnixStream>>>::default();
        let known = Arc::clone(&open);
        thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let Ok(far) = UnixStream::connect(&to) else {
                    continue;
                };
                for (from, into) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut into) =
                        (from.try_clone().unwrap(), into.try_clone().unwrap());
                    thread::spawn(move || {
                        // A cut ends it.
                        let _ = io::copy(&mut from, &mut into);
                        let _ = into.shutdown(Shutdown::Both);
                    });
                }
                known.lock().unwrap().push(near);
            }
        });
        Self { open }
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_way_that_breaks_now_and_then_loses_no_flow_and_counts_none_twice() {
    const FLOWS: u64 = 6_000;
    let mut yard = yard(Sizes {
        rate: 100_000_000,
        ..fleet::sizes(2)
    });
    let mut collector = Collector::start_at(&yard.bench, &yard.bench.path("behind.sock"));
    let way = Way::start(&yard.bench.path("otlp.sock"), collector.socket.clone());
    let mut pod = yard.pod("c1", ("web", "shop"), FLOOD);
    yard.start(&pod);
    assert_eq!(pod.agent.go(), "up");
    pod.agent.say(&FLOWS.to_string());
    let mut turns = 0;
    yard.until("everything to be confirmed", |y| {
        turns += 1;
        if turns % 7 == 0 && turns < 100 {
            way.cut();
        }
        (y.pins().books().unwrap()[1].recorded[1] == FLOWS).then_some(())
    });
    assert_eq!(pod.agent.hear(), "done");
    // Whatever came twice.
    yard.until("each flow to be written", |_| {
        let mut ids = BTreeMap::new();
        for r in collector.received() {
            let flows = r.attributes.get("count").map_or(1, |n| n.as_u64().unwrap());
            ids.insert(r.attributes["flow_id"].to_string(), flows);
        }
        (ids.values().sum::<u64>() == FLOWS).then_some(())
    });
    pod.agent.say("0");
    yard.stop(pod);
    yard.is_empty();
    assert!(yard.events("gap").is_empty());
    collector.kill();
}
