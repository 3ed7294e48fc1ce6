//! The line to add to a policy to allow what was denied, or why no line would.

use crate::builtin;
use crate::decide::{PORT_DNS, is_dns, names};
use crate::destination::{Destination, Name, judged};
use crate::diagnostic::quoted;
use crate::line::{Line, word};
use crate::rule::{PortRange, Proto};
use abi::IPPROTO_TCP;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use thiserror::Error;

/// A flow that was denied, as its record has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refused<'r> {
    /// `reason`.
    pub reason: &'r str,
    /// `rule`: the deny rule, where one decided.
    pub rule: Option<&'r str>,
    /// `dst_host` or `dst_hosts`.
    pub hosts: &'r [&'r str],
    /// `qname`: the name of a refused look-up.
    pub qname: Option<&'r str>,
    /// `dst_ip`, or `src_ip` of a flow that a peer opened.
    pub addr: Option<IpAddr>,
    /// IANA protocol number, where it is one that rules can be about.
    pub proto: Option<u8>,
    /// Port of `addr`, 0 where there is none.
    pub port: u16,
}

/// The narrowest rule that lets a flow through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Where to.
    pub dst: Destination,
    /// Word for the protocol.
    pub proto: Proto,
    /// Port, where the protocol has none of its own.
    pub port: Option<u16>,
    /// The name led to a private address.
    pub private: bool,
    /// What one should know before adding it.
    pub note: Option<String>,
}

/// Why no rule lets a flow through, and what would.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoRule {
    /// A rule denies it.
    #[error("the rule {} denies it, and deny beats allow: take that rule out or make it narrower", quoted(.0))]
    Denied(String),
    /// The built-in deny set.
    #[error(
        "{addr} is in the built-in deny set ({what}): only `allow_builtin: [{}]` opens it, beside a rule that allows it",
        literal(.addr)
    )]
    Builtin {
        /// The address.
        addr: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// DNS to somebody else.
    #[error(
        "port 53 belongs to the policy's resolvers: to trust this server and its answers, name it in `resolvers: [{}]`",
        literal(.0)
    )]
    Resolver(IpAddr),
    /// DNS over TLS or QUIC.
    #[error("port 853 is closed to everybody: queries must be readable to be judged")]
    DnsOverTls,
    /// A packet that plays the resolver.
    #[error("a packet posed as an answer of a trusted resolver: nothing allows that")]
    Imitation,
    /// Not a plain query.
    #[error("it was not one plain DNS query: nothing but plain queries may go to a resolver")]
    Query,
    /// A raw socket.
    #[error(
        "raw sockets are refused while a policy is enforced; for ping a rule with `proto: icmp` allows ICMP datagram sockets"
    )]
    RawSocket,
    /// A protocol without rules.
    #[error("only tcp, udp and icmp can be allowed; modes audit and observe let others pass")]
    Protocol,
    /// Headers that cannot be followed.
    #[error(
        "its headers (source route, fragments, extension headers) cannot be judged: nothing allows them"
    )]
    Headers,
    /// No memory for the flow's state.
    #[error("the kernel had no memory for the flow's state: no rule was at fault")]
    NoState,
    /// Its cgroup had no configuration.
    #[error("its cgroup was not enrolled: no policy held for it")]
    NotEnrolled,
    /// Seen by the backstop only.
    #[error(
        "no program has judged what sent it: a frame made by hand, a socket made in another cgroup, or the kernel itself"
    )]
    Unjudged,
    /// `inbound: deny`.
    #[error("`inbound: deny` refuses what peers open; `inbound: allow` lets all of it in")]
    Inbound,
    /// A folded record without destination.
    #[error("its record does not tell where it went: it was folded with others")]
    Folded,
    /// Nothing that a rule could name.
    #[error("its record names no destination that a rule could have")]
    NoDestination,
}

impl Refused<'_> {
    /// The narrowest rule that would have let the flow through.
    pub fn suggest(&self) -> Result<Suggestion, NoRule> {
        if let Some(why) = self.beyond_rules() {
            return Err(why);
        }
        if let Some(qname) = self.qname {
            return of_query(qname);
        }
        let proto = self.proto.ok_or(NoRule::Protocol)?;
        let proto = word(proto, self.port).ok_or(NoRule::Protocol)?;
        let port = proto.default_ports().is_none().then_some(self.port);
        if port == Some(0) {
            return Err(NoRule::NoDestination);
        }
        let mut names = names(self.hosts);
        names.sort_unstable();
        let addr = self.addr.map(judged);
        let (dst, private) = match (names.first(), addr) {
            (Some(name), addr) => (
                Destination::Exact(name.clone()),
                addr.is_some_and(builtin::is_private),
            ),
            (None, Some(addr)) => (Destination::Network(IpNet::from(addr)), false),
            (None, None) => return Err(NoRule::NoDestination),
        };
        Ok(Suggestion {
            dst,
            proto,
            port,
            private,
            note: note(names.get(1..).unwrap_or_default(), addr.filter(|_| private)),
        })
    }

    /// What no allow rule changes.
    fn beyond_rules(&self) -> Option<NoRule> {
        let rule = self.rule.map(|rule| NoRule::Denied(rule.to_owned()));
        let addr = self.addr.map(judged);
        let dns = self.proto.is_some_and(|proto| is_dns(proto, self.port));
        match self.reason {
            "builtin" => addr.map(of_builtin),
            "resolver" if !dns => Some(NoRule::Imitation),
            "resolver" => self.of_dns(),
            "query" => Some(NoRule::Query),
            "raw_socket" => Some(NoRule::RawSocket),
            "protocol" => Some(NoRule::Protocol),
            "headers" => Some(NoRule::Headers),
            "no_state" => Some(NoRule::NoState),
            "not_enrolled" => Some(NoRule::NotEnrolled),
            "unjudged" => Some(NoRule::Unjudged),
            "inbound" => Some(NoRule::Inbound),
            "folded" => Some(NoRule::Folded),
            "name" => None,
            _ if dns => self.of_dns(),
            _ => rule,
        }
    }

    fn of_dns(&self) -> Option<NoRule> {
        match self.addr {
            Some(addr) if self.port == PORT_DNS => Some(NoRule::Resolver(judged(addr))),
            _ => Some(NoRule::DnsOverTls),
        }
    }
}

fn of_builtin(addr: IpAddr) -> NoRule {
    let what = builtin::denies(addr, &[], &[]).unwrap_or("the monitor's own network");
    NoRule::Builtin { addr, what }
}

/// Any rule for a name lets it be asked for; https is the likeliest to be wanted.
fn of_query(qname: &str) -> Result<Suggestion, NoRule> {
    let name = Name::parse(qname).map_err(|_| NoRule::NoDestination)?;
    Ok(Suggestion {
        dst: Destination::Exact(name),
        proto: word(IPPROTO_TCP, 443).ok_or(NoRule::Protocol)?,
        port: None,
        private: false,
        note: Some("only the look-up was seen: https is a guess".to_owned()),
    })
}

fn note(others: &[Name], private: Option<IpAddr>) -> Option<String> {
    let others = (!others.is_empty()).then(|| {
        let others: Vec<&str> = others.iter().map(Name::as_str).collect();
        format!("same address as {}", others.join(", "))
    });
    let private = private.map(|addr| format!("led to the private address {addr}"));
    let parts: Vec<String> = [others, private].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// An address inside a YAML list.
fn literal(addr: &IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => addr.to_string(),
        IpAddr::V6(addr) => format!("\"{addr}\""),
    }
}

/// An item of `rules:`, without what stands before its dash: `- {dst: 203.0.113.9, proto: http}`.
impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self
            .port
            .map(|port| PortRange { lo: port, hi: port })
            .or(self.proto.default_ports());
        let line = Line {
            dst: &self.dst,
            proto: self.proto,
            ports: ports.as_slice(),
            private: self.private,
        };
        write!(f, "- {line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<'r>(hosts: &'r [&'r str], addr: &str, proto: u8, port: u16) -> Refused<'r> {
        Refused {
            reason: "default",
            hosts,
            addr: addr.parse().ok(),
            proto: Some(proto),
            port,
            ..Refused::default()
        }
    }

    #[test]
    fn lines_are_as_short_as_they_can_be() {
        for (hosts, addr, proto, port, line) in [
            (
                &[][..],
                "203.0.113.9",
                6,
                80,
                "- {dst: 203.0.113.9, proto: http}",
            ),
            (
                &["Api.GitHub.com."],
                "203.0.113.9",
                6,
                443,
                "- {dst: api.github.com, proto: https}",
            ),
            (
                &["host.internal"],
                "10.0.0.1",
                6,
                22,
                "- {dst: host.internal, proto: ssh, private: true}",
            ),
            (
                &[],
                "2001:db8::1",
                6,
                8443,
                "- {dst: \"2001:db8::1\", proto: tcp, port: 8443}",
            ),
            (
                &["b.example", "a.example"],
                "203.0.113.9",
                17,
                123,
                "- {dst: a.example, proto: udp, port: 123}",
            ),
            (
                &[],
                "198.51.100.1",
                1,
                0,
                "- {dst: 198.51.100.1, proto: icmp}",
            ),
            (
                &[],
                "0.0.0.0",
                6,
                1,
                "- {dst: 127.0.0.1, proto: tcp, port: 1}",
            ),
            (
                &["null"],
                "203.0.113.9",
                6,
                443,
                "- {dst: \"null\", proto: https}",
            ),
        ] {
            let suggestion = refused(hosts, addr, proto, port).suggest().unwrap();
            assert_eq!(suggestion.to_string(), line);
        }
    }

    #[test]
    fn notes_say_what_a_line_does_not() {
        let of = |hosts: &[&str], addr| refused(hosts, addr, 6, 443).suggest().unwrap().note;
        assert_eq!(of(&["a.example"], "203.0.113.9"), None);
        assert_eq!(
            of(&["a.example", "c.example", "b.example"], "10.1.2.3").as_deref(),
            Some("same address as b.example, c.example; led to the private address 10.1.2.3")
        );
        let query = Refused {
            reason: "name",
            qname: Some("x.example"),
            ..refused(&[], "192.0.2.53", 17, 53)
        };
        let suggestion = query.suggest().unwrap();
        assert_eq!(suggestion.to_string(), "- {dst: x.example, proto: https}");
        assert!(suggestion.note.unwrap().contains("guess"));
    }

    #[test]
    fn what_no_rule_allows_says_what_would() {
        let flow = refused(&[], "203.0.113.9", 6, 80);
        let of = |reason, rule, flow: Refused<'_>| {
            let refused = Refused {
                reason,
                rule,
                ..flow
            };
            refused.suggest().unwrap_err()
        };
        let denied = of("rule", Some("no web"), flow);
        assert_eq!(denied, NoRule::Denied("no web".into()));
        let metadata = refused(&[], "169.254.169.254", 6, 80);
        let said = of("builtin", None, metadata).to_string();
        assert!(
            said.contains("`allow_builtin: [169.254.169.254]`"),
            "{said}"
        );
        let dns = refused(&[], "2001:db8::53", 17, 53);
        let said = of("resolver", None, dns).to_string();
        assert!(said.contains("`resolvers: [\"2001:db8::53\"]`"), "{said}");
        let tls = refused(&[], "8.8.8.8", 6, 853);
        assert_eq!(of("resolver", None, tls), NoRule::DnsOverTls);
        assert_eq!(of("resolver", None, flow), NoRule::Imitation);
        for (reason, why) in [
            ("query", NoRule::Query),
            ("raw_socket", NoRule::RawSocket),
            ("protocol", NoRule::Protocol),
            ("headers", NoRule::Headers),
            ("no_state", NoRule::NoState),
            ("not_enrolled", NoRule::NotEnrolled),
            ("unjudged", NoRule::Unjudged),
            ("inbound", NoRule::Inbound),
            ("folded", NoRule::Folded),
        ] {
            assert_eq!(of(reason, None, flow), why);
        }
        let sctp = Refused {
            proto: None,
            ..flow
        };
        assert_eq!(of("default", None, sctp), NoRule::Protocol);
        for nowhere in [Refused { addr: None, ..flow }, Refused { port: 0, ..flow }] {
            assert_eq!(of("default", None, nowhere), NoRule::NoDestination);
        }
        let unspeakable = Refused {
            qname: Some("a b"),
            ..flow
        };
        assert_eq!(of("name", None, unspeakable), NoRule::NoDestination);
    }
}
