//! A suggested rule opens what it is suggested for, and nothing else.

use crate::random::{ask, flow, hosts, rule};
use policy::{Action, Policy, Question, Reason, Refused};
use proptest::prelude::*;

/// A policy whose list of rules is its end, as `policy allow` wants it.
fn source(rules: &[String]) -> String {
    let items: String = rules.iter().map(|rule| format!("  - {rule}\n")).collect();
    if items.is_empty() {
        return "rules:\n  - {dst: never.example}\n".to_owned();
    }
    format!("rules:\n{items}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_opens_the_flow_and_only_that(
        rules in prop::collection::vec(rule(), 0..8),
        flows in prop::collection::vec(flow(), 20),
        others in prop::collection::vec(flow(), 40),
    ) {
        let before = source(&rules);
        let Some(policy) = Policy::parse(&before).policy else { return Ok(()) };
        let selected = policy.select(None, None);
        for flow in &flows {
            let hosts = hosts(flow);
            let question = ask(flow, &hosts);
            let verdict = selected.decide(&question);
            let denied = (Action::Deny, Reason::Default);
            if (verdict.action, verdict.reason) != denied || !sendable(&question) {
                continue;
            }
            let refused = Refused {
                reason: "default",
                hosts: question.hosts,
                addr: question.addr,
                proto: Some(question.proto),
                port: question.port,
                ..Refused::default()
            };
            let suggestion = refused.suggest().unwrap();
            let after = format!("{before}  {suggestion}\n");
            let Some(next) = Policy::parse(&after).policy else {
                return Err(TestCaseError::fail(after));
            };
            let next = next.select(None, None);
            prop_assert_eq!(next.decide(&question).action, Action::Allow, "{:?}\n{}", question, after);
            for other in &others {
                let names = crate::random::hosts(other);
                let asked = ask(other, &names);
                let opened = selected.decide(&asked).action == Action::Deny
                    && next.decide(&asked).action == Action::Allow;
                prop_assert!(!opened || same(&question, &asked), "{:?}\n{}", asked, after);
            }
            let moved = Question { port: question.port ^ 1, ..question };
            if question.port > 1 && selected.decide(&moved).action == Action::Deny {
                prop_assert_eq!(next.decide(&moved).action, Action::Deny, "{:?}\n{}", moved, after);
            }
        }
    }
}

/// Whether a record can have such a flow: an address, ports where there are some, and the ICMP of the
/// address's family.
fn sendable(question: &Question<'_>) -> bool {
    match (question.proto, question.addr.map(policy::judged)) {
        (6 | 17, Some(_)) => question.port != 0,
        (1, Some(addr)) => addr.is_ipv4() && question.port == 0,
        (58, Some(addr)) => addr.is_ipv6() && question.port == 0,
        _ => false,
    }
}

/// Whether one rule has to be about both: protocol and port, and a name or else the address.
fn same(one: &Question<'_>, other: &Question<'_>) -> bool {
    let icmp = |proto: u8| matches!(proto, 1 | 58);
    let proto = one.proto == other.proto || (icmp(one.proto) && icmp(other.proto));
    let port = one.port == other.port || icmp(one.proto);
    let name = one.hosts.iter().any(|host| other.hosts.contains(host));
    let addr =
        one.hosts.is_empty() && one.addr.map(policy::judged) == other.addr.map(policy::judged);
    proto && port && (name || addr)
}
