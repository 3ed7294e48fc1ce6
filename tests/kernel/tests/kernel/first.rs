//! The thinnest slice: one allowed and one denied connection, and nothing left behind.

use kernel_tests::{
    check::fields,
    peer::{drain, once},
    policies::WEB,
    run::Bench,
};
use serde_json::json;

#[test]
fn one_flow_is_allowed_and_one_denied() {
    let bench = Bench::new();
    let server = once("192.0.2.1:8080", |mut s| drain(&mut s));
    let out = bench.agent(
        WEB,
        "print(tcp('192.0.2.1', 8080, b'x' * 1234), tcp('203.0.113.9', 80))",
    );
    assert_eq!(out.words(), ["ok", "EPERM"]);
    assert_eq!(server.join().unwrap().1, 1234);
    fields(
        out.only(&[("verdict", json!("ALLOWED"))]),
        &json!({"dst_ip": "192.0.2.1", "bytes_out": 1234, "bytes_in": 0, "rule": "web",
                "close_reason": "fin", "comm": "python3"}),
    );
    fields(
        out.only_denied(&[("dst_port", json!(80))]),
        &json!({"reason": "default"}),
    );
    assert_eq!(out.records.len(), 2);
    bench.nothing_left(&[]);
}
