//! The store's own answer reaches the bridge: nothing is lost when it is away, nothing comes twice, and what it
//! will not take is set aside without a word of it.

use kernel_tests::eventually_within;
use serde_json::{Value, json};
use stack_tests::{
    chain::{ANN, BOB, Chain, holds, of},
    collector::{AGENTS, STACK},
    send::{agent_sends, attributes, envoy_sends, logs, now, post},
};
use std::{collections::BTreeSet, time::Duration};

/// How long something may take that waits for back-off.
const PATIENCE: Duration = Duration::from_secs(120);

fn tool(number: usize) -> Value {
    json!({"timeUnixNano": now().to_string(), "body": {"stringValue": "claude_code.tool_result"},
        "attributes": attributes(&json!({"event.name": "tool_result", "event.sequence": number, "tool_name": "Read"}))})
}

#[test]
fn what_a_sender_says_of_himself_changes_nothing() {
    let chain = Chain::start();
    let claims = json!({"agent": "bob", "project": "shop", "container_id": "another", "container_name": "bob",
        "service.name": "clawker-overseer", "clawker.lane": "envoy", "clawker.peer": BOB.ip, "src_ip": BOB.ip,
        "flow_id": "a-1-d1", "record_id": "mine", "verdict": "ALLOWED", "identity_as_of": "never", "host.ip": BOB.ip});
    let twice = json!({"clawker.peer": BOB.ip, "clawker.lane": "coredns", "Clawker.Peer": BOB.ip, "agent.name": "bob",
        "dev.clawker.agent": "bob", "agent": {"name": "bob"}});
    let mut record = tool(1);
    let all = record["attributes"].as_array_mut().unwrap();
    all.extend(attributes(&claims));
    all.extend(attributes(&twice));
    all.extend(attributes(&twice));
    let mut request = logs(&claims, &[record]);
    let resource = request["resourceLogs"][0]["resource"]["attributes"]
        .as_array_mut()
        .unwrap();
    resource.extend(attributes(&twice));
    resource.extend(attributes(&twice));
    request["resourceLogs"][0]["scopeLogs"][0]["scope"]["attributes"] = json!(attributes(&claims));
    agent_sends(ANN.ip, "/v1/logs", &request);
    agent_sends(BOB.ip, "/v1/logs", &logs(&claims, &[tool(2)]));
    agent_sends("198.51.100.7", "/v1/logs", &logs(&claims, &[tool(3)]));

    // The same over gRPC, from the address that the collector listens at.
    let told = [
        ("clawker.peer", ANN.ip),
        ("clawker.lane", "envoy"),
        ("src_ip", ANN.ip),
        ("event.name", "auth"),
    ];
    envoy_sends(&format!("http://{AGENTS}:4317"), &told);

    let documents = chain.documents("clawker-claude", 4);
    let over_grpc = of(documents
        .iter()
        .find(|d| of(d)["event_name"] == "auth")
        .unwrap());
    assert_eq!(
        (&over_grpc["agent"], &over_grpc["src_ip"]),
        (&Value::Null, &json!(AGENTS))
    );
    let by = |n: u64| {
        of(documents
            .iter()
            .find(|d| of(d)["event_sequence"] == n)
            .unwrap())
    };
    for (n, holder) in [(1, ANN), (2, BOB)] {
        let a = by(n);
        assert_eq!(
            (&a["agent"], &a["project"]),
            (&json!(holder.agent), &json!(holder.project))
        );
        assert_eq!(a["container_id"], holder.container());
        assert_eq!(a["src_ip"], holder.ip);
    }
    assert_eq!(
        (&by(3)["agent"], &by(3)["src_ip"]),
        (&Value::Null, &json!("198.51.100.7"))
    );
    for a in [by(1), by(3)] {
        let unsaid = ["flow_id", "verdict", "identity_as_of", "host.ip"];
        assert!(
            unsaid
                .iter()
                .all(|k| a[*k] != claims[*k] || a[*k].is_null()),
            "{a}"
        );
        assert_ne!(a["record_id"], "mine");
    }
    let streams = chain
        .store
        .asker()
        .ok("GET", "/_data_stream/clawker-*", None);
    let names = streams["data_streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["clawker-claude"]);
}

#[test]
fn poison_takes_nothing_clean_with_it() {
    let chain = Chain::start();
    let mut deep = json!({"stringValue": "x"});
    for _ in 0..60 {
        deep = json!({"kvlistValue": {"values": [{"key": "k", "value": deep}]}});
    }
    let with = |n: usize, key: &str, value: Value| {
        let mut record = tool(n);
        let all = record["attributes"].as_array_mut().unwrap();
        all.insert(0, json!({"key": key, "value": value}));
        record
    };
    let many: Vec<_> = (0..20_000)
        .map(|n| json!({"key": format!("k{n}"), "value": {"intValue": "1"}}))
        .collect();
    let mut records = vec![
        tool(0),
        with(1, "model", deep.clone()),
        with(2, "duration_ms", json!({"doubleValue": "NaN"})),
        with(3, "duration_ms", json!({"doubleValue": "Infinity"})),
        with(4, "cost_usd", json!({"doubleValue": "-Infinity"})),
        with(5, "cost_usd", json!({"stringValue": "1e999"})),
        with(
            6,
            "input_tokens",
            json!({"stringValue": "99999999999999999999"}),
        ),
        with(7, "success", json!({"stringValue": "yes"})),
        with(8, "", json!({"stringValue": ""})),
        with(
            9,
            "model",
            json!({"stringValue": "\u{0}\u{1b}[31m\u{202e}"}),
        ),
        with(10, "status_code", json!({})),
        with(11, "model", json!({"kvlistValue": {"values": many}})),
        tool(12),
    ];
    records[8]["body"] = deep;
    records[9]["severityNumber"] = json!(77);
    records[10]["timeUnixNano"] = json!("0");
    agent_sends(ANN.ip, "/v1/logs", &logs(&json!({}), &records));
    let documents = chain.documents("clawker-claude", records.len());
    let numbers: BTreeSet<_> = documents
        .iter()
        .filter_map(|d| of(d)["event_sequence"].as_u64())
        .collect();
    assert_eq!(numbers, (0..13).collect());
    let read = documents
        .iter()
        .filter(|d| of(d)["tool_name"] == "Read")
        .count();
    assert_eq!(read, records.len());
}

#[test]
fn a_store_that_is_away_gets_everything_later_and_once() {
    let mut chain = Chain::without_store();
    for n in 0..20 {
        agent_sends(ANN.ip, "/v1/logs", &logs(&json!({}), &[tool(n)]));
    }
    assert_eq!(chain.bridge.stream("clawker-claude", "pending"), 20);
    // Both may die meanwhile: what was answered is on the disk.
    chain.bridge.kill();
    chain.collector.kill();
    chain.bridge.restart();
    chain.collector.restart();
    assert_eq!(chain.bridge.stream("clawker-claude", "pending"), 20);
    eventually_within(PATIENCE, "the trouble to be said", || {
        let status = chain.bridge.status();
        let streams = status["streams"].as_array().unwrap().iter();
        let claude = streams
            .filter(|s| s["stream"] == "clawker-claude")
            .map(Value::to_string);
        claude
            .into_iter()
            .next()
            .filter(|s| s.contains("connection refused"))
    });

    chain.start_store();
    eventually_within(PATIENCE, "delivery", || {
        (chain.bridge.stream("clawker-claude", "pending") == 0).then_some(())
    });
    let documents = chain.documents("clawker-claude", 20);
    let ids: BTreeSet<_> = documents
        .iter()
        .map(|d| of(d)["record_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 20);
    assert!(documents.iter().all(|d| d["_id"] == of(d)["record_id"]));

    // The same records again, as after an answer that was lost: the store knows them.
    let answer = post(
        STACK,
        &format!("http://{STACK}:4319/v1/logs"),
        &again(&documents),
    );
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert!(
        answer.body.contains("version_conflict_engine_exception"),
        "{}",
        answer.body
    );
    chain.documents("clawker-claude", 20);
}

/// Stored records as the bridge would send them once more.
fn again(documents: &[Value]) -> Value {
    let record = |d: &Value| json!({"timeUnixNano": now().to_string(), "attributes": attributes(&json!({"record_id": d["_id"]}))});
    logs(
        &json!({"service.name": "clawker-claude"}),
        &documents.iter().map(record).collect::<Vec<_>>(),
    )
}

#[test]
fn what_the_store_will_not_take_is_set_aside_and_its_text_is_nowhere() {
    const SECRET: &str = "not-an-address-but-a-secret";
    let chain = Chain::start();
    let url = format!("http://{STACK}:4320");
    let good = [
        ("src_ip", ANN.ip),
        ("method", "GET"),
        ("request_host", "example.com"),
        ("path", "/"),
    ];
    envoy_sends(&url, &[&good[..], &[("dst_ip", SECRET)]].concat());
    // Only what fails while others arrive is blamed.
    let mut sent = 1;
    eventually_within(PATIENCE, "it to be set aside", || {
        envoy_sends(&url, &good);
        sent += 1;
        (chain.bridge.stream("clawker-envoy", "set_aside") == 1).then_some(())
    });
    chain.documents("clawker-envoy", sent - 1);
    let audit = chain.documents("clawker-overseer", 1).remove(0);
    let a = of(&audit);
    assert_eq!(a["event_name"], "clawker.overseer.set_aside");
    assert_eq!(
        (&a["stream"], &a["agent"]),
        (&json!("clawker-envoy"), &json!("ann"))
    );
    let failure = a["failure"].as_str().unwrap();
    assert!(
        failure.starts_with("the receiver answered 500: "),
        "{failure}"
    );
    assert!(failure.contains("mapper_parsing_exception"), "{failure}");
    // The record is kept, its text is in no reason: not in the log of the bridge, its status, or the store.
    assert!(!chain.bridge.said().contains(SECRET));
    assert!(!chain.bridge.status().to_string().contains(SECRET));
    assert!(!audit.to_string().contains(SECRET));
    let documents = chain
        .store
        .asker()
        .ok("GET", "/clawker-*/_search?size=10000", None);
    assert!(!holds(documents.to_string().as_bytes(), SECRET.as_bytes()));
}
