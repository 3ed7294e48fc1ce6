use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn wire_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

fn header(flags: u16, qd: u16, an: u16, ns: u16, ar: u16) -> Vec<u8> {
    [0x1234, flags, qd, an, ns, ar]
        .iter()
        .flat_map(|w: &u16| w.to_be_bytes())
        .collect()
}

fn query(name: &str) -> Vec<u8> {
    [
        header(0x0100, 1, 0, 0, 0),
        wire_name(name),
        vec![0, 1, 0, 1],
    ]
    .concat()
}

fn buffer(msg: &[u8]) -> [u8; MAX_ANSWER] {
    let mut b = [0xaa; MAX_ANSWER];
    b[..msg.len()].copy_from_slice(msg);
    b
}

/// Reads the question's name: (state, text, reversed text).
fn scan(msg: &[u8]) -> (NameScan, String, String) {
    let b = buffer(msg);
    let mut text = [0; TEXT];
    let mut s = NameScan::new(HEADER, msg.len() as u32);
    while name_step(&b, &mut text, &mut s) {}
    let mut reversed = [0; NAME_BYTES];
    for i in 0..s.len {
        reverse_step(&text, s.len, i, &mut reversed);
    }
    let n = s.len as usize;
    let string = |b: &[u8]| String::from_utf8(b.to_vec()).unwrap();
    (
        s,
        string(&text[..n]),
        string(&reversed[..n.min(NAME_BYTES)]),
    )
}

fn record(kind: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut r = vec![0xc0, 0x0c];
    r.extend(kind.to_be_bytes());
    r.extend(class.to_be_bytes());
    r.extend(ttl.to_be_bytes());
    r.extend((data.len() as u16).to_be_bytes());
    r.extend_from_slice(data);
    r
}

fn answer(name: &str, records: &[Vec<u8>]) -> Vec<u8> {
    let mut m = header(0x8180, 1, records.len() as u16, 0, 0);
    m.extend(wire_name(name));
    m.extend([0, 1, 0, 1]);
    m.extend(records.concat());
    m
}

/// Walks the answer section: addresses with TTL, and whether it came to a good end.
fn addresses(msg: &[u8]) -> (Vec<(IpAddr, u32)>, bool) {
    let b = buffer(msg);
    let (question, _, _) = scan(msg);
    let mut s = AnswerScan::new(&b, &question);
    let mut found = Vec::new();
    for _ in 0..MAX_STEPS {
        match answer_step(&b, &mut s) {
            Step::More => {}
            Step::Address(ip, ttl) => found.push((Ipv6Addr::from(ip.0).to_canonical(), ttl)),
            Step::End => return (found, true),
            Step::Broken => return (found, false),
        }
    }
    (found, false)
}

#[test]
fn a_question_is_read_in_lower_case_and_backwards() {
    let (s, text, reversed) = scan(&query("Api.GitHub.COM"));
    assert_eq!(
        (s.state, text.as_str(), reversed.as_str()),
        (DONE, "api.github.com", "moc.buhtig.ipa")
    );
    let (same, ..) = scan(&query("api.github.com"));
    assert_eq!(s.hash, same.hash);
    let (other, ..) = scan(&query("api.github.con"));
    assert_ne!(s.hash, other.hash);
}

#[test]
fn labels_that_would_look_like_another_name_are_refused() {
    for label in [&b"a.b"[..], b"a\0b", b"a b", b"\xff", b"a\x7f"] {
        let mut m = header(0x0100, 1, 0, 0, 0);
        m.push(label.len() as u8);
        m.extend_from_slice(label);
        m.extend([3, b'c', b'o', b'm', 0, 0, 1, 0, 1]);
        assert_eq!(scan(&m).0.state, BAD, "{label:?}");
    }
}

#[test]
fn compression_in_a_question_and_a_name_without_end_are_refused() {
    let pointer = [header(0x0100, 1, 0, 0, 0), vec![0xc0, 0x0c, 0, 1, 0, 1]].concat();
    assert_eq!(scan(&pointer).0.state, BAD);
    let cut = &query("api.github.com")[..20];
    assert_eq!(scan(cut).0.state, BAD);
}

#[test]
fn names_end_at_what_a_policy_can_match() {
    let name = |n: usize| {
        let mut s = String::new();
        while s.len() + 2 <= n {
            let label = (n - s.len() - 1).min(49);
            s.push_str(&"a".repeat(label));
            s.push('.');
        }
        s.trim_end_matches('.').to_owned() + &"b".repeat(n - s.trim_end_matches('.').len())
    };
    let longest = name(abi::MAX_NAME);
    assert_eq!(longest.len(), abi::MAX_NAME);
    let (s, text, _) = scan(&query(&longest));
    assert_eq!((s.state, text), (DONE, longest));
    assert_eq!(scan(&query(&name(abi::MAX_NAME + 1))).0.state, BAD);
}

#[test]
fn only_plain_questions_are_queries() {
    let ok = query("a.example");
    assert!(is_query(&buffer(&ok), ok.len() as u32));
    for (flags, qd, an, ns, ar) in [
        (0x8100, 1, 0, 0, 0),
        (0x2800, 1, 0, 0, 0),
        (0x0300, 1, 0, 0, 0),
        (0x0100, 2, 0, 0, 0),
        (0x0100, 0, 0, 0, 0),
        (0x0100, 1, 1, 0, 0),
        (0x0100, 1, 0, 1, 0),
        (0x0100, 1, 0, 0, 2),
    ] {
        let m = [
            header(flags, qd, an, ns, ar),
            wire_name("a.example"),
            vec![0, 1, 0, 1],
        ]
        .concat();
        assert!(
            !is_query(&buffer(&m), m.len() as u32),
            "{flags:x} {qd} {an} {ns} {ar}"
        );
    }
    assert!(!is_query(&buffer(&ok), 513));
    assert!(!is_query(&buffer(&ok), 12));
}

#[test]
fn nothing_rides_along_behind_the_question() {
    let plain = query("a.example");
    let check = |m: &[u8]| query_ends_well(&buffer(m), &scan(m).0);
    assert!(check(&plain));
    assert!(!check(&[plain.clone(), b"payload".to_vec()].concat()));
    let mut edns = query("a.example");
    edns[11] = 1;
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    assert!(check(&[edns.clone(), opt.to_vec()].concat()));
    assert!(!check(&[edns.clone(), opt.to_vec(), vec![1]].concat()));
    assert!(!check(&edns));
    let mut other = opt;
    other[2] = 16;
    assert!(!check(&[edns, other.to_vec()].concat()));
}

#[test]
fn every_address_of_a_chain_counts() {
    let m = answer(
        "www.example",
        &[
            record(5, 1, 60, &wire_name("cdn.example.net")),
            record(1, 1, 30, &[192, 0, 2, 1]),
            record(
                28,
                1,
                31,
                &"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets(),
            ),
            record(1, 3, 30, &[192, 0, 2, 9]),
            record(1, 1, 30, &[192, 0, 2]),
            record(1, 1, 32, &[192, 0, 2, 2]),
        ],
    );
    let (found, good) = addresses(&m);
    assert!(good);
    let expected: Vec<(IpAddr, u32)> = vec![
        (Ipv4Addr::new(192, 0, 2, 1).into(), 30),
        ("2001:db8::1".parse().unwrap(), 31),
        (Ipv4Addr::new(192, 0, 2, 2).into(), 32),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_truncated_answer_teaches_what_is_whole() {
    let m = answer(
        "www.example",
        &[
            record(1, 1, 30, &[192, 0, 2, 1]),
            record(1, 1, 30, &[192, 0, 2, 2]),
        ],
    );
    let (found, good) = addresses(&m[..m.len() - 3]);
    assert_eq!((found.len(), good), (1, false));
}

#[test]
fn failures_and_questions_are_no_answers() {
    let ok = answer("a.example", &[]);
    assert!(is_answer(&buffer(&ok), ok.len() as u32));
    for (i, v) in [(2, 0x01), (3, 0x83), (3, 0x82), (2, 0xa8), (5, 2), (5, 0)] {
        let mut m = ok.clone();
        m[i] = v;
        assert!(!is_answer(&buffer(&m), m.len() as u32), "byte {i} = {v:#x}");
    }
}

#[test]
fn a_ttl_holds_between_its_bounds() {
    assert_eq!(hold_ns(0), MIN_HOLD_NS);
    assert_eq!(hold_ns(300), 300_000_000_000);
    assert_eq!(hold_ns(i32::MAX as u32), MAX_HOLD_S as u64 * 1_000_000_000);
    assert_eq!(hold_ns(u32::MAX), MIN_HOLD_NS);
}

proptest! {
    /// Whatever the bytes, the machines stop, stay inside the message and never panic.
    #[test]
    fn hostile_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 13..1500)) {
        let (s, ..) = scan(&bytes);
        prop_assert!(s.state != RUNNING);
        prop_assert!(s.pos <= bytes.len() as u32);
        let b = buffer(&bytes);
        let mut a = AnswerScan::new(&b, &s);
        let mut last = a;
        for _ in 0..MAX_STEPS {
            match answer_step(&b, &mut a) {
                Step::End | Step::Broken => break,
                Step::More | Step::Address(..) => {
                    prop_assert!(a.pos > last.pos);
                    last = a;
                }
            }
        }
    }

    /// A name that was written is the name that is read.
    #[test]
    fn names_survive_the_wire(labels in proptest::collection::vec("[a-z0-9_-]{1,20}", 1..10)) {
        let name = labels.join(".");
        let (s, text, reversed) = scan(&query(&name));
        prop_assert_eq!(s.state, DONE);
        prop_assert_eq!(&text, &name);
        prop_assert_eq!(reversed, name.chars().rev().collect::<String>());
    }
}
