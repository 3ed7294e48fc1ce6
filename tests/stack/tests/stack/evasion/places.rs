//! Where a request is led to: metadata services, the gateway, and UDP past the proxy.

use super::{POLICY, PROXY, SHARED, World, ask_plainly, get, led};
use kernel_tests::{check::fields, net::ip};
use serde_json::json;
use stack_tests::origin::Origin;

#[test]
fn evasion_37_quic_to_a_host_whose_requests_are_read() {
    let mut w = World::start(POLICY);
    let stream = w.inside.dial("a.pkg.example", 443);
    let tried = w.https(stream, "a.pkg.example", &get("/x", "a.pkg.example"));
    assert_eq!(tried.status, 200, "{tried:?}");
    w.expect(
        &tried,
        led("packages", "a.pkg.example", 443),
        json!([{"verdict": "ALLOWED", "l7_proto": "https"}]),
    );
    // By either call, and to where Envoy listens.
    let quic = format!(
        "(udp(b'quic', '{SHARED}', 443, 0), told(b'quic', '{SHARED}', 443), udp(b'quic', '{PROXY}', 10443, 0))"
    );
    assert_eq!(w.inside.value(&quic), "('EPERM', 'EPERM', 'EPERM')");
    let out = w.end([&["GET /x a.pkg.example"], &[]]);
    let refused = out.denied(&[("l4_proto", json!("udp")), ("dst_port", json!(443))]);
    assert_eq!(refused.len(), 2, "{:#?}", out.records);
    for r in refused {
        fields(
            r,
            &json!({"reason": "default", "dst_host": "a.pkg.example", "bytes_out": 0, "proxy_ip": null}),
        );
    }
    out.only_denied(&[("dst_port", json!(10_443)), ("dst_ip", json!(PROXY))]);
}

/// Spellings of metadata services that Envoy takes for addresses, or looks up.
const METADATA: [&str; 6] = [
    "169.254.169.254",
    "169.254.169.254:80",
    "100.100.100.200",
    "[fd00:ec2::254]",
    "[::ffff:169.254.169.254]",
    "meta.example",
];
/// Those that are names without an address to whoever resolves them.
const NAMES: [&str; 4] = [
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "metadata.google.internal",
];

/// Asks for metadata by way of an allowed host; none may be asked for it, whatever the policy.
fn metadata(policy: &str, hosts: &[&str], reason: Option<&str>) {
    let mut w = World::start(policy);
    ip(&["addr", "add", "169.254.169.254/32", "dev", "lo"]);
    let service = Origin::plain("169.254.169.254:80");
    for host in hosts {
        let stream = w.inside.dial("web.example", 80);
        let tried = ask_plainly(stream, &get("/latest/meta-data/", host));
        assert_eq!(tried.status, 403, "{host}: {tried:?}");
        let mut record =
            json!({"verdict": "DENIED", "path": "/latest/meta-data/", "request_host": host});
        if let Some(reason) = reason {
            record["reason"] = json!(reason);
        }
        w.expect(&tried, led("web", "web.example", 80), json!([record]));
    }
    // A name of an allowed rule that leads there, and the address itself.
    assert_eq!(w.inside.look("meta.example"), "169.254.169.254");
    assert_eq!(
        w.inside.connect("169.254.169.254", 80).unwrap_err(),
        "EPERM"
    );
    assert_eq!(service.asked(), [""; 0]);
    let out = w.end([&[], &[]]);
    fields(
        out.only_denied(&[("dst_ip", json!("169.254.169.254"))]),
        &json!({"reason": "builtin", "proxy_ip": null, "dst_host": "meta.example"}),
    );
}

#[test]
fn evasion_41_metadata_services_by_way_of_the_proxy() {
    metadata(POLICY, &[&METADATA[..], &NAMES].concat(), None);
}

#[test]
fn evasion_41_metadata_services_by_way_of_the_proxy_where_all_is_allowed() {
    metadata(&format!("default: allow\n{POLICY}"), &METADATA, None);
}

#[test]
fn evasion_41_metadata_services_by_way_of_the_proxy_in_mode_audit() {
    metadata(&format!("mode: audit\n{POLICY}"), &METADATA, None);
}

#[test]
fn evasion_42_the_gateway_by_way_of_the_proxy() {
    let mut w = World::start(POLICY);
    ip(&["addr", "add", "172.17.0.1/32", "dev", "lo"]);
    // Its address, its usual name, and a name of an allowed rule that leads there.
    for (host, reason) in [
        ("172.17.0.1", "default"),
        ("host.docker.internal", "default"),
        ("gate.example", "proxy"),
        ("localhost", "default"),
        ("127.0.0.1:9901", "default"),
    ] {
        let stream = w.inside.dial("web.example", 80);
        let tried = ask_plainly(stream, &get("/", host));
        assert_eq!(tried.status, 403, "{host}: {tried:?}");
        w.expect(
            &tried,
            led("web", "web.example", 80),
            json!([{"verdict": "DENIED", "reason": reason, "request_host": host}]),
        );
    }
    assert_eq!(w.inside.look("gate.example"), "172.17.0.1");
    assert_eq!(w.inside.connect("172.17.0.1", 80).unwrap_err(), "EPERM");
    let out = w.end([&[], &[]]);
    fields(
        out.only_denied(&[("dst_ip", json!("172.17.0.1"))]),
        &json!({"reason": "default", "proxy_ip": null}),
    );
}
