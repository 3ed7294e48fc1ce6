//! The nodes that the other tests rely on.

use kernel_tests::net::isolate;
use serde_json::json;
use stack_tests::opensearch::OpenSearch;

#[test]
fn a_node_keeps_its_data_when_it_is_killed_and_started_again() {
    isolate();
    let mut node = OpenSearch::start();
    let number = &node.asker().ok("GET", "/", None)["version"]["number"];
    assert_eq!(number, "3.8.0");
    let put = node.asker().create("plain", &[json!({"a": 1})]);
    assert_eq!(put[0]["status"], 201, "{put:?}");
    node.kill();
    assert!(node.asker().try_ask("GET", "/", None).is_err());
    node.restart();
    assert_eq!(node.count("plain"), 1);
    node.stop();
    node.restart();
    assert_eq!(node.count("plain"), 1);
}

#[test]
fn a_secured_node_knows_its_users() {
    isolate();
    let node = OpenSearch::secured();
    assert_eq!(
        node.asker().ok("GET", "/", None)["version"]["number"],
        "3.4.0"
    );
    let stranger = node.asker().as_user("admin", "wrong").ask("GET", "/", None);
    assert_eq!(stranger.status, 401);
}
