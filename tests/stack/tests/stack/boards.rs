//! Every query to OpenSearch that a panel makes, asked of a real one that holds the demo's records.

use dashboards::Object;
use kernel_tests::net::isolate;
use provision::streams;
use serde_json::{Value, json};
use stack_tests::{
    demo::{self, AGENTS, END, LENGTH},
    opensearch::{Asker, OpenSearch},
    panels::{Query, Range, lists, picked, query},
};
use std::collections::{BTreeMap, BTreeSet};

/// What these show belongs to no agent.
const OF_NOBODY: [&str; 4] = [
    "clawker-nobody",
    "clawker-own-log",
    "clawker-own-log-over-time",
    "clawker-unknown-lane",
];

fn range() -> Range {
    Range {
        from: demo::rfc3339(END - LENGTH),
        to: demo::rfc3339(END),
    }
}

/// A node with the shipped templates, and the demo in the data streams.
fn filled() -> OpenSearch {
    isolate();
    let node = OpenSearch::start();
    node.contracts(&streams::all(&[]));
    let mut by_stream: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for document in demo::documents() {
        by_stream
            .entry(document.stream)
            .or_default()
            .push(document.body);
    }
    for (stream, documents) in by_stream {
        for item in node.asker().create(stream, &documents) {
            assert_eq!(item["status"], 201, "{stream}: {item}");
        }
        assert_eq!(node.count(stream), documents.len() as u64, "{stream}");
    }
    for hit in node.documents("clawker-*") {
        assert!(hit["_source"].get("odd").is_none(), "{hit}");
    }
    node
}

/// Every panel that asks OpenSearch, and what it asks under the filters of a dashboard.
fn asking_opensearch(filters: &[Value]) -> (Vec<&'static Object>, Vec<Query>) {
    let all = dashboards::imported().iter();
    let panels = all.filter(|o| matches!(o.kind(), "search" | "visualization"));
    panels
        .filter_map(|o| Some((o, query(o, filters, &range())?)))
        .unzip()
}

/// Asks all of them in one request; an answer each.
fn ask(asker: &Asker, queries: &[Query]) -> Vec<Value> {
    let lines: String = queries
        .iter()
        .map(|q| format!("{}\n{}\n", json!({"index": q.index}), q.body))
        .collect();
    let answer = asker
        .send("POST", "/_msearch", "application/x-ndjson", &lines)
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answers = answer.body["responses"].as_array().unwrap().clone();
    for (answer, query) in answers.iter().zip(queries) {
        assert_eq!(answer["status"], 200, "{}: {answer}", query.body);
    }
    answers
}

/// Number of records that an answer is about.
fn total(answer: &Value) -> u64 {
    answer["hits"]["total"]["value"].as_u64().unwrap()
}

/// Takes every bucket of the innermost groups, and what is wrong on the way there.
fn walk(
    of: &Value,
    records: u64,
    query: &Query,
    depth: usize,
    leaves: &mut Vec<Value>,
    faults: &mut Vec<String>,
) {
    let Some(group) = query.groups.get(depth) else {
        leaves.push(of.clone());
        return;
    };
    let buckets = of[group]["buckets"].as_array().unwrap();
    let counted: u64 = buckets
        .iter()
        .map(|b| b["doc_count"].as_u64().unwrap())
        .sum();
    let others = of[group]["sum_other_doc_count"]
        .as_u64()
        .unwrap_or_default();
    // A list of values counts under each of them, so there may be more.
    if counted + others < records {
        faults.push(format!(
            "group {group} leaves out {} of {records}",
            records - counted - others
        ));
    }
    for bucket in buckets {
        let records = bucket["doc_count"].as_u64().unwrap();
        walk(bucket, records, query, depth + 1, leaves, faults);
    }
}

/// What is wrong with the answer to a panel.
fn faults(object: &Object, query: &Query, answer: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if total(answer) == 0 {
        faults.push("no records".to_owned());
    }
    if object.kind() == "search" {
        let hits = answer["hits"]["hits"].as_array().unwrap();
        for column in object.attributes()["columns"].as_array().unwrap() {
            let column = column.as_str().unwrap();
            let path = match column {
                "resource.service.name" => "/_source/resource/service.name".to_owned(),
                other => format!("/_source/{}", other.replace('.', "/")),
            };
            if !hits.iter().any(|h| h.pointer(&path).is_some()) {
                faults.push(format!("nothing in column {column}"));
            }
        }
        return faults;
    }
    let mut leaves = Vec::new();
    walk(
        &answer["aggregations"],
        total(answer),
        query,
        0,
        &mut leaves,
        &mut faults,
    );
    for (id, class) in &query.numbers {
        let values = leaves.iter().filter_map(|l| l[id]["value"].as_f64());
        if !values.clone().any(|v| v > 0.0) {
            faults.push(format!("{class} {id} is never more than 0"));
        }
    }
    faults
}

/// One node for all: it takes longer to start than all that is asked of it.
#[test]
fn panels_show_the_demo_and_follow_the_two_filters() {
    let node = filled();
    every_panel_shows_something_and_leaves_no_record_out(&node);
    the_fields_of_the_patterns_are_those_of_the_live_indices(&node);
    the_controls_list_every_agent_and_project(&node);
    one_agent_narrows_every_stream_and_every_panel_to_itself(&node);
    a_panel_that_shows_nothing_or_leaves_records_out_is_told(&node);
}

fn every_panel_shows_something_and_leaves_no_record_out(node: &OpenSearch) {
    let (panels, queries) = asking_opensearch(&[]);
    let answers = ask(&node.asker(), &queries);
    let mut wrong = Vec::new();
    for ((object, query), answer) in panels.iter().zip(&queries).zip(&answers) {
        wrong.extend(
            faults(object, query, answer)
                .into_iter()
                .map(|f| format!("{object}: {f}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn the_fields_of_the_patterns_are_those_of_the_live_indices(node: &OpenSearch) {
    let answer = node.asker().ok("GET", "/clawker-*/_mapping", None);
    let indices = answer.as_object().unwrap();
    assert_eq!(indices.len(), 7, "{:?}", indices.keys());
    for (index, mapping) in indices {
        let faults = dashboards::check::mappings(index, &mapping["mappings"]["properties"]);
        assert!(faults.is_empty(), "{faults:?}");
    }
}

fn the_controls_list_every_agent_and_project(node: &OpenSearch) {
    let mut all = dashboards::imported().iter();
    let controls = all.find(|o| o.id() == "clawker-controls").unwrap();
    let listed = lists(controls, &range())
        .into_iter()
        .map(|(field, index, body)| {
            let answer = node
                .asker()
                .ok("POST", &format!("/{index}/_search"), Some(&body));
            let buckets = answer["aggregations"]["termsAgg"]["buckets"]
                .as_array()
                .unwrap()
                .clone();
            let keys = buckets
                .iter()
                .map(|b| b["key"].as_str().unwrap().to_owned());
            (field, keys.collect::<BTreeSet<_>>())
        });
    let expected = |part: usize| {
        AGENTS
            .map(|(a, p)| [a, p][part].to_owned())
            .into_iter()
            .collect()
    };
    let both = [
        ("attributes.agent".to_owned(), expected(0)),
        ("attributes.project".to_owned(), expected(1)),
    ];
    assert_eq!(listed.collect::<Vec<_>>(), both);
}

/// Asks whose the records are that a query is about, and of which streams they are.
fn whose(query: &Query) -> Query {
    let terms = |field: &str| json!({"terms": {"field": field, "size": 100, "missing": "-"}});
    let mut other = query.clone();
    other.body["size"] = json!(0);
    other.body["aggs"] = json!({"agent": terms("attributes.agent"), "project": terms("attributes.project"),
        "stream": terms("resource.service.name")});
    other
}

fn keys(answer: &Value, name: &str) -> Vec<String> {
    let buckets = answer["aggregations"][name]["buckets"].as_array().unwrap();
    buckets
        .iter()
        .map(|b| b["key"].as_str().unwrap().to_owned())
        .collect()
}

fn one_agent_narrows_every_stream_and_every_panel_to_itself(node: &OpenSearch) {
    for (agent, project) in AGENTS {
        let filters = [
            picked("attributes.agent", agent),
            picked("attributes.project", project),
        ];
        let (panels, queries) = asking_opensearch(&filters);
        let owners: Vec<_> = queries.iter().map(whose).collect();
        let answers = ask(&node.asker(), &queries);
        let owners = ask(&node.asker(), &owners);
        let mut streams = BTreeSet::new();
        for (((object, query), answer), owner) in
            panels.iter().zip(&queries).zip(&answers).zip(&owners)
        {
            streams.extend(keys(owner, "stream"));
            if OF_NOBODY.contains(&object.id()) {
                assert_eq!(total(answer), 0, "{object}");
                continue;
            }
            assert_eq!(keys(owner, "agent"), [agent], "{object}");
            assert_eq!(keys(owner, "project"), [project], "{object}");
            let wrong = faults(object, query, answer);
            assert!(
                wrong.is_empty(),
                "{object} of {agent} of {project}: {wrong:?}"
            );
        }
        let expected = ["claude", "coredns", "egress", "envoy", "overseer"];
        assert_eq!(
            streams,
            expected
                .map(|s| format!("clawker-{s}"))
                .into_iter()
                .collect()
        );
    }
}

/// That the checks above can fail.
fn a_panel_that_shows_nothing_or_leaves_records_out_is_told(node: &OpenSearch) {
    let (panels, queries) = asking_opensearch(&[picked("attributes.agent", "nobody")]);
    let answers = ask(&node.asker(), &queries);
    for ((object, query), answer) in panels.iter().zip(&queries).zip(&answers) {
        let wrong = faults(object, query, answer);
        assert!(
            wrong.iter().any(|f| f == "no records"),
            "{object}: {wrong:?}"
        );
    }
    // Denied flows without an address are left out by a group that does not say what to do with them.
    let top = panels
        .iter()
        .find(|o| o.id() == "clawker-top-denied")
        .unwrap();
    let mut query = query(top, &[], &range()).unwrap();
    let group = query.body.pointer_mut("/aggs/4/aggs/5/terms").unwrap();
    assert!(group.as_object_mut().unwrap().remove("missing").is_some());
    let answer = ask(&node.asker(), &[query.clone()]).remove(0);
    let wrong = faults(top, &query, &answer);
    assert!(wrong.iter().any(|f| f.contains("leaves out")), "{wrong:?}");
}
