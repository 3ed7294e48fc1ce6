//! Several agents at once: each under its own policy, each with its own name on its flows.

use ebpf_manager::docker::{News, Weakness};
use kernel_tests::{
    check::fields,
    fleet::{Yard, wall},
};
use policy::Policy;
use serde_json::{Value, json};

const POLICY: &str = "version: 1
rules: [{ name: common, dst: 192.0.2.1, proto: tcp, port: 1-65535 }]
projects:
  shop: { rules: [{ name: of the shop, dst: 192.0.2.2, proto: tcp, port: 1-65535 }] }
agents:
  shop/web: { rules: [{ name: of web, dst: 203.0.113.9, proto: tcp, port: 1-65535 }] }
";

/// A policy of one rule.
const LAST: &str = "version: 1\nrules: [{ dst: 192.0.2.2, proto: tcp, port: 80 }]\n";

/// Says what became of a connection to each of three addresses; nobody listens.
const THREE: &str =
    "while step(*[tcp(ip, 80) for ip in ('192.0.2.1', '192.0.2.2', '203.0.113.9')]) == 'go': pass";

fn of<'a>(records: &'a [Value], container: &str) -> Vec<&'a Value> {
    let mine = |r: &&Value| r["container_id"] == container;
    records.iter().filter(mine).collect()
}

#[test]
fn every_agent_has_its_policy_and_its_name() {
    let mut yard = Yard::new(Some(POLICY), 8);
    let mut web = yard.pod("web", ("web", "shop"), THREE);
    let mut api = yard.pod("api", ("api", "shop"), THREE);
    let mut odd = yard.pod("odd", ("wéb \u{1f980}\"", ""), THREE);
    let mut other = yard.pod("other", ("", ""), THREE);
    for pod in [&web, &api, &odd, &other] {
        yard.start(pod);
    }
    assert_eq!(yard.fleet.enrolled(), 3);
    let (yes, no) = ("ECONNREFUSED", "EPERM");
    for (pod, wanted) in [
        (&mut web, [yes, yes, yes]),
        (&mut api, [yes, yes, no]),
        (&mut odd, [yes, no, no]),
        (&mut other, [yes, yes, yes]),
    ] {
        assert_eq!(pod.agent.go(), wanted.join(" "), "{}", pod.container.id);
    }
    let records = yard.records(9);
    for (pod, project, denied) in [
        (&web, Some("shop"), 0),
        (&api, Some("shop"), 1),
        (&odd, None, 2),
    ] {
        let mine = of(&records, &pod.container.id);
        assert_eq!(mine.len(), 3);
        for r in &mine {
            fields(
                r,
                &json!({"agent": pod.container.agent, "project": project,
                    "container_name": pod.container.name}),
            );
        }
        let refused = mine.iter().filter(|r| r["verdict"] == "DENIED").count();
        assert_eq!(refused, denied, "{mine:#?}");
    }
    let rule = |r: &&&Value| r["rule"] == "of web";
    assert_eq!(of(&records, "web").iter().filter(rule).count(), 1);
    // Two share one policy only if it is the same: api and odd differ, web and api too.
    assert_eq!(yard.events("enrolled").len(), 3);
    for pod in [web, api, odd, other] {
        yard.stop(pod);
    }
    yard.is_empty();
    assert_eq!(yard.events("left").len(), 3);
    assert!(yard.events("gap").is_empty());
}

#[test]
fn a_changed_file_holds_for_all_and_what_does_not_fit_one_agent_stays_with_it() {
    let mut yard = Yard::new(Some(POLICY), 8);
    let mut web = yard.pod("web", ("web", "shop"), THREE);
    let mut api = yard.pod("api", ("api", "shop"), THREE);
    yard.start(&web);
    yard.start(&api);
    let (yes, no) = ("ECONNREFUSED", "EPERM");
    assert_eq!(web.agent.go(), [yes, yes, yes].join(" "));
    let change = |yard: &mut Yard, text: &str| {
        let path = yard.bench.policy(text);
        let file = ebpf_manager::policy_file::load(&path, false).unwrap();
        yard.fleet.replace_policy(file, &mut yard.sink).unwrap();
    };
    change(
        &mut yard,
        "version: 1\nrules: [{ name: new, dst: 203.0.113.9, proto: tcp, port: 1-65535 }]\n\
         agents: { web: { rules: [{ dst: a.example, proto: https, path_rules: [{ path: /x, action: allow }] }] } }\n",
    );
    assert_eq!(
        web.agent.go(),
        [yes, yes, yes].join(" "),
        "its old policy stays"
    );
    assert_eq!(api.agent.go(), [no, no, yes].join(" "));
    let events = yard.events("policy");
    let outcome = |agent: &str| {
        let mut all = events.iter().filter(|e| e["agent"] == agent);
        all.next_back().unwrap()["outcome"].clone()
    };
    assert_eq!(outcome("web"), "refused");
    assert_eq!(outcome("api"), "applied");
    // Whoever comes now and has no policy that fits reaches nothing, and that is said.
    yard.stop(web);
    let mut web = yard.pod("web", ("web", "shop"), THREE);
    yard.start(&web);
    assert_eq!(web.agent.go(), [no, no, no].join(" "));
    let shut = yard.events("shut");
    assert_eq!(shut.len(), 1);
    assert!(
        shut[0]["message"].as_str().unwrap().contains("path_rules"),
        "{shut:?}"
    );
    // Mended.
    change(&mut yard, LAST);
    for pod in [&mut web, &mut api] {
        assert_eq!(pod.agent.go(), [no, yes, no].join(" "));
    }
    // What nobody is under any more goes from the maps: one policy is left, and both share it.
    let alone = Policy::parse(LAST).policy.unwrap();
    let wanted = alone.select(None, None).compile(1).unwrap().addrs.len() as u64;
    yard.until("the others to go", |y| {
        let entries = y.pins().policy().unwrap().entries().unwrap();
        let addrs = entries.iter().find(|(name, _)| *name == "POLICY_ADDRS");
        (addrs.unwrap().1 == wanted).then_some(())
    });
    yard.stop(web);
    yard.stop(api);
    yard.is_empty();
}

#[test]
fn without_a_policy_agents_are_observed() {
    let mut yard = Yard::new(None, 2);
    let mut web = yard.pod("web", ("web", ""), THREE);
    yard.start(&web);
    assert_eq!(web.agent.go(), ["ECONNREFUSED"; 3].join(" "));
    for r in yard.records(3) {
        fields(
            &r,
            &json!({"verdict": "ALLOWED", "reason": "observe", "agent": "web"}),
        );
    }
    yard.stop(web);
    yard.is_empty();
}

#[test]
fn a_newborn_is_guarded_before_the_engine_describes_it() {
    let program = "l = socket.create_server(('127.0.0.1', 0)); p = l.getsockname()[1]\n\
        while step(tcp('203.0.113.9', 80), tcp('127.0.0.1', p)) == 'go': pass";
    let mut yard = Yard::new(Some(POLICY), 2);
    let mut web = yard.pod("web", ("api", "shop"), program);
    yard.bear(&web);
    // Whose loopback it is nobody knows yet: it could be the machine's.
    assert_eq!(web.agent.go(), "EPERM EPERM");
    web.container.weaknesses = vec![Weakness::EngineSocket];
    yard.start(&web);
    assert_eq!(web.agent.go(), "EPERM ok");
    let weak = yard.events("weakness");
    assert_eq!(weak.len(), 1);
    fields(
        &weak[0],
        &json!({"weakness": "engine_socket", "agent": "api", "container_id": "web"}),
    );
    assert_eq!(yard.events("enrolled").len(), 1, "once");
    yard.stop(web);
    yard.is_empty();
}

#[test]
fn who_finds_no_room_reaches_nothing_until_there_is_some() {
    let mut yard = Yard::new(Some(POLICY), 1);
    let first = yard.pod("first", ("web", "shop"), THREE);
    // Without a slot there is not even a socket.
    let program = "def t(ip):\n\
        \x20   try: return tcp(ip, 80)\n\
        \x20   except PermissionError: return 'EPERM'\n\
        while step(*[t(ip) for ip in ('192.0.2.1', '192.0.2.2', '203.0.113.9')]) == 'go': pass";
    let mut second = yard.pod("second", ("web", "shop"), program);
    yard.start(&first);
    yard.start(&second);
    assert_eq!(yard.fleet.enrolled(), 1);
    assert_eq!(second.agent.go(), ["EPERM"; 3].join(" "));
    assert_eq!(yard.events("shut").len(), 1);
    yard.stop(first);
    yard.until("the second to be enrolled", |y| {
        (y.events("enrolled").len() == 2).then_some(())
    });
    assert_eq!(second.agent.go(), ["ECONNREFUSED"; 3].join(" "));
    // Flows of nobody's slot are told without a name.
    let records = yard.records(6);
    let nameless = records.iter().filter(|r| r.get("agent").is_none());
    for r in nameless.clone() {
        fields(
            r,
            &json!({"verdict": "DENIED", "reason": "not_enrolled", "container_id": null}),
        );
    }
    assert_eq!(nameless.count(), 3);
    yard.stop(second);
    yard.is_empty();
}

#[test]
fn leases_say_who_held_what_and_until_when() {
    let mut yard = Yard::new(None, 2);
    let mut web = yard.pod("web", ("web", "shop"), "step('x')");
    let mut other = yard.pod("other", ("", ""), "step('x')");
    web.container.addresses = vec!["172.18.0.2".parse().unwrap()];
    other.container.addresses = vec!["172.18.0.3".parse().unwrap()];
    yard.start(&web);
    yard.start(&other);
    let read = |yard: &Yard| -> Value {
        let text = std::fs::read_to_string(yard.bench.path("leases.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let book = read(&yard);
    let leases = book["leases"].as_array().unwrap();
    assert_eq!(leases.len(), 2);
    fields(
        &leases[0],
        &json!({"agent": "web", "project": "shop", "container_id": "web", "name": "name-web",
            "cgroup_id": web.cgroup.id().unwrap(), "until": null}),
    );
    assert!(leases[0]["slot"].as_u64().unwrap() > 0);
    fields(
        &leases[1],
        &json!({"agent": null, "slot": null, "container_id": "other"}),
    );
    // Renamed, and on another network.
    web.container.name = "renamed".to_owned();
    web.container.addresses = vec!["172.19.0.2".parse().unwrap()];
    yard.start(&web);
    let at = wall();
    let ended = News::Ended {
        id: "other".to_owned(),
        at,
    };
    yard.hear(ended);
    let book = read(&yard);
    let leases = book["leases"].as_array().unwrap();
    assert_eq!(leases[0]["name"], "renamed");
    let ips = leases[0]["ips"].as_array().unwrap();
    assert_eq!((ips.len(), &ips[1]["ip"]), (2, &json!("172.19.0.2")));
    assert!(ips[0]["until"].is_u64() && ips[1]["until"].is_null());
    assert!(leases[1]["until"].is_u64());
    yard.stop(web);
    yard.is_empty();
}
