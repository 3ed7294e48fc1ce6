//! What the templates and the pipeline make of records, in a real OpenSearch: none is lost for its shape.

mod generated;
mod odd;

use generated::{Marks, texts};
use kernel_tests::{net::isolate, noise};
use odd::{odd_attributes, odd_records};
use provision::{fields, streams};
use serde_json::{Value, json};
use stack_tests::{opensearch::OpenSearch, provisioner::prepare};
use std::{collections::BTreeMap, slice};

/// When records are from, unless they are about that.
const TIME: &str = "2026-11-22T10:00:00.123456789Z";

/// A record with a time, if it does not speak of one.
fn timed(mut record: Value) -> Value {
    if record.get("@timestamp").is_none() {
        record["@timestamp"] = TIME.into();
    }
    record
}

/// Writes records; each as it was stored, in their order.
#[track_caller]
fn stored(node: &OpenSearch, stream: &str, records: &[Value]) -> Vec<Value> {
    let items = node.asker().create(stream, records);
    for (item, record) in items.iter().zip(records) {
        let text = record.to_string();
        let short = &text[..text.floor_char_boundary(200)];
        assert_eq!(item["status"], 201, "{short}: {}", item["error"]);
    }
    let found = node.documents(stream);
    let by_id: BTreeMap<_, _> = found.iter().map(|h| (h["_id"].as_str(), h)).collect();
    let of = |item: &Value| by_id[&item["_id"].as_str()]["_source"].clone();
    items.iter().map(of).collect()
}

#[test]
fn odd_records_are_kept_whole_and_marked() {
    isolate();
    let node = OpenSearch::start();
    let _stand_in = prepare(&node);
    let mut all = Vec::new();
    for (attributes, aside) in odd_attributes() {
        let aside: Vec<_> = aside.iter().map(|a| format!("attributes.{a}")).collect();
        all.push((timed(json!({"body": "b", "attributes": attributes})), aside));
    }
    for (record, aside) in odd_records() {
        all.push((timed(record), aside.iter().map(|&a| a.to_owned()).collect()));
    }
    let records: Vec<_> = all.iter().map(|(record, _)| record.clone()).collect();
    let found = stored(&node, "clawker-claude", &records);
    for ((record, aside), found) in all.iter().zip(found) {
        let text = record.to_string();
        let short = &text[..text.floor_char_boundary(200)];
        let marked = found.get("odd_fields").cloned().unwrap_or(json!([]));
        assert_eq!(marked, json!(aside), "{short}");
        for (at, name) in aside.iter().enumerate() {
            let (part, key) = name
                .strip_prefix("attributes.")
                .map_or((record, name.as_str()), |k| (&record["attributes"], k));
            let was = record.get(name).or_else(|| part.get(key));
            if let Some(was) = was {
                assert_eq!(&found["odd"][at]["value"], was, "{short}");
            }
        }
        let time = found["@timestamp"].as_str().unwrap_or_default();
        assert!(
            time.starts_with("20") || time.starts_with("2262"),
            "{short}: {time}"
        );
    }

    // A number that no script can be given. The exporter writes 1e20 so.
    let lines = format!(
        "{{\"create\":{{}}}}\n{{\"@timestamp\":\"{TIME}\",\"body\":\"big\",\"attributes\":{{\"agent\":\"a\",\"project\":\"p\",\"record_id\":\"big\",\"cost_usd\":100000000000000000000}}}}\n"
    );
    let answer = node
        .asker()
        .send(
            "POST",
            "/clawker-claude/_bulk",
            "application/x-ndjson",
            &lines,
        )
        .unwrap();
    assert_eq!(
        answer.body["items"][0]["create"]["_id"], "big",
        "{}",
        answer.body
    );
    node.asker().ok("POST", "/clawker-claude/_refresh", None);
    let query = json!({"query": {"bool": {"filter": [
        {"term": {"attributes.agent": "a"}},
        {"term": {"attributes.project": "p"}},
        {"term": {"odd_fields": "attributes_as_text"}},
    ]}}});
    let hits = node
        .asker()
        .ok("POST", "/clawker-claude/_search", Some(&query))["hits"]["hits"]
        .clone();
    assert_eq!(hits[0]["_source"]["body"], "big");
    assert!(
        hits[0]["_source"]["odd"][0]["value"]
            .as_str()
            .unwrap()
            .contains("100000000000000000000")
    );

    // A search that asks for every field fails on the first value that its type cannot read.
    let every = json!({"size": 1000, "fields": ["*"]});
    let answer = node
        .asker()
        .ok("POST", "/clawker-claude/_search", Some(&every));
    assert_eq!(answer["_shards"]["failed"], 0, "{answer}");
    assert_eq!(
        answer["hits"]["hits"].as_array().unwrap().len(),
        records.len() + 1
    );
}

#[test]
fn no_generated_record_is_refused_and_nothing_of_it_is_lost() {
    isolate();
    let node = OpenSearch::start();
    let _stand_in = prepare(&node);
    let mut random = noise(0x5eed);
    // Two records of one id are one record.
    let is_id = |name: &String| name.ends_with(".flow_id") || name.ends_with(".record_id");
    let names = fields::all().into_iter().map(|(name, _)| name);
    let names: Vec<_> = names.filter(|name| !is_id(name)).collect();
    let mut records = Vec::new();
    for n in 0..600 {
        let mut marks = Marks::new(&mut random, &names, n * 1000);
        let mut record = marks.object(0);
        for part in ["attributes", "resource", "severity", "instrumentationScope"] {
            if marks.below(4) > 0 {
                record.insert(part.to_owned(), marks.object(1).into());
            }
        }
        records.push(Value::Object(record));
    }
    let found = stored(&node, "clawker-unknown", &records);
    for (record, found) in records.iter().zip(found) {
        let (before, after) = (texts(record), texts(&found));
        for text in &before {
            // Times may be written in another way; every other text is a mark that is there once.
            assert!(
                !text.starts_with("mark-") || after.contains(text),
                "{text} of {record} is not in {found}"
            );
        }
    }
    let every = json!({"size": 1000, "fields": ["*"]});
    let answer = node
        .asker()
        .ok("POST", "/clawker-unknown/_search", Some(&every));
    assert_eq!(answer["_shards"]["failed"], 0, "{answer}");
}

#[test]
fn a_known_record_is_refused_as_known_and_stored_once() {
    isolate();
    let node = OpenSearch::start();
    let _stand_in = prepare(&node);
    for (stream, key) in [("clawker-egress", "flow_id"), ("clawker-cp", "record_id")] {
        let record = timed(json!({"attributes": {key: "the-id"}}));
        let other = timed(json!({"attributes": {key: "another-id"}}));
        let first = node
            .asker()
            .create(stream, &[record.clone(), other, record.clone()]);
        let again = node.asker().create(stream, &[record]);
        let statuses: Vec<_> = first
            .iter()
            .chain(&again)
            .map(|i| i["status"].as_u64().unwrap())
            .collect();
        assert_eq!(statuses, [201, 201, 409, 409], "{first:?}");
        let error = &again[0]["error"];
        assert_eq!(error["type"], "version_conflict_engine_exception");
        assert!(
            error["reason"].as_str().unwrap().contains("[the-id]"),
            "{error}"
        );
        assert_eq!(node.count(stream), 2);
    }
    // Who has neither is stored each time.
    let bare = timed(json!({"body": "x"}));
    for _ in 0..2 {
        assert_eq!(
            node.asker().create("clawker-cp", slice::from_ref(&bare))[0]["status"],
            201
        );
    }
}

#[test]
fn a_field_has_one_type_in_all_streams_and_can_be_asked_for() {
    isolate();
    let node = OpenSearch::start();
    let _stand_in = prepare(&node);
    let record = |n: usize| {
        timed(json!({
            "body": "DENIED tcp to 203.0.113.9:80 for curl",
            "severity": {"text": "WARN", "number": 13},
            "resource": {"service.name": format!("clawker-{n}")},
            "attributes": {
                "agent": "a", "project": "p", "src_ip": "192.0.2.1", "dst_ip": "203.0.113.9", "dst_port": 80,
                "verdict": "DENIED", "duration_ms": 5, "would_deny": true, "start_time": TIME, "cost_usd": 0.5,
                "dst_hosts": ["a.example", "b.example"], "success": true, "unknown_name": "kept",
            },
        }))
    };
    let made: Vec<_> = streams::all(&[]).into_iter().filter(|s| s.made).collect();
    for (n, stream) in made.iter().enumerate() {
        stored(&node, stream.name, &[record(n)]);
    }
    let caps = node
        .asker()
        .ok("GET", "/clawker-*/_field_caps?fields=*", None);
    let caps = &caps["fields"];
    for (name, kind) in fields::all() {
        let types = caps[&name]
            .as_object()
            .unwrap_or_else(|| panic!("{name} cannot be asked for"));
        assert_eq!(types.keys().collect::<Vec<_>>(), [kind.name()], "{name}");
    }
    assert!(
        caps.get("attributes.unknown_name").is_none(),
        "what no template knows is not indexed"
    );

    let narrow = json!({"size": 10, "query": {"bool": {"filter": [
        {"term": {"attributes.agent": "a"}},
        {"term": {"attributes.project": "p"}},
        {"term": {"attributes.dst_ip": "203.0.113.0/24"}},
        {"range": {"attributes.dst_port": {"gte": 80, "lte": 80}}},
        {"match": {"body": "curl"}},
        // As readers of ss4o name it.
        {"term": {"source.ip": "192.0.2.1"}},
    ]}}, "aggs": {"cost": {"sum": {"field": "attributes.cost_usd"}}}});
    let answer = node.asker().ok("POST", "/clawker-*/_search", Some(&narrow));
    assert_eq!(answer["hits"]["total"]["value"], made.len(), "{answer}");
    assert_eq!(
        answer["aggregations"]["cost"]["value"],
        0.5 * made.len() as f64
    );
    let kept = &answer["hits"]["hits"][0]["_source"]["attributes"]["unknown_name"];
    assert_eq!(kept, "kept");

    // Its name is taken: what is written there first becomes no plain index.
    stored(&node, streams::EXEC, &[record(99)]);
    let exec = node
        .asker()
        .ok("GET", &format!("/_data_stream/{}", streams::EXEC), None);
    assert_eq!(exec["data_streams"][0]["template"], streams::EXEC);
}
