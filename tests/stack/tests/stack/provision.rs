//! `provision`, as it is shipped, against a real OpenSearch. What that lacks answers from the stand-in.

use kernel_tests::net::isolate;
use serde_json::json;
use stack_tests::{
    opensearch::{ADDRESS, OpenSearch, Version},
    provisioner::{BOARDS, STORE, command, ended, run, stand_in},
};
use std::{process::Stdio, slice};

const ALL: [&str; 7] = [
    "--opensearch=http://127.0.0.1:9201",
    "--dashboards=http://127.0.0.1:5601",
    "--prometheus=http://prometheus:9090",
    "--timeout=20s",
    "--json",
    "--retention=coredns=7d",
    "--retention=egress=90d",
];

#[test]
fn twice_in_a_row_makes_everything_once() {
    isolate();
    assert!(ALL[0].ends_with(STORE) && ALL[1].ends_with(BOARDS));
    let node = OpenSearch::start();
    let stand_in = stand_in(&node);
    let before = run(&["check", ALL[0], "--json"]);
    assert_eq!(before.code, Some(1));
    assert!(
        before
            .steps("failed")
            .contains(&"data stream clawker-egress".to_owned()),
        "{before:?}"
    );

    let first = run(&ALL);
    assert_eq!(first.code, Some(0), "{first:?}");
    for made in [
        "policy clawker-egress",
        "data stream clawker-overseer",
        "pipeline clawker-repair",
        "workspace clawker",
        "data source clawker_prometheus",
    ] {
        assert!(
            first.steps("made").contains(&made.to_owned()),
            "{made}: {first:?}"
        );
    }
    let objects = dashboards::imported().len() + dashboards::explore().len();
    assert!(
        first
            .steps("right")
            .contains(&format!("saved object {objects} of {objects}")),
        "{first:?}"
    );

    let second = run(&ALL);
    assert_eq!(second.code, Some(0), "{second:?}");
    assert_eq!(second.steps("made"), [""; 0]);
    assert_eq!(second.steps("brought"), [""; 0]);
    assert!(
        stand_in
            .policies()
            .iter()
            .all(|(_, _, written)| *written == 1),
        "a policy was written again"
    );
    let streams = node.asker().ok("GET", "/_data_stream/clawker-*", None);
    for stream in streams["data_streams"].as_array().unwrap() {
        assert_eq!(stream["generation"], 1, "{stream}");
    }
    assert_eq!(stand_in.boards(|b| b.workspaces.len()), 1);
    let source = &stand_in.sources()["clawker_prometheus"];
    assert_eq!(
        source["properties"]["prometheus.uri"],
        "http://prometheus:9090"
    );
    let check = run(&["check", ALL[0], ALL[5], ALL[6]]);
    assert_eq!(check.code, Some(0), "{check:?}");

    // Another retention is a new version of that policy only, and the indices that are there follow it.
    let third = run(&[
        "--opensearch=http://127.0.0.1:9201",
        "--json",
        "--retention=coredns=7d,egress=30d",
    ]);
    assert_eq!(
        third.steps("brought"),
        ["policy clawker-egress", "policy clawker-egress"],
        "{third:?}"
    );
    let explain = stand_in_explain("clawker-egress");
    assert!(
        explain.contains("\"min_rollover_age\":\"30d\""),
        "{explain}"
    );
}

/// What the indices of a stream follow.
fn stand_in_explain(stream: &str) -> String {
    let asker = stack_tests::opensearch::Asker::new(format!("http://{STORE}"));
    let path = format!("/_plugins/_ism/explain/{stream}?show_policy=true");
    asker.ok("GET", &path, None).to_string()
}

#[test]
fn an_object_that_dashboards_refuses_is_named() {
    isolate();
    let node = OpenSearch::start();
    let stand_in = stand_in(&node);
    let refused = dashboards::imported().last().expect("there are objects");
    stand_in.boards(|b| b.refuse.insert(refused.id().to_owned()));
    let came = run(&ALL);
    assert_eq!(came.code, Some(1));
    let name = format!("saved object {} {}", refused.kind(), refused.id());
    // Refused by the import, and not there afterwards.
    assert_eq!(came.steps("failed"), [name.clone(), name], "{came:?}");
    assert!(
        came.steps("made")
            .contains(&"data stream clawker-egress".to_owned())
    );
}

#[test]
fn an_older_installation_is_brought_up_to_date_without_losing_a_record() {
    isolate();
    let node = OpenSearch::start();
    let stand_in = stand_in(&node);
    let asker = node.asker();
    // One whose types have changed since, and one that only lacks what has come since.
    for (stream, port) in [("clawker-egress", "keyword"), ("clawker-cp", "long")] {
        let old = json!({"index_patterns": [stream], "data_stream": {}, "priority": 500, "template": {"mappings": {
            "dynamic": false, "properties": {"attributes": {"properties": {"dst_port": {"type": port}}}},
        }}});
        asker.ok("PUT", &format!("/_index_template/{stream}"), Some(&old));
        asker.ok("PUT", &format!("/_data_stream/{stream}"), None);
        let record = json!({"@timestamp": "2026-11-22T10:00:00Z", "attributes": {"agent": "a", "dst_port": 80}});
        assert_eq!(asker.create(stream, &[record])[0]["status"], 201);
    }
    stand_in.detach(".ds-clawker-egress-000001");
    stand_in.detach(".ds-clawker-cp-000001");
    // A plain index of a name that a stream is to have.
    asker.ok("PUT", "/clawker-unknown", None);

    let came = run(&["--opensearch=http://127.0.0.1:9201", "--json"]);
    assert_eq!(came.code, Some(1));
    assert_eq!(
        came.steps("failed"),
        ["data stream clawker-unknown"],
        "{came:?}"
    );
    assert!(
        came.stdout
            .contains("a plain index or alias of this name is in the way")
    );
    let brought = came.steps("brought");
    for name in [
        "data stream clawker-egress",
        "data stream clawker-cp",
        "policy clawker-egress",
        "index template clawker-cp",
    ] {
        assert!(brought.contains(&name.to_owned()), "{name}: {brought:?}");
    }
    let generation = |stream: &str| {
        asker.ok("GET", &format!("/_data_stream/{stream}"), None)["data_streams"][0]["generation"]
            .clone()
    };
    assert_eq!(
        generation("clawker-egress"),
        2,
        "another type needs another index"
    );
    assert_eq!(generation("clawker-cp"), 1, "new fields do not");
    assert!(stand_in_explain("clawker-egress").contains("\"total_managed_indices\":2"));

    // The old record is there, new ones have the new types, and go through the pipeline.
    let record = json!({"@timestamp": "2026-11-22T11:00:00Z", "attributes": {"agent": "a", "dst_port": "none", "record_id": "x"}});
    for stream in ["clawker-egress", "clawker-cp"] {
        assert_eq!(
            asker.create(stream, slice::from_ref(&record))[0]["_id"],
            "x"
        );
        assert_eq!(node.count(stream), 2, "{stream}");
    }

    asker.ok("DELETE", "/clawker-unknown", None);
    let again = run(&["--opensearch=http://127.0.0.1:9201", "--json"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(again.steps("made"), ["data stream clawker-unknown"]);
    assert_eq!(
        generation("clawker-egress"),
        2,
        "the old index cannot be helped, the new one is right"
    );
}

#[test]
fn what_a_newer_version_made_is_not_put_back() {
    isolate();
    let node = OpenSearch::start();
    let _stand_in = stand_in(&node);
    let newer = json!({"version": 999, "template": {"mappings": {"properties": {"attributes": {"properties": {"new": {"type": "keyword"}}}}}}});
    node.asker().ok(
        "PUT",
        "/_component_template/clawker-attributes",
        Some(&newer),
    );
    let came = run(&["--opensearch=http://127.0.0.1:9201", "--json"]);
    assert_eq!(came.code, Some(1));
    assert_eq!(
        came.steps("failed"),
        ["component template clawker-attributes"],
        "{came:?}"
    );
    assert!(came.stdout.contains("newer version"));
    let there = node
        .asker()
        .ok("GET", "/_component_template/clawker-attributes", None);
    assert_eq!(
        there["component_templates"][0]["component_template"]["version"],
        999
    );
    let streams = node.asker().ok("GET", "/_data_stream", None);
    assert_eq!(
        streams["data_streams"],
        json!([]),
        "no stream without its templates"
    );
}

#[test]
fn it_waits_for_an_opensearch_that_is_starting() {
    isolate();
    let mut node = OpenSearch::prepare(Version::Current, ADDRESS);
    let stand_in = stack_tests::standin::StandIn::new(node.asker());
    stand_in.serve_store(STORE, stack_tests::standin::Upstream::plain(ADDRESS));
    let mut waiting = command(&["--opensearch=http://127.0.0.1:9201", "--timeout=4m"]);
    waiting.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = waiting.spawn().expect("it starts");
    node.launch();
    let out = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(
        out.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&out.stdout)
    );
    assert!(said.contains("waiting for OpenSearch: "), "{said}");
    node.answers();
    assert_eq!(
        node.asker().ok("GET", "/_data_stream", None)["data_streams"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    isolate();
    let nobody = run(&["--opensearch=http://127.0.0.1:9200", "--timeout=2s"]);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stdout.contains("http://127.0.0.1:9200")
            && nobody.stdout.contains("Connection refused"),
        "{nobody:?}"
    );
    assert!(
        nobody.stdout.contains("see whether the server runs"),
        "{nobody:?}"
    );
    for wrong in [
        &["--retention=mail=3d"][..],
        &["--retention=egress=3"],
        &["--timeout=soon"],
        &["--nonsense"],
    ] {
        let came = run(wrong);
        assert_eq!(came.code, Some(2), "{wrong:?}: {came:?}");
    }
    let address = run(&["--opensearch=opensearch:9200"]);
    assert_eq!(address.code, Some(1));
    assert!(
        address.stdout.contains("is not an address like"),
        "{address:?}"
    );
    let ca = ended(&mut command(&[
        "--opensearch=https://127.0.0.1:9200",
        "--ca=/nowhere/ca.pem",
    ]));
    assert_eq!(ca.code, Some(1));
    assert!(ca.stderr.contains("--ca /nowhere/ca.pem"), "{ca:?}");
}
