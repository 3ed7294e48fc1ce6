//! The whole way: real containers, the loader, the bridge, a real collector.

use docker_tests::{
    engine::Engine,
    stack::{Stack, is_denied, is_of, send},
};
use kernel_tests::{collector::Received, eventually};

#[test]
fn flows_of_several_agents_arrive_at_a_collector_under_their_names() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let label = |key: &str, value: &str| format!("--label=dev.clawker.{key}={value}");
    let odd = ("größe/1 \"x\"", "täg lich");
    let agents = [
        (engine.agent("web", "shop", &[]), ("web", "shop")),
        (engine.agent("db", "shop", &[]), ("db", "shop")),
        (
            engine.run("odd", &[&label("agent", odd.0), &label("project", odd.1)]),
            odd,
        ),
    ];
    let stranger = engine.run("stranger", &[]);
    for (agent, _) in &agents {
        stack.audit("enrolled", agent);
    }
    // The number of bytes tells whose flow it is.
    for (n, (agent, labels)) in (0u16..).zip(&agents) {
        send(agent, 8000 + n, 1000 + u64::from(n));
        if labels.1 == "shop" {
            send(agent, 8100 + n, 2000 + u64::from(n));
        } else {
            is_denied(agent, 8150);
        }
        is_denied(agent, 9000 + n);
    }
    send(&stranger, 9500, 77);
    let flows = stack.collector.wait_for(9);
    for (n, (agent, labels)) in (0u64..).zip(&agents) {
        let to = |port: u64| {
            let at = |r: &&Received| r.attributes.get("dst_port") == Some(&port.into());
            let mut found = flows.iter().filter(at);
            let r = found
                .next()
                .unwrap_or_else(|| panic!("port {port}: {flows:?}"));
            assert!(found.next().is_none(), "once");
            is_of(r, agent, *labels);
            r
        };
        let allowed = to(8000 + n);
        assert_eq!(allowed.attributes["verdict"], "ALLOWED");
        assert_eq!(allowed.attributes["bytes_out"], 1000 + n);
        assert_eq!(allowed.attributes["rule"], "common");
        assert_eq!(to(9000 + n).attributes["verdict"], "DENIED");
        if labels.1 == "shop" {
            assert_eq!(to(8100 + n).attributes["rule"], "shop");
        } else {
            assert_eq!(to(8150).attributes["verdict"], "DENIED");
        }
    }
    stack.end();
}

#[test]
fn an_agent_stays_under_its_policy_when_every_process_of_ours_is_dead() {
    let engine = Engine::start();
    let mut stack = Stack::start(&engine);
    let agent = engine.agent("web", "shop", &[]);
    stack.audit("enrolled", &agent);
    send(&agent, 8000, 10);
    stack.loader.kill_loader();
    stack.bridge.kill_loader();
    stack.collector.kill();
    send(&agent, 8001, 10);
    is_denied(&agent, 9000);
    let pins = &stack.bench;
    let out = pins.operate(&["dump", "--json"]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && text.contains("\"web\""), "{text}");
    let args = ["detach", "--instance", "serve", "--force"];
    assert!(pins.operate(&args).status.success());
}

#[test]
fn a_restarted_agent_is_another_life_with_the_same_policy() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agent = engine.agent("web", "shop", &[]);
    stack.audit("enrolled", &agent);
    for life in 1..=3u16 {
        send(&agent, 8000 + life, u64::from(life));
        is_denied(&agent, 9000 + life);
        agent.act("restart");
        eventually("the next life to be enrolled", || {
            (stack.audits("enrolled").len() == usize::from(life) + 1).then_some(())
        });
    }
    let flows = stack.collector.wait_for(6);
    let mut slots = std::collections::BTreeSet::new();
    for r in &flows {
        is_of(r, &agent, ("web", "shop"));
        let id = r.attributes["flow_id"].as_str().unwrap();
        slots.insert(id.split('-').nth(1).unwrap().to_owned());
    }
    assert_eq!(slots.len(), 3, "a slot a life: {slots:?}");
    stack.end();
}
