//! What `serve` counts about itself, over the bridge to a collector.

use docker_tests::{
    engine::Engine,
    stack::{Stack, is_denied, send},
};
use ebpf_manager::{cgroup::Cgroup, telemetry::hooks};
use kernel_tests::{bpf, collector::Point, eventually};
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, time::Duration};
use wire::metrics::{AGENTS, ALL_METRICS, FLOWS_ENDED, FLOWS_RECORDED, HOOKS};

/// The newest value of a metric, with a label if it has one.
fn newest(points: &[Point], name: &str, label: &str) -> Option<i64> {
    let is = |p: &&Point| p.name == name && p.labels.values().all(|v| v == label);
    points.iter().rfind(is).map(|p| p.value)
}

#[test]
fn serve_tells_its_metrics_through_the_bridge() {
    let engine = Engine::start();
    let stack = Stack::start(&engine);
    let agents = ["web", "db"].map(|name| stack.agent(&engine, name, "shop", &[]));
    for (n, agent) in (0u16..).zip(&agents) {
        send(agent, 8000 + n, 10);
        is_denied(agent, 9000 + n);
        is_denied(agent, 9010 + n);
    }
    stack.collector.wait_for(6);
    // One that has gone takes nothing away.
    agents[1].remove();
    stack.audit("left", &agents[1]);
    let wait = Duration::from_secs(30);
    let points = kernel_tests::eventually_within(wait, "metrics of one agent", || {
        let all = stack.collector.points();
        let denied = newest(&all, FLOWS_RECORDED.name, "DENIED");
        (newest(&all, AGENTS.name, "") == Some(1) && denied == Some(4)).then_some(all)
    });
    for entry in ALL_METRICS.iter().filter(|e| e.program != "bridge") {
        let named =
            |p: &&Point| p.name == entry.name && p.resource["service.instance.id"] == "serve";
        let mine: Vec<_> = points.iter().filter(named).collect();
        assert!(!mine.is_empty(), "{}", entry.name);
        for p in mine {
            assert_eq!(p.resource["service.name"], "clawker-cp");
            assert_eq!(p.labels.keys().collect::<Vec<_>>(), entry.labels);
        }
    }
    assert_eq!(newest(&points, FLOWS_ENDED.name, "ALLOWED"), Some(2));
    assert_eq!(newest(&points, HOOKS.name, ""), Some(1));
    let mut before = BTreeMap::new();
    for p in points.iter().filter(|p| p.metric.get("sum").is_some()) {
        let series = format!("{} {:?} {:?}", p.name, p.resource, p.labels);
        let old = before.insert(series, p.value).unwrap_or(0);
        assert!(p.value >= old, "{p:?} after {old}");
    }
    // A hook that somebody takes away is missed.
    let cgroup = Cgroup::at(agents[0].cgroup());
    let id = cgroup.id().unwrap();
    let links = stack.pins().links_of(id);
    assert_eq!(hooks::missing(&links, cgroup.path(), id), None);
    bpf::detach(&links.join(abi::programs::SENDMSG4));
    kernel_tests::eventually_within(wait, "the gauge to fall", || {
        (newest(&stack.collector.points(), HOOKS.name, "") == Some(0)).then_some(())
    });
    let said = eventually("the record of it", || {
        let mut all = stack.collector.stream("clawker-cp");
        all.retain(|r| {
            r.record["body"]["stringValue"]
                .as_str()
                .is_some_and(|t| t.contains("sendmsg4"))
        });
        (!all.is_empty()).then_some(all)
    });
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].record["severityText"], "ERROR");
    stack.loader.signal(Signal::SIGTERM);
    let Stack { bench, loader, .. } = stack;
    assert_eq!(loader.end(&bench).code, 0);
}
