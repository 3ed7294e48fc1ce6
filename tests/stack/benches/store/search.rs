//! What the overview asks, of a store that is full.

use crate::{
    HEAP,
    flows::{Flows, SPAN},
    row,
};
use dashboards::Object;
use provision::streams;
use serde_json::Value;
use stack_tests::{
    demo::{END, rfc3339},
    opensearch::OpenSearch,
    panels::{Query, Range, lists, query},
};
use std::time::Instant;

/// Documents in one `_bulk`.
const BULK: u64 = 10_000;
/// How often each question is asked.
const TIMES: usize = 7;

fn fill(node: &OpenSearch, flows: u64) -> f64 {
    let (mut all, began) = (Flows::new(), Instant::now());
    let mut left = flows;
    while left > 0 {
        let n = left.min(BULK);
        let documents: Vec<_> = all
            .by_ref()
            .take(usize::try_from(n).expect("few"))
            .collect();
        let lines: String = documents
            .iter()
            .map(|d| format!("{{\"create\":{{}}}}\n{}\n", d.document()))
            .collect();
        let path = "/clawker-egress/_bulk?filter_path=errors";
        let answer = node
            .asker()
            .send("POST", path, "application/x-ndjson", &lines);
        let answer = answer.expect("an answer").body;
        assert_eq!(answer["errors"], false, "{answer}");
        left -= n;
        eprint!("\r{} of {flows} flows written", flows - left);
    }
    eprintln!();
    began.elapsed().as_secs_f64()
}

/// Panels of the overview that ask for flows, with what they ask.
fn panels(range: &Range) -> Vec<(&'static Object, Query)> {
    let find = |id: &str| dashboards::imported().iter().find(|o| o.id() == id);
    let overview = find("clawker-overview").expect("the overview");
    let all = overview.references().filter_map(|(_, _, id)| find(id));
    let asking = all.filter(|o| matches!(o.kind(), "search" | "visualization"));
    asking
        .filter_map(|o| Some((o, query(o, &[], range)?)))
        .filter(|(_, q)| q.index == "clawker-egress")
        .collect()
}

/// Median of what the store says it took, in milliseconds; nothing comes from its cache of answers.
fn took(node: &OpenSearch, index: &str, body: &Value) -> u64 {
    let path = format!("/{index}/_search?request_cache=false");
    let mut all: Vec<u64> = (0..TIMES)
        .map(|_| {
            let answer = node.asker().ok("POST", &path, Some(body));
            assert_eq!(answer["_shards"]["failed"], 0, "{answer}");
            assert_eq!(answer["timed_out"], false, "{answer}");
            answer["took"].as_u64().expect("milliseconds")
        })
        .collect();
    all.sort_unstable();
    all[TIMES / 2]
}

fn range(seconds: i64) -> Range {
    Range {
        from: rfc3339(END - seconds),
        to: rfc3339(END),
    }
}

/// Size, writing and every panel.
pub(crate) fn overview(flows: u64) {
    let mut node = OpenSearch::prepare(
        stack_tests::opensearch::Version::Current,
        stack_tests::opensearch::ADDRESS,
    );
    node.full_size(HEAP);
    node.restart();
    node.contracts(&streams::all(&[]));
    let seconds = fill(&node, flows);
    assert_eq!(node.count("clawker-egress"), flows);
    let millions = flows as f64 / 1e6;
    row(
        &format!("{millions} million flows written by `_bulk`, pipeline and ids included"),
        &format!("{:.1} k a second", flows as f64 / seconds / 1e3),
    );
    node.asker()
        .ok("POST", "/clawker-egress/_flush?wait_if_ongoing=true", None);
    let stats = node.asker().ok("GET", "/clawker-egress/_stats/store", None);
    let bytes = stats["_all"]["primaries"]["store"]["size_in_bytes"].as_u64();
    row(
        "index size of a flow, segments as they come",
        &format!("{} bytes", bytes.expect("a size") / flows),
    );
    let (day, week) = (range(86_400), range(SPAN));
    for ((object, one), (_, all)) in panels(&day).into_iter().zip(panels(&week)) {
        let [one, all] = [one, all].map(|q| took(&node, &q.index, &q.body));
        row(
            &format!("overview, {}: a day, the whole week", object.title()),
            &format!("{one} ms, {all} ms"),
        );
    }
    let mut controls = dashboards::imported().iter();
    let controls = controls
        .find(|o| o.id() == "clawker-controls")
        .expect("the filters");
    for ((field, index, one), (_, _, all)) in lists(controls, &day)
        .into_iter()
        .zip(lists(controls, &week))
    {
        let [one, all] = [one, all].map(|body| took(&node, &index, &body));
        row(
            &format!("list of the filter {field}: a day, the whole week"),
            &format!("{one} ms, {all} ms"),
        );
    }
}
