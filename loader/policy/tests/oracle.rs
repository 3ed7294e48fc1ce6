//! The compiled tries against the plain list of rules, on random policies and random flows.
//!
//! The look-up here does what the kernel's LPM trie and the programs do: longest prefix, then the
//! most severe rule of the address's set and the name's set. It is a model of them, not they.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use abi::{
    ACTION_ALLOW, ACTION_BUILTIN, ADDR_KEY_HEAD_BITS, AddrKey, FAMILY_V4, FAMILY_V6, NAME_BYTES,
    NAME_KEY_HEAD_BITS, NO_RULE, NameKey, PROTO_ANY, PortRule, RULE_PRIVATE, RuleSet,
};
use policy::{Action, Compiled, Policy, Question, Reason, Selected, is_private, judged};
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt::Write;
use std::net::IpAddr;
use zerocopy::IntoBytes;

const POLICY: u32 = 7;

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

fn compiled_verdict(compiled: &Compiled, question: &Question<'_>) -> (Action, Reason) {
    let private = question.addr.is_some_and(is_private);
    let addr = question
        .addr
        .map(|addr| of_addr(compiled, addr))
        .unwrap_or_default();
    let name = question
        .host
        .map(|host| of_name(compiled, host))
        .unwrap_or_default();
    let best = [
        first(&addr, question, false),
        first(&name, question, private),
    ];
    let best = best.into_iter().flatten().min();
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

fn host() -> impl Strategy<Value = String> {
    let labels = prop::collection::vec(select(vec!["a", "b", "ab"]), 1..4);
    labels.prop_map(|labels| labels.join("."))
}

fn addr() -> impl Strategy<Value = String> {
    let low = select(vec![0u8, 1, 2, 128, 254, 255]);
    prop_oneof![
        (low.clone(), low.clone()).prop_map(|(a, b)| format!("10.0.{a}.{b}")),
        (low.clone(), low.clone()).prop_map(|(a, b)| format!("203.0.{a}.{b}")),
        low.clone().prop_map(|a| format!("169.254.169.{a}")),
        low.clone().prop_map(|a| format!("::ffff:203.0.0.{a}")),
        low.clone().prop_map(|a| format!("2001:db8::{a:x}:1")),
        low.prop_map(|a| format!("fe80::{a:x}")),
        select(vec![
            "100.100.100.200",
            "fd00:ec2::254",
            "168.63.129.16",
            "0.0.0.0",
            "::"
        ])
        .prop_map(str::to_owned),
    ]
}

fn network() -> impl Strategy<Value = String> {
    let bits = prop_oneof![Just(0u8), 1u8..=32, Just(32)];
    (addr(), bits).prop_map(|(addr, less)| {
        let addr: IpAddr = addr.parse().unwrap();
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let net = format!("{addr}/{}", most - less);
        net.parse::<ipnet::IpNet>().unwrap().trunc().to_string()
    })
}

fn rule() -> impl Strategy<Value = String> {
    let name = (host(), select(vec!["", ".", "*."])).prop_map(|(name, how)| format!("{how}{name}"));
    let dst = prop_oneof![3 => name, 1 => addr(), 3 => network()];
    let proto = select(vec![
        "https",
        "http",
        "ssh",
        "icmp",
        "any",
        "any, port: 80",
        "tcp, port: 443",
        "tcp, port: 1-65535",
        "tcp, port: [22, 80, 90-95]",
        "udp, port: 53",
        "udp, port: 50-60",
        "udp, port: [443, 853]",
    ]);
    let action = select(vec![
        "",
        ", action: deny",
        ", private: true",
        ", private: true, action: deny",
    ]);
    (dst, proto, action)
        .prop_map(|(dst, proto, rest)| format!("{{dst: \"{dst}\", proto: {proto}{rest}}}"))
}

fn source() -> impl Strategy<Value = String> {
    let rules = |most| prop::collection::vec(rule(), 0..most);
    let open = prop::collection::vec(
        select(vec![
            "169.254.169.254",
            "169.254.169.0/25",
            "fe80::/64",
            "169.254.0.0/15",
            "1.1.1.1",
        ]),
        0..3,
    );
    let default = select(vec!["allow", "deny"]);
    (rules(12), rules(4), rules(4), rules(4), open, default).prop_map(
        |(common, project, own, plain, open, default)| {
            let mut text = format!("default: {default}\nallow_builtin: {open:?}\n");
            let list = |rules: &[String]| format!("[{}]", rules.join(", "));
            writeln!(text, "rules: {}", list(&common)).unwrap();
            writeln!(text, "projects: {{p: {{rules: {}}}}}", list(&project)).unwrap();
            let (own, plain) = (list(&own), list(&plain));
            writeln!(
                text,
                "agents: {{p/a: {{rules: {own}}}, a: {{rules: {plain}}}}}"
            )
            .unwrap();
            text
        },
    )
}

type Flow = (Option<String>, Option<String>, u8, u16, bool);

fn flow() -> impl Strategy<Value = Flow> {
    let host = prop::option::weighted(0.6, host());
    let proto = select(vec![6u8, 6, 6, 17, 17, 1, 58, 132]);
    let port = select(vec![0u16, 22, 53, 80, 92, 443, 853, 8080, 65535]);
    (
        host,
        prop::option::weighted(0.9, addr()),
        proto,
        port,
        prop::bool::weighted(0.1),
    )
}

fn ask(flow: &Flow) -> Question<'_> {
    let (host, addr, proto, port, resolver) = flow;
    let addr = addr.as_ref().map(|addr| addr.parse().unwrap());
    Question {
        host: host.as_deref(),
        addr,
        proto: *proto,
        port: *port,
        resolver: *resolver,
    }
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
            let question = ask(flow);
            let (tries, plain) =
                (compiled_verdict(&compiled, &question), plain_verdict(&selected, &question));
            prop_assert_eq!(tries, plain, "{:?}\n{}", question, source);
            if let Some(host) = question.host {
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
                let Reason::Rule(rule) = selected.decide(&ask(flow)).reason else { continue };
                let rule = selected.rules()[rule as usize];
                prop_assert!(!idle.contains(&rule.span.start), "{} {flow:?}\n{source}", rule.title());
            }
        }
    }
}
