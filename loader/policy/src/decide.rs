//! The verdict straight from the list of rules, without tries: what `policy explain` prints, and the
//! measure that tests hold the compiled form against.

use crate::builtin;
use crate::cover::includes_name;
use crate::destination::{Destination, Name, judged};
use crate::rule::{Action, Rule};
use crate::select::Selected;
use abi::{IPPROTO_TCP, IPPROTO_UDP, PROTO_ANY};
use std::net::IpAddr;

/// DNS (RFC 1035 §4.2).
const PORT_DNS: u16 = 53;
/// DNS over TLS and over QUIC (RFC 7858, RFC 9250).
const PORT_DNS_TLS: u16 = 853;

/// A flow to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'q> {
    /// Name that led to the destination.
    pub host: Option<&'q str>,
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

/// Whether a port of a protocol is DNS's own.
pub(crate) fn is_dns(proto: u8, port: u16) -> bool {
    matches!(proto, IPPROTO_TCP | IPPROTO_UDP) && matches!(port, PORT_DNS | PORT_DNS_TLS)
}

impl Selected<'_> {
    /// Judges one flow: built-in set, DNS, deny rules, allow rules, default.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        let addr = question.addr.map(judged);
        let question = Question { addr, ..*question };
        let mut matching = self.matching(&question);
        let dns = is_dns(question.proto, question.port);
        let trusted = dns && question.port == PORT_DNS && question.resolver;
        let denied = addr.and_then(|addr| builtin::denies(addr, self.allow_builtin));
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
        let host = question.host.and_then(|host| Name::parse(host).ok());
        let matches = |(rule, number): (&&Rule, u32)| {
            rule.matches(question, host.as_ref())
                .then_some((rule.action == Action::Allow, number))
        };
        let mut found: Vec<(bool, u32)> =
            self.rules().iter().zip(0..).filter_map(matches).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, number)| number).collect()
    }
}

impl Rule {
    fn matches(&self, question: &Question<'_>, host: Option<&Name>) -> bool {
        let numbers = self.proto.numbers(&self.dst);
        let proto = numbers
            .iter()
            .any(|number| [PROTO_ANY, question.proto].contains(number));
        let ports = &self.ports;
        let port = ports
            .iter()
            .any(|ports| (ports.lo..=ports.hi).contains(&question.port));
        proto && port && self.includes(question.addr, host)
    }

    /// A name that leads to a private address is not allowed by that unless the rule says so.
    fn includes(&self, addr: Option<IpAddr>, host: Option<&Name>) -> bool {
        if let Destination::Network(net) = &self.dst {
            return addr.is_some_and(|addr| net.contains(&addr));
        }
        let believed =
            self.private || self.action == Action::Deny || !addr.is_some_and(builtin::is_private);
        believed && host.is_some_and(|host| includes_name(&self.dst, host.as_str()))
    }
}
