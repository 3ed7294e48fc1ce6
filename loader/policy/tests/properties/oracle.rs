//! The compiled tries against the plain list of rules, on random policies and random flows.
//!
//! The look-up here does what the kernel's LPM trie and the programs do: longest prefix, then the
//! most severe rule of the address's set and the name's set. It is a model of them, not they.

use crate::random::{ask, flow, hosts, source};
use abi::{
    ACTION_ALLOW, ACTION_BUILTIN, ADDR_KEY_HEAD_BITS, AddrKey, FAMILY_V4, FAMILY_V6, NAME_BYTES,
    NAME_KEY_HEAD_BITS, NO_RULE, NameKey, PROTO_ANY, PortRule, RULE_PRIVATE, RuleSet,
};
use policy::{Action, Compiled, Policy, Question, Reason, Selected, is_private, judged};
use proptest::prelude::*;

use std::net::IpAddr;
use zerocopy::IntoBytes;

pub(crate) const POLICY: u32 = 7;

/// Longest prefix match over whole keys, whose first four bytes are the prefix length.
fn longest<'t, K: IntoBytes + zerocopy::Immutable>(
    trie: &'t [(K, RuleSet)],
    wanted: &K,
) -> Option<&'t RuleSet> {
    let bits = |key: &K| u32::from_ne_bytes(key.as_bytes()[..4].try_into().unwrap());
    let covers = |key: &K| {
        let (have, want) = (&key.as_bytes()[4..], &wanted.as_bytes()[4..]);
        (0..bits(key) as usize).all(|bit| {
            let mask = 0x80 >> (bit % 8);
            have[bit / 8] & mask == want[bit / 8] & mask
        })
    };
    let matching = trie
        .iter()
        .filter(|(key, _)| bits(key) <= bits(wanted) && covers(key));
    matching
        .max_by_key(|(key, _)| bits(key))
        .map(|(_, set)| set)
}

/// All rules of a set and its chain.
fn rules(compiled: &Compiled, set: &RuleSet) -> Vec<PortRule> {
    let mut found = set.rules[..set.count as usize].to_vec();
    let mut next = set.next;
    while next != 0 {
        let link = compiled.chain.iter().find(|(key, _)| key.set == next);
        let (key, set) = link.expect("a chained set exists");
        assert_eq!((key.prefix_len, key.policy), (64, POLICY));
        found.extend(&set.rules[..set.count as usize]);
        next = set.next;
    }
    assert!(found.len() <= policy::MAX_COVERING);
    found
}

fn of_addr(compiled: &Compiled, addr: IpAddr) -> Vec<PortRule> {
    let mut bytes = [0; 16];
    let (family, bits) = match judged(addr) {
        IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            (FAMILY_V4, 32)
        }
        IpAddr::V6(v6) => {
            bytes = v6.octets();
            (FAMILY_V6, 128)
        }
    };
    let prefix_len = ADDR_KEY_HEAD_BITS + bits;
    let key = AddrKey {
        prefix_len,
        policy: POLICY,
        family,
        addr: bytes,
    };
    longest(&compiled.addrs, &key).map_or(Vec::new(), |set| rules(compiled, set))
}

fn of_name(compiled: &Compiled, host: &str) -> Vec<PortRule> {
    let mut name = [0; NAME_BYTES];
    for (slot, byte) in name.iter_mut().zip(host.bytes().rev()) {
        *slot = byte;
    }
    let prefix_len = NAME_KEY_HEAD_BITS + 8 * NAME_BYTES as u32;
    let key = NameKey {
        prefix_len,
        policy: POLICY,
        name,
    };
    longest(&compiled.names, &key).map_or(Vec::new(), |set| rules(compiled, set))
}

/// The first rule that matches; sets are sorted so that it is the most severe.
fn first(rules: &[PortRule], question: &Question<'_>, private: bool) -> Option<(u8, u32)> {
    let matches = |rule: &&PortRule| {
        (rule.proto == PROTO_ANY || rule.proto == question.proto)
            && (rule.lo..=rule.hi).contains(&question.port)
            && (!private || rule.flags & RULE_PRIVATE != 0 || rule.action != ACTION_ALLOW)
    };
    let order = |rule: &PortRule| (rule.action, rule.rule);
    assert!(rules.is_sorted_by_key(order), "{rules:?}");
    rules.iter().find(matches).map(order)
}

/// The most severe rule for a flow, by action and number: of its address and of each name.
pub(crate) fn best(compiled: &Compiled, question: &Question<'_>) -> Option<(u8, u32)> {
    let private = question.addr.is_some_and(is_private);
    let addr = question.addr.map(|addr| of_addr(compiled, addr));
    let mut best: Vec<_> = first(&addr.unwrap_or_default(), question, false)
        .into_iter()
        .collect();
    for host in question.hosts {
        best.extend(first(&of_name(compiled, host), question, private));
    }
    best.into_iter().min()
}

fn compiled_verdict(compiled: &Compiled, question: &Question<'_>) -> (Action, Reason) {
    let best = best(compiled, question);
    let dns = [6, 17].contains(&question.proto) && [53, 853].contains(&question.port);
    let trusted = dns && question.port == 53 && question.resolver;
    match best {
        _ if trusted => (Action::Allow, Reason::Resolver),
        Some((ACTION_BUILTIN, rule)) => {
            assert_eq!(rule, NO_RULE);
            (Action::Deny, Reason::Builtin(""))
        }
        _ if dns => (Action::Deny, Reason::Resolver),
        Some((ACTION_ALLOW, rule)) => (Action::Allow, Reason::Rule(rule)),
        Some((_, rule)) => (Action::Deny, Reason::Rule(rule)),
        None if compiled.default_allow => (Action::Allow, Reason::Default),
        None => (Action::Deny, Reason::Default),
    }
}

fn plain_verdict(selected: &Selected<'_>, question: &Question<'_>) -> (Action, Reason) {
    let verdict = selected.decide(question);
    let reason = match verdict.reason {
        Reason::Builtin(_) => Reason::Builtin(""),
        reason => reason,
    };
    (verdict.action, reason)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tries_say_what_the_rules_say(
        source in source(),
        flows in prop::collection::vec(flow(), 40),
        agent in prop::option::of(Just("a")),
        project in prop::option::of(Just("p")),
    ) {
        let parsed = Policy::parse(&source);
        // Two rules that contradict each other are refused; everything else must be readable.
        prop_assume!(!parsed.diagnostics.iter().any(|d| d.message.contains("contradicts")));
        let policy = parsed.policy.expect(&source);
        let selected = policy.select(agent, project);
        let compiled = selected.compile(POLICY).unwrap();
        for flow in &flows {
            let hosts = hosts(flow);
            let question = ask(flow, &hosts);
            let (tries, plain) =
                (compiled_verdict(&compiled, &question), plain_verdict(&selected, &question));
            prop_assert_eq!(tries, plain, "{:?}\n{}", question, source);
            for host in question.hosts {
                let name = of_name(&compiled, host);
                let askable = compiled.default_allow
                    || name.iter().any(|rule| rule.action == ACTION_ALLOW);
                prop_assert_eq!(askable, selected.may_resolve(host), "{}\n{}", host, source);
            }
        }
    }

    #[test]
    fn a_rule_that_is_said_never_to_decide_never_does(
        source in source(),
        flows in prop::collection::vec(flow(), 200),
    ) {
        let parsed = Policy::parse(&source);
        let Some(policy) = parsed.policy else { return Ok(()) };
        let idle: Vec<usize> = parsed
            .diagnostics
            .iter()
            .filter(|d| d.message.contains("never decide") || d.message.contains("repeats"))
            .map(|d| d.span.start)
            .collect();
        for (agent, project) in [(None, None), (None, Some("p")), (Some("a"), Some("p"))] {
            let selected = policy.select(agent, project);
            for flow in &flows {
                let hosts = hosts(flow);
                let Reason::Rule(rule) = selected.decide(&ask(flow, &hosts)).reason else { continue };
                let rule = selected.rules()[rule as usize];
                prop_assert!(!idle.contains(&rule.span.start), "{} {flow:?}\n{source}", rule.title());
            }
        }
    }
}
