//! A policy that changes, and a CoreDNS that goes away.

use super::{AGENTS, ANN, BOB, Bench, ask, policy};
use kernel_tests::eventually;
use stack_tests::{
    coredns::{ADDRESSES, render},
    dns::{A, NOERROR, NXDOMAIN, Query},
};
use std::time::Duration;

const BEFORE: &str = "domains: [both.example, before.example]";
const AFTER: &str = "domains: [both.example, after.example]";

fn rcode(name: &str) -> u8 {
    ask(&Query::of(name, A), ANN, false).rcode
}

#[test]
fn a_new_file_is_taken_and_a_broken_one_leaves_the_old_in_force() {
    let bench = Bench::start(BEFORE);
    assert_eq!(
        (rcode("before.example"), rcode("after.example")),
        (NOERROR, NXDOMAIN)
    );
    bench.coredns.put(&render(&policy(AFTER), &AGENTS));
    eventually("the new policy", || {
        (rcode("after.example") == NOERROR).then_some(())
    });
    assert_eq!(rcode("before.example"), NXDOMAIN);

    let broken = [
        ("after.example.:53 {\n    forward", "Corefile parse failed"),
        (".:53 {\n    no_plugin\n}\n", "reload failed"),
        (
            ".:53 {\n    view x {\n        expr nonsense(\n    }\n}\n",
            "reload failed",
        ),
    ];
    for (corefile, says) in broken {
        let before = bench.coredns.said().len();
        bench.coredns.put(corefile);
        eventually(says, || {
            bench.coredns.said()[before..].contains(says).then_some(())
        });
        assert_eq!(
            (rcode("before.example"), rcode("after.example")),
            (NXDOMAIN, NOERROR),
            "{corefile}"
        );
    }
    bench.coredns.put(&render(&policy(BEFORE), &AGENTS));
    eventually("the old policy", || {
        (rcode("before.example") == NOERROR).then_some(())
    });
    assert_eq!(rcode("after.example"), NXDOMAIN);
}

#[test]
fn while_policies_take_turns_what_both_deny_is_never_asked_for_and_what_both_allow_is_answered() {
    let bench = Bench::start(BEFORE);
    let mut lost = 0;
    let mut asked = 0;
    for turn in [AFTER, BEFORE, AFTER] {
        bench.coredns.put(&render(&policy(turn), &AGENTS));
        let is = if turn == AFTER {
            "after.example"
        } else {
            "before.example"
        };
        eventually("the turn", || {
            assert_eq!(rcode("never.example"), NXDOMAIN);
            // A resolver library asks twice.
            let query = Query::of("both.example", A);
            let once = || query.try_udp(BOB, ADDRESSES[0], Duration::from_secs(1));
            let answer = once().or_else(|_| {
                lost += 1;
                once()
            });
            assert_eq!(answer.expect("the second time").rcode, NOERROR);
            asked += 1;
            (rcode(is) == NOERROR).then_some(())
        });
    }
    println!("{lost} of {asked} queries were asked twice during three reloads");
    let never = Query::of("never.example", A);
    assert!(!bench.upstream.take().contains(&never));
}

#[test]
fn nobody_answers_for_a_coredns_that_is_away_and_it_answers_again_when_it_is_back() {
    let mut bench = Bench::start(BEFORE);
    assert_eq!(rcode("before.example"), NOERROR);
    bench.coredns.kill();
    let _ = bench.upstream.take();
    for to in ADDRESSES {
        let from = if to.contains(':') { super::ANN6 } else { ANN };
        let query = Query::of("before.example", A);
        let nothing = query.try_udp(from, to, Duration::from_secs(2));
        assert!(nothing.is_err(), "{nothing:?}");
    }
    assert_eq!(bench.upstream.take(), []);
    // What has changed while it was away holds from the first answer on.
    bench.coredns.put(&render(&policy(AFTER), &AGENTS));
    bench.coredns.restart();
    assert_eq!(
        (rcode("before.example"), rcode("after.example")),
        (NXDOMAIN, NOERROR)
    );
}

#[test]
fn an_upstream_that_is_away_is_a_failure_and_no_denial() {
    let mut bench = Bench::start(BEFORE);
    let there = render(&policy(BEFORE), &AGENTS);
    bench.coredns.kill();
    bench
        .coredns
        .put(&there.replace("198.51.100.7:53", "192.0.2.2:53"));
    bench.coredns.restart();
    const SERVFAIL: u8 = 2;
    assert_eq!(
        (rcode("before.example"), rcode("after.example")),
        (SERVFAIL, NXDOMAIN)
    );
}
