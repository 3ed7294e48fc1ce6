//! Answers that are wrong, hostile, from elsewhere, in pieces, or too many.

use kernel_tests::{
    check::fields,
    dns::{Resolver, address, record},
    eventually, noise,
    run::Bench,
    server::{Place, dns_tcp, dns_udp, frame, question_end, reply},
};
use serde_json::json;
use std::net::UdpSocket;

const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: api, dst: .api.example, proto: tcp, port: 443 }\n";

/// Makes a message out of a query.
type Make = fn(&[u8]) -> Vec<u8>;

/// Names and addresses that the one instance has learned.
fn learned(bench: &Bench) -> Vec<(String, String)> {
    let rows = bench.dump(&["--names"]);
    let text = |v: &serde_json::Value| v.as_str().expect("text").to_owned();
    rows.iter()
        .map(|r| (text(&r["name"]), text(&r["address"])))
        .collect()
}

#[test]
fn loops_lies_and_lengths_past_the_end_teach_nothing() {
    let bench = Bench::new();
    // Each query is answered by the next of these, then by the truth.
    let good = address("203.0.113.9", 300);
    let broken: Vec<Make> = vec![
        // The question's name points to itself.
        |q| {
            [
                &reply(q, &[])[..6],
                &[0, 1, 0, 0, 0, 0, 0xc0, 0x0c, 0, 1, 0, 1],
            ]
            .concat()
        },
        // The question's name never ends.
        |q| [&reply(q, &[])[..12], &[63; 40]].concat(),
        // A label longer than the message.
        |q| [&reply(q, &[])[..12], &[50, b'a', b'b']].concat(),
        // More answers than bytes.
        |q| {
            let mut m = reply(q, &[]);
            m[6..8].fill(0xff);
            m
        },
        // A record longer than the message.
        |q| {
            let mut m = reply(q, &[record(1, 300, &[198, 51, 100, 7])]);
            let at = m.len() - 6;
            m[at..at + 2].fill(0xff);
            m
        },
        // Addresses of the wrong length and class, and no room for the last.
        |q| {
            let mut chaos = record(1, 300, &[198, 51, 100, 7]);
            chaos[5] = 3;
            let short = record(1, 300, &[198, 51, 100]);
            let six = record(28, 300, &[198, 51, 100, 7]);
            let mut m = reply(q, &[chaos, short, six, record(1, 300, &[198, 51, 100, 7])]);
            m.truncate(m.len() - 1);
            m
        },
        // Owner names that point to themselves, thousands of them.
        |q| {
            let mut m = reply(q, &[]);
            m[6..8].fill(0x20);
            while m.len() < 9000 {
                let here = 0xc000 | m.len() as u16;
                m.extend(here.to_be_bytes());
                m.extend([0, 16, 0, 1, 0, 0, 0, 1, 0, 0]);
            }
            m
        },
        // A failure, a query, an empty message, half a header.
        |q| {
            let mut m = reply(q, &[record(1, 300, &[198, 51, 100, 7])]);
            m[3] |= 3;
            m
        },
        |q| {
            let mut m = reply(q, &[record(1, 300, &[198, 51, 100, 7])]);
            m[2] &= 0x7f;
            m
        },
        |_| Vec::new(),
        |q| q[..6].to_vec(),
    ];
    let n = broken.len();
    let mut turn = broken.into_iter();
    let truth = good.clone();
    let _asked = dns_udp("192.0.2.53", move |q, _| match turn.next() {
        Some(make) => vec![make(q)],
        None => vec![reply(q, std::slice::from_ref(&truth))],
    });
    let places = ["198.51.100.7:443", "203.0.113.9:443"].map(Place::open);
    let program = format!(
        "for i in range({n}):\n  assert isinstance(udp(query('api.example')), bytes)\n  \
         assert tcp('198.51.100.7', 443) == 'EPERM', i\n  assert tcp('203.0.113.9', 443) == 'EPERM', i\n\
         step('bad')\nask('api.example'); step(tcp('203.0.113.9', 443))\n"
    );
    let mut agent = bench.talk(POLICY, &[], &program);
    assert_eq!(agent.hear(), "bad");
    assert!(
        bench.counter("answer_malformed") >= 6,
        "{}",
        bench.counter("answer_malformed")
    );
    assert_eq!(learned(&bench), []);
    agent.say("on");
    assert_eq!(agent.hear(), "ok");
    assert_eq!(
        learned(&bench),
        [("api.example".to_owned(), "203.0.113.9".to_owned())]
    );
    agent.end(&bench);
    assert_eq!(places.map(|p| p.calls()), [0, 1]);
}

#[test]
fn random_answers_crash_nothing_and_open_nothing_that_was_not_in_them() {
    let bench = Bench::new();
    let mut random = noise(0x9e37_79b9_7f4a_7c15);
    let mut n = 0;
    let _asked = dns_udp("192.0.2.53", move |q, _| {
        n += 1;
        if n > 400 {
            return vec![reply(q, &[address("203.0.113.9", 300)])];
        }
        // A good answer with a few bytes changed behind the header, or noise behind a good question.
        let mut m = reply(
            q,
            &[
                address("198.51.100.200", 300),
                address("198.51.100.201", 300),
            ],
        );
        if n % 2 == 0 {
            m.truncate(question_end(q));
            m[6..8].copy_from_slice(&(random() as u16).to_be_bytes());
            let more = (random() % 6000) as usize;
            m.extend((0..more).map(|_| random() as u8));
        } else {
            for _ in 0..=random() % 6 {
                let at = question_end(q) + (random() as usize) % (m.len() - question_end(q));
                m[at] = random() as u8;
            }
        }
        vec![m]
    });
    let places = ["198.51.100.7:443", "203.0.113.9:443"].map(Place::open);
    let mut agent = bench.talk(
        POLICY,
        &[],
        "for i in range(400): assert isinstance(udp(query('api.example')), bytes)\n\
         step(tcp('198.51.100.7', 443), tcp('203.0.113.9', 443))\n\
         ask('api.example'); step(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(agent.hear(), "EPERM EPERM");
    assert!(bench.counter("answer_malformed") > 100);
    assert!(
        learned(&bench)
            .iter()
            .all(|(name, _)| name == "api.example")
    );
    agent.say("on");
    assert_eq!(agent.hear(), "ok");
    let out = agent.end(&bench);
    let lost = out.stderr.contains("in no record");
    assert!(!lost && out.code == 0, "{}", out.stderr);
    assert_eq!(places.map(|p| p.calls()), [0, 1]);
}

#[test]
fn an_answer_from_another_address_teaches_nothing() {
    let bench = Bench::new();
    let elsewhere = UdpSocket::bind("192.0.2.2:53").unwrap();
    let _asked = dns_udp("192.0.2.53", move |q, from| {
        let m = reply(q, &[address("203.0.113.9", 300)]);
        elsewhere.send_to(&m, from).unwrap();
        Vec::new()
    });
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        POLICY,
        "print(udp(query('api.example'), wait=1), tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.words(), ["timeout", "EPERM"]);
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"verdict": "DENIED", "reason": "default", "dst_host": null}),
    );
    // Over loopback it may have been made up inside, and is judged like a word with a stranger.
    fields(
        out.only(&[("src_ip", json!("192.0.2.2"))]),
        &json!({"direction": "ingress", "verdict": "DENIED", "reason": "resolver"}),
    );
    assert_eq!(place.calls(), 0);
}

#[test]
fn an_answer_over_tcp_teaches_too() {
    let bench = Bench::new();
    let _asked = dns_tcp("192.0.2.53", |q| {
        vec![frame(&reply(q, &[address("203.0.113.9", 300)]))]
    });
    let place = Place::open("203.0.113.9:443");
    let out = bench.agent(
        POLICY,
        "s = dial(R, 53); s.sendall(framed(query('api.example'))); assert s.recv(4096)\n\
         print(tcp('203.0.113.9', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "ok");
    fields(
        out.only(&[("dst_port", json!(443))]),
        &json!({"verdict": "ALLOWED", "dst_host": "api.example"}),
    );
    fields(
        out.only(&[("dst_port", json!(53))]),
        &json!({"verdict": "ALLOWED", "reason": "resolver", "l4_proto": "tcp"}),
    );
    assert_eq!(place.calls(), 1);
}

#[test]
fn two_answers_in_one_segment_teach_both() {
    let bench = Bench::new();
    // Answers both queries of a pipeline at once, as a server with its output buffered does.
    let mut held = Vec::new();
    let _asked = dns_tcp("192.0.2.53", move |q| {
        let ip = if held.is_empty() {
            "203.0.113.9"
        } else {
            "198.51.100.7"
        };
        held.extend(frame(&reply(q, &[address(ip, 300)])));
        if ip == "203.0.113.9" {
            Vec::new()
        } else {
            vec![std::mem::take(&mut held)]
        }
    });
    let _places = ["203.0.113.9:443", "198.51.100.7:443"].map(Place::open);
    let out = bench.agent(
        POLICY,
        "s = socket.create_connection((R, 53)); s.settimeout(10)\n\
         both = b''.join(framed(query(n)) for n in ('a.api.example', 'b.api.example'))\n\
         s.sendall(both); assert s.recv(4096)\n\
         print(tcp('203.0.113.9', 443), tcp('198.51.100.7', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "ok ok");
    for name in ["a.api.example", "b.api.example"] {
        fields(
            out.only(&[("dst_host", json!(name))]),
            &json!({"verdict": "ALLOWED", "rule": "api"}),
        );
    }
}

#[test]
fn too_many_names_close_no_door_and_open_none() {
    let bench = Bench::new();
    let mut n = 0u32;
    let _asked = dns_udp("192.0.2.53", move |q, _| {
        n += 1;
        let ip = match n {
            1 => "203.0.113.9".to_owned(),
            3001 => "198.51.100.7".to_owned(),
            _ => format!("198.18.{}.{}", n >> 8, n & 0xff),
        };
        vec![reply(q, &[address(&ip, 3600)])]
    });
    let _places = ["203.0.113.9:443", "198.51.100.7:443"].map(Place::open);
    let mut agent = bench.talk(
        POLICY,
        &["--quiet"],
        "s = dgram(); s.connect((R, 53)); s.settimeout(10)\n\
         for i in range(3001): s.send(query(f'n{i}.api.example')); s.recv(4096)\n\
         step(tcp('203.0.113.9', 443), tcp('198.51.100.7', 443))\n",
    );
    assert_eq!(agent.hear(), "ok EPERM");
    let used = bench.counter("names_used");
    assert_eq!(used, 2048, "the quota");
    assert_eq!(bench.counter("names_full"), 3001 - 2048);
    assert_eq!(bench.counter("addresses_used"), 2048);
    let out = agent.end(&bench);
    fields(
        out.only(&[("verdict", json!("DENIED"))]),
        &json!({"dst_ip": "198.51.100.7", "reason": "default", "dst_host": null}),
    );
}

#[test]
fn the_resolver_of_the_record_is_the_one_that_answered() {
    let bench = Bench::new();
    let resolver = Resolver::start("2001:db8::53");
    resolver.set("api.example", vec![address("2001:db8::2", 300)]);
    let place = Place::open("[2001:db8::2]:443");
    let policy = POLICY.replace("192.0.2.53", "\"2001:db8::53\"");
    let out = bench.agent(
        &policy,
        "ask('api.example', 28, '2001:db8::53'); print(tcp('2001:db8::2', 443))\n",
    );
    assert_eq!(out.stdout.trim(), "ok");
    let lookup = out.only(&[("dst_port", json!(53))]);
    fields(
        lookup,
        &json!({"dst_ip": "2001:db8::53", "reason": "resolver", "packets_in": 1, "packets_out": 1}),
    );
    eventually("the call", || (place.calls() == 1).then_some(()));
}
