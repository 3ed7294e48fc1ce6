//! What is told of a decision against the decision, and against what the programs do with it.

use crate::oracle::{POLICY, best};
use crate::random::{ask, flow, hosts, source};
use abi::{
    FLOW_WOULD_DENY, Ip, MAX_RESOLVERS, MODE_AUDIT, MODE_ENFORCE, MODE_OBSERVE, SLOT_DEFAULT_ALLOW,
    SlotConfig, VERDICT_ALLOWED,
};
use policy::{
    Action, Effect, Explanation, Mismatch, Mode, Policy, Question, Reason, Why, is_private, judged,
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv6Addr};

const MODES: [(Mode, u8); 3] = [
    (Mode::Enforce, MODE_ENFORCE),
    (Mode::Audit, MODE_AUDIT),
    (Mode::Observe, MODE_OBSERVE),
];

fn ip(addr: IpAddr) -> Ip {
    Ip(match judged(addr) {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    })
}

/// What the programs' own decision makes of a flow.
fn programs(told: &Explanation<'_>, question: &Question<'_>, mode: u8) -> (bool, bool) {
    let compiled = told.selected.compile(POLICY).unwrap();
    let to = question.addr.map_or(Ip(Ipv6Addr::LOCALHOST.octets()), ip);
    let mut resolvers = [Ip::default(); MAX_RESOLVERS];
    resolvers[0] = to;
    let config = SlotConfig {
        slot: 1,
        index: 1,
        policy: POLICY,
        generation: 1,
        bypass_until: 0,
        udp_idle_ns: 0,
        mode,
        flags: if compiled.default_allow {
            SLOT_DEFAULT_ALLOW
        } else {
            0
        },
        resolver_count: u8::from(question.resolver),
        phase: 0,
        pad: [0; 4],
        resolvers,
        proxies: [Ip::default(); 2],
        name_servers: [Ip::default(); 2],
    };
    let best = best(&compiled, question).map_or(bpf::decide::NONE, |(action, rule)| {
        bpf::decide::pack(action, rule, false)
    });
    let decision = bpf::decide::egress(&config, 1, &to, question.proto, question.port, best);
    let passes = decision.verdict == VERDICT_ALLOWED;
    (passes, decision.flags & FLOW_WOULD_DENY != 0)
}

/// The question that the rule would be about, were it not for the port or the private address.
fn mended<'q>(question: &Question<'q>, rule: &policy::Rule, why: Mismatch) -> Question<'q> {
    let port = match why {
        Mismatch::Port => rule.ports[0].lo,
        _ => question.port,
    };
    let network = matches!(rule.dst, policy::Destination::Network(_));
    Question {
        port,
        addr: question.addr.filter(|_| network),
        ..*question
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_told_is_what_is_decided(
        source in source(),
        flows in prop::collection::vec(flow(), 30),
        agent in prop::option::of(Just("a")),
        project in prop::option::of(Just("p")),
    ) {
        let Some(policy) = Policy::parse(&source).policy else { return Ok(()) };
        let selected = policy.select(agent, project);
        for flow in &flows {
            let hosts = hosts(flow);
            let question = ask(flow, &hosts);
            let told = policy.explain(agent, project, &question, None);
            prop_assert_eq!(&told.verdict, &selected.decide(&question), "{:?}\n{}", question, source);
            prop_assert_eq!(told.action(), told.verdict.action);
            // Every rule of the file is accounted for, once.
            let mut lines: Vec<usize> = told.lost.iter().map(|lost| lost.rule.span.start).collect();
            lines.extend(told.decider().map(|rule| rule.span.start));
            let everybody = policy.explain(Some("a"), Some("p"), &question, None);
            lines.sort_unstable();
            lines.dedup();
            prop_assert_eq!(lines.len(), everybody.lost.len() + everybody.decider().iter().count());
            prop_assert_eq!(told.lost.len() + told.decider().iter().count(), lines.len());
            for lost in &told.lost {
                told_truly(&told, lost.rule, lost.why, &question)?;
            }
        }
    }

    #[test]
    fn effects_are_what_the_programs_do(
        source in source(),
        flows in prop::collection::vec(flow(), 20),
    ) {
        let Some(policy) = Policy::parse(&source).policy else { return Ok(()) };
        for flow in &flows {
            let hosts = hosts(flow);
            let question = ask(flow, &hosts);
            // Without an address the programs have nothing to judge.
            if question.addr.is_none() {
                continue;
            }
            let told = policy.explain(None, None, &question, None);
            for (mode, number) in MODES {
                let effect = told.effect(mode);
                let wanted = programs(&told, &question, number);
                let found = (effect != Effect::Denied, effect == Effect::WouldDeny);
                prop_assert_eq!(found, wanted, "{:?} {:?}\n{}", mode, question, source);
            }
        }
    }
}

/// Whether the reason that is given for a rule holds.
fn told_truly(
    told: &Explanation<'_>,
    rule: &policy::Rule,
    why: Why<'_>,
    question: &Question<'_>,
) -> Result<(), TestCaseError> {
    let number = told
        .selected
        .rules()
        .iter()
        .position(|one| std::ptr::eq(*one, rule));
    let matches = number.is_some_and(|n| told.verdict.losers.contains(&u32::try_from(n).unwrap()));
    match why {
        Why::Section { .. } => prop_assert_eq!(number, None),
        Why::Mismatch(mismatch) => {
            prop_assert!(!matches);
            if mismatch == Mismatch::Private {
                prop_assert!(question.addr.is_some_and(is_private) && !rule.private);
            }
            if matches!(mismatch, Mismatch::Port | Mismatch::Private) {
                let mended = mended(question, rule, mismatch);
                let again = told.selected.decide(&mended);
                let number = u32::try_from(number.unwrap()).unwrap();
                let found = again.reason == Reason::Rule(number) || again.losers.contains(&number);
                prop_assert!(found, "{:?} {:?} {}", mismatch, mended, rule);
            }
        }
        Why::Builtin(_) => {
            prop_assert!(matches && matches!(told.verdict.reason, Reason::Builtin(_)));
        }
        Why::Resolver => prop_assert!(matches && told.verdict.reason == Reason::Resolver),
        Why::Denied(by) => {
            prop_assert!(matches && by.action == Action::Deny && rule.action == Action::Allow);
        }
        Why::Later(by) => {
            prop_assert!(matches && by.action == rule.action && by.span.start != rule.span.start);
        }
    }
    Ok(())
}
