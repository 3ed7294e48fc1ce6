//! Ways out by the names of DNS, as far as CoreDNS is in their way.

use super::{AGENTS, ANN, ANN6, BOB, Bench, ask, policy};
use kernel_tests::{
    dns::{address, record, wire_name},
    eventually, net,
};
use stack_tests::{
    coredns::{ADDRESSES, CoreDns, UPSTREAM, render},
    dns::{A, AAAA, ANY, CNAME, DS, HTTPS, NOERROR, NXDOMAIN, Query, TXT, Upstream, exchange},
};
use std::time::Duration;

const POLICY: &str =
    "rules: [{ dst: '*.cdn.example', proto: https }, { dst: api.example, proto: https }]";

#[test]
fn case_26_what_is_tunnelled_through_an_allowed_zone_is_recorded_whole_and_no_other_zone_carries_any()
 {
    let bench = Bench::start(POLICY);
    let secret = "6d7920707269766174652073736820".repeat(2);
    for zone in [
        "cdn.example",
        "api.example",
        "tunnel.example",
        "cdn.example.org",
    ] {
        for n in 0..20 {
            let query = Query::of(&format!("{secret}.{n}.{zone}"), TXT);
            let rcode = ask(&query, ANN, n % 2 == 0).rcode;
            assert_eq!(rcode == NOERROR, zone == "cdn.example", "{query:?}");
        }
    }
    let asked = bench.upstream.take();
    assert_eq!(asked.len(), 20);
    assert!(
        asked
            .iter()
            .all(|q| q.name().unwrap().ends_with(".cdn.example"))
    );
    // A line is written after its answer.
    let said = eventually("a line of every query", || {
        let said = bench.coredns.said();
        (said.matches("[INFO] clawker ").count() == 80).then_some(said)
    });
    for n in 0..20 {
        let of = |verdict: &str, zone: &str| {
            let line = format!(" {secret}.{n}.{zone}.\n");
            let found = said
                .lines()
                .map(|l| format!("{l}\n"))
                .filter(|l| l.ends_with(&line));
            let found: Vec<_> = found.collect();
            assert_eq!(found.len(), 1, "{line}");
            assert!(
                found[0].contains(&format!(" clawker {verdict} {ANN} ")),
                "{found:?}"
            );
        };
        of("ALLOWED", "cdn.example");
        of("DENIED", "tunnel.example");
        of("DENIED", "api.example");
    }
}

#[test]
fn case_27_no_query_leaves_before_its_verdict() {
    let bench = Bench::start(POLICY);
    let names = [
        "other.example",
        "x.api.example",
        "cdn.example",
        "API.example.",
        "10.2.0.192.in-addr.arpa",
    ];
    for name in &names[..3] {
        for kind in [A, AAAA, CNAME, TXT, DS, HTTPS, ANY, 6, 12, 65_280] {
            for from in [ANN, ANN6, BOB] {
                for tcp in [false, true] {
                    assert_eq!(
                        ask(&Query::of(name, kind), from, tcp).rcode,
                        NXDOMAIN,
                        "{name} {kind}"
                    );
                }
            }
        }
    }
    assert_eq!(bench.upstream.take(), []);
    assert_eq!(ask(&Query::of(names[3], A), ANN, false).rcode, NOERROR);
    assert_eq!(bench.upstream.take().len(), 1);
    assert_eq!(ask(&Query::of(names[4], 12), ANN, false).rcode, NXDOMAIN);
    assert_eq!(bench.upstream.take(), []);
}

/// What else a datagram may be than one question of an ordinary query: everything is answered, or nothing,
/// without asking anybody for the name.
#[test]
fn case_27_no_message_of_another_shape_carries_a_name_out() {
    let bench = Bench::start(POLICY);
    let denied = Query::of("secret.other.example", A).message();
    let allowed = Query::of("api.example", A).message();
    let edited = |at: usize, byte: u8| {
        let mut message = denied.clone();
        message[at] = byte;
        message
    };
    let class = denied.len() - 1;
    let opcodes = [1, 2, 4, 5, 6].map(|opcode: u8| edited(2, opcode << 3 | 1));
    let classes = [0, 3, 4, 254, 255].map(|one| edited(class, one));
    let mut shapes = [opcodes, classes].concat();
    // Counts that lie: no question, two of them, an answer that is not there.
    shapes.extend([edited(5, 0), edited(5, 2), edited(7, 1)]);
    // An allowed name first, then the other one.
    let mut two = [&allowed[..], &denied[12..]].concat();
    two[5] = 2;
    shapes.push(two);
    // An answer, one cut short, and one with something behind its end.
    shapes.extend([
        edited(2, 0x81),
        denied[..class - 3].to_vec(),
        [&denied[..], b"more"].concat(),
    ]);
    // An extension of a version that there is not (RFC 6891 §6.1.3).
    let mut future = [&denied[..], &[0, 0, 41, 16, 0, 0, 1, 0, 0, 0, 0]].concat();
    future[11] = 1;
    shapes.push(future);
    let mut answered = 0;
    for shape in &shapes {
        let soon = Duration::from_millis(200);
        if let Ok(answer) = exchange(shape, ANN, ADDRESSES[0], soon) {
            assert_eq!(answer.records, 0, "{shape:?}: {answer:?}");
            answered += 1;
        }
    }
    assert!(
        answered >= shapes.len() - 4,
        "{answered} of {}",
        shapes.len()
    );
    let last = Query::of("api.example", A);
    assert_eq!(ask(&last, ANN, false).rcode, NOERROR);
    assert_eq!(bench.upstream.take(), [last]);
}

/// CoreDNS with an upstream that lies.
fn lied_to(zone: fn(&Query) -> Vec<Vec<u8>>) -> (tempfile::TempDir, Upstream, CoreDns) {
    net::isolate();
    let dir = kernel_tests::temporary();
    let upstream = Upstream::start(UPSTREAM, zone);
    let corefile = render(&policy(POLICY), &AGENTS);
    let coredns = CoreDns::start(dir.path(), &corefile, dir.path().join("queries.log"));
    (dir, upstream, coredns)
}

/// No plugin of CoreDNS's own judges addresses. That a poisoned answer leads nowhere is for the kernel's
/// deny set and for Envoy; this holds what they have to expect.
#[test]
fn case_28_a_poisoned_answer_is_passed_on_as_it_is() {
    const LIES: [[u8; 4]; 4] = [
        [127, 0, 0, 1],
        [169, 254, 169, 254],
        [10, 0, 0, 1],
        [0, 0, 0, 0],
    ];
    let (_dir, _upstream, _coredns) = lied_to(|_| LIES.iter().map(|a| record(A, 1, a)).collect());
    let answer = ask(&Query::of("api.example", A), ANN, false);
    assert_eq!((answer.rcode, answer.records), (NOERROR, LIES.len()));
    assert!(LIES.iter().all(|lie| answer.holds(lie)));
    let denied = ask(&Query::of("other.example", A), ANN, false);
    assert_eq!((denied.rcode, denied.records), (NXDOMAIN, 0));
}

#[test]
fn case_30_a_chain_of_names_comes_whole_and_does_not_open_its_links() {
    let (_dir, upstream, _coredns) = lied_to(|_| {
        let mut hidden = wire_name("edge.hidden.example");
        let alias = record(CNAME, 300, &hidden);
        // The address is the other name's: its record begins with that instead of a pointer.
        hidden.extend_from_slice(&address("203.0.113.9", 300)[2..]);
        vec![alias, hidden]
    });
    let answer = ask(&Query::of("a.cdn.example", A), ANN, false);
    assert_eq!((answer.rcode, answer.records), (NOERROR, 2));
    assert!(answer.holds(&wire_name("edge.hidden.example")) && answer.holds(&[203, 0, 113, 9]));
    assert_eq!(upstream.take().len(), 1);
    // A client that follows the chain itself gets no further.
    for kind in [A, AAAA, CNAME] {
        assert_eq!(
            ask(&Query::of("edge.hidden.example", kind), ANN, false).rcode,
            NXDOMAIN
        );
    }
    assert_eq!(upstream.take(), []);
}
