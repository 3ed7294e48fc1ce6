//! Who may do what, in a real OpenSearch with the security plugin, after the shipped `provision` has run.

use kernel_tests::net::isolate;
use serde_json::{Value, json};
use stack_tests::{
    opensearch::{ADMIN_PASSWORD, Answer, Asker, OpenSearch},
    provisioner::{STORE, command, ended, stand_in},
};

const PASSWORD: &str = "Staple-battery-41-horse";

fn status(who: &Asker, method: &str, path: &str, body: Option<&Value>) -> u16 {
    who.ask(method, path, body).status
}

#[test]
fn everybody_may_do_their_own_and_no_more() {
    isolate();
    let node = OpenSearch::secured();
    let _stand_in = stand_in(&node);
    let through = format!("--opensearch=http://{STORE}");

    // Nobody, and somebody with another password: told at once, with what to do.
    let nobody = ended(&mut command(&[&through, "--timeout=60s"]));
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.stdout.contains("401")
            && nobody
                .stdout
                .contains("security is on: set OPENSEARCH_INITIAL_ADMIN_PASSWORD"),
        "{nobody:?}"
    );
    let wrong = ended(
        command(&[&through, "--timeout=60s"]).env("OPENSEARCH_INITIAL_ADMIN_PASSWORD", "wrong"),
    );
    assert_eq!(wrong.code, Some(1));
    assert!(
        wrong.stdout.contains("the user or the password is wrong"),
        "{wrong:?}"
    );
    assert!(
        !wrong.stdout.contains("waiting") && !wrong.stderr.contains("waiting"),
        "{wrong:?}"
    );

    // Without the passwords of the users they are not made, and that is said.
    let mut admin = command(&[&through, "--json"]);
    admin.env("OPENSEARCH_INITIAL_ADMIN_PASSWORD", ADMIN_PASSWORD);
    let without = ended(&mut admin);
    assert_eq!(
        without.steps("failed"),
        [
            "user clawker-collector",
            "user clawker-viewer",
            "user clawker-dashboards"
        ],
        "{without:?}"
    );
    for name in ["COLLECTOR", "VIEWER", "DASHBOARDS"] {
        admin.env(format!("CLAWKER_{name}_PASSWORD"), PASSWORD);
    }
    for _ in 0..2 {
        let came = ended(&mut admin);
        assert_eq!(came.code, Some(0), "{came:?}");
        assert!(!came.stdout.contains(PASSWORD) && !came.stderr.contains(PASSWORD));
    }

    let record = json!({"@timestamp": "2026-11-22T10:00:00Z", "attributes": {"agent": "a", "flow_id": "f1"}});
    let collector = node.asker().as_user("clawker-collector", PASSWORD);
    let written = collector.create("clawker-egress", &[record.clone(), record.clone()]);
    assert_eq!(
        (&written[0]["status"], &written[1]["status"]),
        (&json!(201), &json!(409)),
        "{written:?}"
    );
    let index = written[0]["_index"].as_str().expect("an index").to_owned();
    node.asker().ok("POST", "/clawker-egress/_refresh", None);
    for (method, path, body) in [
        ("GET", "/clawker-egress/_search".to_owned(), None),
        ("GET", format!("/{index}/_doc/f1"), None),
        ("DELETE", format!("/{index}/_doc/f1"), None),
        (
            "POST",
            format!("/{index}/_update/f1"),
            Some(json!({"doc": {"body": "x"}})),
        ),
        (
            "POST",
            "/clawker-egress/_delete_by_query".to_owned(),
            Some(json!({"query": {"match_all": {}}})),
        ),
        ("DELETE", "/_data_stream/clawker-egress".to_owned(), None),
        ("PUT", "/clawker-new".to_owned(), None),
        ("POST", "/clawker-new/_doc".to_owned(), Some(record.clone())),
        ("POST", "/other/_doc".to_owned(), Some(record.clone())),
        (
            "PUT",
            "/clawker-egress/_mapping".to_owned(),
            Some(json!({"properties": {"x": {"type": "long"}}})),
        ),
        (
            "PUT",
            "/_index_template/clawker-egress".to_owned(),
            Some(json!({"index_patterns": ["x"]})),
        ),
        (
            "GET",
            "/_plugins/_security/api/internalusers".to_owned(),
            None,
        ),
    ] {
        assert_eq!(
            status(&collector, method, &path, body.as_ref()),
            403,
            "the collector: {method} {path}"
        );
    }

    let viewer = node.asker().as_user("clawker-viewer", PASSWORD);
    let query = json!({"query": {"term": {"attributes.agent": "a"}}, "aggs": {"a": {"terms": {"field": "attributes.agent"}}}});
    let Answer { status: code, body } = viewer.ask("POST", "/clawker-*/_search", Some(&query));
    assert_eq!(
        (code, &body["hits"]["total"]["value"]),
        (200, &json!(1)),
        "{body}"
    );
    for path in [
        "/clawker-*/_field_caps?fields=*",
        "/clawker-egress/_mapping",
        "/clawker-*/_count",
        "/_resolve/index/clawker-*",
    ] {
        assert_eq!(
            status(&viewer, "GET", path, None),
            200,
            "the viewer: {path}"
        );
    }
    for (method, path, body) in [
        ("POST", "/clawker-egress/_doc", Some(&record)),
        (
            "PUT",
            "/clawker-egress/_doc/new?op_type=create",
            Some(&record),
        ),
        ("DELETE", "/_data_stream/clawker-egress", None),
        (
            "PUT",
            "/clawker-egress/_settings",
            Some(&json!({"index.blocks.write": true})),
        ),
        ("PUT", "/other", None),
        ("GET", "/.opendistro_security/_search", None),
        ("GET", "/_plugins/_security/api/internalusers", None),
    ] {
        assert_eq!(
            status(&viewer, method, path, body),
            403,
            "the viewer: {method} {path}"
        );
    }

    let server = node.asker().as_user("clawker-dashboards", PASSWORD);
    assert_eq!(
        status(&server, "PUT", "/.kibana_1/_doc/x", Some(&json!({"a": 1}))),
        201
    );
    assert_eq!(
        status(&server, "GET", "/clawker-egress/_search", None),
        403,
        "the server of Dashboards"
    );
    assert_eq!(node.count("clawker-egress"), 1);
}

#[test]
fn a_certificate_is_checked_with_the_given_authority() {
    isolate();
    let node = OpenSearch::secured();
    let ca = node
        .ca()
        .expect("it has one")
        .to_str()
        .expect("a path")
        .to_owned();
    let direct = [
        "check",
        "--opensearch=https://127.0.0.1:9200",
        "--json",
        "--timeout=10s",
    ];
    let mut known = command(&direct);
    known
        .args(["--ca", &ca])
        .env("OPENSEARCH_INITIAL_ADMIN_PASSWORD", ADMIN_PASSWORD);
    let known = ended(&mut known);
    assert_eq!(known.steps("right"), ["OpenSearch 3.4.0"], "{known:?}");
    // Without the authority: not an answer is read, and no password sent.
    let unknown = ended(command(&direct).env("OPENSEARCH_INITIAL_ADMIN_PASSWORD", ADMIN_PASSWORD));
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.stdout.contains("certificate") && unknown.stdout.contains("--ca"),
        "{unknown:?}"
    );
}
