//! What is answered, and what is asked for.

use super::{AGENTS, ANN, ANN6, BOB, Bench, NOBODY, NOBODY6, ask, policy};
use kernel_tests::noise;
use policy::Policy;
use stack_tests::{
    coredns::render,
    dns::{A, AAAA, ANY, DS, HTTPS, NOERROR, NXDOMAIN, Query, REFUSED, SVCB, TXT},
};
use std::{fmt::Write as _, time::Instant};

const POLICY: &str = "
domains: [plain.example, .tree.example]
rules:
  - { dst: '*.pkg.example', proto: https }
  - { dst: evil.pkg.example, proto: any, action: deny }
  - { dst: one.deep.b.example, proto: ssh }
  - { dst: b.example, proto: https }
  - { dst: never.example, proto: any, action: deny }
  - { dst: 203.0.113.0/24, proto: any }
agents:
  acme/ann: { rules: [{ dst: own.ann.example, proto: https }, { dst: '*.both.example', proto: http }, { dst: pkg.example, proto: http }] }
projects:
  shop: { rules: [{ dst: .shop.example, proto: tcp, port: 8080 }, { dst: top, proto: https }] }
";

/// What names are made of: ends that rules are about or nearly, and labels to put before them.
const ENDS: [&str; 16] = [
    "plain.example",
    "tree.example",
    "pkg.example",
    "evil.pkg.example",
    "one.deep.b.example",
    "deep.b.example",
    "b.example",
    "never.example",
    "own.ann.example",
    "ann.example",
    "both.example",
    "shop.example",
    "top",
    "example",
    "plain.example.org",
    "9.113.0.203.in-addr.arpa",
];
const LABELS: [&[u8]; 22] = [
    b"a",
    b"www",
    b"evil",
    b"one",
    b"_dmarc",
    b"-",
    b"a-",
    b"a--b",
    b"xn--bcher-kva",
    b"plain.example",
    b"x.pkg.example",
    b"sp ace",
    b"quo\"te",
    b"a=b",
    b"back\\slash",
    b"*",
    b"nul\0",
    b"line\n[INFO]",
    b"\xc3\xa9",
    b"\xff",
    b"(brace){%}",
    b"a-label-as-long-as-a-label-can-be-0123456789-0123456789-01234567",
];

/// A query that is like one that is allowed, or is one.
fn query(dice: &mut impl FnMut() -> u64) -> Query {
    let mut of = |n: usize| (dice() % n as u64) as usize;
    let kind = [A, AAAA, TXT, HTTPS, SVCB, ANY, DS][of(7)];
    let mut query = Query::of(ENDS[of(ENDS.len())], kind);
    for _ in 0..[0, 0, 1, 1, 2][of(5)] {
        let label = LABELS[of(LABELS.len())].iter().take(63);
        query.labels.insert(0, label.copied().collect());
    }
    if of(3) == 0 {
        for byte in query.labels.iter_mut().flatten() {
            if of(2) == 0 {
                byte.make_ascii_uppercase();
            }
        }
    }
    query
}

/// Whether the policy lets somebody ask; none of nobody.
fn may(policy: &Policy, from: &str, query: &Query) -> Option<bool> {
    let selected = match from {
        ANN | ANN6 => policy.select(Some("ann"), Some("acme")),
        BOB => policy.select(Some("bob"), Some("shop")),
        _ => return None,
    };
    Some(query.name().is_some_and(|name| selected.may_resolve(&name)))
}

/// Asks, and holds the answer and what the upstream was asked against the policy.
#[track_caller]
fn holds(bench: &Bench, policy: &Policy, query: &Query, from: &str, tcp: bool) -> Option<bool> {
    let answer = ask(query, from, tcp);
    let asked = bench.upstream.take();
    let may = may(policy, from, query);
    let what = format!("{query:?} from {from}: {answer:?}, upstream: {asked:?}");
    let (rcode, records, asks) = match (may, query.kind) {
        (None, _) => (REFUSED, 0, 0),
        (Some(false), _) => (NXDOMAIN, 0, 0),
        (Some(true), HTTPS | SVCB | ANY) => (NOERROR, 0, 0),
        (Some(true), _) => (NOERROR, 1, 1),
    };
    assert_eq!((answer.rcode, answer.records), (rcode, records), "{what}");
    assert_eq!(asked, vec![query.clone(); asks], "{what}");
    may
}

#[test]
fn names_are_answered_that_the_policy_lets_an_agent_ask_for_and_no_other_is_asked_for() {
    let bench = Bench::start(POLICY);
    let policy = policy(POLICY);
    let mut dice = noise(20_240_601);
    let mut seen = [0; 3];
    for number in 0..1500 {
        let query = query(&mut dice);
        let from = [ANN, BOB, ANN6, ANN, BOB, ANN6, NOBODY, NOBODY6][(dice() % 8) as usize];
        let may = holds(&bench, &policy, &query, from, number % 4 == 0);
        seen[may.map_or(0, |may| 1 + usize::from(may))] += 1;
    }
    assert!(seen.iter().all(|n| *n > 200), "{seen:?}");
}

#[test]
fn the_longest_name_of_a_policy_is_the_longest_that_is_asked_for() {
    let bench = Bench::start(POLICY);
    let policy = policy(POLICY);
    let mut seen = [0; 2];
    for length in 240..=253 {
        let mut query = Query::of("tree.example", A);
        let mut left = length - "tree.example".len();
        while left > 0 {
            // A label of one sign less leaves room for another one.
            let label = (left - 1).min(if left == 65 { 62 } else { 63 });
            query.labels.insert(0, vec![b'x'; label]);
            left -= label + 1;
        }
        assert_eq!(query.name().unwrap().len(), length);
        let may = holds(&bench, &policy, &query, ANN, length % 2 == 0);
        seen[usize::from(may.unwrap())] += 1;
    }
    assert_eq!(seen, [2, 12]);
}

#[test]
fn services_of_allowed_names_are_empty_so_that_no_key_hides_a_name() {
    let bench = Bench::start(POLICY);
    for kind in [HTTPS, SVCB, ANY] {
        for tcp in [false, true] {
            for from in [ANN, ANN6] {
                let query = Query::of("Plain.example", kind);
                let answer = ask(&query, from, tcp);
                assert_eq!((answer.rcode, answer.records), (NOERROR, 0), "{query:?}");
                assert!(!answer.holds(b"clawker"), "{answer:?}");
            }
        }
    }
    assert_eq!(bench.upstream.take(), []);
    // The upstream has them.
    let query = Query::of("plain.example", HTTPS);
    assert!(
        query
            .udp(ANN, stack_tests::coredns::UPSTREAM)
            .holds(b"clawker")
    );
}

#[test]
fn an_agent_that_is_only_watched_asks_for_everything_and_still_gets_no_keys() {
    let source = format!("mode: audit\n{POLICY}");
    let bench = Bench::start(&source);
    for name in ["plain.example", "never.example", "other.test"] {
        let query = Query::of(name, A);
        assert_eq!(ask(&query, BOB, false).records, 1, "{name}");
        assert_eq!(bench.upstream.take(), [query]);
        let empty = ask(&Query::of(name, HTTPS), BOB, false);
        assert_eq!((empty.rcode, empty.records), (NOERROR, 0));
    }
    assert_eq!(bench.upstream.take(), []);
    assert_eq!(
        ask(&Query::of("plain.example", A), NOBODY, false).rcode,
        REFUSED
    );
}

#[test]
fn a_thousand_names_are_taken_and_each_is_answered_right() {
    let mut source = String::from("rules:\n");
    let name = |n: usize| format!("host{n}.zone{}.example", n % 40);
    for n in 0..1000 {
        let _ = writeln!(source, "  - {{ dst: {}, proto: https }}", name(n));
    }
    let mut bench = Bench::start("domains: [first.example]");
    let before = Instant::now();
    bench.coredns.put(&render(&policy(&source), &AGENTS));
    kernel_tests::eventually("the new names", || {
        let answer = ask(&Query::of(&name(0), A), ANN, false);
        (answer.rcode == NOERROR).then_some(())
    });
    let reloaded = before.elapsed();
    bench.coredns.kill();
    let before = Instant::now();
    bench.coredns.restart();
    println!(
        "1000 names: in force {reloaded:?} after the file was replaced, {:?} to start",
        before.elapsed()
    );
    let _ = bench.upstream.take();
    let before = Instant::now();
    for n in 0..1000 {
        let of = |text: &str| Query::of(&text.replace('#', &name(n)), A);
        assert_eq!(ask(&of("#"), BOB, false).records, 1, "{n}");
        assert_eq!(ask(&of("x.#"), BOB, false).rcode, NXDOMAIN, "{n}");
    }
    println!("2000 queries one after the other: {:?}", before.elapsed());
    assert_eq!(bench.upstream.take().len(), 1000);
}
