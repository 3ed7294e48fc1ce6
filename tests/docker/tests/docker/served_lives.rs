//! What people do to a container while it lives: run more in it, pause it, call it something else.

use docker_tests::{
    engine::Engine,
    stack::{Stack, is_denied, is_of, is_of_named, send},
};
use kernel_tests::{eventually, peer, talk::Talk};
use serde_json::json;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
};

const LABELS: (&str, &str) = ("web", "shop");

#[test]
fn whatever_is_executed_in_a_container_is_judged_and_is_the_agents() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = stack.agent(&engine, "web", "shop", &[]);
    let ways: [&[&str]; 4] = [
        &[],
        &["--user", "1000:1000"],
        &["--workdir", "/tmp", "--env", "X=1"],
        &["--user", "65534", "--detach"],
    ];
    for (n, way) in (0u16..).zip(ways) {
        let port = 8000 + n;
        let server = peer::once(&format!("192.0.2.1:{port}"), |mut s| peer::drain(&mut s));
        let code = kernel_tests::agent::code(&format!(
            "a = tcp('192.0.2.1', {}); b = tcp('192.0.2.1', {port}, (a + '.').encode()); print(a, b)",
            9000 + n
        ));
        let id = [agent.id.as_str(), docker_tests::image::PYTHON, "-c", &code];
        let out = engine.docker(&[&["exec"], way, &id].concat());
        assert!(
            way.contains(&"--detach") || out == "EPERM ok",
            "{way:?}: {out}"
        );
        assert_eq!(server.join().unwrap().1, 6, "EPERM and a full stop");
        for (port, verdict) in [(port, "ALLOWED"), (9000 + n, "DENIED")] {
            let r = stack.flow_to(port);
            is_of(&r, &agent, LABELS);
            assert_eq!(r.attributes["verdict"], verdict);
            assert_eq!(r.attributes["comm"], "python3");
        }
    }
    stack.end();
}

#[test]
fn a_paused_container_keeps_its_flows_and_its_slot() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = stack.agent(&engine, "web", "shop", &[]);
    let listener = TcpListener::bind("192.0.2.1:8000").unwrap();
    let mut talk = Talk::start(&mut agent.program(
        "s = dial('192.0.2.1', 8000); s.sendall(b'12345'); step('up')\n\
         need(s, 3); s.sendall(b'678'); s.close(); say(tcp('192.0.2.1', 9000))",
    ));
    let (mut far, _) = listener.accept().unwrap();
    assert_eq!(talk.hear(), "up");
    agent.act("pause");
    far.write_all(b"abc").unwrap();
    // Another life goes on and is told meanwhile.
    let other = stack.agent(&engine, "db", "shop", &[]);
    send(&other, 8001, 7);
    assert_eq!(stack.flow_to(8001).attributes["agent"], "db");
    let live = |port: u16| {
        let out = stack.bench.operate(&["dump", "--flows", "--json"]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            out.status.success() && text.contains(&format!("\"dst_port\":{port}")),
            "{text}"
        );
    };
    live(8000);
    agent.act("unpause");
    assert_eq!(talk.go(), "EPERM");
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"12345678");
    drop(far);
    let r = stack.flow_to(8000);
    is_of(&r, &agent, LABELS);
    assert_eq!(
        json!([r.attributes["bytes_out"], r.attributes["bytes_in"]]),
        json!([8, 3])
    );
    is_of(&stack.flow_to(9000), &agent, LABELS);
    assert_eq!(stack.audits("enrolled").len(), 2, "one life each");
    assert!(stack.audits("left").is_empty());
    stack.end();
}

#[test]
fn a_renamed_container_has_its_new_name_from_then_on() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = stack.agent(&engine, "web", "shop", &[]);
    send(&agent, 8000, 1);
    is_of_named(&stack.flow_to(8000), &agent, LABELS, "web");
    for (n, name) in (1u16..).zip(["shop.web-2", "web.again"]) {
        agent.rename(name);
        eventually("the lease to have the name", || {
            let is = |l: &lease::Lease| l.container_id == agent.id && l.name == name;
            stack.leases().iter().any(is).then_some(())
        });
        send(&agent, 8000 + n, 1);
        is_denied(&agent, 9000 + n);
        for port in [8000 + n, 9000 + n] {
            is_of_named(&stack.flow_to(port), &agent, LABELS, name);
        }
    }
    is_of_named(&stack.flow_to(8000), &agent, LABELS, "web");
    assert_eq!(stack.audits("enrolled").len(), 1);
    let dump = stack.bench.operate(&["dump", "--json"]);
    let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
    assert!(
        dump.contains("web.again"),
        "what the kernel keeps has it too: {dump}"
    );
    fs::metadata(agent.cgroup()).unwrap();
    stack.end();
}
