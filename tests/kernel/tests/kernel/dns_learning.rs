//! What an answer opens, for how long, and for whom.

use kernel_tests::{
    check::fields,
    dns::{Resolver, address, record, wire_name},
    eventually,
    net::ip,
    run::Bench,
    server::{Place, dns_udp, reply},
};
use serde_json::json;

const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: api, dst: api.example, proto: tcp, port: 443 }\n\
    - { name: two, dst: two.example, proto: tcp, port: 8443 }\n";

#[test]
fn case_39_an_allowed_name_opens_its_port_and_no_other() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        POLICY,
        "print(tcp('203.0.113.9', 443)); ask('api.example')\n\
         print(tcp('203.0.113.9', 443, b'abc'), tcp('203.0.113.9', 80), udp(b'x', '203.0.113.9', 443))\n",
    );
    assert_eq!(out.words(), ["EPERM", "ok", "EPERM", "EPERM"]);
    let allowed = out.only(&[("verdict", json!("ALLOWED")), ("dst_port", json!(443))]);
    fields(
        allowed,
        &json!({"dst_ip": "203.0.113.9", "dst_host": "api.example", "rule": "api", "reason": "rule",
                "bytes_out": 3, "dst_hosts": null}),
    );
    let before = out.matching(&[("verdict", json!("DENIED")), ("l4_proto", json!("tcp"))]);
    assert_eq!(before.len(), 2);
    fields(
        before[0],
        &json!({"dst_port": 443, "reason": "default", "dst_host": null}),
    );
    fields(
        before[1],
        &json!({"dst_port": 80, "reason": "default", "dst_host": "api.example"}),
    );
    let udp = out.only(&[("verdict", json!("DENIED")), ("l4_proto", json!("udp"))]);
    fields(
        udp,
        &json!({"dst_port": 443, "reason": "default", "dst_host": "api.example"}),
    );
    let lookup = out.only(&[("dst_port", json!(53))]);
    fields(
        lookup,
        &json!({"verdict": "ALLOWED", "reason": "resolver", "l4_proto": "udp"}),
    );
    assert_eq!(place.calls(), 1);
    assert_eq!(resolver.asked(), ["api.example"]);
}

#[test]
fn case_30_a_chain_of_aliases_leads_to_the_name_that_was_asked() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    let alias = record(5, 300, &wire_name("cdn.other.example"));
    let mut far = wire_name("cdn.other.example");
    far.extend(&address("203.0.113.9", 300)[2..]);
    resolver.set("api.example", vec![alias, far]);
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        POLICY,
        "ask('api.example'); print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.words(), ["ok"]);
    let allowed = out.only(&[("dst_port", json!(443))]);
    fields(
        allowed,
        &json!({"verdict": "ALLOWED", "dst_host": "api.example"}),
    );
    assert_eq!(place.calls(), 1);
}

#[test]
fn every_address_of_an_answer_counts_in_both_families() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    let all = ["203.0.113.9", "198.51.100.7", "2001:db8::2"];
    resolver.set("api.example", all.iter().map(|a| address(a, 300)).collect());
    let places = ["203.0.113.9:443", "198.51.100.7:443", "[2001:db8::2]:443"].map(Place::open);
    let out = bench.agent(
        POLICY,
        "ask('api.example'); print(tcp('2001:db8::2', 443))\n\
         ask('api.example', 28)\n\
         for ip in ('203.0.113.9', '198.51.100.7', '2001:db8::2'): print(tcp(ip, 443))\n",
    );
    assert_eq!(out.words(), ["EPERM", "ok", "ok", "ok"]);
    for ip in all {
        let r = out.only(&[("verdict", json!("ALLOWED")), ("dst_ip", json!(ip))]);
        fields(r, &json!({"dst_host": "api.example", "rule": "api"}));
    }
    assert_eq!(places.map(|p| p.calls()), [1, 1, 1]);
}

#[test]
fn case_33_an_address_with_two_names_is_open_for_what_either_allows() {
    let bench = Bench::new();
    let _resolver = Resolver::naming(&["api.example", "two.example"].map(|n| (n, "203.0.113.9")));
    let _places = ["203.0.113.9:443", "203.0.113.9:8443"].map(Place::open);
    let out = bench.agent(
        POLICY,
        "ask('api.example'); ask('two.example')\n\
         print(tcp('203.0.113.9', 443), tcp('203.0.113.9', 8443), tcp('203.0.113.9', 80))\n",
    );
    assert_eq!(out.words(), ["ok", "ok", "EPERM"]);
    for (port, verdict, rule) in [
        (443, "ALLOWED", json!("api")),
        (8443, "ALLOWED", json!("two")),
    ] {
        let r = out.only(&[("dst_port", json!(port))]);
        fields(
            r,
            &json!({"verdict": verdict, "rule": rule, "dst_host": null,
                    "dst_hosts": ["api.example", "two.example"]}),
        );
    }
}

#[test]
fn a_record_names_all_eight_that_share_an_address() {
    let bench = Bench::new();
    let names: Vec<String> = (1..=8).map(|n| format!("n{n}.example")).collect();
    let zone: Vec<_> = names.iter().map(|n| (n.as_str(), "203.0.113.9")).collect();
    let _resolver = Resolver::naming(&zone);
    let _place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        "resolvers: [192.0.2.53]\nrules:\n    - { name: last, dst: n8.example, proto: tcp, port: 443 }\n    - { dst: \"*.example\", proto: tcp, port: 9 }\n",
        "for n in range(1, 9): ask(f'n{n}.example')\nprint(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.words(), ["ok"]);
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"verdict": "ALLOWED", "rule": "last", "dst_hosts": names}),
    );
}

#[test]
fn case_31_an_answer_ends_with_its_ttl_but_a_live_flow_goes_on() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    resolver.set("api.example", vec![address("203.0.113.9", 1)]);
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        POLICY,
        "ask('api.example'); began = time.monotonic()\n\
         s = socket.create_connection(('203.0.113.9', 443)); s.sendall(b'a' * 10)\n\
         until('EPERM', lambda: tcp('203.0.113.9', 443)); held = time.monotonic() - began\n\
         s.sendall(b'b' * 90); s.close()\n\
         print(held > 1.9, held < 6)\n\
         ask('api.example'); print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.words(), ["True", "True", "ok"]);
    let live = out.only(&[("bytes_out", json!(100))]);
    fields(
        live,
        &json!({"verdict": "ALLOWED", "close_reason": "fin", "dst_host": "api.example"}),
    );
    let denied = out.matching(&[("verdict", json!("DENIED"))]);
    assert_eq!(denied.len(), 1);
    fields(
        denied[0],
        &json!({"reason": "default", "dst_host": null, "dst_port": 443}),
    );
    eventually("all bytes", || (place.bytes() == 100).then_some(()));
}

#[test]
fn case_31_a_ttl_of_zero_can_be_used_at_once() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    resolver.set("api.example", vec![address("203.0.113.9", 0)]);
    let _place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        POLICY,
        "ask('api.example'); print(tcp('203.0.113.9', 443))\n\
         print(until('EPERM', lambda: tcp('203.0.113.9', 443)))\n",
    );
    assert_eq!(out.words(), ["ok", "EPERM"]);
}

#[test]
fn a_truncated_answer_teaches_what_it_has() {
    let bench = Bench::new();
    let _asked = dns_udp("192.0.2.53", |q, _| {
        let mut m = reply(
            q,
            &[address("203.0.113.9", 300), address("198.51.100.7", 300)],
        );
        m[2] |= 2;
        m.truncate(m.len() - 8);
        vec![m]
    });
    let _places = ["203.0.113.9:443", "198.51.100.7:443"].map(Place::open);
    let out = bench.agent(
        POLICY,
        "ask('api.example'); print(tcp('203.0.113.9', 443), tcp('198.51.100.7', 443))\n",
    );
    assert_eq!(out.words(), ["ok", "EPERM"]);
    fields(
        out.only(&[("verdict", json!("DENIED"))]),
        &json!({"dst_ip": "198.51.100.7", "reason": "default", "dst_host": null}),
    );
}

#[test]
fn case_28_private_answers_open_only_what_says_so_and_metadata_never() {
    let bench = Bench::new();
    for net in ["10.1.2.3/32", "169.254.169.254/32", "fd00:ec2::254/128"] {
        ip(&["addr", "add", net, "dev", "lo"]);
    }
    let resolver = Resolver::naming(&[]);
    let everywhere = [
        "10.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "fd00:ec2::254",
        "::1",
    ];
    for name in ["api.example", "home.example"] {
        resolver.set(name, everywhere.iter().map(|a| address(a, 300)).collect());
    }
    let policy = format!(
        "{POLICY}- {{ name: home, dst: home.example, proto: tcp, port: 443, private: true }}\n"
    );
    let _place = Place::open("[::]:443");
    let program = |name: &str| {
        format!(
            "for t in (1, 28): ask('{name}', t)\n\
             for ip in ('10.1.2.3', '127.0.0.1', '169.254.169.254', 'fd00:ec2::254', '::1'): print(tcp(ip, 443))\n"
        )
    };
    let out = bench.agent(&policy, &program("api.example"));
    assert_eq!(out.words(), ["EPERM"; 5]);
    let out = bench.agent(&policy, &program("home.example"));
    assert_eq!(out.words(), ["ok", "ok", "EPERM", "EPERM", "ok"]);
    for ip in ["169.254.169.254", "fd00:ec2::254"] {
        let r = out.only(&[("dst_ip", json!(ip))]);
        fields(
            r,
            &json!({"verdict": "DENIED", "reason": "builtin", "dst_host": "home.example"}),
        );
    }
}

#[test]
fn what_one_instance_learned_is_no_use_to_another() {
    let bench = Bench::new();
    let other = Bench::without_network();
    let _resolver = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let place = Place::open("203.0.113.9:443");
    let mut first = bench.talk(
        POLICY,
        &[],
        "ask('api.example'); step(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(first.hear(), "ok");
    let second = other.agent(POLICY, "print(tcp('203.0.113.9', 443))\n");
    assert_eq!(second.words(), ["EPERM"]);
    let denied = second.only(&[("dst_port", json!(443))]);
    fields(
        denied,
        &json!({"verdict": "DENIED", "reason": "default", "dst_host": null}),
    );
    first.end(&bench);
    assert_eq!(place.calls(), 1);
}

#[test]
fn a_new_policy_judges_what_was_learned_under_the_old_one() {
    let bench = Bench::new();
    let _resolver = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let _place = Place::open("203.0.113.9:443");
    let mut agent = bench.talk(
        POLICY,
        &[],
        "ask('api.example'); s = socket.create_connection(('203.0.113.9', 443)); s.sendall(b'x' * 5)\n\
         step('open')\n\
         s.sendall(b'y'); step(tcp('203.0.113.9', 443))\n\
         print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(agent.hear(), "open");
    bench.apply("resolvers: [192.0.2.53]\nrules:\n- { name: none, dst: api.example, proto: any, action: deny }\n");
    agent.say("go");
    assert_eq!(agent.hear(), "EPERM");
    bench.apply(&POLICY.replace("name: api", "name: again"));
    agent.say("go");
    assert_eq!(agent.hear(), "ok");
    let out = agent.end(&bench);
    let cut = out.only(&[("close_reason", json!("policy"))]);
    fields(
        cut,
        &json!({"verdict": "ALLOWED", "rule": "none", "dst_host": "api.example", "bytes_out": 5}),
    );
    let denied = out.only(&[("verdict", json!("DENIED"))]);
    fields(
        denied,
        &json!({"reason": "rule", "rule": "none", "dst_host": "api.example"}),
    );
    let again = out.only(&[("rule", json!("again"))]);
    fields(
        again,
        &json!({"verdict": "ALLOWED", "dst_host": "api.example"}),
    );
}

#[test]
fn a_denied_name_is_denied_under_default_allow_once_it_was_asked() {
    let bench = Bench::new();
    let _resolver = Resolver::naming(&[("bad.example", "203.0.113.9")]);
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        "default: allow\nresolvers: [192.0.2.53]\nrules:\n- { name: bad, dst: bad.example, proto: any, action: deny }\n",
        "print(tcp('203.0.113.9', 443)); ask('bad.example'); print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.words(), ["ok", "EPERM"]);
    let denied = out.only(&[("verdict", json!("DENIED"))]);
    fields(
        denied,
        &json!({"reason": "rule", "rule": "bad", "dst_host": "bad.example"}),
    );
    let allowed = out.only(&[("verdict", json!("ALLOWED")), ("dst_port", json!(443))]);
    fields(allowed, &json!({"reason": "default", "dst_host": null}));
    assert_eq!(place.calls(), 1);
}
