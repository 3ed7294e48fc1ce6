//! A destination as somebody types it: `api.github.com:443`, `[2001:db8::1]:443`, an address for ICMP.

use crate::decide::Question;
use crate::destination::{Destination, DestinationError, Name, judged};
use crate::diagnostic::quoted;
use crate::rule::{PortRange, Proto};
use crate::values::{PortError, port_number};
use abi::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use std::fmt;
use std::net::IpAddr;
use thiserror::Error;

/// Words for the protocol of a destination: those of `proto` but `any`.
pub const TARGET_PROTOS: [(&str, Proto); 8] = [
    ("tcp", Proto::Tcp),
    ("udp", Proto::Udp),
    ("icmp", Proto::Icmp),
    ("https", Proto::Https),
    ("http", Proto::Http),
    ("wss", Proto::Wss),
    ("ws", Proto::Ws),
    ("ssh", Proto::Ssh),
];

/// One destination to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name, if it was given by name.
    pub host: Option<Name>,
    /// The address, where it is known.
    pub addr: Option<IpAddr>,
    /// IANA protocol number.
    pub proto: u8,
    /// Port; 0 for ICMP.
    pub port: u16,
}

/// Why a text is no destination to ask about.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// No port, and a protocol without one of its own.
    #[error("{} has no port", quoted(.0))]
    NoPort(String),
    /// A port behind an ICMP destination.
    #[error("{} has a port", quoted(.0))]
    IcmpPort(String),
    /// A port that is none.
    #[error("port {} {error}", quoted(text))]
    Port {
        /// As typed.
        text: String,
        /// What is wrong with it.
        error: PortError,
    },
    /// No destination at all.
    #[error("destination {} {error}", quoted(text))]
    Destination {
        /// As typed, without port.
        text: String,
        /// What is wrong with it.
        error: DestinationError,
    },
    /// A network or a pattern of names.
    #[error("{} is more than one destination", quoted(.0))]
    Many(String),
}

impl TargetError {
    /// What holds instead, for the caret.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::NoPort(_) => "must be like `api.github.com:443` or `[2001:db8::1]:443`".into(),
            Self::IcmpPort(_) => "icmp has no ports".into(),
            Self::Port { error, .. } => error.label().into(),
            Self::Destination { error, .. } => error.label(),
            Self::Many(_) => "must be one name or one address".into(),
        }
    }

    /// What to write.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Destination { error, .. } => error.help(),
            _ => None,
        }
    }
}

impl Target {
    /// Reads `host:port`, `address:port` or `[address]:port`; the port may be left out where the
    /// protocol has one of its own, and must be for ICMP. Without `proto` it is TCP.
    pub fn parse(text: &str, proto: Option<Proto>) -> Result<Self, TargetError> {
        let proto = proto.unwrap_or(Proto::Tcp);
        let (host, port) = split(text);
        let dst = destination(host)?;
        let port = match (port, proto.default_ports()) {
            (Some(_), Some(PortRange::ALL)) => return Err(TargetError::IcmpPort(text.to_owned())),
            (Some(port), _) => port_number(port).map_err(|error| TargetError::Port {
                text: port.to_owned(),
                error,
            })?,
            (None, Some(own)) => own.lo,
            (None, None) => return Err(TargetError::NoPort(text.to_owned())),
        };
        let addr = dst.address();
        // A rule for a name means both kinds of ICMP, so that either stands for them.
        let proto = proto.numbers(&dst)[0];
        let host = match dst {
            Destination::Exact(name) => Some(name),
            _ => None,
        };
        Ok(Self {
            host,
            addr,
            proto,
            port,
        })
    }

    /// Asks `ask` about the destination. `trusted` are the addresses of the policy's resolvers.
    pub fn ask<T>(&self, trusted: &[IpAddr], ask: impl FnOnce(&Question<'_>) -> T) -> T {
        let host = self.host.as_ref().map(Name::as_str);
        ask(&Question {
            hosts: host.as_slice(),
            addr: self.addr,
            proto: self.proto,
            port: self.port,
            resolver: self.addr.is_some_and(|addr| is_trusted(addr, trusted)),
        })
    }

    /// The same destination where its name leads to this address.
    #[must_use]
    pub fn leading_to(self, addr: IpAddr) -> Self {
        let addr = judged(addr);
        let proto = match (self.proto, addr) {
            (IPPROTO_ICMP | IPPROTO_ICMPV6, IpAddr::V4(_)) => IPPROTO_ICMP,
            (IPPROTO_ICMP | IPPROTO_ICMPV6, IpAddr::V6(_)) => IPPROTO_ICMPV6,
            (other, _) => other,
        };
        Self {
            addr: Some(addr),
            proto,
            ..self
        }
    }
}

/// Whether an address is that of a trusted resolver.
pub(crate) fn is_trusted(addr: IpAddr, trusted: &[IpAddr]) -> bool {
    trusted.iter().any(|one| judged(*one) == judged(addr))
}

/// What stands before the port, and the port. An IPv6 address without brackets has none.
fn split(text: &str) -> (&str, Option<&str>) {
    let bare = |host: &'_ str| text.starts_with('[') && host.ends_with(']');
    if let Some((host, port)) = text.rsplit_once(':')
        && (!host.contains(':') || bare(host))
    {
        return (unbracketed(host), Some(port));
    }
    (unbracketed(text), None)
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn destination(text: &str) -> Result<Destination, TargetError> {
    let dst = Destination::parse(text).map_err(|error| TargetError::Destination {
        text: text.to_owned(),
        error,
    })?;
    let one = matches!(dst, Destination::Exact(_)) || dst.address().is_some();
    one.then_some(dst)
        .ok_or_else(|| TargetError::Many(text.to_owned()))
}

/// The destination as it is typed: `api.github.com:443`, `[2001:db8::1]:443`, `192.0.2.7`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.addr) {
            (Some(name), _) => write!(f, "{name}")?,
            (None, Some(IpAddr::V6(addr))) if self.port != 0 => write!(f, "[{addr}]")?,
            (None, Some(addr)) => write!(f, "{addr}")?,
            (None, None) => {}
        }
        if self.port == 0 {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, proto: Proto) -> Result<(String, u8), String> {
        let target = Target::parse(text, Some(proto)).map_err(|error| error.to_string())?;
        Ok((target.to_string(), target.proto))
    }

    #[test]
    fn destinations_are_read_with_and_without_port() {
        for (text, proto, shown, number) in [
            ("API.github.com.:443", Proto::Tcp, "api.github.com:443", 6),
            ("api.github.com", Proto::Https, "api.github.com:443", 6),
            ("api.github.com:8443", Proto::Wss, "api.github.com:8443", 6),
            ("git.example", Proto::Ssh, "git.example:22", 6),
            ("192.0.2.7:53", Proto::Udp, "192.0.2.7:53", 17),
            ("[2001:db8::1]:443", Proto::Tcp, "[2001:db8::1]:443", 6),
            ("[2001:db8::1]", Proto::Http, "[2001:db8::1]:80", 6),
            ("2001:db8::1", Proto::Icmp, "2001:db8::1", 58),
            ("192.0.2.7", Proto::Icmp, "192.0.2.7", 1),
            ("::ffff:192.0.2.7", Proto::Icmp, "192.0.2.7", 1),
            ("host.example", Proto::Icmp, "host.example", 1),
        ] {
            assert_eq!(read(text, proto), Ok((shown.into(), number)), "{text}");
        }
    }

    #[test]
    fn what_is_no_single_destination_says_so() {
        for (text, proto, error) in [
            ("api.github.com", Proto::Tcp, "`api.github.com` has no port"),
            ("2001:db8::1", Proto::Udp, "`2001:db8::1` has no port"),
            ("a.example:0", Proto::Tcp, "port `0` is out of range"),
            (
                "a.example:https",
                Proto::Tcp,
                "port `https` is not a number",
            ),
            ("a.example:443", Proto::Icmp, "`a.example:443` has a port"),
            (
                "*.a.example:443",
                Proto::Tcp,
                "`*.a.example` is more than one destination",
            ),
            (
                "192.0.2.0/24:443",
                Proto::Tcp,
                "`192.0.2.0/24` is more than one destination",
            ),
            ("a..b:1", Proto::Tcp, "destination `a..b` is not a name"),
            (":443", Proto::Tcp, "destination `` is empty"),
        ] {
            assert_eq!(read(text, proto), Err(error.into()), "{text}");
        }
    }
}
