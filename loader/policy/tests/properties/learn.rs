//! What is learned from random flows allows each that was allowed, and nothing that was denied.

use crate::random::addr;
use policy::{Action, Form, Learned, Learner, Observation, Outcome, Policy, Question};
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// One flow, owned.
#[derive(Clone, Debug)]
struct Flow {
    outcome: Outcome,
    hosts: Vec<String>,
    addr: IpAddr,
    proto: u8,
    port: u16,
    comm: String,
    flows: u64,
    folded: bool,
}

fn host() -> impl Strategy<Value = String> {
    let front = select(vec!["", "a.", "b.", "c.", "x.a."]);
    let domain = select(vec![
        "example.com",
        "example.co.uk",
        "user.github.io",
        "db.internal",
    ]);
    (front, domain).prop_map(|(front, domain)| format!("{front}{domain}"))
}

fn flow() -> impl Strategy<Value = Flow> {
    let outcome = select(vec![
        Outcome::Allowed,
        Outcome::Allowed,
        Outcome::Denied,
        Outcome::Bypassed,
    ]);
    let hosts = prop_oneof![
        2 => Just(Vec::new()),
        4 => prop::collection::vec(host(), 1..2),
        1 => prop::collection::vec(host(), 2..4),
    ];
    let port = select(vec![443, 443, 443, 22, 53, 80, 81, 82, 853, 40000, 65535]);
    // Names are put together only where they lead to public addresses.
    let public = (1u8..4).prop_map(|last| format!("203.0.113.{last}"));
    let addr = prop_oneof![2 => public, 1 => addr()];
    let proto = select(vec![6u8, 6, 6, 17, 1, 58]);
    let comm = select(vec!["curl", "git", "\ndefault: allow", "pool-1-t-2", ""]);
    let rest = (comm, 1u64..5, prop::bool::weighted(0.1));
    (outcome, hosts, addr, proto, port, rest).prop_map(
        |(outcome, hosts, addr, proto, port, (comm, flows, folded))| {
            let addr: IpAddr = addr.parse().unwrap();
            let icmp = [1, 58].contains(&proto);
            let proto = match (icmp, policy::judged(addr)) {
                (true, IpAddr::V4(_)) => 1,
                (true, IpAddr::V6(_)) => 58,
                _ => proto,
            };
            Flow {
                outcome,
                // Folded records have no names.
                hosts: if folded { Vec::new() } else { hosts },
                addr,
                proto,
                port: if icmp { 0 } else { port },
                comm: comm.to_owned(),
                flows,
                folded,
            }
        },
    )
}

fn learner<'f>(flows: impl IntoIterator<Item = &'f Flow>) -> Learner {
    let mut learner = Learner::new(None, Vec::new());
    for flow in flows {
        let hosts: Vec<&str> = flow.hosts.iter().map(String::as_str).collect();
        learner.add(&Observation {
            outcome: flow.outcome,
            ingress: false,
            hosts: &hosts,
            qname: None,
            addr: Some(flow.addr),
            proto: Some(flow.proto),
            port: flow.port,
            peer: None,
            comm: Some(&flow.comm),
            flows: flow.flows,
            folded: flow.folded,
            resolver: false,
            agent: None,
            project: None,
        });
    }
    learner
}

/// Reads what was learned: the check finds nothing in it, not even a rule that is said twice.
fn read(source: &str) -> Policy {
    let parsed = Policy::parse(source);
    let found = &parsed.diagnostics;
    assert!(found.is_empty(), "{source}\n{found:#?}");
    parsed.policy.unwrap()
}

fn decides(policy: &Policy, flow: &Flow, hosts: &[&str]) -> Action {
    let question = Question {
        hosts,
        addr: Some(flow.addr),
        proto: flow.proto,
        port: flow.port,
        resolver: false,
    };
    policy.select(None, None).decide(&question).action
}

/// DNS and the built-in deny set have no rules.
fn learnable(flow: &Flow) -> bool {
    let dns = [6, 17].contains(&flow.proto) && [53, 853].contains(&flow.port);
    let builtin = read("default: allow\nrules: []\n");
    let other = Flow {
        port: 1,
        proto: 6,
        ..flow.clone()
    };
    !dns && decides(&builtin, &other, &[]) == Action::Allow
}

fn same_way(one: &Flow, other: &Flow) -> bool {
    let icmp = |proto| matches!(proto, 1 | 58);
    let proto = one.proto == other.proto || icmp(one.proto) && icmp(other.proto);
    let addr = policy::judged(one.addr) == policy::judged(other.addr);
    let name = one.hosts.iter().any(|host| other.hosts.contains(host));
    proto && one.port == other.port && (name || addr)
}

/// Each flow that was allowed and can be learned is allowed.
fn allows(policy: &Policy, flows: &[Flow], source: &str) -> Result<(), TestCaseError> {
    let allowed = |flow: &&Flow| flow.outcome == Outcome::Allowed;
    for flow in flows.iter().filter(allowed).filter(|flow| learnable(flow)) {
        // The names of a folded flow are in other records, if it had any.
        let led = flows.iter().filter(allowed);
        let led = led.filter(|other| flow.folded && same_way(flow, other));
        let mut hosts: BTreeSet<&str> = led
            .flat_map(|other| &other.hosts)
            .map(String::as_str)
            .collect();
        hosts.extend(flow.hosts.iter().map(String::as_str));
        let hosts: Vec<&str> = hosts.into_iter().collect();
        let found = decides(policy, flow, &hosts);
        prop_assert_eq!(found, Action::Allow, "{:?}\n{}", flow, source);
    }
    Ok(())
}

/// No flow that was denied is allowed, unless an allowed one took the same way.
fn denies(policy: &Policy, flows: &[Flow], source: &str) -> Result<(), TestCaseError> {
    let allowed = |flow: &&Flow| flow.outcome == Outcome::Allowed;
    for flow in flows.iter().filter(|flow| flow.outcome == Outcome::Denied) {
        let hosts: Vec<&str> = flow.hosts.iter().map(String::as_str).collect();
        let taken = flows
            .iter()
            .filter(allowed)
            .any(|other| same_way(flow, other));
        let denied = decides(policy, flow, &hosts) == Action::Deny;
        prop_assert!(taken || denied, "{:?}\n{}", flow, source);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_was_allowed_is_allowed(flows in prop::collection::vec(flow(), 0..40)) {
        for (wildcards, form) in [(false, Form::Kept), (false, Form::Printed), (true, Form::Printed)] {
            let source = learner(&flows).finish(wildcards).render(form).unwrap();
            allows(&read(&source), &flows, &source)?;
            denies(&read(&source), &flows, &source)?;
        }
    }

    #[test]
    fn the_same_flows_in_any_order_give_the_same_text(
        flows in prop::collection::vec(flow(), 0..30).prop_shuffle(),
        turn in 0usize..30,
    ) {
        let mut turned = flows.clone();
        turned.rotate_left(turn.min(flows.len()));
        for (wildcards, form) in [(false, Form::Kept), (true, Form::Printed)] {
            let text = |flows: &[Flow]| learner(flows).finish(wildcards).render(form).unwrap();
            prop_assert_eq!(text(&flows), text(&turned));
        }
    }

    #[test]
    fn learning_in_two_runs_is_learning_in_one(
        first in prop::collection::vec(flow(), 0..20),
        second in prop::collection::vec(flow(), 0..20),
    ) {
        let kept = |flows: &[Flow]| learner(flows).finish(false).render(Form::Kept).unwrap();
        let mut later = learner(&second).finish(false);
        later.merge(Learned::read(&kept(&first)).expect("what was written is read")).unwrap();
        let merged = later.render(Form::Kept).unwrap();
        let policy = read(&merged);
        allows(&policy, &first, &merged)?;
        allows(&policy, &second, &merged)?;
        denies(&policy, &[&first[..], &second].concat(), &merged)?;
        // The same run again changes nothing.
        let mut again = learner(&second).finish(false);
        again.merge(Learned::read(&merged).unwrap()).unwrap();
        prop_assert_eq!(again.render(Form::Kept).unwrap(), merged);
    }
}
