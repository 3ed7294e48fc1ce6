//! Rules that can never decide because others always decide first.
//!
//! A rule counts as shadowed when, at the very place it names, rules that every selection with it
//! also has cover all of its protocols and ports and go before it. Rules about narrower
//! destinations are not added up: a missed warning is better than a wrong one.

use crate::check::NEVER;
use crate::compile::MAX_COVERING;
use crate::cover::{Cover, Spot};
use crate::diagnostic::{Reports, quoted};
use crate::policy::{Policy, Section};
use crate::rule::{Action, Proto, Rule};
use abi::{ACTION_DENY, PROTO_ANY, PortRule, RULE_PRIVATE};
use std::collections::BTreeMap;

/// Claims looked at for one place of one section; a place with more is refused, or repeats itself.
const MAX_CLAIMS: usize = 2 * MAX_COVERING;
/// Rules that a message names.
const MAX_NAMED: usize = 3;

/// One port rule and the rule it comes from.
struct Claim<'p> {
    port: PortRule,
    rule: &'p Rule,
}

/// A section's claims by place.
type Claims<'p> = Cover<'p, Claim<'p>>;

pub(crate) fn run(policy: &Policy, reports: &mut Reports<'_>) {
    let common = claims(&policy.common);
    section(&policy.common, &[&common], 0, reports);
    let (projects, agents) = (by_key(&policy.projects), by_key(&policy.agents));
    for (key, own) in &policy.projects {
        section(own, &[&common, &projects[key.as_str()]], 1, reports);
    }
    for (key, own) in &policy.agents {
        let parts = key.split_once('/');
        let project = parts.and_then(|(project, _)| projects.get(project));
        let plain = parts.and_then(|(_, agent)| agents.get(agent));
        let before = [Some(&common), project, agents.get(key.as_str()), plain];
        let visible: Vec<&Claims<'_>> = before.into_iter().flatten().collect();
        let at = 1 + usize::from(project.is_some());
        section(own, &visible, at, reports);
    }
}

fn by_key(sections: &BTreeMap<String, Section>) -> BTreeMap<&str, Claims<'_>> {
    sections
        .iter()
        .map(|(key, section)| (key.as_str(), claims(section)))
        .collect()
}

fn claims(section: &Section) -> Claims<'_> {
    let mut cover = Cover::default();
    for (rule, number) in section.rules.iter().zip(0..) {
        for spot in rule.dst.spots() {
            let ports = rule.port_rules(number);
            cover
                .at(spot)
                .extend(ports.map(|port| Claim { port, rule }));
        }
    }
    cover.for_each_mut(|claims: &mut Vec<Claim<'_>>| {
        claims.sort_unstable_by_key(|claim| (claim.says(), claim.port.rule));
        claims.dedup_by_key(|claim| claim.says());
        claims.truncate(MAX_CLAIMS);
    });
    cover
}

impl Claim<'_> {
    /// Everything but who says it; the most severe first.
    fn says(&self) -> (u8, u16, u16, u8, u8, bool, bool) {
        let PortRule {
            lo,
            hi,
            proto,
            action,
            flags,
            ..
        } = self.port;
        let paths = !self.rule.path_rules.is_empty();
        (
            action,
            lo,
            hi,
            proto,
            flags,
            paths,
            self.rule.insecure_skip_tls_verify,
        )
    }

    /// Whether this claim goes before a port rule of `rule` wherever both match. `before` and `at`
    /// are the positions of the two sections.
    fn precedes(&self, before: usize, port: &PortRule, at: usize, rule: &Rule) -> bool {
        let order = (self.port.action, before, self.port.rule) < (port.action, at, port.rule);
        let proto = self.port.proto == PROTO_ANY || self.port.proto == port.proto;
        order && proto && (self.port.action == ACTION_DENY || self.replaces(port, rule))
    }

    /// Whether an allowing claim gives everything that the allowing rule would, the proxy's
    /// treatment included.
    fn replaces(&self, port: &PortRule, rule: &Rule) -> bool {
        let private = self.port.flags & RULE_PRIVATE >= port.flags & RULE_PRIVATE;
        let no_paths = self.rule.path_rules.is_empty() && rule.path_rules.is_empty();
        let same_way = self.rule.proto == rule.proto || self.rule.proto == Proto::Any;
        let same_trust = self.rule.insecure_skip_tls_verify == rule.insecure_skip_tls_verify;
        private && no_paths && same_way && same_trust
    }
}

/// Looks at the rules of the section that stands at `at` among the visible ones.
fn section(own: &Section, visible: &[&Claims<'_>], at: usize, reports: &mut Reports<'_>) {
    for (rule, number) in own.rules.iter().zip(0..) {
        let by = deciders(rule, number, visible, at);
        // The same pattern twice in one section has been said already, in better words.
        let repeats =
            |(position, other): &(usize, &Rule)| *position == at && other.same_pattern(rule);
        if by.is_empty() || by.iter().any(repeats) {
            continue;
        }
        let in_words = |(_, other): &(usize, &Rule)| {
            format!("{} (line {})", quoted(other.title()), other.line)
        };
        let named: Vec<String> = by.iter().take(MAX_NAMED).map(in_words).collect();
        let more = if by.len() > MAX_NAMED {
            " and others"
        } else {
            ""
        };
        let denies = by.iter().all(|(_, other)| other.action == Action::Deny);
        let verb = match (denies, by.len()) {
            (true, 1) => "denies",
            (true, _) => "deny",
            (false, 1) => "decides",
            (false, _) => "decide",
        };
        let message = format!("{} {NEVER}", quoted(rule.title()));
        let label = format!("{}{more} {verb} all of it first", named.join(", "));
        reports.warning(&rule.span, message).label(label);
    }
}

/// The rules that together decide everything that this one is about, with the positions of their
/// sections; none when something is left for it.
fn deciders<'p>(
    rule: &Rule,
    number: u32,
    visible: &[&Claims<'p>],
    at: usize,
) -> Vec<(usize, &'p Rule)> {
    let mut found: Vec<(usize, &Rule)> = Vec::new();
    for spot in rule.dst.spots() {
        for port in rule.port_rules(number) {
            let before = preceding(&spot, &port, rule, visible, at);
            if !covers_ports(&port, before.iter().map(|(_, claim)| &claim.port)) {
                return Vec::new();
            }
            found.extend(
                before
                    .into_iter()
                    .map(|(position, claim)| (position, claim.rule)),
            );
        }
    }
    found.sort_unstable_by_key(|(position, rule)| (*position, rule.span.start));
    found.dedup_by_key(|(_, rule)| rule.span.start);
    found
}

/// Claims that go before a port rule; when one of them is enough, only that one.
fn preceding<'c, 'p>(
    spot: &Spot<'c>,
    port: &PortRule,
    rule: &Rule,
    visible: &[&'c Claims<'p>],
    at: usize,
) -> Vec<(usize, &'c Claim<'p>)> {
    let mut found = Vec::new();
    for (position, claims) in visible.iter().enumerate() {
        let before = claims.covering(spot).into_iter();
        let before = before.filter(|claim| claim.precedes(position, port, at, rule));
        found.extend(before.map(|claim| (position, claim)));
    }
    let enough = |(_, claim): &&(usize, &Claim<'_>)| covers_ports(port, [&claim.port].into_iter());
    match found.iter().find(enough) {
        Some(one) => vec![*one],
        None => found,
    }
}

/// Whether ranges together cover a range.
fn covers_ports<'p>(port: &PortRule, ranges: impl Iterator<Item = &'p PortRule>) -> bool {
    let mut ranges: Vec<(u32, u32)> = ranges
        .map(|range| (range.lo.into(), range.hi.into()))
        .collect();
    ranges.sort_unstable();
    let mut next = u32::from(port.lo);
    for (lo, hi) in ranges {
        if lo > next {
            return false;
        }
        next = next.max(hi + 1);
    }
    next > u32::from(port.hi)
}
