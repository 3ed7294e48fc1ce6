use super::*;
use crate::Policy;
use crate::{Question, Reason};

fn compile(source: &str) -> Compiled {
    Policy::parse(source)
        .policy
        .unwrap()
        .select(None, None)
        .compile(5)
        .unwrap()
}

fn said(set: &RuleSet) -> Vec<(u8, u8, u16, u16, u8, u32)> {
    let rules = set.rules[..set.count as usize].iter();
    rules
        .map(|r| (r.action, r.proto, r.lo, r.hi, r.flags, r.rule))
        .collect()
}

const BUILTIN_SAID: (u8, u8, u16, u16, u8, u32) = (ACTION_BUILTIN, 0, 0, 65535, 1, NO_RULE);

#[test]
fn a_place_holds_everything_that_covers_it_deny_first() {
    let compiled = compile(
        "rules:\n  - {dst: .example.com}\n  - {dst: a.example.com, private: true}\n  \
         - {dst: '*.com', proto: any, action: deny}\n",
    );
    let deny = (ACTION_DENY, 0, 0, 65535, 0, 2);
    let tree = (ACTION_ALLOW, 6, 443, 443, 0, 0);
    let found: Vec<_> = compiled.names.iter().map(|(_, set)| said(set)).collect();
    // In the order of the reversed names: com., com.example, com.example., com.example.a
    let own = (ACTION_ALLOW, 6, 443, 443, RULE_PRIVATE, 1);
    let both = vec![deny, tree];
    assert_eq!(
        found,
        [vec![deny], both.clone(), both, vec![deny, tree, own]]
    );
}

#[test]
fn address_rules_hold_for_private_addresses() {
    let compiled = compile("rules:\n  - {dst: 10.0.0.1}\n");
    let set = compiled
        .addrs
        .iter()
        .find(|(key, _)| key.addr[..4] == [10, 0, 0, 1])
        .unwrap();
    assert_eq!(said(&set.1), [(ACTION_ALLOW, 6, 443, 443, RULE_PRIVATE, 0)]);
}

#[test]
fn opening_part_of_the_built_in_set_carves_it_out() {
    let compiled = compile(
        "rules:\n  - {dst: 169.254.0.0/15, proto: http}\n\
         allow_builtin: [169.254.169.254]\n",
    );
    let place = |bits: u32| {
        let of = |(key, _): &&(AddrKey, RuleSet)| {
            key.addr[..2] == [169, 254] && key.prefix_len == 64 + bits
        };
        said(&compiled.addrs.iter().find(of).unwrap().1)
    };
    let http = (ACTION_ALLOW, 6, 80, 80, RULE_PRIVATE, 0);
    assert_eq!(place(15), [http]);
    assert_eq!(place(16), [BUILTIN_SAID, http]);
    assert_eq!(place(32), [http]);
}

#[test]
fn the_monitors_own_networks_are_closed_like_the_built_in_set() {
    let source = "rules:\n  - {dst: 10.0.0.0/8, proto: http}\n";
    let mut policy = Policy::parse(source).policy.unwrap();
    let own = [
        "10.237.68.0/24".parse().unwrap(),
        "fd00:1::/64".parse().unwrap(),
    ];
    policy.close(&own);
    let selected = policy.select(None, None);
    let compiled = selected.compile(1).unwrap();
    let rules = |bits: u32, head: &[u8]| {
        let at = |(key, _): &&(AddrKey, RuleSet)| {
            key.prefix_len == 64 + bits && key.addr.starts_with(head)
        };
        said(&compiled.addrs.iter().find(at).unwrap().1)
    };
    let http = (ACTION_ALLOW, 6, 80, 80, RULE_PRIVATE, 0);
    assert_eq!(rules(8, &[10]), [http]);
    assert_eq!(rules(24, &[10, 237, 68]), [BUILTIN_SAID, http]);
    assert_eq!(rules(64, &[0xfd, 0, 0, 1]), [BUILTIN_SAID]);
    let question = |ip: &str| Question {
        hosts: &[],
        addr: Some(ip.parse().unwrap()),
        proto: 6,
        port: 80,
        resolver: false,
    };
    let reason = |ip| selected.decide(&question(ip)).reason;
    assert!(matches!(reason("10.237.68.2"), Reason::Builtin(_)));
    assert!(!matches!(reason("10.237.69.2"), Reason::Builtin(_)));
}

#[test]
fn rules_have_texts_for_people() {
    let compiled = compile("rules:\n  - {dst: '2001:db8::/32', name: six}\ndomains: [a.b]\n");
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    };
    let found: Vec<_> = compiled
        .texts
        .iter()
        .map(|(key, rule)| (key.policy, key.rule, text(&rule.name), text(&rule.text)))
        .collect();
    let expected = [
        (5, 0, "six".into(), "allow https [2001:db8::/32]:443".into()),
        (5, 1, "domains[0]".into(), "allow https a.b:443".into()),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_the_proxy_decides_is_marked_where_there_is_one() {
    let source = "rules:
  - {dst: a.example}
  - {dst: a.example, proto: tcp, port: 8443}
  - {dst: 192.0.2.7, proto: http}
  - {dst: 192.0.2.0/24, proto: http}
  - {dst: b.example, action: deny}
  - {dst: 198.51.100.0/24, proto: http, path_rules: [{path: /a, action: allow}]}
";
    for (intercept, led) in [(true, vec![0, 2, 5]), (false, vec![2, 5])] {
        let source = format!("intercept: {intercept}\n{source}");
        let policy = Policy::parse(&source).policy.unwrap();
        let selected = policy.select(None, None);
        let marked = |compiled: &Compiled| {
            let addrs = compiled.addrs.iter().map(|(_, set)| set);
            let sets = addrs.chain(compiled.names.iter().map(|(_, set)| set));
            let rules = sets.flat_map(|set| set.rules);
            let mut rules: Vec<u32> = rules
                .filter(|rule| rule.flags & RULE_PROXIED != 0)
                .map(|rule| rule.rule)
                .collect();
            rules.sort_unstable();
            rules.dedup();
            rules
        };
        assert_eq!(marked(&selected.compile_with_proxy(1).unwrap()), led);
        assert_eq!(marked(&selected.compile(1).unwrap()), [0; 0]);
    }
}
