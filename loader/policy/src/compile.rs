//! From the rules of one agent to what the programs read.
//!
//! A trie gives only the longest match, so each place holds the rules of everything that covers it.

use crate::builtin;
use crate::cover::{Cover, Spot};
use crate::destination::Destination;
use crate::keys::{End, addr_key, chain_key, name_key, rule_text, text_key};
use crate::policy::{Mode, Resolver};
use crate::rule::{Action, Rule};
use crate::select::Selected;
use abi::{
    ACTION_ALLOW, ACTION_BUILTIN, ACTION_DENY, AddrKey, ChainKey, IPPROTO_ICMP, IPPROTO_ICMPV6,
    MAX_CHAIN, MAX_POLICY_ENTRIES, MODE_AUDIT, MODE_ENFORCE, MODE_OBSERVE, NO_RULE, NameKey,
    PROTO_ANY, PortRule, RULE_PRIVATE, RuleSet, RuleText, RuleTextKey, SET_RULES,
};
use ipnet::IpNet;
use std::time::Duration;
use thiserror::Error;

/// Port rules that may cover one destination.
pub const MAX_COVERING: usize = SET_RULES * MAX_CHAIN;

/// What the loader writes into the maps for one agent.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// `abi::MODE_*`.
    pub mode: u8,
    /// What no rule names is allowed.
    pub default_allow: bool,
    /// Connections that the agent accepts are denied.
    pub inbound_deny: bool,
    /// Some rule allows ICMP.
    pub allows_icmp: bool,
    /// Idle time of a datagram flow.
    pub udp_idle: Duration,
    /// Trusted resolvers as written.
    pub resolvers: Vec<Resolver>,
    /// Address trie, sorted.
    pub addrs: Vec<(AddrKey, RuleSet)>,
    /// Name trie, sorted.
    pub names: Vec<(NameKey, RuleSet)>,
    /// Sets behind the first ones.
    pub chain: Vec<(ChainKey, RuleSet)>,
    /// Rules for people, by number.
    pub texts: Vec<(RuleTextKey, RuleText)>,
}

/// Why a policy does not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// Too many port rules cover one destination.
    #[error("{count} port rules cover {destination}, at most {MAX_COVERING} fit")]
    Covering {
        /// The destination.
        destination: String,
        /// How many cover it.
        count: usize,
        /// Number of a rule that does.
        rule: Option<u32>,
    },
    /// Too many entries for one map.
    #[error("the policy needs {count} {what}, at most {MAX_POLICY_ENTRIES} fit")]
    Entries {
        /// Entries of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
}

/// Addresses, names, chained sets.
type Tries = (
    Vec<(AddrKey, RuleSet)>,
    Vec<(NameKey, RuleSet)>,
    Vec<(ChainKey, RuleSet)>,
);

impl Selected<'_> {
    /// Lays the policy out for the maps, under this policy id.
    pub fn compile(&self, policy_id: u32) -> Result<Compiled, CompileError> {
        let (addrs, names, chain) = self.tries(policy_id)?;
        fits("rules", self.rules().len())?;
        fits("address entries", addrs.len())?;
        fits("name entries", names.len())?;
        fits("chained sets", chain.len())?;
        let text = |(rule, number): (&&Rule, u32)| {
            (
                text_key(policy_id, number),
                rule_text(rule.title(), &rule.to_string()),
            )
        };
        Ok(Compiled {
            mode: mode_number(self.mode),
            default_allow: self.default == Action::Allow,
            inbound_deny: self.inbound == Action::Deny,
            allows_icmp: self.default == Action::Allow || self.allows_icmp(),
            udp_idle: self.udp_idle,
            resolvers: self.resolvers.to_vec(),
            addrs,
            names,
            chain,
            texts: self.rules().iter().zip(0..).map(text).collect(),
        })
    }

    fn tries(&self, policy_id: u32) -> Result<Tries, CompileError> {
        let cover = cover(self.rules().iter().copied(), self.allow_builtin, self.own);
        let (mut addrs, mut names) = (Vec::new(), Vec::new());
        for spot in cover.spots() {
            let rules = port_rules(&cover, spot, self.allow_builtin);
            fits_destination(spot, &rules)?;
            match spot {
                Spot::Net(net) => addrs.push((addr_key(policy_id, net), rules)),
                Spot::Exact(name) => names.push((name_key(policy_id, name, End::Name), rules)),
                Spot::Below(name) => names.push((name_key(policy_id, name, End::Below), rules)),
            }
        }
        addrs.sort_unstable_by_key(|(key, _)| (key.family, key.addr, key.prefix_len));
        names.sort_unstable_by_key(|(key, _)| (key.name, key.prefix_len));
        let mut sets = Sets {
            policy: policy_id,
            chain: Vec::new(),
        };
        let addrs = addrs
            .into_iter()
            .map(|(key, rules)| (key, sets.lay(&rules)))
            .collect();
        let names = names
            .into_iter()
            .map(|(key, rules)| (key, sets.lay(&rules)))
            .collect();
        Ok((addrs, names, sets.chain))
    }

    fn allows_icmp(&self) -> bool {
        let icmp = [PROTO_ANY, IPPROTO_ICMP, IPPROTO_ICMPV6];
        self.rules().iter().any(|rule| {
            let numbers = rule.proto.numbers(&rule.dst);
            rule.action == Action::Allow
                && numbers.iter().any(|number| icmp.contains(number))
                && rule.ports.iter().any(|ports| ports.lo == 0)
        })
    }
}

fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Enforce => MODE_ENFORCE,
        Mode::Audit => MODE_AUDIT,
        Mode::Observe => MODE_OBSERVE,
    }
}

fn fits_destination(spot: &Spot<'_>, rules: &[PortRule]) -> Result<(), CompileError> {
    if rules.len() <= MAX_COVERING {
        return Ok(());
    }
    let rule = rules
        .iter()
        .map(|rule| rule.rule)
        .filter(|rule| *rule != NO_RULE)
        .max();
    Err(CompileError::Covering {
        destination: spot.to_string(),
        count: rules.len(),
        rule,
    })
}

fn fits(what: &'static str, count: usize) -> Result<(), CompileError> {
    // The limit is a count of map entries, far below what a `usize` holds.
    if count > MAX_POLICY_ENTRIES as usize {
        return Err(CompileError::Entries { what, count });
    }
    Ok(())
}

/// Rules by place, the built-in set among them, and empty places where it is opened.
pub(crate) fn cover<'r>(
    rules: impl Iterator<Item = &'r Rule>,
    allow_builtin: &[IpNet],
    own: &[IpNet],
) -> Cover<'r, PortRule> {
    let mut cover = Cover::default();
    for (rule, number) in rules.zip(0..) {
        for spot in rule.dst.spots() {
            cover.at(spot).extend(rule.port_rules(number));
        }
    }
    for (net, _) in builtin::set(own) {
        cover.at(Spot::Net(net)).push(BUILTIN_RULE);
    }
    for open in allow_builtin {
        if builtin::set(own).any(|(net, _)| net.contains(open)) {
            cover.at(Spot::Net(*open));
        }
    }
    // What many rules repeat at one place would be walked again from every narrower one.
    cover.for_each_mut(dedup);
    cover
}

/// The built-in set as the programs have it.
const BUILTIN_RULE: PortRule = PortRule {
    lo: 0,
    hi: u16::MAX,
    proto: PROTO_ANY,
    action: ACTION_BUILTIN,
    flags: RULE_PRIVATE,
    pad: 0,
    rule: NO_RULE,
};

impl Rule {
    /// The rule as the programs have it: one for each protocol number and port range.
    pub(crate) fn port_rules(&self, number: u32) -> impl Iterator<Item = PortRule> {
        let action = match self.action {
            Action::Allow => ACTION_ALLOW,
            Action::Deny => ACTION_DENY,
        };
        let address = matches!(self.dst, Destination::Network(_));
        let flags = if self.private || address {
            RULE_PRIVATE
        } else {
            0
        };
        self.proto.numbers(&self.dst).iter().flat_map(move |proto| {
            self.ports.iter().map(move |ports| PortRule {
                lo: ports.lo,
                hi: ports.hi,
                proto: *proto,
                action,
                flags,
                pad: 0,
                rule: number,
            })
        })
    }
}

/// What decides at one place, in the order of deciding.
fn port_rules(
    cover: &Cover<'_, PortRule>,
    spot: &Spot<'_>,
    allow_builtin: &[IpNet],
) -> Vec<PortRule> {
    let mut rules: Vec<PortRule> = cover.covering(spot).into_iter().copied().collect();
    if let Spot::Net(net) = spot
        && allow_builtin.iter().any(|open| open.contains(net))
    {
        rules.retain(|rule| rule.action != ACTION_BUILTIN);
    }
    dedup(&mut rules);
    rules
}

/// Of rules that say the same the first stays; then in the order of deciding.
pub(crate) fn dedup(rules: &mut Vec<PortRule>) {
    let says = |rule: &PortRule| (rule.action, rule.lo, rule.hi, rule.proto, rule.flags);
    rules.sort_unstable_by_key(|rule| (says(rule), rule.rule));
    rules.dedup_by_key(|rule| says(rule));
    rules.sort_unstable_by_key(|rule| (rule.action, rule.rule, rule.lo, rule.proto));
}

/// Turns lists of rules into first sets and chained ones, numbering the latter.
struct Sets {
    policy: u32,
    chain: Vec<(ChainKey, RuleSet)>,
}

impl Sets {
    /// The set for a place; what does not fit in it follows in the chain.
    fn lay(&mut self, rules: &[PortRule]) -> RuleSet {
        let mut parts = rules.chunks(SET_RULES);
        let mut first = set(parts.next().unwrap_or_default());
        let mut number = u32::try_from(self.chain.len()).unwrap_or(u32::MAX);
        let mut previous = &mut first.next;
        let start = self.chain.len();
        self.chain.extend(parts.map(|part| {
            number += 1;
            (chain_key(self.policy, number), set(part))
        }));
        for (key, next) in &mut self.chain[start..] {
            *previous = key.set;
            previous = &mut next.next;
        }
        first
    }
}

/// At most [`SET_RULES`] rules as one set.
fn set(rules: &[PortRule]) -> RuleSet {
    let mut set = RuleSet::default();
    for (slot, rule) in set.rules.iter_mut().zip(rules) {
        *slot = *rule;
        set.count += 1;
    }
    set
}

#[cfg(test)]
mod tests {
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
}
