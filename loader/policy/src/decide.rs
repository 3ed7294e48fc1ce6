//! The verdict straight from the list of rules, without tries: what `policy explain` prints, and the
//! measure that tests hold the compiled form against.

use crate::builtin;
use crate::cover::includes_name;
use crate::destination::{Destination, Name, judged};
use crate::rule::{Action, PortRange, Rule};
use crate::select::Selected;
use abi::{IPPROTO_TCP, IPPROTO_UDP, PROTO_ANY};
use std::net::IpAddr;

/// DNS (RFC 1035 §4.2).
pub(crate) const PORT_DNS: u16 = 53;
/// DNS over TLS and over QUIC (RFC 7858, RFC 9250).
const PORT_DNS_TLS: u16 = 853;

/// A flow to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'q> {
    /// Names that led to the destination: a rule for any of them counts, as it does in the programs.
    pub hosts: &'q [&'q str],
    /// Address of the destination.
    pub addr: Option<IpAddr>,
    /// IANA protocol number.
    pub proto: u8,
    /// Destination port, 0 where there are none.
    pub port: u16,
    /// The address is one of the trusted resolvers.
    pub resolver: bool,
}

/// Why a verdict is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The built-in deny set; what the destination is.
    Builtin(&'static str),
    /// Ports 53 and 853: the trusted resolvers are asked, nobody else.
    Resolver,
    /// A rule, by number.
    Rule(u32),
    /// No rule names the destination.
    Default,
}

/// What happens under `mode: enforce`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What happens.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Rules that match as well, by number, in the order in which they would have decided.
    pub losers: Vec<u32>,
}

/// Why a rule is not about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It names another name or address.
    Destination,
    /// It is for a name, and no name led to the destination.
    NoName,
    /// It is for addresses, and the destination's is not known.
    NoAddress,
    /// The name leads to a private address, and the rule does not say `private: true`.
    Private,
    /// It is for another protocol.
    Protocol,
    /// It is for other ports.
    Port,
}

/// Whether a port of a protocol is DNS's own.
pub(crate) fn is_dns(proto: u8, port: u16) -> bool {
    matches!(proto, IPPROTO_TCP | IPPROTO_UDP) && matches!(port, PORT_DNS | PORT_DNS_TLS)
}

impl Question<'_> {
    /// The same question about the address that the programs judge.
    pub(crate) fn judged(&self) -> Self {
        let addr = self.addr.map(judged);
        Self { addr, ..*self }
    }
}

impl Selected<'_> {
    /// Judges one flow: built-in set, DNS, deny rules, allow rules, default.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        let question = question.judged();
        let mut matching = self.matching(&question);
        let dns = is_dns(question.proto, question.port);
        let trusted = dns && question.port == PORT_DNS && question.resolver;
        let denied = question
            .addr
            .and_then(|addr| builtin::denies(addr, self.allow_builtin, self.own));
        let (action, reason) = match denied {
            Some(what) if !trusted => (Action::Deny, Reason::Builtin(what)),
            _ if trusted => (Action::Allow, Reason::Resolver),
            _ if dns => (Action::Deny, Reason::Resolver),
            _ if matching.is_empty() => (self.default, Reason::Default),
            _ => {
                let rule = matching.remove(0);
                (self.rules()[rule as usize].action, Reason::Rule(rule))
            }
        };
        Verdict {
            action,
            reason,
            losers: matching,
        }
    }

    /// Whether this name may be asked for at all: something could be allowed under it.
    #[must_use]
    pub fn may_resolve(&self, host: &str) -> bool {
        let allows = |rule: &&Rule| rule.action == Action::Allow;
        self.default == Action::Allow
            || Name::parse(host).is_ok_and(|name| {
                let mut rules = self.rules().iter().copied().filter(allows);
                rules.any(|rule| includes_name(&rule.dst, name.as_str()))
            })
    }

    /// Numbers of the rules that match, those that deny first.
    fn matching(&self, question: &Question<'_>) -> Vec<u32> {
        let hosts = names(question.hosts);
        let matches = |(rule, number): (&&Rule, u32)| {
            let matches = rule.mismatch(question, &hosts).is_none();
            matches.then_some((rule.action == Action::Allow, number))
        };
        let mut found: Vec<(bool, u32)> =
            self.rules().iter().zip(0..).filter_map(matches).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, number)| number).collect()
    }
}

/// The names that a rule could be for.
pub(crate) fn names(hosts: &[&str]) -> Vec<Name> {
    hosts
        .iter()
        .filter_map(|host| Name::parse(host).ok())
        .collect()
}

impl Rule {
    /// Why the rule is not about a flow; `None`: it is. The address is the judged one, and `hosts`
    /// are the question's. Of several reasons it is the one that a reader would look at first.
    pub(crate) fn mismatch(&self, question: &Question<'_>, hosts: &[Name]) -> Option<Mismatch> {
        let proto = |number: &u8| [PROTO_ANY, question.proto].contains(number);
        let port = |ports: &PortRange| (ports.lo..=ports.hi).contains(&question.port);
        let elsewhere = self.elsewhere(question.addr, hosts);
        if elsewhere.is_some() {
            elsewhere
        } else if !self.proto.numbers(&self.dst).iter().any(proto) {
            Some(Mismatch::Protocol)
        } else if !self.ports.iter().any(port) {
            Some(Mismatch::Port)
        } else if self.disbelieves(question.addr) {
            Some(Mismatch::Private)
        } else {
            None
        }
    }

    /// Why the rule's destination is another.
    fn elsewhere(&self, addr: Option<IpAddr>, hosts: &[Name]) -> Option<Mismatch> {
        let inside = match (&self.dst, addr) {
            (Destination::Network(net), Some(addr)) => net.contains(&addr),
            (Destination::Network(_), None) => return Some(Mismatch::NoAddress),
            _ if hosts.is_empty() => return Some(Mismatch::NoName),
            (dst, _) => hosts.iter().any(|host| includes_name(dst, host.as_str())),
        };
        (!inside).then_some(Mismatch::Destination)
    }

    /// A name that leads to a private address is not allowed by that unless the rule says so.
    fn disbelieves(&self, addr: Option<IpAddr>) -> bool {
        let named = !matches!(self.dst, Destination::Network(_));
        named
            && !self.private
            && self.action == Action::Allow
            && addr.is_some_and(builtin::is_private)
    }
}
