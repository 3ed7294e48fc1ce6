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
    PROTO_ANY, PortRule, RULE_PRIVATE, RULE_PROXIED, RuleSet, RuleText, RuleTextKey, SET_RULES,
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

    /// The same where there is a proxy: what it decides is allowed by way of it only.
    pub fn compile_with_proxy(&self, policy_id: u32) -> Result<Compiled, CompileError> {
        let mut compiled = self.compile(policy_id)?;
        let number = |rule: u32| usize::try_from(rule).ok();
        let proxied = |rule| {
            number(rule)
                .and_then(|n| self.rules().get(n))
                .is_some_and(|r| r.is_proxied(self.intercept))
        };
        let (addrs, names) = (compiled.addrs.iter_mut(), compiled.names.iter_mut());
        let sets = addrs.map(|(_, set)| set).chain(names.map(|(_, set)| set));
        for set in sets.chain(compiled.chain.iter_mut().map(|(_, set)| set)) {
            for rule in &mut set.rules {
                if rule.action == ACTION_ALLOW && proxied(rule.rule) {
                    rule.flags |= RULE_PROXIED;
                }
            }
        }
        Ok(compiled)
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
mod tests;
