//! The whole stack, started as a user starts it.

use super::{of, proxied::requests_are_found};
use docker_tests::container::Container;
use serde_json::{Value, json};
use stack_tests::compose::Stack;

const SERVICES: [&str; 10] = [
    "authority",
    "bridge",
    "collector",
    "coredns",
    "dashboards",
    "envoy",
    "loader",
    "opensearch",
    "prometheus",
    "provision",
];

#[test]
fn the_shipped_stack_shows_flows_keeps_agents_out_and_loses_nothing() {
    let stack = Stack::lay_out();
    stack.compose(&[
        "--profile",
        "demo",
        "up",
        "--detach",
        "--no-build",
        "--quiet-pull",
    ]);
    stack.healthy(&[&SERVICES[..], &["demo"]].concat());

    let kept = flows_are_found(&stack);
    demo_is_found(&stack);
    only_the_otlp_port_is_in_reach(&stack);
    users_may_what_they_should(&stack);
    room_is_counted_in_bytes(&stack);

    stack.compose(&["--profile", "demo", "down"]);
    stack.compose(&["up", "--detach", "--no-build", "--quiet-pull"]);
    stack.healthy(&SERVICES);
    let ids =
        |hits: &[Value]| -> Vec<String> { hits.iter().map(|h| h["_id"].to_string()).collect() };
    let found = ids(&stack.search("clawker-egress", &of("reviewer")));
    assert!(
        kept.iter().all(|id| found.contains(id)),
        "{kept:?} {found:?}"
    );
    secrets_can_be_rotated(&stack);
}

/// What an agent does is in the store, as what it was; the ids.
fn flows_are_found(stack: &Stack) -> Vec<String> {
    let agent = stack
        .engine
        .agent("reviewer", "acme", &["--network", "clawker-agents"]);
    let collector = stack.address("collector", "clawker-agents");
    let enrolled = ("event_name", json!("clawker.overseer.enrolled"));
    stack.record("clawker-overseer", "reviewer", &[enrolled]);
    agent.exec(
        "socket.create_connection(('clawker-collector', 4318), 5).close()\n\
         assert tcp('198.51.100.7', 443) == 'EPERM'\n\
         assert udp(b'x', '203.0.113.9', 123, 0) == 'EPERM'",
    );
    let found = |wanted: &[(&str, Value)]| stack.record("clawker-egress", "reviewer", wanted);
    let gateway = lifted(stack, &agent);
    requests_are_found(stack, &agent);
    let denied = ("verdict", json!("DENIED"));
    let flows = [
        found(&[
            ("verdict", json!("BYPASSED")),
            ("dst_ip", json!(gateway)),
            ("reason", json!("bypass")),
            ("close_reason", json!("refused")),
        ]),
        found(&[
            ("verdict", json!("ALLOWED")),
            ("dst_host", json!("clawker-collector")),
            ("dst_ip", json!(collector)),
            ("dst_port", json!(4318)),
            ("rule", json!("telemetry")),
            ("project", json!("acme")),
        ]),
        found(&[
            denied.clone(),
            ("dst_ip", json!("198.51.100.7")),
            ("l4_proto", json!("tcp")),
        ]),
        found(&[
            denied,
            ("dst_ip", json!("203.0.113.9")),
            ("l4_proto", json!("udp")),
            ("dst_port", json!(123)),
        ]),
    ];
    flows.iter().map(|hit| hit["_id"].to_string()).collect()
}

/// Lifts the firewall from an agent, as an operator does: what was denied passes, the stack's own parts stay
/// closed. Returns what the agent has reached.
fn lifted(stack: &Stack, agent: &Container<'_>) -> String {
    let all = agent.inspect();
    let gateway = &all["NetworkSettings"]["Networks"]["clawker-agents"]["Gateway"];
    let gateway = gateway.as_str().expect("an address").to_owned();
    let reach = |ip: &str, port: u16| agent.exec(&format!("print(tcp('{ip}', {port}))"));
    assert_eq!(reach(&gateway, 9), "EPERM");
    let manager = ["exec", "-T", "loader", "ebpf-manager"];
    let bypass = [
        "bypass", "--agent", "reviewer", "--for", "5m", "--reason", "a look",
    ];
    stack.compose(&[&manager[..], &bypass].concat());
    assert_eq!(reach(&gateway, 9), "ECONNREFUSED");
    let store = stack.address("opensearch", "clawker-stack");
    assert_eq!(reach(&store, 9200), "EPERM");
    stack.compose(&[&manager[..], &["enforce", "--agent", "reviewer"]].concat());
    assert_eq!(reach(&gateway, 9), "EPERM");
    let why = ("bypass_reason", json!("a look"));
    stack.record("clawker-overseer", "reviewer", &[why]);
    gateway
}

/// Somebody who starts the demo sees something in every stream that it feeds.
fn demo_is_found(stack: &Stack) {
    for (index, kind) in [
        (
            "clawker-egress",
            json!({"term": {"attributes.verdict": "ALLOWED"}}),
        ),
        (
            "clawker-egress",
            json!({"term": {"attributes.verdict": "DENIED"}}),
        ),
        (
            "clawker-coredns",
            json!({"term": {"attributes.verdict": "ALLOWED"}}),
        ),
        (
            "clawker-coredns",
            json!({"bool": {"filter": [{"term": {"attributes.qname": "exfiltration.example.net."}},
                                       {"term": {"attributes.verdict": "DENIED"}}]}}),
        ),
        (
            "clawker-egress",
            json!({"term": {"attributes.reason": "builtin"}}),
        ),
        (
            "clawker-claude",
            json!({"term": {"attributes.model": "claude-sonnet-4-5"}}),
        ),
    ] {
        let query = json!({"bool": {"filter": [of("demo"), {"term": {"attributes.project": "quick-start"}}, kind]}});
        stack.eventually(&format!("{index}: {query}"), || {
            (!stack.search(index, &query).is_empty()).then_some(())
        });
    }
}

/// From the agents' network nothing of the stack answers but the OTLP ports: neither to a container that is
/// under no firewall, which the networks alone keep out, nor to an agent.
fn only_the_otlp_port_is_in_reach(stack: &Stack) {
    let network = ["--network", "clawker-agents"];
    let stranger = stack.engine.run("stranger", &network);
    let intruder = stack.engine.agent("intruder", "acme", &network);
    let all = stranger.inspect();
    let gateway = &all["NetworkSettings"]["Networks"]["clawker-agents"]["Gateway"];
    let mut closed = doors(stack);
    closed.push((gateway.as_str().expect("an address").to_owned(), 5601));
    // By name: the policy's rule is for that.
    let open = [4317, 4318].map(|port| ("clawker-collector".to_owned(), port));
    for container in [stranger, intruder] {
        let said = container.exec(&knock(&closed));
        assert_eq!(said.lines().count(), closed.len(), "{said}");
        assert!(!said.contains("open"), "{said}");
        let said = container.exec(&knock(&open));
        assert_eq!(said.matches("open").count(), open.len(), "{said}");
        container.remove();
    }
}

/// Where something of the stack listens that is no agent's business.
fn doors(stack: &Stack) -> Vec<(String, u16)> {
    let mut doors = vec![(stack.address("dashboards", "clawker-front"), 5601)];
    let mut on = |service: &str, network: &str, ports: &[u16]| {
        let address = stack.address(service, network);
        doors.extend(ports.iter().map(|&port| (address.clone(), port)));
    };
    let inner = [4319, 4320, 8888, 8889, 13133];
    on("collector", "clawker-agents", &inner);
    on("collector", "clawker-stack", &inner);
    on("collector", "clawker-proxies", &inner);
    on("envoy", "clawker-agents", &[9902]);
    on("envoy", "clawker-proxies", &[10080, 10443, 9902]);
    on("opensearch", "clawker-stack", &[9200, 9300]);
    on("dashboards", "clawker-stack", &[5601]);
    on("prometheus", "clawker-stack", &[9090]);
    on("bridge", "clawker-stack", &[4317]);
    doors
}

/// Tries them all at once, and says of each what came of it.
fn knock(doors: &[(String, u16)]) -> String {
    let doors: Vec<_> = doors.iter().map(|(ip, port)| json!([ip, port])).collect();
    format!(
        "def knock(ip, port):\n\
         \x20   with socket.socket() as s:\n\
         \x20       s.settimeout(3)\n\
         \x20       said.append(f'{{ip}} {{port}} ' + tried(lambda: s.connect((ip, port)), 'open'))\n\
         said = []\n\
         all = [threading.Thread(target=knock, args=d) for d in {}]\n\
         [t.start() for t in all]; [t.join() for t in all]\n\
         print('\\n'.join(said))",
        Value::from(doors)
    )
}

/// The collector adds and nothing else, people read and nothing else, nobody comes without a password.
fn users_may_what_they_should(stack: &Stack) {
    let record = json!({"@timestamp": "2026-01-01T00:00:00Z", "body": "made by hand"});
    let status = |user: &str, method: &str, path: &str, body: Option<&Value>| {
        stack.ask(user, method, path, body).0
    };
    let (writer, reader) = ("clawker-collector", "clawker-viewer");
    assert_eq!(
        status(writer, "POST", "/clawker-unknown/_doc", Some(&record)),
        201
    );
    let query = json!({"query": {"match_all": {}}});
    for (user, method, path, body) in [
        (writer, "GET", "/clawker-egress/_search", None),
        (writer, "POST", "/other/_doc", Some(&record)),
        (
            writer,
            "POST",
            "/clawker-unknown/_delete_by_query",
            Some(&query),
        ),
        (writer, "DELETE", "/_data_stream/clawker-unknown", None),
        (reader, "POST", "/clawker-unknown/_doc", Some(&record)),
        (
            reader,
            "POST",
            "/clawker-egress/_delete_by_query",
            Some(&query),
        ),
        (reader, "DELETE", "/_data_stream/clawker-egress", None),
        (reader, "GET", "/.opendistro_security/_search", None),
        (reader, "GET", "/_plugins/_security/api/internalusers", None),
    ] {
        assert_eq!(
            status(user, method, path, body),
            403,
            "{user}: {method} {path}"
        );
    }
    assert_eq!(status(reader, "GET", "/clawker-*/_search", None), 200);
}

/// A disk that is nearly full in shares stops nothing while there are gigabytes.
fn room_is_counted_in_bytes(stack: &Stack) {
    let path = "/_cluster/settings?include_defaults=true&flat_settings=true";
    let (status, told) = stack.ask("admin", "GET", path, None);
    assert_eq!(status, 200, "{told}");
    for (mark, free) in [("low", "3gb"), ("high", "2gb"), ("flood_stage", "1gb")] {
        let key = format!("cluster.routing.allocation.disk.watermark.{mark}");
        assert_eq!(told["defaults"][&key], free, "{key}");
    }
}

/// As scripts/stack-secrets.sh says that it is done.
fn secrets_can_be_rotated(stack: &Stack) {
    let said = stack.files.secrets(&["--rotate"]);
    for line in said
        .lines()
        .filter_map(|l| l.strip_prefix("  docker compose "))
    {
        stack.compose(&line.split(' ').collect::<Vec<_>>());
    }
    stack.healthy(&SERVICES);
    assert_eq!(
        stack
            .ask("clawker-viewer", "GET", "/clawker-*/_search", None)
            .0,
        200
    );
}
