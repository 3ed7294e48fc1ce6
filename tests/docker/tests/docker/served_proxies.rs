//! Agents in real containers that are led to proxies: through the engine's own resolver, its NAT, the guard and the backstop.

use docker_tests::{
    engine::Engine,
    stack::{Stack, is_of},
};
use kernel_tests::{
    dns::{Resolver, address},
    eventually,
    peer::{once, take},
    talk::Talk,
};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

const POLICY: &str = "version: 1
resolvers: [coredns]
rules: [{ name: api, dst: api.example, proto: http }]
";
/// The host's address in the agents' network, where the proxies of this test listen.
const HERE: &str = "10.91.0.1";
const LABELS: (&str, &str) = ("web", "shop");

#[test]
fn lookups_and_requests_of_a_container_reach_the_proxies_and_nothing_is_refused_on_the_way() {
    let engine = Engine::start();
    engine.docker(&[
        "network",
        "create",
        "--subnet",
        "10.91.0.0/24",
        "--gateway",
        HERE,
        "agents",
    ]);
    let args = [
        "--max-agents",
        "8",
        "--linger",
        "5",
        "--proxy",
        HERE,
        "--dns",
        HERE,
    ];
    let stack = Stack::with(&engine, POLICY, &args);
    let names = Resolver::start(HERE);
    names.set("api.example", vec![address("198.51.100.7", 300)]);
    let agent = stack.agent(&engine, "web", "shop", &["--network", "agents"]);
    let own = agent.ip("agents");
    // It goes on sending when the agent is gone, to which the agent's kernel answers for nobody.
    let served = once(&format!("{HERE}:10080"), |mut s: TcpStream| {
        take(&mut s, 10);
        s.write_all(b"hello").unwrap();
        let mut rest = Vec::new();
        let _ = s.read_to_end(&mut rest);
        while s.write_all(b"late").is_ok() {}
        rest.len()
    });
    let mut talk = Talk::start(&mut agent.program(
        "s = socket.create_connection(('api.example', 80)); s.sendall(bytes(10)); need(s, 5)\n\
         say(*s.getpeername()); s.close()",
    ));
    assert_eq!(talk.hear(), "198.51.100.7 80");
    let (from, rest) = served.join().unwrap();
    assert_eq!((from.ip().to_string(), rest), (own.clone(), 0));
    let asked = names.asked();
    assert!(
        asked.iter().all(|name| name == "api.example") && !asked.is_empty(),
        "{asked:?}"
    );
    let flow = stack.flow_to(80);
    is_of(&flow, &agent, LABELS);
    for (key, value) in [
        ("verdict", json!("ALLOWED")),
        ("rule", json!("api")),
        ("dst_ip", json!("198.51.100.7")),
        ("dst_host", json!("api.example")),
        ("proxy_ip", json!(HERE)),
        ("proxy_port", json!(10080)),
        ("src_ip", json!(own)),
        ("bytes_out", json!(10)),
        ("bytes_in", json!(5)),
    ] {
        assert_eq!(flow.attributes.get(key), Some(&value), "{key}");
    }
    let lookups = eventually("the records of the look-ups", || {
        let mut all = stack.collector.received();
        all.retain(|r| r.attributes.get("dst_port") == Some(&json!(53)));
        let packets: u64 = all
            .iter()
            .filter_map(|r| r.attributes["packets_out"].as_u64())
            .sum();
        (packets == asked.len() as u64).then_some(all)
    });
    for lookup in &lookups {
        is_of(lookup, &agent, LABELS);
        // The engine's own resolver is whom it meant.
        let ends = |key: &str| lookup.attributes.get(key).cloned().unwrap_or_default();
        assert_eq!(
            (ends("dst_ip"), ends("proxy_ip")),
            (json!("127.0.0.11"), json!(HERE))
        );
    }
    let denied = |r: &&kernel_tests::collector::Received| {
        r.attributes.get("verdict") == Some(&Value::from("DENIED"))
    };
    let all = stack.collector.received();
    assert_eq!(all.iter().filter(denied).count(), 0, "{all:#?}");
    // Off the network it has no way to them.
    agent.disconnect("agents");
    agent.connect("bridge");
    eventually("requests to be refused", || {
        let said = agent.exec("print(tcp('198.51.100.7', 80))");
        (said == "EPERM").then_some(())
    });
    stack.end();
}
