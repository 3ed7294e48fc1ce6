//! What can only be seen with the whole policy in view: rules that contradict or repeat each other,
//! rules that never decide, sections that do not fit.

use crate::builtin::{self, BUILTIN};
use crate::decide::is_dns;
use crate::destination::{Destination, judged};
use crate::diagnostic::{Reports, counted, quoted};
use crate::document::Read;
use crate::policy::{Policy, Section};
use crate::rule::{Action, PortRange, Proto, Rule};
use crate::{limits, shadow};
use abi::{IPPROTO_TCP, IPPROTO_UDP, PROTO_ANY};
use ipnet::IpNet;
use std::collections::HashMap;
use std::ops::Range;

/// Beside the caret of a rule that is only dead weight.
pub(crate) const NEVER: &str = "can never decide";

pub(crate) fn run(read: &Read, reports: &mut Reports<'_>) {
    let policy = &read.policy;
    for section in policy.sections() {
        repeated(section, reports);
        for rule in &section.rules {
            alone(rule, &policy.allow_builtin, reports);
        }
    }
    opened(policy, &read.allow_builtin, reports);
    without_resolver(policy, &read.resolvers, reports);
    shadow::run(policy, reports);
    limits::run(policy, reports);
}

/// The same pattern twice in one section.
fn repeated(section: &Section, reports: &mut Reports<'_>) {
    let mut first: HashMap<(&Destination, Proto, &[PortRange]), &Rule> = HashMap::new();
    for rule in &section.rules {
        let pattern = (&rule.dst, rule.proto, rule.ports.as_slice());
        let Some(other) = first.get(&pattern) else {
            first.insert(pattern, rule);
            continue;
        };
        let where_first = format!("{} on line {}", quoted(other.title()), other.line);
        let title = quoted(rule.title());
        if rule.action != other.action {
            let message = format!("{title} contradicts {where_first}");
            let diagnostic = reports.error(&rule.span, message);
            diagnostic.label(format!(
                "same destination, protocol and ports, but {}",
                rule.action
            ));
            diagnostic.help("remove one, or make one of them narrower: deny beats allow");
        } else if rule.same_settings(other) {
            let message = format!("{title} repeats {where_first}");
            reports.warning(&rule.span, message).label("can be removed");
        } else {
            let message = format!("{title} has the pattern of {where_first} with other settings");
            let diagnostic = reports.warning(&rule.span, message);
            diagnostic.label("both hold").help("make it one rule");
        }
    }
}

/// What is odd about a rule whatever the others say.
fn alone(rule: &Rule, allow_builtin: &[IpNet], reports: &mut Reports<'_>) {
    if let Some((label, help)) = why_never(rule, allow_builtin) {
        let message = format!("{} {NEVER}", quoted(rule.title()));
        let diagnostic = reports.warning(&rule.span, message);
        diagnostic.label(label).help(help);
    }
    if rule.action == Action::Deny && !rule.path_rules.is_empty() {
        let message = format!("{} denies and has path rules", quoted(rule.title()));
        let label = "everything is denied, the path rules never decide";
        reports.warning(&rule.span, message).label(label);
    }
}

fn why_never(rule: &Rule, allow_builtin: &[IpNet]) -> Option<(String, &'static str)> {
    if let Destination::Network(net) = &rule.dst
        && let Some(what) = builtin::covers(net, allow_builtin)
    {
        let label = format!("is in the built-in deny set ({what})");
        return Some((label, "`allow_builtin` opens addresses of the set"));
    }
    if let Some(addr) = rule.dst.address().filter(|addr| judged(*addr) != *addr) {
        let label = format!("what is sent to {addr} goes to {}", judged(addr));
        return Some((label, "name the loopback address instead"));
    }
    let transport = |number: &u8| matches!(*number, IPPROTO_TCP | IPPROTO_UDP | PROTO_ANY);
    let dns = |ports: &PortRange| ports.lo == ports.hi && is_dns(IPPROTO_TCP, ports.lo);
    if rule.proto.numbers(&rule.dst).iter().all(transport) && rule.ports.iter().all(dns) {
        let label = "port 53 is open to `resolvers` alone, port 853 to nobody".to_owned();
        return Some((label, "name the server in `resolvers`"));
    }
    None
}

/// Every opened part of the built-in deny set is worth a look.
fn opened(policy: &Policy, spans: &[Range<usize>], reports: &mut Reports<'_>) {
    for (open, span) in policy.allow_builtin.iter().zip(spans) {
        let meets = |net: &IpNet| net.contains(open) || open.contains(net);
        let what: Vec<&str> = BUILTIN
            .iter()
            .filter(|(net, _)| meets(net))
            .map(|(_, what)| *what)
            .collect();
        let shown = Destination::Network(*open);
        let Some(last) = what.last() else {
            let message = format!("{shown} is not in the built-in deny set");
            reports.warning(span, message).label("opens nothing");
            continue;
        };
        let what = if what.len() > 2 {
            "several parts of it"
        } else {
            last
        };
        let message = format!("{shown} of the built-in deny set is opened ({what})");
        let label = "agents reach it where a rule allows it";
        reports.warning(span, message).label(label);
    }
}

/// Names mean something only through a resolver.
fn without_resolver(policy: &Policy, span: &Range<usize>, reports: &mut Reports<'_>) {
    let named = |rule: &&Rule| !matches!(rule.dst, Destination::Network(_));
    let names = policy
        .sections()
        .flat_map(|section| &section.rules)
        .filter(named)
        .count();
    if policy.resolvers.is_empty() && names > 0 {
        let message = format!("no resolver, but {} with a name", counted(names, "rule"));
        reports
            .warning(span, message)
            .label("without an answer a name is no address");
    }
}
