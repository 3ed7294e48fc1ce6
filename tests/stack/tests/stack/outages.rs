//! The store goes, comes back, and closes itself when its disk is full: agents notice nothing, nothing is lost
//! and nothing is stored twice.

use kernel_tests::{eventually_within, own_mounts};
use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};
use serde_json::{Value, json};
use stack_tests::{
    chain::{ANN, BOB, Chain, of},
    collector::STACK,
    prometheus::Prometheus,
    send::{agent_sends, attributes, logs, now},
};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::Path,
    time::Duration,
};

/// Bytes of the store's disk.
const DISK: u64 = 256 << 20;

/// How long something may take that waits for back-off, or for the store's own rounds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends records of both agents, numbered on.
fn send(sent: &mut u64, n: u64) {
    for _ in 0..n {
        let number = *sent;
        *sent += 1;
        let record = json!({"timeUnixNano": now().to_string(), "body": {"stringValue": "claude_code.tool_result"},
            "attributes": attributes(&json!({"event.name": "tool_result", "event.sequence": number, "tool_name": "Read"}))});
        let from = if number.is_multiple_of(2) { ANN } else { BOB };
        agent_sends(from.ip, "/v1/logs", &logs(&json!({}), &[record]));
    }
}

/// What the bridge says is the matter with the stream.
fn trouble(chain: &Chain) -> String {
    let status = chain.bridge.status();
    let streams = status["streams"].as_array().unwrap().iter();
    let claude = streams.filter(|s| s["stream"] == "clawker-claude");
    claude.map(Value::to_string).collect()
}

fn delivered(chain: &Chain) {
    eventually_within(PATIENCE, "everything to be delivered", || {
        (chain.bridge.stream("clawker-claude", "pending") == 0).then_some(())
    });
}

/// Bytes that are taken of a disk.
fn used(dir: &Path) -> u64 {
    let disk = statvfs(dir).unwrap();
    (disk.blocks() - disk.blocks_free()) * disk.fragment_size()
}

/// Whether a panel of the health dashboard shows more than nothing; the series with this label, where there is one to tell.
fn shown(prometheus: &Prometheus, panel: &str, only: Option<(&str, &str)>) -> bool {
    let all = prometheus.panel(panel);
    all.iter().any(|(labels, value)| {
        only.is_none_or(|(name, wanted)| labels[name] == wanted) && *value > 0.0
    })
}

/// What an operator sees on the health dashboard while the store takes nothing.
fn the_outage_is_seen(prometheus: &Prometheus) {
    for (panel, only) in [
        ("clawker-spool-records", None),
        ("clawker-spool-age", None),
        (
            "clawker-collector-failed",
            Some(("exporter", "opensearch/claude")),
        ),
    ] {
        eventually_within(
            PATIENCE,
            &format!("the outage to be seen in {panel}"),
            || shown(prometheus, panel, only).then_some(()),
        );
    }
}

/// What is seen when it is over: nothing waits, nothing was given up.
fn the_end_is_seen(prometheus: &Prometheus) {
    eventually_within(PATIENCE, "the end of the outage to be seen", || {
        (!prometheus.panel("clawker-spool-records").is_empty()
            && !shown(prometheus, "clawker-spool-records", None)
            && shown(
                prometheus,
                "clawker-delivered",
                Some(("stream", "clawker-claude")),
            ))
        .then_some(())
    });
    for panel in ["clawker-shed", "clawker-lost"] {
        assert!(
            !shown(prometheus, panel, None),
            "{:?}",
            prometheus.panel(panel)
        );
    }
}

#[test]
fn a_store_that_is_killed_restarted_and_full_gets_everything_once() {
    own_mounts();
    let mut chain = Chain::with_disk(DISK);
    let prometheus = Prometheus::reading(STACK);
    let mut sent = 0;
    send(&mut sent, 10);
    delivered(&chain);

    // Killed with requests under way, and the collector after it.
    chain.store.kill();
    send(&mut sent, 10);
    chain.collector.kill();
    chain.collector.restart();
    send(&mut sent, 10);
    the_outage_is_seen(&prometheus);
    chain.store.restart();
    delivered(&chain);
    the_end_is_seen(&prometheus);

    // Somebody else fills its disk: it closes its indexes for writing by itself.
    let filler = chain.store.data().join("somebody-elses");
    let file = File::create(&filler).unwrap();
    let used = used(&chain.store.data());
    let most = i64::try_from(DISK * 97 / 100 - used).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, most).unwrap();
    eventually_within(PATIENCE, "the store to close its indexes", || {
        let asker = chain.store.asker();
        let all = asker.ok("GET", "/clawker-claude/_settings?flat_settings=true", None);
        all.to_string()
            .contains(r#""index.blocks.read_only_allow_delete":"true""#)
            .then_some(())
    });
    send(&mut sent, 10);
    eventually_within(PATIENCE, "the trouble to be said", || {
        trouble(&chain)
            .contains("cluster_block_exception")
            .then_some(())
    });
    the_outage_is_seen(&prometheus);
    assert_eq!(chain.bridge.stream("clawker-claude", "set_aside"), 0);
    fs::remove_file(&filler).unwrap();
    drop(file);
    delivered(&chain);
    the_end_is_seen(&prometheus);

    let documents = chain.documents("clawker-claude", usize::try_from(sent).unwrap());
    let numbers: BTreeSet<u64> = documents
        .iter()
        .map(|d| of(d)["event_sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..sent).collect());
    for d in &documents {
        let a = of(d);
        let who = if a["event_sequence"].as_u64().unwrap().is_multiple_of(2) {
            ANN
        } else {
            BOB
        };
        assert_eq!(a["agent"], who.agent);
    }
}
