//! From the parsed file to a [`Policy`]: the top level, the sections and the tests.

use crate::cases;
use crate::destination::Destination;
use crate::diagnostic::{Reports, counted, quoted};
use crate::fields::{Field, Fields, members};
use crate::policy::{Mode, Policy, Resolver, Section};
use crate::rule::Rule;
use crate::rule_reader::{Place, domain, rule};
use crate::values::{self, ACTIONS};
use crate::yaml::Node;
use abi::MAX_RESOLVERS;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::ops::Range;

const TOP: [&str; 13] = [
    "version",
    "mode",
    "default",
    "resolvers",
    "domains",
    "rules",
    "projects",
    "agents",
    "inbound",
    "intercept",
    "allow_builtin",
    "udp_idle",
    "tests",
];
const PROJECT: [&str; 2] = ["rules", "domains"];
const AGENT: [&str; 3] = ["mode", "rules", "domains"];

const MODES: [(&str, Mode); 3] = [
    ("enforce", Mode::Enforce),
    ("audit", Mode::Audit),
    ("observe", Mode::Observe),
];

/// A policy and where the things stand that only later checks look at.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) policy: Policy,
    /// Of each entry of `allow_builtin`.
    pub(crate) allow_builtin: Vec<Range<usize>>,
    /// Of the value of `resolvers`.
    pub(crate) resolvers: Range<usize>,
}

pub(crate) fn read(root: &Node<'_>, reports: &mut Reports<'_>) -> Read {
    let mut read = Read::default();
    let Some(top) = Fields::read(root, "a policy", &TOP, reports) else {
        return read;
    };
    version(&top, reports);
    settings(&top, &mut read.policy, reports);
    resolvers(&top, &mut read, reports);
    allow_builtin(&top, &mut read, reports);
    let policy = &mut read.policy;
    policy.common.rules = rules(&top, "", reports);
    policy.projects = sections(&top, "projects", &PROJECT, reports);
    policy.agents = sections(&top, "agents", &AGENT, reports);
    policy.tests = cases::read(&top, reports);
    read
}

fn version(top: &Fields<'_>, reports: &mut Reports<'_>) {
    let Some(field) = top.get("version") else {
        return;
    };
    match field.text(reports) {
        None | Some("1") => {}
        Some(other) => {
            let message = format!("version {} is not known", quoted(other));
            reports.error(field.span(), message).label("must be 1");
        }
    }
}

fn settings(top: &Fields<'_>, policy: &mut Policy, reports: &mut Reports<'_>) {
    if let Some(mode) = top
        .get("mode")
        .and_then(|field| field.word(&MODES, reports))
    {
        policy.mode = mode;
    }
    if let Some(action) = top
        .get("default")
        .and_then(|field| field.word(&ACTIONS, reports))
    {
        policy.default = action;
    }
    if let Some(action) = top
        .get("inbound")
        .and_then(|field| field.word(&ACTIONS, reports))
    {
        policy.inbound = action;
    }
    if let Some(intercept) = top
        .get("intercept")
        .and_then(|field| field.boolean(reports))
    {
        policy.intercept = intercept;
    }
    if let Some(idle) = top
        .get("udp_idle")
        .and_then(|field| values::udp_idle(&field, reports))
    {
        policy.udp_idle = idle;
    }
}

fn resolvers(top: &Fields<'_>, read: &mut Read, reports: &mut Reports<'_>) {
    let Some((field, items)) = top
        .get("resolvers")
        .and_then(|field| Some((field, field.list(reports)?)))
    else {
        return;
    };
    let mut found: Vec<Resolver> = Vec::new();
    for item in items {
        let Some(resolver) = values::resolver(item, reports) else {
            continue;
        };
        if found.contains(&resolver) {
            reports
                .warning(&item.span, "a resolver is named twice")
                .label("can be removed");
        } else {
            found.push(resolver);
        }
    }
    if found.len() > MAX_RESOLVERS {
        let message = counted(found.len(), "resolver");
        reports
            .error(field.key_span, message)
            .label(format!("at most {MAX_RESOLVERS} are trusted"));
    }
    read.policy.resolvers = found;
    read.resolvers = field.key_span.clone();
}

fn allow_builtin(top: &Fields<'_>, read: &mut Read, reports: &mut Reports<'_>) {
    let Some(items) = top
        .get("allow_builtin")
        .and_then(|field| field.list(reports))
    else {
        return;
    };
    for item in items {
        if let Some(net) = builtin_net(item, reports) {
            read.policy.allow_builtin.push(net);
            read.allow_builtin.push(item.span.clone());
        }
    }
}

fn builtin_net(item: &Node<'_>, reports: &mut Reports<'_>) -> Option<IpNet> {
    let text = values::item_text(item, "an entry of `allow_builtin`", reports)?;
    match values::destination(text, &item.span, reports)? {
        Destination::Network(net) => Some(net),
        _ => {
            let message = format!("{} is not an address", quoted(text));
            let diagnostic = reports.error(&item.span, message);
            diagnostic.label("the built-in deny set holds addresses and networks");
            None
        }
    }
}

/// `rules` and `domains` of one section. `prefix` is its place with a dot.
fn rules(fields: &Fields<'_>, prefix: &str, reports: &mut Reports<'_>) -> Vec<Rule> {
    let mut found = Vec::new();
    if let Some(items) = fields.get("rules").and_then(|field| field.list(reports)) {
        for (number, item) in items.iter().enumerate() {
            found.extend(rule(
                item,
                &Place {
                    prefix,
                    list: "rules",
                    number,
                },
                reports,
            ));
        }
    }
    if let Some(items) = fields.get("domains").and_then(|field| field.list(reports)) {
        for (number, item) in items.iter().enumerate() {
            found.extend(domain(
                item,
                &Place {
                    prefix,
                    list: "domains",
                    number,
                },
                reports,
            ));
        }
    }
    found
}

fn sections(
    top: &Fields<'_>,
    what: &'static str,
    allowed: &[&str],
    reports: &mut Reports<'_>,
) -> BTreeMap<String, Section> {
    let mut found = BTreeMap::new();
    let Some(field) = top.get(what) else {
        return found;
    };
    if field.is_empty() {
        let message = format!("`{what}` is empty");
        reports
            .warning(field.key_span, message)
            .label("can be removed");
        return found;
    }
    let entries = members(field.node, &format!("`{what}`"), reports).unwrap_or_default();
    for entry in entries {
        if valid_key(&entry, what, reports) {
            found.insert(
                entry.key.to_owned(),
                section(&entry, what, allowed, reports),
            );
        }
    }
    found
}

fn valid_key(entry: &Field<'_>, what: &str, reports: &mut Reports<'_>) -> bool {
    let parts: Vec<&str> = entry.key.split('/').collect();
    let most = if what == "agents" { 2 } else { 1 };
    let good = parts.len() <= most
        && parts
            .iter()
            .all(|part| !part.is_empty() && !part.chars().any(char::is_control));
    if !good {
        let message = format!("{} is not a key of `{what}`", quoted(entry.key));
        let label = if most == 2 {
            "must be `agent` or `project/agent`"
        } else {
            "must be a project"
        };
        reports.error(entry.key_span, message).label(label);
    }
    good
}

fn section(entry: &Field<'_>, what: &str, allowed: &[&str], reports: &mut Reports<'_>) -> Section {
    let place = format!("{what}.{}", entry.key);
    let mut section = Section::default();
    if entry.is_empty() {
        reports
            .warning(entry.key_span, format!("`{place}` is empty"))
            .label("changes nothing");
        return section;
    }
    let Some(fields) = Fields::read(entry.node, &format!("`{place}`"), allowed, reports) else {
        return section;
    };
    if fields.is_empty() {
        reports
            .warning(entry.key_span, format!("`{place}` is empty"))
            .label("changes nothing");
    }
    section.mode = fields
        .get("mode")
        .and_then(|field| field.word(&MODES, reports));
    section.rules = rules(&fields, &format!("{place}."), reports);
    section
}
