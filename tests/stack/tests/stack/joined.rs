//! One request over the whole of it: an agent under the firewall, led to the real CoreDNS and the real Envoy, whose records and
//! the kernel's are found in the store by one question, and belong together by their fields.

use kernel_tests::{
    dns::{Resolver, address},
    eventually_within,
    run::Bench,
};
use proxy::{Agent, Fleet, Settings, coredns};
use serde_json::{Value, json};
use stack_tests::{
    chain::{ANN, Chain, PATIENCE, of},
    collector::STACK,
    coredns::{CoreDns, UPSTREAM},
    envoy::{Envoy, authority, render},
    origin::Origin,
};

/// What all three are told.
const POLICY: &str = "version: 1
resolvers: [coredns]
rules:
  - { name: api, dst: api.example, proto: https, path_rules: [{ path: /v1/, methods: [GET] }] }
";
/// Where the name leads.
const SERVER: &str = "203.0.113.9";

/// Everything that is on record of an agent, of whichever source: one question.
fn on_record(chain: &Chain, agent: &str) -> Vec<Value> {
    let asked = json!({"size": 100, "query": {"term": {"attributes.agent": agent}}});
    let path = "/clawker-*/_search?ignore_unavailable=true";
    let answer = chain.store.asker().ok("POST", path, Some(&asked));
    let hits = answer["hits"]["hits"].as_array().cloned();
    hits.unwrap_or_default()
}

/// The only record of a stream that has these fields.
#[track_caller]
fn only<'r>(records: &'r [Value], stream: &str, wanted: &Value) -> &'r Value {
    let fits = |r: &&Value| {
        let index = r["_index"].as_str().unwrap_or_default();
        let fields = wanted.as_object().expect("fields");
        index.contains(stream) && fields.iter().all(|(k, v)| of(r)[k] == *v)
    };
    let found: Vec<_> = records.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{stream} {wanted}: {records:#?}");
    found[0]
}

#[test]
fn the_flow_the_request_and_the_lookup_of_one_agent_are_found_at_once_and_join() {
    let bench = Bench::new();
    let chain = Chain::start();
    let upstream = Resolver::start(UPSTREAM);
    upstream.set("api.example", vec![address(SERVER, 300)]);
    let theirs = bench.path("servers");
    let server = Origin::tls(
        &format!("{SERVER}:443"),
        &authority(&theirs),
        &["api.example"],
    );
    let dir = bench.path("envoy");
    let settings = Settings {
        directory: dir.display().to_string(),
        listen: vec![ANN.ip.parse().unwrap()],
        resolvers: vec![format!("{UPSTREAM}:53").parse().unwrap()],
        collector_host: STACK.to_owned(),
        collector_port: 4320,
        upstream_ca: theirs.join("ca.pem").display().to_string(),
        intercept: true,
        ..Settings::default()
    };
    let policy = super::envoy::policy(POLICY);
    let agent = format!("{}/{}@{}", ANN.project, ANN.agent, ANN.ip);
    render(&policy, &[&agent], &settings);
    let _envoy = Envoy::start(&dir, &[&format!("{}:10443", ANN.ip)]);
    let fleet = Fleet::new(vec![Agent::parse(&agent).unwrap()]).unwrap();
    let corefile = coredns::render(&policy, &fleet, &settings);
    let _coredns = CoreDns::start(chain.dir.path(), &corefile, chain.collector.queries());

    let (ca, url) = (
        dir.join("ca/ca.pem"),
        "https://api.example/v1/x?token=secret",
    );
    // Where the bridge would hand over the flows of `serve`.
    let store = format!("http://{STACK}:4319/v1/logs");
    let args = [
        "--proxy",
        ANN.ip,
        "--dns",
        ANN.ip,
        "--otlp",
        &store,
        "--agent",
        ANN.agent,
        "--project",
        ANN.project,
    ];
    let curl = [
        "curl",
        "--silent",
        "--show-error",
        "--ipv4",
        "--max-time",
        "20",
        "--cacert",
        ca.to_str().unwrap(),
        url,
    ];
    let out = bench.run(POLICY, &args, &curl);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(server.asked().len(), 1, "{:?}", server.asked());

    let records = eventually_within(PATIENCE, "a record of each", || {
        let records = on_record(&chain, ANN.agent);
        let of_stream = |s: &str| {
            records
                .iter()
                .filter(|r| r["_index"].as_str().is_some_and(|i| i.contains(s)))
                .count()
        };
        // The connection and the look-up, the request, the query.
        let there = of_stream("clawker-egress") >= 2
            && of_stream("clawker-envoy") >= 1
            && of_stream("clawker-coredns") >= 1;
        there.then_some(records)
    });
    let same = json!({"agent": ANN.agent, "project": ANN.project, "src_ip": ANN.ip});
    assert!(
        records.iter().all(|r| same
            .as_object()
            .unwrap()
            .iter()
            .all(|(k, v)| of(r)[k] == *v)),
        "{records:#?}"
    );
    let flow = only(&records, "clawker-egress", &json!({"dst_port": 443}));
    for (key, value) in [
        ("verdict", json!("ALLOWED")),
        ("rule", json!("api")),
        ("dst_ip", json!(SERVER)),
        ("dst_host", json!("api.example")),
        ("proxy_ip", json!(ANN.ip)),
        ("comm", json!("curl")),
    ] {
        assert_eq!(of(flow)[key], value, "{key}");
    }
    let request = only(
        &records,
        "clawker-envoy",
        &json!({"src_port": of(flow)["src_port"]}),
    );
    for (key, value) in [
        ("verdict", json!("ALLOWED")),
        ("method", json!("GET")),
        ("path", json!("/v1/x")),
        ("request_host", json!("api.example")),
        ("sni", json!("api.example")),
        ("response_code", json!(200)),
    ] {
        assert_eq!(of(request)[key], value, "{key}");
    }
    let query = only(
        &records,
        "clawker-coredns",
        &json!({"qname": "api.example.", "qtype": "A"}),
    );
    assert_eq!(
        (&of(query)["verdict"], &of(query)["rcode"]),
        (&json!("ALLOWED"), &json!("NOERROR"))
    );
    let lookup = only(
        &records,
        "clawker-egress",
        &json!({"l4_proto": of(query)["l4_proto"], "src_port": of(query)["src_port"]}),
    );
    assert_eq!(
        (&of(lookup)["dst_port"], &of(lookup)["proxy_ip"]),
        (&json!(53), &json!(ANN.ip))
    );
    assert!(!json!(records).to_string().contains("secret"));
}
