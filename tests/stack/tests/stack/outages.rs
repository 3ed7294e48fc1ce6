//! The store goes, comes back, and is closed for writing as by a full disk: agents notice nothing, nothing is lost
//! and nothing is stored twice.

use kernel_tests::eventually_within;
use serde_json::{Value, json};
use stack_tests::{
    chain::{ANN, BOB, Chain, of},
    send::{agent_sends, attributes, logs, now},
};
use std::{collections::BTreeSet, time::Duration};

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

#[test]
fn a_store_that_is_killed_restarted_and_full_gets_everything_once() {
    let mut chain = Chain::start();
    let mut sent = 0;
    send(&mut sent, 10);
    delivered(&chain);

    // Killed with requests under way, and the collector after it.
    chain.store.kill();
    send(&mut sent, 10);
    chain.collector.kill();
    chain.collector.restart();
    send(&mut sent, 10);
    chain.store.restart();
    delivered(&chain);

    // What the store does to itself when its disk is fuller than it may be.
    let block = |on: Value| json!({"index.blocks.read_only_allow_delete": on});
    let close = |on: Value| {
        let asker = chain.store.asker();
        asker.ok("PUT", "/clawker-claude/_settings", Some(&block(on)))
    };
    close(json!(true));
    send(&mut sent, 10);
    eventually_within(PATIENCE, "the trouble to be said", || {
        trouble(&chain)
            .contains("cluster_block_exception")
            .then_some(())
    });
    assert_eq!(chain.bridge.stream("clawker-claude", "set_aside"), 0);
    close(Value::Null);
    delivered(&chain);

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
