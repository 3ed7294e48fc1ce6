//! The rule as the rest of the system sees it: typed, normalised, knowing where it was written.

use crate::destination::Destination;
use abi::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, PROTO_ANY};
use ipnet::IpNet;
use std::fmt;
use std::ops::Range;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It passes.
    Allow,
    /// It is refused.
    Deny,
}

/// `proto:` as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    /// HTTP over TLS, TCP 443.
    Https,
    /// HTTP, TCP 80.
    Http,
    /// WebSocket, TCP 80.
    Ws,
    /// WebSocket over TLS, TCP 443.
    Wss,
    /// TCP 22.
    Ssh,
    /// TCP, ports required.
    Tcp,
    /// UDP, ports required.
    Udp,
    /// ICMP for IPv4, ICMPv6 for IPv6.
    Icmp,
    /// Every protocol.
    Any,
}

impl Proto {
    /// Ports when the rule names none: the protocol's own, none where ports are required, all where
    /// there is nothing to tell apart.
    pub(crate) fn default_ports(self) -> Option<PortRange> {
        match self {
            Self::Https | Self::Wss => Some(PortRange { lo: 443, hi: 443 }),
            Self::Http | Self::Ws => Some(PortRange { lo: 80, hi: 80 }),
            Self::Ssh => Some(PortRange { lo: 22, hi: 22 }),
            Self::Icmp | Self::Any => Some(PortRange::ALL),
            Self::Tcp | Self::Udp => None,
        }
    }

    /// Whether requests have a method and a path.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Https | Self::Http | Self::Ws | Self::Wss)
    }

    /// IANA numbers that the rule stands for towards a destination.
    pub(crate) fn numbers(self, dst: &Destination) -> &'static [u8] {
        match (self, dst) {
            (Self::Any, _) => &[PROTO_ANY],
            (Self::Udp, _) => &[IPPROTO_UDP],
            (Self::Icmp, Destination::Network(IpNet::V4(_))) => &[IPPROTO_ICMP],
            (Self::Icmp, Destination::Network(IpNet::V6(_))) => &[IPPROTO_ICMPV6],
            (Self::Icmp, _) => &[IPPROTO_ICMP, IPPROTO_ICMPV6],
            _ => &[IPPROTO_TCP],
        }
    }
}

/// Ports from `lo` to `hi`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    /// First port.
    pub lo: u16,
    /// Last port.
    pub hi: u16,
}

impl PortRange {
    /// Every port, and the zero of protocols without ports.
    pub const ALL: Self = Self {
        lo: 0,
        hi: u16::MAX,
    };
}

/// Which paths a path rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Paths that start with this.
    Prefix(String),
    /// Paths that this RE2 expression matches as a whole.
    Regex(String),
}

/// One entry of `path_rules`; the first that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Which paths.
    pub path: PathMatch,
    /// Which methods; none is every method.
    pub methods: Vec<String>,
    /// What happens.
    pub action: Action,
    /// Line in the file, from 1.
    pub line: usize,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `name:`.
    pub name: Option<String>,
    /// Position in the file: `rules[1]`, `projects.acme.domains[0]`.
    pub place: String,
    /// Bytes of the rule's destination in the file.
    pub span: Range<usize>,
    /// Line in the file, from 1.
    pub line: usize,
    /// Destination.
    pub dst: Destination,
    /// Protocol as written.
    pub proto: Proto,
    /// Ports, sorted and apart from each other.
    pub ports: Vec<PortRange>,
    /// What happens.
    pub action: Action,
    /// Path rules, in file order.
    pub path_rules: Vec<PathRule>,
    /// What happens to requests that no path rule names.
    pub path_default: Action,
    /// The proxy does not check the server's certificate.
    pub insecure_skip_tls_verify: bool,
    /// A name that may lead to private addresses.
    pub private: bool,
}

impl Rule {
    /// How records and messages call the rule: its name, else its position.
    #[must_use]
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.place)
    }

    /// Whether what the rule allows goes through the proxy where there is one: requests to a host, and whatever has
    /// path rules. `intercept`: the policy's word on TLS without path rules.
    #[must_use]
    pub fn is_proxied(&self, intercept: bool) -> bool {
        let host = match self.dst {
            Destination::Network(net) => net.prefix_len() == net.max_prefix_len(),
            Destination::Exact(_) | Destination::Below(_) | Destination::Tree(_) => true,
        };
        let readable = intercept || matches!(self.proto, Proto::Http | Proto::Ws);
        self.proto.is_http() && (!self.path_rules.is_empty() || host && readable)
    }

    /// Whether the rule is about exactly the same as another.
    pub(crate) fn same_pattern(&self, other: &Self) -> bool {
        self.dst == other.dst && self.proto == other.proto && self.ports == other.ports
    }

    /// Whether the rule does the same as another, wherever they stand.
    pub(crate) fn same_settings(&self, other: &Self) -> bool {
        let paths = |rule: &Self| {
            rule.path_rules
                .iter()
                .map(|p| (p.path.clone(), p.methods.clone(), p.action))
                .collect()
        };
        let (mine, theirs): (Vec<_>, Vec<_>) = (paths(self), paths(other));
        mine == theirs
            && (mine.is_empty() || self.path_default == other.path_default)
            && self.insecure_skip_tls_verify == other.insecure_skip_tls_verify
            && self.private == other.private
    }
}

/// The rule on one line: `allow https api.github.com:443`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.action, self.proto)?;
        match (&self.dst, self.ports.as_slice()) {
            (dst, [PortRange::ALL]) => write!(f, "{dst}")?,
            (Destination::Network(IpNet::V6(_)), _) => write!(f, "[{}]:", self.dst)?,
            (dst, _) => write!(f, "{dst}:")?,
        }
        if self.ports != [PortRange::ALL] {
            for (i, ports) in self.ports.iter().enumerate() {
                write!(f, "{}{ports}", if i == 0 { "" } else { "," })?;
            }
        }
        if self.path_rules.is_empty() {
            Ok(())
        } else {
            f.write_str(" with path rules")
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lo == self.hi {
            write!(f, "{}", self.lo)
        } else {
            write!(f, "{}-{}", self.lo, self.hi)
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Ssh => "ssh",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Any => "any",
        })
    }
}
