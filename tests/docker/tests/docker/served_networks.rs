//! Addresses come and go while `serve` runs, and names come from the engine's own resolver.

use docker_tests::{
    api,
    container::Container,
    engine::{Engine, RESOLVER},
    stack::{INTAKE, Stack, is_of, send},
};
use kernel_tests::{
    collector::Received,
    dns::{Resolver, address},
    eventually,
    fleet::wall,
    peer,
    talk::Talk,
};
use serde_json::json;

const WEB: (&str, &str) = ("web", "shop");
const DB: (&str, &str) = ("db", "shop");
/// The address that one has after the other.
const SHARED: &str = "10.91.0.10";

/// Waits until a container's lease has an address, or has it no more.
#[track_caller]
fn holds(stack: &Stack, of: &Container<'_>, ip: &str, now: bool) {
    let ip: std::net::IpAddr = ip.parse().unwrap();
    eventually(&format!("{} to have {ip}: {now}", of.id), || {
        let leases = stack.leases();
        let lease = leases.iter().find(|l| l.container_id == of.id)?;
        let has = lease.ips.iter().any(|h| h.ip == ip && h.until.is_none());
        (has == now).then_some(())
    });
}

/// What the bridge makes of a query log's line about an address at a time.
#[track_caller]
fn logged(stack: &Stack, n: usize, ip: &str, at: i64) -> Received {
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let line = json!({"timeUnixNano": at.to_string(), "body": {"stringValue": "query"},
        "attributes": [text("src_ip", ip), text("qname", "api.example"), text("agent", "somebody else")]});
    let request = json!({"resourceLogs": [{"resource": {"attributes": [text("clawker.lane", "coredns")]},
        "scopeLogs": [{"logRecords": [line]}]}]});
    let answer = api::post(INTAKE, "/v1/logs", &request).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    eventually("the line at the collector", || {
        let mut all = stack.collector.stream("clawker-coredns");
        (all.len() == n).then(|| all.remove(n - 1))
    })
}

#[test]
fn addresses_follow_networks_and_one_that_is_used_again_is_the_new_owners() {
    let engine = Engine::start();
    for (name, subnet) in [("one", "10.91.0.0/24"), ("two", "10.92.0.0/24")] {
        engine.docker(&["network", "create", "--subnet", subnet, name]);
    }
    let stack = Stack::start(&engine);
    let join = |agent: &Container<'_>, network: &str, ip: &str| {
        engine.docker(&["network", "connect", "--ip", ip, network, &agent.id]);
        holds(&stack, agent, ip, true);
    };
    let web = stack.agent(
        &engine,
        "web",
        "shop",
        &["--network", "one", "--ip", SHARED],
    );
    let db = stack.agent(&engine, "db", "shop", &[]);
    holds(&stack, &web, SHARED, true);
    send(&web, 8000, 1);
    let first = wall();
    // A flow that lives on over all of it.
    let server = peer::once("192.0.2.1:8010", |mut s| {
        peer::take(&mut s, 3);
        s
    });
    let mut talk =
        Talk::start(&mut web.program("s = dial('192.0.2.1', 8010); s.sendall(b'abc'); step('up')"));
    assert_eq!(talk.hear(), "up");
    let stream = server.join().unwrap().1;

    join(&web, "two", "10.92.0.10");
    web.disconnect("one");
    holds(&stack, &web, SHARED, false);
    let between = wall();
    join(&db, "one", SHARED);
    db.disconnect("bridge");
    send(&web, 8001, 2);
    send(&db, 8002, 3);
    let last = wall();

    for (port, agent, labels, ip) in [
        (8000, &web, WEB, SHARED),
        (8001, &web, WEB, "10.92.0.10"),
        (8002, &db, DB, SHARED),
    ] {
        let r = stack.flow_to(port);
        is_of(&r, agent, labels);
        assert_eq!(r.attributes["src_ip"], ip, "{r:?}");
    }
    // Records of other sources go by the address at their own time.
    for (n, (at, whose)) in (1..).zip([(first, Some("web")), (last, Some("db")), (between, None)]) {
        let r = logged(&stack, n, SHARED, at);
        let agent = r.attributes.get("agent").and_then(|a| a.as_str());
        assert_eq!(agent, whose, "{r:?}");
    }
    // The flow ends when its address is another's, and is still the first one's.
    web.remove();
    let r = stack.flow_to(8010);
    assert_eq!(r.attributes["src_ip"], SHARED);
    assert_eq!(
        (&r.attributes["agent"], &r.attributes["container_id"]),
        (&json!("web"), &json!(web.id))
    );
    drop((stream, talk));
    // A third one, at once.
    db.disconnect("one");
    let api = stack.agent(
        &engine,
        "api",
        "shop",
        &["--network", "one", "--ip", SHARED],
    );
    send(&api, 8003, 4);
    is_of(&stack.flow_to(8003), &api, ("api", "shop"));
    stack.end();
}

const NAMES: &str = "version: 1\n\
resolvers: [system]
rules:
  - { name: api, dst: api.example, proto: tcp, port: 8000 }
  - { name: peer, dst: db.mesh, proto: tcp, port: 7000, private: true }
";

#[test]
fn names_come_from_the_engines_resolver_and_others_are_not_asked_for() {
    let engine = Engine::start();
    let dns = Resolver::start(RESOLVER);
    for name in ["api.example", "evil.example"] {
        dns.set(name, vec![address("192.0.2.2", 300)]);
    }
    engine.docker(&["network", "create", "mesh"]);
    let stack = Stack::with(&engine, NAMES, &[]);
    let web = stack.agent(&engine, "web", "shop", &["--network", "mesh"]);
    let db = stack.agent(&engine, "db", "shop", &["--network", "mesh"]);
    let server = peer::once("192.0.2.2:8000", |mut s| peer::drain(&mut s));
    let said = web.exec(
        "E = '127.0.0.11'\n\
         print(tcp('192.0.2.2', 8000), udp(query('evil.example'), E), udp(query('api.example'), R, 53, 1))\n\
         ask('api.example', 1, E); print(tcp('192.0.2.2', 8000, b'12345'), tcp('192.0.2.2', 8001))",
    );
    // By another way than through the engine's resolver nobody is asked either: the machine's own may be
    // one that `system` names, so only the names count there.
    assert!(said.starts_with("EPERM EPERM "), "{said}");
    assert!(said.ends_with("ok EPERM"), "{said}");
    assert_eq!(server.join().unwrap().1, 5);
    assert!(
        !dns.asked().contains(&"evil.example".to_owned()),
        "{:?}",
        dns.asked()
    );
    let all = stack.flows_to(8000, 2);
    let by = |verdict: &str| {
        all.iter()
            .find(|r| r.attributes["verdict"] == verdict)
            .unwrap()
    };
    let allowed = by("ALLOWED");
    is_of(allowed, &web, WEB);
    assert_eq!(allowed.attributes["dst_host"], "api.example");
    assert_eq!(allowed.attributes["rule"], "api");
    assert_eq!(by("DENIED").attributes.get("dst_host"), None);
    let refused = eventually("the refused query", || {
        let mut all = stack.collector.received();
        all.retain(|r| r.attributes.get("reason") == Some(&json!("name")));
        (!all.is_empty()).then_some(all)
    });
    for r in &refused {
        is_of(r, &web, WEB);
        assert_eq!(r.attributes["qname"], "evil.example");
        assert_eq!(
            (&r.attributes["dst_ip"], &r.attributes["dst_port"]),
            (&json!("127.0.0.11"), &json!(53))
        );
    }

    // Another container by the name that the engine gives it: one flow, seen from both ends.
    let mut listener = Talk::start(&mut db.program(
        "s = socket.create_server(('0.0.0.0', 7000)); say('up'); c, _ = s.accept(); say(read(c))",
    ));
    assert_eq!(listener.hear(), "up");
    let ip = db.ip("mesh");
    let said = web.exec(&format!(
        "a = tcp('{ip}', 7000); ask('db.mesh', 1, '127.0.0.11'); print(a, tcp('{ip}', 7000, b'123'))"
    ));
    assert_eq!(said, "EPERM ok");
    assert_eq!(listener.hear(), "3");
    let all = stack.flows_to(7000, 3);
    let of = |agent: &str, verdict: &str| {
        let is =
            |r: &&Received| r.attributes["agent"] == agent && r.attributes["verdict"] == verdict;
        all.iter()
            .find(is)
            .unwrap_or_else(|| panic!("{agent} {verdict}: {all:#?}"))
    };
    let out = of("web", "ALLOWED");
    assert_eq!(
        (&out.attributes["dst_host"], &out.attributes["direction"]),
        (&json!("db.mesh"), &json!("egress"))
    );
    is_of(of("web", "DENIED"), &web, WEB);
    let inbound = of("db", "ALLOWED");
    is_of(inbound, &db, DB);
    assert_eq!(inbound.attributes["direction"], "ingress");
    assert_eq!(inbound.attributes["bytes_in"], 3);
    stack.end();
}
