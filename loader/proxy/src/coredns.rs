//! CoreDNS's file: which names each agent may ask for, and a line for each query.
//!
//! CoreDNS takes the block with the longest zone that a name is in, of those the first whose `view` holds,
//! and goes on to shorter zones where none holds. So every agent has its zones, and one block for
//! everything else that answers NXDOMAIN.

use crate::agent::{Agent, Fleet};
use crate::names::Regions;
use crate::settings::Settings;
use policy::{Action, Policy, Resolver, Selected};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Format of the query log. The name is last: whoever asks chooses it, and nothing follows that it could
/// be mistaken for.
pub const LOG_FORMAT: &str = "clawker {remote} {port} {proto} {type} {rcode} {duration} {name}";

/// Parts of a zone that may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Open {
    /// The name itself.
    apex: bool,
    /// What is below it and in no longer zone.
    below: bool,
}

/// Renders a policy for the agents of a fleet. Addresses of nobody are refused.
#[must_use]
pub fn render(policy: &Policy, fleet: &Fleet, settings: &Settings) -> String {
    let upstream = upstream(policy, settings);
    let port = settings.dns_port;
    let mut text = String::from(
        "# Made by `ebpf-manager policy render --coredns`. CoreDNS 1.15, its own plugins only.\n",
    );
    for (number, agent) in fleet.agents().iter().enumerate() {
        let selected = policy.select(agent.agent.as_deref(), agent.project.as_deref());
        let enforced = selected.mode == policy::Mode::Enforce;
        let view = View {
            number,
            agent,
            settings,
            upstream: &upstream,
        };
        let _ = writeln!(text, "\n# {}", comment(&agent.title()));
        if selected.default == Action::Allow || !enforced {
            view.block(&mut text, &zones(&[".".to_owned()], port), &[], true);
            continue;
        }
        for (open, names) in open_zones(&selected) {
            for names in apart(open, names) {
                let closed = closed(open, &names);
                let forward = open.apex || open.below;
                view.block(&mut text, &zones(&names, port), &closed, forward);
            }
        }
        view.block(&mut text, &zones(&[".".to_owned()], port), &[], false);
    }
    let _ = write!(
        text,
        "\n# Nobody that is known.\n.:{port} {{\n{}    log . \"{LOG_FORMAT}\"\n    errors\n    reload 2s\n    template ANY ANY . {{\n        rcode REFUSED\n    }}\n}}\n",
        bind(settings),
    );
    text
}

/// Whom CoreDNS asks: as told, else the addresses that the policy trusts, else whom its machine asks.
fn upstream(policy: &Policy, settings: &Settings) -> String {
    let told: Vec<String> = settings.resolvers.iter().map(ToString::to_string).collect();
    let trusted = policy.resolvers().iter().filter_map(|one| match one {
        Resolver::Address(IpAddr::V6(address)) => Some(format!("[{address}]:53")),
        Resolver::Address(address) => Some(format!("{address}:53")),
        Resolver::System | Resolver::CoreDns => None,
    });
    let addresses = if told.is_empty() {
        trusted.collect()
    } else {
        told
    };
    if addresses.is_empty() {
        return "/etc/resolv.conf".to_owned();
    }
    addresses.join(" ")
}

/// Zones by what of them is open, the names in order.
fn open_zones(selected: &Selected<'_>) -> BTreeMap<Open, Vec<String>> {
    let regions = Regions::of(selected.rules().iter().copied());
    let mut zones: BTreeMap<Open, Vec<String>> = BTreeMap::new();
    for base in regions.bases() {
        let open = Open {
            apex: selected.may_resolve(base),
            below: selected.may_resolve(&regions.stranger(base)),
        };
        zones.entry(open).or_default().push(base.to_owned());
    }
    zones
}

/// Groups of zones of which none is inside another where expressions close a part: what closes the one
/// would close the other.
fn apart(open: Open, mut names: Vec<String>) -> Vec<Vec<String>> {
    if open.apex == open.below {
        return vec![names];
    }
    names.sort_by_key(|name| (name.matches('.').count(), name.clone()));
    let mut groups: Vec<BTreeSet<String>> = Vec::new();
    for name in names {
        let parents = |name: &str| -> Vec<String> {
            let dots = name.match_indices('.');
            dots.map(|(dot, _)| name[dot + 1..].to_owned()).collect()
        };
        let parents = parents(&name);
        let free = |group: &&mut BTreeSet<String>| parents.iter().all(|one| !group.contains(one));
        match groups.iter_mut().find(free) {
            Some(group) => {
                group.insert(name);
            }
            None => groups.push(BTreeSet::from([name])),
        }
    }
    groups
        .into_iter()
        .map(|group| group.into_iter().collect())
        .collect()
}

/// Names of a zone that are closed although the zone is served, as expressions of Go.
fn closed(open: Open, names: &[String]) -> Vec<String> {
    let quoted = |name: &String| name.replace('.', r"\.");
    match (open.apex, open.below) {
        (true, false) => names
            .iter()
            .map(|name| format!(r"(?i)^.+\.{}\.$", quoted(name)))
            .collect(),
        (false, true) => names
            .iter()
            .map(|name| format!(r"(?i)^{}\.$", quoted(name)))
            .collect(),
        _ => Vec::new(),
    }
}

fn zones(names: &[String], port: u16) -> Vec<String> {
    let dotted = |name: &String| {
        if name == "." {
            format!(".:{port}")
        } else {
            format!("{name}.:{port}")
        }
    };
    names.iter().map(dotted).collect()
}

/// A label is whatever somebody has given a container.
fn comment(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn bind(settings: &Settings) -> String {
    let unspecified = settings.listen.iter().all(IpAddr::is_unspecified);
    if unspecified {
        return String::new();
    }
    let addresses: Vec<String> = settings.listen.iter().map(ToString::to_string).collect();
    format!("    bind {}\n", addresses.join(" "))
}

/// The blocks of one agent.
struct View<'a> {
    number: usize,
    agent: &'a Agent,
    settings: &'a Settings,
    upstream: &'a str,
}

impl View<'_> {
    /// One block: zones, of which some names are closed, and the rest is forwarded or does not exist.
    fn block(&self, text: &mut String, zones: &[String], closed: &[String], forward: bool) {
        let from: Vec<String> = self
            .agent
            .addresses
            .iter()
            .map(|addr| client(*addr))
            .collect();
        let _ = write!(
            text,
            "{} {{\n{}    view agent{} {{\n        expr {}\n    }}\n    log . \"{LOG_FORMAT}\"\n    errors\n",
            zones.join(" "),
            bind(self.settings),
            self.number,
            from.join(" || "),
        );
        if !closed.is_empty() {
            text.push_str("    template ANY ANY {\n");
            for expression in closed {
                let _ = writeln!(text, "        match {expression}");
            }
            text.push_str("        rcode NXDOMAIN\n        fallthrough\n    }\n");
        }
        if forward {
            // The keys of Encrypted Client Hello are in these records; an empty answer has clients do without.
            for kind in ["HTTPS", "SVCB"] {
                let _ = write!(
                    text,
                    "    template ANY {kind} {{\n        rcode NOERROR\n    }}\n"
                );
            }
            let _ = writeln!(text, "    forward . {}", self.upstream);
        } else {
            text.push_str("    template ANY ANY {\n        rcode NXDOMAIN\n    }\n");
        }
        text.push_str("}\n");
    }
}

fn client(address: IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("incidr(client_ip(), '{address}/{bits}')")
}
