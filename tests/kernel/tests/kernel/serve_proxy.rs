//! Agents beside a proxy: who shares a network with it is led there, and nobody else gets what needs it.

use ebpf_manager::cli::LeadArgs;
use kernel_tests::{
    agent::code,
    check::fields,
    dns::{RESOLVER, Resolver},
    eventually,
    fleet::{Pod, Yard},
    peer::{drain, once},
    run::Bench,
    stand_in::StandIn,
    talk::Talk,
};
use nix::sys::signal::Signal;
use serde_json::json;
use std::{fs, net::TcpStream, process::Command};

const POLICY: &str = "version: 1
rules:
- { name: read, dst: 198.51.100.7, proto: http, path_rules: [{ path: /, methods: [GET], action: allow }] }
- { name: plain, dst: 192.0.2.1, proto: tcp, port: 80 }
";

/// Says what became of two connections, of which one needs the proxy, to nobody who listens.
const TWO: &str = "while step(tcp('198.51.100.7', 80), tcp('192.0.2.1', 80)) == 'go': pass";

/// Puts a container on networks, and tells the fleet.
fn join(yard: &mut Yard, pod: &mut Pod, networks: &[&str]) {
    let networks = networks.iter().map(|n| n.parse().unwrap());
    pod.container.networks = networks.collect();
    yard.start(pod);
}

#[test]
fn whoever_shares_a_network_with_the_proxy_is_led_there() {
    let lead = LeadArgs {
        proxy: ["192.0.2.53", "2001:db8::53"]
            .map(|ip| ip.parse().unwrap())
            .into(),
        dns: Vec::new(),
    };
    let mut yard = Yard::beside(lead, POLICY, 4);
    let mut near = yard.pod("near", ("near", "shop"), TWO);
    let mut far = yard.pod("far", ("far", "shop"), TWO);
    join(&mut yard, &mut near, &["10.9.0.0/16", "192.0.2.0/24"]);
    join(&mut yard, &mut far, &["10.9.0.0/16"]);
    let (yes, no) = ("ECONNREFUSED ECONNREFUSED", "EPERM ECONNREFUSED");
    assert_eq!(
        (near.agent.go().as_str(), far.agent.go().as_str()),
        (yes, no)
    );
    // The networks change, and the way with them.
    join(&mut yard, &mut near, &["10.9.0.0/16"]);
    join(&mut yard, &mut far, &["192.0.2.0/24", "10.9.0.0/16"]);
    assert_eq!(
        (near.agent.go().as_str(), far.agent.go().as_str()),
        (no, yes)
    );
    // It stays when the policy is replaced.
    let file = ebpf_manager::policy_file::load(&yard.bench.policy(POLICY), false).unwrap();
    yard.fleet.replace_policy(file, &mut yard.sink).unwrap();
    assert_eq!(
        (near.agent.go().as_str(), far.agent.go().as_str()),
        (no, yes)
    );
    let served = once("192.0.2.53:10080", |mut s: TcpStream| drain(&mut s));
    far.agent.say("go");
    assert_eq!(far.agent.hear(), "ok ECONNREFUSED");
    assert_eq!(served.join().unwrap().1, 0);
    let records = yard.records(14);
    let of = |agent: &str, dst: &str| {
        let fits = |r: &&serde_json::Value| r["agent"] == agent && r["dst_ip"] == dst;
        records.iter().filter(fits).collect::<Vec<_>>()
    };
    let denied = of("near", "198.51.100.7");
    let denied = denied.iter().filter(|r| r["verdict"] == "DENIED");
    for (n, r) in denied.enumerate() {
        assert!(n < 2);
        fields(r, &json!({"reason": "no_proxy_path", "rule": "read"}));
    }
    let led = of("far", "198.51.100.7");
    let led: Vec<_> = led.iter().filter(|r| r["verdict"] == "ALLOWED").collect();
    assert_eq!(led.len(), 3);
    for r in led {
        fields(
            r,
            &json!({"reason": "rule", "proxy_ip": "192.0.2.53", "proxy_port": 10080}),
        );
    }
    for agent in ["near", "far"] {
        for r in of(agent, "192.0.2.1") {
            assert!(r.get("proxy_ip").is_none(), "{r}");
        }
    }
    for pod in [near, far] {
        yard.stop(pod);
    }
    yard.is_empty();
}

#[test]
fn whoever_shares_no_network_with_the_name_server_has_no_dns() {
    const ASK: &str = "for to in iter(hear, ''): say(udp(query('api.example'), to))";
    let lead = LeadArgs {
        proxy: Vec::new(),
        dns: vec![RESOLVER.parse().unwrap()],
    };
    let policy = "resolvers: [coredns]\nrules: [{ dst: api.example, proto: tcp, port: 443 }]\n";
    let mut yard = Yard::beside(lead, policy, 4);
    let server = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let mut near = yard.pod("near", ("near", "shop"), ASK);
    let mut far = yard.pod("far", ("far", "shop"), ASK);
    join(&mut yard, &mut near, &["192.0.2.0/24"]);
    join(&mut yard, &mut far, &["10.9.0.0/16"]);
    for pod in [&mut near, &mut far] {
        pod.agent.say("go");
    }
    for to in ["127.0.0.11", "198.51.100.7"] {
        for pod in [&mut near, &mut far] {
            pod.agent.say(to);
        }
        assert!(near.agent.hear().starts_with('b'), "{to}");
        assert_eq!(far.agent.hear(), "EPERM", "{to}");
    }
    assert_eq!(server.asked(), ["api.example", "api.example"]);
    for pod in [near, far] {
        yard.stop(pod);
    }
    let records = yard.records(4);
    for r in &records {
        let wanted = if r["agent"] == "near" {
            json!({"verdict": "ALLOWED", "reason": "resolver", "proxy_ip": RESOLVER})
        } else {
            json!({"verdict": "DENIED", "reason": "no_proxy_path", "proxy_ip": null})
        };
        fields(r, &wanted);
    }
    yard.is_empty();
}

#[test]
fn the_files_of_the_proxies_follow_the_agents_and_the_policy() {
    let bench = Bench::new();
    let engine = StandIn::start(&bench.path(""));
    let mut agent = Talk::start(Command::new("python3").args(["-c", &code("step('here')")]));
    assert_eq!(agent.hear(), "here");
    let network = json!({"shop": {"IPAddress": "10.9.0.7", "IPPrefixLen": 16}});
    engine.add_on(1, agent.pid(), &network);
    let with = |name: &str| {
        // In mode audit no file would name it: the command line's mode holds for them.
        format!(
            "version: 1\nmode: audit\nresolvers: [192.0.2.53]\nrules: [{{ dst: {name}, proto: http }}]\n"
        )
    };
    let policy = bench.policy(&with("first.example"));
    let (corefile, envoy) = (bench.path("Corefile"), bench.path("envoy"));
    let mut serve = bench.serve();
    serve.arg("--policy").arg(&policy);
    serve.args(["--proxy", "10.9.0.2", "--mode", "enforce"]);
    serve.arg("--coredns").arg(&corefile);
    serve.arg("--envoy").arg(&envoy);
    let running = Talk::start(&mut serve);
    let say = |what: &str, wanted: &str| {
        eventually(what, || {
            let files = [&corefile, &envoy.join("listeners.json")];
            let read = files.map(|f| fs::read_to_string(f).unwrap_or_default());
            let whole = read
                .iter()
                .all(|text| text.contains("10.9.0.7") && text.contains(wanted));
            whole.then_some(())
        });
    };
    say("the agent to be in the files", "first.example");
    let next = bench.path("next.yaml");
    fs::write(&next, with("second.example")).unwrap();
    fs::rename(&next, &policy).unwrap();
    say("the new policy to be in the files", "second.example");
    // Nobody puts the kernel alone under something else.
    let next = policy.to_str().unwrap();
    let out = bench.operate(&["policy", "apply", next, "--instance", "serve"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("change that file"), "{said}");
    // What cannot be written is said, and what was there stays.
    running.signal(Signal::SIGTERM);
    let out = running.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    fs::remove_file(&corefile).unwrap();
    fs::create_dir(&corefile).unwrap();
    let running = Talk::start(&mut serve);
    eventually("the second try", || {
        let tried = corefile.with_extension("new");
        tried.exists().then_some(())
    });
    running.signal(Signal::SIGTERM);
    let out = running.end(&bench);
    let told = out
        .stderr
        .matches("the proxies keep their configuration: cannot write")
        .count();
    assert_eq!((out.code, told), (0, 1), "{}", out.stderr);
}

#[test]
fn serve_does_not_print_what_the_proxies_are_to_read() {
    let bench = Bench::new();
    let mut serve = bench.manager();
    let out = serve.args(["serve", "--coredns", "-"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("name files"), "{said}");
}
