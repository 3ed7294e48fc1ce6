//! Two hundred agents come and go under `serve`, and nothing of them stays.

use docker_tests::{api, engine::Engine, stack::Stack};
use kernel_tests::{collector::Received, eventually_within};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    thread,
    time::Duration,
};

const CONTAINERS: usize = 200;
/// Lives at a time.
const HANDS: usize = 4;
/// Of whom each has a second life.
const AGAIN: usize = 40;
/// The port that says who it was: each agent has its own. Half of them are allowed.
const FIRST_PORT: usize = 20_000;
const POLICY: &str = "rules: [{ name: half, dst: 192.0.2.1, proto: tcp, port: 20000-20099 }]\n";
/// So few addresses that each is used again and again.
const SUBNET: &str = "10.77.0.1/28";
const WAIT: Duration = Duration::from_secs(120);

/// What the loader holds: memory in KiB, descriptors.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
}

fn held(pid: u32) -> Held {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    Held {
        memory,
        descriptors,
    }
}

fn create(engine: &Engine, n: usize, gate: &Path) -> String {
    let labels = json!({"dev.clawker.agent": format!("agent-{n}"), "dev.clawker.project": format!("project-{}", n % 7)});
    // It waits until the test has heard that it is enrolled: what may happen before is another test's.
    let port = FIRST_PORT + n;
    let command = format!(
        "until [ -e /gate/{n} ]; do busybox usleep 20000; done; rm /gate/{n}; busybox nc -w 1 192.0.2.1 {port} </dev/null; exit 0"
    );
    let host = json!({"Binds": [format!("{}:/gate", gate.display())]});
    let body = json!({"Image": "agent", "Labels": labels, "HostConfig": host, "StopSignal": "KILL",
        "Cmd": ["/bin/sh", "-c", command]});
    let made = engine.api("POST", "/containers/create", Some(&body));
    made["Id"].as_str().unwrap().to_owned()
}

/// Ids of containers by how often they were enrolled.
fn enrolled(stack: &Stack) -> HashMap<String, usize> {
    let mut all = HashMap::new();
    for r in stack.audits("enrolled") {
        let id = r.attributes["container_id"].as_str().unwrap().to_owned();
        *all.entry(id).or_default() += 1;
    }
    all
}

/// Lets some of them live from start to end, a few at a time.
fn live(engine: &Engine, stack: &Stack, ids: &[(usize, String)], life: usize, gate: &Path) {
    let socket = engine.socket();
    for few in ids.chunks(HANDS) {
        thread::scope(|scope| {
            for (_, id) in few {
                let socket = &socket;
                scope.spawn(move || {
                    let start = format!("/containers/{id}/start");
                    let answer = api::ask(socket, "POST", &start, None).unwrap();
                    assert!(answer.status < 400, "{answer:?}");
                });
            }
        });
        eventually_within(WAIT, "these to be enrolled", || {
            let all = enrolled(stack);
            { few.iter() }
                .all(|(_, id)| all.get(id) == Some(&life))
                .then_some(())
        });
        for (n, _) in few {
            fs::write(gate.join(n.to_string()), "").unwrap();
        }
        for (_, id) in few {
            let wait = format!("/containers/{id}/wait");
            let ended = engine.api("POST", &wait, None);
            assert_eq!(ended["StatusCode"], 0, "{ended}");
        }
    }
}

#[test]
fn two_hundred_agents_leave_nothing_behind_and_are_never_taken_for_each_other() {
    let engine = Engine::start_with(&["--bip", SUBNET]);
    let stack = Stack::with(&engine, POLICY, &["--max-agents", "64", "--linger", "1"]);
    let gate = engine.dir().join("gate");
    fs::create_dir(&gate).unwrap();
    let ids: Vec<_> = (0..CONTAINERS)
        .map(|n| (n, create(&engine, n, &gate)))
        .collect();
    // What it needs at all, it has after the first ones.
    live(&engine, &stack, &ids[..AGAIN], 1, &gate);
    let before = held(stack.loader.pid());
    live(&engine, &stack, &ids[AGAIN..], 1, &gate);
    live(&engine, &stack, &ids[..AGAIN], 2, &gate);

    let flows = CONTAINERS + AGAIN;
    let told = eventually_within(WAIT, "a record of every flow", || {
        let all = stack.collector.received();
        assert!(all.len() <= flows, "{} records", all.len());
        (all.len() == flows).then_some(all)
    });
    is_everybody_himself(&told, &ids);
    stack.is_empty(WAIT);
    let left = eventually_within(WAIT, "each end to be told", || {
        let all = stack.audits("left");
        (all.len() == flows).then_some(all)
    });
    let slots: HashSet<String> = left
        .iter()
        .map(|r| r.attributes["slot"].to_string())
        .collect();
    assert_eq!(slots.len(), flows, "no slot is used twice");
    for none in ["gap", "shut", "unguarded", "weakness"] {
        assert!(
            stack.audits(none).is_empty(),
            "{none}: {:?}",
            stack.audits(none)
        );
    }
    let cgroups = fs::read_dir(Path::new(docker_tests::world::CGROUPS).join("docker"));
    let dirs = cgroups
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.path().is_dir());
    assert_eq!(dirs.count(), 0);
    let after = held(stack.loader.pid());
    println!("{before:?} {after:?}");
    assert!(
        after.descriptors <= before.descriptors + 4,
        "{before:?} {after:?}"
    );
    // Ended leases are remembered: some hundred bytes each.
    assert!(
        after.memory <= before.memory + 8 * 1024,
        "{before:?} {after:?}"
    );
    stack.end();
}

/// The port says whose flow it is, whatever the record says.
fn is_everybody_himself(told: &[Received], ids: &[(usize, String)]) {
    let mut by_ip: HashMap<String, HashSet<usize>> = HashMap::new();
    for r in told {
        let n = r.attributes["dst_port"].as_u64().unwrap() as usize - FIRST_PORT;
        let wanted = json!({"agent": format!("agent-{n}"), "project": format!("project-{}", n % 7),
            "container_id": ids[n].1, "verdict": if n < 100 { "ALLOWED" } else { "DENIED" }});
        for (field, value) in wanted.as_object().unwrap() {
            assert_eq!(r.attributes.get(field), Some(value), "{r:?}");
        }
        if let Some(ip) = r.attributes.get("src_ip").and_then(Value::as_str) {
            by_ip.entry(ip.to_owned()).or_default().insert(n);
        }
    }
    let reused = by_ip.values().filter(|who| who.len() > 1).count();
    assert!(reused > 3, "addresses were not used again: {by_ip:?}");
}
