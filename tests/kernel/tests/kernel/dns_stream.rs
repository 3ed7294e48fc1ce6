//! DNS over TCP: only whole queries leave, each judged, and nobody inside answers.

use kernel_tests::{
    check::fields,
    dns::{RESOLVER, address},
    policies::NAMES,
    run::{Bench, Outcome},
    server::{Place, dns_tcp, frame, reply},
    sniff::Sniffer,
};
use serde_json::{Value, json};

/// Program that makes these writes, each on a DNS stream of its own and all at once, and says of each its
/// port and whether an answer came.
fn streams(each: &[&str]) -> String {
    format!(
        "f = lambda n: framed(query(n))\n\
         def ask_by(writes):\n  \
         with dial(R, 53) as s:\n    \
         s.settimeout(1.5); s.setsockopt(6, 1, 1)\n    \
         for w in writes: s.sendall(w)\n    \
         try: said = len(s.recv(4096)) > 0\n    \
         except OSError: said = False\n    \
         return s.getsockname()[1], said\n\
         from concurrent.futures import ThreadPoolExecutor\n\
         for port, said in ThreadPoolExecutor(20).map(ask_by, [{}]): print(port, said)\n",
        each.join(", ")
    )
}

/// Denied records of the stream on a port, as reason and name asked for.
fn refused_on(out: &Outcome, port: u16) -> Vec<(&str, &Value)> {
    out.denied(&[("dst_ip", json!(RESOLVER)), ("src_port", json!(port))])
        .into_iter()
        .map(|r| (r["reason"].as_str().unwrap(), &r["qname"]))
        .collect()
}

#[test]
fn on_a_stream_only_whole_allowed_queries_leave() {
    let cases = [
        ("[f('api.example')]", None),
        ("[f('api.example') + f('x.suffix.example')]", None),
        ("[f('evil.example')]", Some(("name", json!("evil.example")))),
        (
            "[f('api.example') + f('evil.example')]",
            Some(("name", json!("evil.example"))),
        ),
        ("[f('api.example') + b'\\0']", Some(("query", Value::Null))),
        (
            "[b'\\2\\1' + query('api.example', tail=b'x' * 484)]",
            Some(("query", Value::Null)),
        ),
        (
            "[b'GET / HTTP/1.0\\r\\n\\r\\n']",
            Some(("query", Value::Null)),
        ),
    ];
    let bench = Bench::new();
    let seen = dns_tcp(RESOLVER, |q| vec![frame(&reply(q, &[]))]);
    let wire = Sniffer::start();
    let writes = cases.each_ref().map(|(writes, _)| *writes);
    let out = bench.agent_with(NAMES, &["--linger", "0"], &streams(&writes));
    for p in wire.to(RESOLVER) {
        let leaked = |what: &[u8]| p.rest.windows(what.len()).any(|x| x == what);
        assert!(!leaked(b"evil") && !leaked(b"GET"), "{p:?}");
    }
    assert_eq!(seen.all().len(), 3, "one query, and two in a segment");
    assert_eq!(out.stdout.lines().count(), cases.len());
    for (line, (writes, refusal)) in out.stdout.lines().zip(&cases) {
        let (port, answered) = line.split_once(' ').unwrap();
        let refused = refused_on(&out, port.parse().unwrap());
        assert_eq!(answered == "True", refusal.is_none(), "{writes}");
        // Once for every retransmission.
        assert_eq!(refused.is_empty(), refusal.is_none(), "{writes}");
        for (reason, name) in refused {
            let expected = refusal.as_ref().map(|(r, n)| (*r, n));
            assert_eq!(Some((reason, name)), expected, "{writes}");
        }
    }
}

#[test]
fn pieces_of_a_query_do_not_leave() {
    let bench = Bench::new();
    let _seen = dns_tcp(RESOLVER, |q| vec![frame(&reply(q, &[]))]);
    let wire = Sniffer::start();
    let cuts = [2, 9].map(|cut| format!("[f('api.example')[:{cut}], f('api.example')[{cut}:]]"));
    let program = streams(&[&cuts[0], &cuts[1]]);
    let out = bench.agent_with(NAMES, &["--linger", "0"], &program);
    for line in out.stdout.lines() {
        let port = line.split(' ').next().unwrap().parse().unwrap();
        let refused = refused_on(&out, port);
        assert!(refused.contains(&("query", &Value::Null)), "{refused:?}");
    }
    // The kernel may put the pieces together when it sends again; then it is a whole query.
    let whole = 2 + 12 + 13 + 4;
    for p in wire.to(RESOLVER) {
        let payload = p.rest.len() - usize::from(p.rest[12] >> 4) * 4;
        assert!(
            payload == 0 || payload == whole,
            "{payload} bytes of a query left"
        );
    }
}

#[test]
fn a_second_query_follows_the_first_on_a_stream() {
    let bench = Bench::new();
    let seen = dns_tcp(RESOLVER, |q| {
        vec![frame(&reply(q, &[address("203.0.113.9", 300)]))]
    });
    let _place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        NAMES,
        "s = socket.create_connection((R, 53)); s.settimeout(10)\n\
         for n in ('a.suffix.example', 'api.example'):\n  \
         s.sendall(framed(query(n))); assert s.recv(4096)\n\
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
        NAMES,
        &["--linger", "0"],
        "f = socket.socket(); f.bind((R, 53)); f.listen()\n\
         try:\n  \
         a = socket.create_connection((R, 53), 1.5); s, _ = f.accept()\n  \
         q = query('api.example'); a.sendall(framed(q)); s.recv(512)\n  \
         s.sendall(framed(answer(q, '203.0.113.9'))); a.recv(512)\n\
         except OSError: pass\n\
         print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "EPERM", "{:#?}", out.records);
    let r = out.denied(&[("src_ip", json!(RESOLVER)), ("reason", json!("resolver"))]);
    assert!(!r.is_empty(), "{:#?}", out.records);
    assert_eq!(place.calls(), 0);
}
