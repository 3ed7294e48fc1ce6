//! CoreDNS's file: which names each agent may ask for, and a line for each query.
//!
//! CoreDNS takes the block with the longest zone that a name is in, of those the first whose `view` holds,
//! and goes on to shorter zones where none holds. So every agent has its zones, each with a view that holds
//! for the names of it that may be asked for, and one block for everything else that answers NXDOMAIN. A
//! block is all open or all closed, and the verdict is a word of its log format.

use crate::agent::{Agent, Fleet};
use crate::names::Regions;
use crate::settings::{READY_NAME, Settings};
use policy::{Action, Policy, Resolver, Selected};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Most characters of a name with its last dot: a policy knows no longer ones.
const MAX_DOTTED: usize = 252;

/// Queries of one block that may wait for an upstream server at a time, so that one that is slow does not fill the memory;
/// more are refused.
const MAX_CONCURRENT: u32 = 1000;

/// A label as policies know them, which neither begins nor ends with a hyphen.
const LABEL: &str = "[_a-z0-9]([-_a-z0-9]*[_a-z0-9])?";

/// Format of the query log's lines in a block. The name is last: whoever asks chooses it, and nothing follows
/// that it could be mistaken for.
fn log_format(verdict: &str) -> String {
    format!(
        "clawker {verdict} {{remote}} {{port}} {{proto}} {{type}} {{rcode}} {{duration}} {{name}}"
    )
}

/// What of a zone may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    /// The name itself.
    Apex,
    /// What is below it and in no longer zone.
    Below,
    /// Both.
    Tree,
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
            view.open(&mut text, &zones(&[".".to_owned()], port), None);
            continue;
        }
        for ((labels, open), names) in open_zones(&selected) {
            let names = zones(&names, port);
            view.open(&mut text, &names, Some(&spelling(labels, open)));
        }
        view.closed(&mut text, port);
    }
    let _ = write!(
        text,
        "\n# Its health check.\n{READY_NAME}.:{port} {{\n{}    view ready {{\n        expr incidr(client_ip(), '127.0.0.1/32')\n    }}\n    errors\n    template IN A {{\n        answer \"{{{{ .Name }}}} 1 IN A 127.0.0.1\"\n    }}\n    template ANY ANY {{\n        rcode NOERROR\n    }}\n}}\n",
        bind(settings),
    );
    let _ = write!(
        text,
        "\n# Nobody that is known.\n.:{port} {{\n{}    log . \"{}\"\n    errors\n    reload 2s\n    template ANY ANY {{\n        rcode REFUSED\n    }}\n}}\n",
        bind(settings),
        log_format("DENIED"),
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

/// Zones by their number of labels and by what of them is open, the names in order. Of a zone that is missing
/// here nothing is open, and neither is anything of the zones around it.
fn open_zones(selected: &Selected<'_>) -> BTreeMap<(usize, Open), Vec<String>> {
    let regions = Regions::of(selected.rules().iter().copied());
    let mut zones: BTreeMap<(usize, Open), Vec<String>> = BTreeMap::new();
    for base in regions.bases() {
        let apex = selected.may_resolve(base);
        let below = selected.may_resolve(&regions.stranger(base));
        let open = match (apex, below) {
            (true, true) => Open::Tree,
            (true, false) => Open::Apex,
            (false, true) => Open::Below,
            (false, false) => continue,
        };
        let labels = base.split('.').count();
        zones
            .entry((labels, open))
            .or_default()
            .push(base.to_owned());
    }
    zones
}

/// How the open names of zones with so many labels are spelled, as an expression. CoreDNS writes a name in
/// small letters, and what is no letter of a name with a backslash: such names are no rule's.
fn spelling(labels: usize, open: Open) -> String {
    let count = match open {
        Open::Apex => format!("{{{labels}}}"),
        Open::Tree => format!("{{{labels},}}"),
        Open::Below => format!("{{{},}}", labels + 1),
    };
    format!("len(name()) <= {MAX_DOTTED} && name() matches '^({LABEL}[.]){count}$'")
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
    /// A block whose names are asked for upstream: all that are in its zones, or those that are spelled so.
    fn open(&self, text: &mut String, zones: &[String], spelling: Option<&str>) {
        self.begin(text, zones, spelling, "ALLOWED");
        // The keys of Encrypted Client Hello are in these records; an empty answer has clients do without.
        for kind in ["HTTPS", "SVCB"] {
            let _ = write!(
                text,
                "    template ANY {kind} {{\n        rcode NOERROR\n    }}\n"
            );
        }
        let _ = writeln!(
            text,
            "    forward . {} {{\n        max_concurrent {MAX_CONCURRENT}\n    }}\n}}",
            self.upstream
        );
    }

    /// The block of every other name.
    fn closed(&self, text: &mut String, port: u16) {
        self.begin(text, &zones(&[".".to_owned()], port), None, "DENIED");
        text.push_str("    template ANY ANY {\n        rcode NXDOMAIN\n    }\n}\n");
    }

    fn begin(&self, text: &mut String, zones: &[String], spelling: Option<&str>, verdict: &str) {
        let from: Vec<String> = self
            .agent
            .addresses
            .iter()
            .map(|addr| client(*addr))
            .collect();
        let from = from.join(" || ");
        let expression = match spelling {
            Some(spelling) => format!("({from}) && {spelling}"),
            None => from,
        };
        let _ = write!(
            text,
            "{} {{\n{}    view agent{} {{\n        expr {expression}\n    }}\n    log . \"{}\"\n    errors\n",
            zones.join(" "),
            bind(self.settings),
            self.number,
            log_format(verdict),
        );
    }
}

fn client(address: IpAddr) -> String {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    format!("incidr(client_ip(), '{address}/{bits}')")
}
