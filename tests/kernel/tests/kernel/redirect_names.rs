//! DNS that is led to the name server: whomever it was meant for, the agent sees the one it asked, the record tells both, and
//! what comes back is learned.

use kernel_tests::{
    check::fields,
    dns::{RESOLVER, Resolver, address},
    run::{Bench, Outcome},
    server::{dns_tcp, reply},
    sniff::Sniffer,
};
use serde_json::{Value, json};

const POLICY: &str =
    "resolvers: [coredns]\nrules:\n- { name: api, dst: api.example, proto: tcp, port: 443 }\n";
const SERVERS: [&str; 4] = ["--dns", RESOLVER, "--dns", "2001:db8::53"];

/// Records of DNS flows that were meant for an address.
fn meant_for<'o>(out: &'o Outcome, ip: &str) -> Vec<&'o Value> {
    let fits = |r: &&Value| r["dst_ip"] == ip && r["dst_port"] == 53;
    out.records.iter().filter(fits).collect()
}

/// Asks by every kind of call; says from whom the answer came, and whom the socket is connected to.
const ASK: &str = "
q = query('api.example')
def ask(f, to, connected):
    s = dgram(f); s.settimeout(10)
    if connected: s.connect((to, 53)); s.send(q)
    else: s.sendto(q, (to, 53))
    got, who = s.recvfrom(512)
    assert got[:2] == q[:2] and got[7] == 1, got
    say(who[0], who[1], s.getpeername()[0] if connected else '-'); s.close()
";

#[test]
fn whoever_is_asked_the_name_server_answers_and_seems_to_be_the_one() {
    for (family, to, at) in [
        ("AF_INET", "198.51.100.7", RESOLVER),
        ("AF_INET", "127.0.0.1", RESOLVER),
        ("AF_INET6", "::ffff:198.51.100.7", RESOLVER),
        ("AF_INET6", "2001:db8::1", "2001:db8::53"),
    ] {
        let bench = Bench::new();
        let server = Resolver::start(at);
        server.set("api.example", vec![address("203.0.113.9", 300)]);
        let wire = Sniffer::start();
        let program = format!(
            "{ASK}\nask(socket.{family}, '{to}', False); ask(socket.{family}, '{to}', True)\n\
             say(tcp('203.0.113.9', 443))"
        );
        let out = bench.agent_with(POLICY, &SERVERS, &program);
        assert_eq!(
            out.stdout,
            format!("{to} 53 -\n{to} 53 {to}\nECONNREFUSED\n")
        );
        assert_eq!(server.asked(), ["api.example", "api.example"]);
        let bare = to.trim_start_matches("::ffff:");
        assert_eq!(wire.to(bare).len(), 0, "nothing goes to {to}");
        let records = meant_for(&out, bare);
        assert_eq!(records.len(), 2, "{:#?}", out.records);
        for r in records {
            fields(
                r,
                &json!({"verdict": "ALLOWED", "reason": "resolver", "l4_proto": "udp", "dst_port": 53,
                        "proxy_ip": at, "proxy_port": 53, "bytes_out": 29, "bytes_in": 45, "packets_out": 1, "packets_in": 1}),
            );
        }
        // What it said is learned.
        fields(
            out.only(&[("dst_port", json!(443))]),
            &json!({"verdict": "ALLOWED", "rule": "api", "dst_host": "api.example"}),
        );
    }
}

#[test]
fn over_tcp_it_is_led_there_as_well() {
    let bench = Bench::new();
    let asked = dns_tcp(RESOLVER, |q| {
        let answer = reply(q, &[address("203.0.113.9", 300)]);
        vec![[&(answer.len() as u16).to_be_bytes()[..], &answer].concat()]
    });
    let wire = Sniffer::start();
    let out = bench.agent_with(
        POLICY,
        &SERVERS,
        "s = dial('198.51.100.7', 53); q = framed(query('api.example')); s.sendall(q); need(s, 47)\n\
         say(s.getpeername()[0]); s.close(); say(tcp('203.0.113.9', 443))",
    );
    assert_eq!(out.stdout, "198.51.100.7\nECONNREFUSED\n");
    assert_eq!(asked.all().len(), 1);
    assert_eq!(wire.to("198.51.100.7").len(), 0);
    let [record] = meant_for(&out, "198.51.100.7")[..] else {
        panic!("{:#?}", out.records);
    };
    fields(
        record,
        &json!({"verdict": "ALLOWED", "reason": "resolver", "proxy_ip": RESOLVER, "proxy_port": 53,
                "bytes_out": 31, "bytes_in": 47}),
    );
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"verdict": "ALLOWED", "dst_host": "api.example"}),
    );
}

#[test]
fn one_socket_may_ask_several_and_each_has_its_flow() {
    let bench = Bench::new();
    let server = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let out = bench.agent_with(
        POLICY,
        &SERVERS,
        "s = dgram(); s.settimeout(10); q = query('api.example')\n\
         for to in ['198.51.100.7', '203.0.113.9', '198.51.100.7', R]:\n\
         \x20   for n in range(3):\n\
         \x20       s.sendto(q, (to, 53)); assert s.recvfrom(512)[1] == (to, 53), to",
    );
    assert_eq!(server.asked().len(), 12);
    let carried = |ip: &str| -> Vec<(u64, u64, Value)> {
        let n = |r: &Value, field: &str| r[field].as_u64().unwrap();
        meant_for(&out, ip)
            .into_iter()
            .map(|r| {
                (
                    n(r, "packets_out"),
                    n(r, "packets_in"),
                    r["proxy_ip"].clone(),
                )
            })
            .collect()
    };
    let led = (3, 3, json!(RESOLVER));
    assert_eq!(carried("198.51.100.7"), [led.clone(), led.clone()]);
    assert_eq!(carried("203.0.113.9"), [led]);
    // Who asks it himself is not led.
    assert_eq!(carried(RESOLVER), [(3, 3, Value::Null)]);
}

#[test]
fn which_names_there_are_the_name_server_says_and_what_is_no_query_goes_nowhere() {
    let bench = Bench::new();
    let server = Resolver::naming(&[]);
    let out = bench.agent_with(
        POLICY,
        &SERVERS,
        "got = udp(query('other.example'), '198.51.100.7'); say(got[3] & 15)\n\
         say(udp(b'not a query at all', '198.51.100.7'), udp(answer(query('api.example'), '192.0.2.1'), '198.51.100.7'))",
    );
    assert_eq!(out.stdout, "3\nEPERM EPERM\n");
    assert_eq!(server.asked(), ["other.example"]);
    let denied = out.denied(&[]);
    assert_eq!(denied.len(), 2, "{denied:#?}");
    for r in denied {
        fields(r, &json!({"reason": "query", "dst_port": 53}));
    }
}

#[test]
fn where_no_name_server_is_there_is_no_dns() {
    let bench = Bench::new();
    let server = Resolver::start("2001:db8::53");
    let wire = Sniffer::start();
    let out = bench.agent_with(
        POLICY,
        &SERVERS[..2],
        "q = query('api.example'); s = dgram(socket.AF_INET6)\n\
         say(tried(lambda: s.sendto(q, ('2001:db8::53', 53))))\n\
         c = dgram(); c.connect(('198.51.100.7', 53)); c.settimeout(10); say(tried(lambda: (c.send(q), c.recv(9))))\n\
         say(tcp('198.51.100.7', 53), tcp('198.51.100.7', 853))",
    );
    // It does not listen, and says so.
    assert_eq!(out.stdout, "EPERM\nECONNREFUSED\nECONNREFUSED EPERM\n");
    assert!(server.asked().is_empty());
    assert_eq!(wire.to("198.51.100.7").len(), 0);
    fields(
        out.only(&[("dst_ip", json!("2001:db8::53"))]),
        &json!({"verdict": "DENIED", "reason": "no_proxy_path"}),
    );
    fields(
        out.only(&[("l4_proto", json!("tcp")), ("dst_port", json!(53))]),
        &json!({"verdict": "ALLOWED", "close_reason": "refused", "proxy_ip": RESOLVER}),
    );
    fields(
        out.only(&[("dst_port", json!(853))]),
        &json!({"verdict": "DENIED", "reason": "resolver"}),
    );
}

#[test]
fn a_conversation_outlives_a_change_of_the_policy() {
    let bench = Bench::new();
    let server = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let mut agent = bench.talk(
        POLICY,
        &SERVERS,
        "a, b = dgram(), dgram(); q = query('api.example'); a.connect(('198.51.100.7', 53))\n\
         def both():\n\
         \x20   a.send(q); b.sendto(q, ('203.0.113.9', 53))\n\
         \x20   for s in a, b: s.settimeout(10)\n\
         \x20   return a.recvfrom(512)[1][0], b.recvfrom(512)[1][0]\n\
         step(*both()); step(*both())",
    );
    assert_eq!(agent.hear(), "198.51.100.7 203.0.113.9");
    bench.apply("resolvers: [coredns]\nrules:\n- { dst: other.example, proto: tcp, port: 443 }\n");
    assert_eq!(agent.go(), "198.51.100.7 203.0.113.9");
    agent.say("go");
    let out = agent.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(server.asked().len(), 4);
    for ip in ["198.51.100.7", "203.0.113.9"] {
        let [record] = meant_for(&out, ip)[..] else {
            panic!("{:#?}", out.records);
        };
        fields(
            record,
            &json!({"packets_out": 2, "packets_in": 2, "proxy_ip": RESOLVER}),
        );
    }
}

#[test]
fn who_is_only_observed_asks_whom_he_likes() {
    let bench = Bench::new();
    let server = Resolver::naming(&[]);
    let own = Resolver::start("198.51.100.7");
    let args = [&SERVERS[..], &["--mode", "observe"]].concat();
    let out = bench.agent_with(
        POLICY,
        &args,
        "say(udp(query('any.example'), '198.51.100.7')[3] & 15)",
    );
    assert_eq!(out.stdout, "3\n");
    assert_eq!(
        (own.asked(), server.asked()),
        (vec!["any.example".to_owned()], vec![])
    );
    let [record] = meant_for(&out, "198.51.100.7")[..] else {
        panic!("{:#?}", out.records);
    };
    fields(
        record,
        &json!({"verdict": "ALLOWED", "reason": "observe", "proxy_ip": null}),
    );
}
