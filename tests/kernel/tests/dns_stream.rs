//! DNS over TCP: only whole queries leave, each judged, and nobody inside answers.

use kernel_tests::{
    check::fields,
    dns::address,
    run::{Bench, Outcome},
    server::{Place, dns_tcp, frame, reply},
    sniff::Sniffer,
};
use serde_json::{Value, json};

const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: api, dst: api.example, proto: tcp, port: 443 }\n\
    - { name: below, dst: \"*.star.example\", proto: tcp, port: 443 }\n\
    - { name: both, dst: .suffix.example, proto: tcp, port: 443 }\n\
    - { name: never, dst: .deny.example, proto: any, action: deny }\n";

/// Denied records to port 53 of the resolver, as reason and name asked for.
fn refused(out: &Outcome) -> Vec<(String, Value)> {
    out.matching(&[
        ("verdict", json!("DENIED")),
        ("dst_ip", json!("192.0.2.53")),
    ])
    .iter()
    .map(|r| {
        (
            r["reason"].as_str().expect("a reason").to_owned(),
            r["qname"].clone(),
        )
    })
    .collect()
}

/// Program that sends one write on a DNS stream; says whether an answer came.
fn stream(writes: &str) -> String {
    format!(
        "f = lambda n: struct.pack('>H', len(query(n))) + query(n)\n\
         s = socket.create_connection((R, 53)); s.settimeout(1.5)\n\
         s.setsockopt(6, 1, 1)\n\
         for w in [{writes}]:\n  s.sendall(w); time.sleep(0)\n\
         try: print(len(s.recv(4096)) > 0)\n\
         except OSError as e: print(False)\n"
    )
}

#[test]
fn on_a_stream_only_whole_allowed_queries_leave() {
    for (writes, passes, reason, asked) in [
        ("f('api.example')", true, None, 1),
        ("f('api.example') + f('x.suffix.example')", true, None, 2),
        (
            "f('evil.example')",
            false,
            Some(("name", json!("evil.example"))),
            0,
        ),
        (
            "f('api.example') + f('evil.example')",
            false,
            Some(("name", json!("evil.example"))),
            0,
        ),
        (
            "f('api.example') + b'\\0'",
            false,
            Some(("query", Value::Null)),
            0,
        ),
        (
            "b'\\2\\1' + query('api.example', tail=b'x' * 484)",
            false,
            Some(("query", Value::Null)),
            0,
        ),
        (
            "b'GET / HTTP/1.0\\r\\n\\r\\n'",
            false,
            Some(("query", Value::Null)),
            0,
        ),
    ] {
        let bench = Bench::new();
        let seen = dns_tcp("192.0.2.53", |q| vec![frame(&reply(q, &[]))]);
        let wire = Sniffer::start();
        let out = bench.run(
            Some(POLICY),
            &["--linger", "0"],
            &[
                "python3",
                "-c",
                &format!("{}\n{}", kernel_tests::agent::PRELUDE, stream(writes)),
            ],
        );
        assert_eq!(out.code, 0, "{}", out.stderr);
        let expected = if passes { "True" } else { "False" };
        assert_eq!(out.stdout.trim(), expected, "{writes}");
        assert_eq!(seen.all().len(), asked, "{writes}");
        let leaked = wire.packets().iter().any(|p| {
            let to = p.dst.to_string() == "192.0.2.53";
            to && [&b"evil"[..], b"GET"]
                .iter()
                .any(|w| p.rest.windows(w.len()).any(|x| x == *w))
        });
        assert!(!leaked, "{writes}");
        let refused = refused(&out);
        match reason {
            None => assert_eq!(refused, [], "{writes}"),
            Some((reason, name)) => {
                // Once for every retransmission.
                assert!(!refused.is_empty(), "{writes}: {:#?}", out.records);
                assert!(
                    refused
                        .iter()
                        .all(|r| *r == (reason.to_owned(), name.clone())),
                    "{writes}: {refused:?}"
                );
            }
        }
    }
}

#[test]
fn pieces_of_a_query_do_not_leave() {
    let bench = Bench::new();
    let _seen = dns_tcp("192.0.2.53", |q| vec![frame(&reply(q, &[]))]);
    for cut in [2, 9] {
        let wire = Sniffer::start();
        let writes = format!("f('api.example')[:{cut}], f('api.example')[{cut}:]");
        let code = format!("{}\n{}", kernel_tests::agent::PRELUDE, stream(&writes));
        let out = bench.run(Some(POLICY), &["--linger", "0"], &["python3", "-c", &code]);
        assert!(
            refused(&out).contains(&("query".to_owned(), Value::Null)),
            "{:#?}",
            out.records
        );
        // The kernel may put the pieces together when it sends again; then it is a whole query.
        let whole = 2 + 12 + 13 + 4;
        for p in wire.to("192.0.2.53") {
            let payload = p.rest.len() - usize::from(p.rest[12] >> 4) * 4;
            assert!(
                payload == 0 || payload == whole,
                "{payload} bytes of a query left"
            );
        }
    }
}

#[test]
fn a_second_query_follows_the_first_on_a_stream() {
    let bench = Bench::new();
    let seen = dns_tcp("192.0.2.53", |q| {
        vec![frame(&reply(q, &[address("203.0.113.9", 300)]))]
    });
    let _place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        POLICY,
        "s = socket.create_connection((R, 53)); s.settimeout(10)\n\
         for n in ('a.suffix.example', 'api.example'):\n  \
         q = query(n); s.sendall(struct.pack('>H', len(q)) + q); assert s.recv(4096)\n\
         print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "ok");
    assert_eq!(seen.all().len(), 2);
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"dst_hosts": ["a.suffix.example", "api.example"]}),
    );
}

#[test]
fn nobody_inside_answers_for_the_resolver_over_tcp() {
    let bench = Bench::new();
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent_with(
        POLICY,
        &["--linger", "0"],
        "f = socket.socket(); f.bind((R, 53)); f.listen()\n\
         try:\n  \
         a = socket.create_connection((R, 53), 1.5); s, _ = f.accept()\n  \
         q = query('api.example'); a.sendall(struct.pack('>H', len(q)) + q); s.recv(512)\n  \
         m = q[:2] + b'\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0' + q[12:] + b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\1\\0\\0\\4' + socket.inet_aton('203.0.113.9')\n  \
         s.sendall(struct.pack('>H', len(m)) + m); a.recv(512)\n\
         except OSError: pass\n\
         print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "EPERM", "{:#?}", out.records);
    let r = out.matching(&[
        ("src_ip", json!("192.0.2.53")),
        ("reason", json!("resolver")),
        ("verdict", json!("DENIED")),
    ]);
    assert!(!r.is_empty(), "{:#?}", out.records);
    assert_eq!(place.calls(), 0);
}
