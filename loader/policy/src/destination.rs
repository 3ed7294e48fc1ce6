//! Where a rule points: a name, what is below a name, both, or a network.
//!
//! Parsing normalises: names become lower-case A-labels without trailing dot, IPv4-mapped IPv6
//! becomes IPv4. Two destinations are the same pattern exactly when they are equal.

use abi::MAX_NAME;
use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens};
use ipnet::{IpNet, Ipv4Net};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use thiserror::Error;

/// Longest label of a name (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// Bits in front of the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_BITS: u8 = 96;

/// A DNS name as the programs compare it: lower-case A-labels, no trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Where a rule points.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// `example.com`: this name.
    Exact(Name),
    /// `*.example.com`: everything below this name.
    Below(Name),
    /// `.example.com`: this name and everything below it.
    Tree(Name),
    /// An address or a network.
    Network(IpNet),
}

/// Why a text is no destination.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DestinationError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// `https://host/path`.
    #[error("is a URL, not a name")]
    Url(String),
    /// `host:443`.
    #[error("has a port in it")]
    Port(String),
    /// `[2001:db8::1]`.
    #[error("has brackets around it")]
    Brackets,
    /// Digits and dots that are no address.
    #[error("is not an IPv4 address")]
    NotIpv4,
    /// Something with colons that is no address.
    #[error("is not an IPv6 address")]
    NotIpv6,
    /// Something with a slash that is no network.
    #[error("is not a network")]
    NotNetwork,
    /// A network with bits behind its prefix; holds the network that was probably meant.
    #[error("has bits set behind its prefix")]
    HostBits(IpNet),
    /// A star that is not the whole first label.
    #[error("has a star in the wrong place")]
    Star,
    /// A name with an empty label, a forbidden character, or bad IDNA.
    #[error("is not a name")]
    NotName(&'static str),
}

impl DestinationError {
    /// What holds instead, for the caret.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Empty | Self::Url(_) | Self::Brackets => {
                "must be a name, address or network".into()
            }
            Self::Port(_) => "ports have a key of their own".into(),
            Self::NotIpv4 => "a name cannot end in a number, an address has four".into(),
            Self::NotIpv6 => "only IPv6 addresses have colons".into(),
            Self::NotNetwork => "must be an address, `/` and the bits of its prefix".into(),
            Self::HostBits(_) => "must be zero behind the prefix".into(),
            Self::Star => "a star stands alone before the first dot".into(),
            Self::NotName(why) => (*why).into(),
        }
    }

    /// What to write.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Url(host) if !host.is_empty() => Some(format!("write `{host}`")),
            Self::Port(host) => Some(format!("write `{host}` and a `port` key")),
            Self::Brackets => Some("write the address without brackets".into()),
            Self::HostBits(net) => {
                let host = IpNet::from(net.addr());
                Some(format!(
                    "the network is `{}`, the address alone `{}`",
                    net.trunc(),
                    host.addr()
                ))
            }
            Self::Star => Some("`*.example.com` is everything below example.com".into()),
            _ => None,
        }
    }
}

impl Name {
    /// Normalises a name; fails on what no DNS query can ask for.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DestinationError::Empty);
        }
        let ascii = idna::uts46::Uts46::new()
            .to_ascii(
                text.as_bytes(),
                AsciiDenyList::EMPTY,
                Hyphens::Allow,
                DnsLength::Ignore,
            )
            .map_err(|_| DestinationError::NotName("not valid in an internationalised name"))?;
        check_labels(&ascii)?;
        Ok(Self(ascii.into_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_labels(name: &str) -> Result<(), DestinationError> {
    if name.len() > MAX_NAME {
        return Err(DestinationError::NotName(
            "names have at most 251 characters",
        ));
    }
    for label in name.split('.') {
        check_label(label).map_err(DestinationError::NotName)?;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    // The resolver library takes these for addresses (RFC 3986 §7.4), so no query ever has them.
    if digits(last) || last.strip_prefix("0x").is_some_and(hex) {
        return Err(DestinationError::NotIpv4);
    }
    Ok(())
}

fn check_label(label: &str) -> Result<(), &'static str> {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if label.is_empty() {
        Err("two dots in a row or at the start")
    } else if label.len() > MAX_LABEL {
        Err("a part between dots has at most 63 characters")
    } else if !label.bytes().all(allowed) {
        Err("names have letters, digits, `-`, `_` and dots")
    } else if label.starts_with('-') || label.ends_with('-') {
        Err("a part between dots does not start or end with `-`")
    } else {
        Ok(())
    }
}

impl Destination {
    /// Reads what stands behind `dst:`.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        if text.is_empty() {
            return Err(DestinationError::Empty);
        }
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', '?', '#', ':']).next().unwrap_or_default();
            return Err(DestinationError::Url(host.to_owned()));
        }
        if text.starts_with('[') {
            return Err(DestinationError::Brackets);
        }
        if text.contains('/') {
            return network(text).map(Self::Network);
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Self::Network(canonical(IpNet::from(addr))));
        }
        if text.contains(':') {
            return Err(colons(text));
        }
        pattern(text)
    }

    /// The single address of the destination.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => Some(net.addr()),
            _ => None,
        }
    }
}

fn colons(text: &str) -> DestinationError {
    match text.split_once(':') {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            DestinationError::Port(host.to_owned())
        }
        _ => DestinationError::NotIpv6,
    }
}

fn network(text: &str) -> Result<IpNet, DestinationError> {
    let net: IpNet = text.parse().map_err(|_| DestinationError::NotNetwork)?;
    if net.trunc() != net {
        return Err(DestinationError::HostBits(canonical(net)));
    }
    Ok(canonical(net))
}

/// The network in the family that the programs see it in.
fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else {
        return net;
    };
    let mapped = v6.addr().to_ipv4_mapped();
    let bits = v6.prefix_len().checked_sub(MAPPED_BITS);
    match (mapped, bits) {
        (Some(v4), Some(bits)) => Ipv4Net::new(v4, bits).map_or(net, IpNet::V4),
        _ => net,
    }
}

fn pattern(text: &str) -> Result<Destination, DestinationError> {
    if let Some(rest) = text.strip_prefix("*.") {
        return below(rest).map(Destination::Below);
    }
    if let Some(rest) = text.strip_prefix('.') {
        return below(rest).map(Destination::Tree);
    }
    if text.contains('*') {
        return Err(DestinationError::Star);
    }
    Name::parse(text).map(Destination::Exact)
}

fn below(text: &str) -> Result<Name, DestinationError> {
    if text.contains('*') {
        return Err(DestinationError::Star);
    }
    Name::parse(text)
}

/// The address as the programs judge it: mapped IPv4 is IPv4, and what is sent to the unspecified
/// address goes to loopback.
#[must_use]
pub fn judged(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        addr => addr,
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Tree(name) => write!(f, ".{name}"),
            Self::Network(net) => match self.address() {
                Some(addr) => write!(f, "{addr}"),
                None => write!(f, "{net}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_normalised() {
        for (text, normal) in [
            ("API.GitHub.com.", "api.github.com"),
            ("*.Example.com", "*.example.com"),
            (".example.com", ".example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("faß.de", "xn--fa-hia.de"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("r3---sn-x.example", "r3---sn-x.example"),
            ("db", "db"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::1", "2001:db8::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(
                Destination::parse(text).map(|dst| dst.to_string()),
                Ok(normal.into())
            );
        }
        let longest = vec!["a".repeat(62); 4].join(".");
        assert_eq!(longest.len(), MAX_NAME);
        assert!(Destination::parse(&longest).is_ok());
        assert!(Destination::parse(&format!("{longest}a")).is_err());
    }

    #[test]
    fn what_is_no_destination_says_what_it_is() {
        use DestinationError as E;
        let long_label = "a".repeat(64);
        for (text, error) in [
            ("", E::Empty),
            (".", E::Empty),
            (
                "https://api.github.com:443/x",
                E::Url("api.github.com".into()),
            ),
            ("api.github.com:443", E::Port("api.github.com".into())),
            ("[2001:db8::1]", E::Brackets),
            ("10.0.0.300", E::NotIpv4),
            ("1.1", E::NotIpv4),
            ("x.0x7f", E::NotIpv4),
            ("0x7f000001", E::NotIpv4),
            ("１２７.0.0.1", E::NotIpv4),
            ("2001:db8::g", E::NotIpv6),
            ("fe80::1%eth0", E::NotIpv6),
            ("10.0.0.0/33", E::NotNetwork),
            ("example.com/24", E::NotNetwork),
            ("10.1.2.3/8", E::HostBits("10.1.2.3/8".parse().unwrap())),
            (
                "::ffff:10.0.0.1/120",
                E::HostBits("10.0.0.1/24".parse().unwrap()),
            ),
            ("*", E::Star),
            ("a.*.com", E::Star),
            ("*x.com", E::Star),
            ("*.*.com", E::Star),
            ("a..b", E::NotName("two dots in a row or at the start")),
            ("..b", E::NotName("two dots in a row or at the start")),
            (
                "a b",
                E::NotName("names have letters, digits, `-`, `_` and dots"),
            ),
            (
                "-a.com",
                E::NotName("a part between dots does not start or end with `-`"),
            ),
            (
                &long_label,
                E::NotName("a part between dots has at most 63 characters"),
            ),
            (
                "xn--a.com",
                E::NotName("not valid in an internationalised name"),
            ),
        ] {
            assert_eq!(Destination::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_unspecified_address_is_loopback() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(judged(ip("0.0.0.0")), ip("127.0.0.1"));
        assert_eq!(judged(ip("::")), ip("::1"));
        assert_eq!(judged(ip("::ffff:0.0.0.0")), ip("127.0.0.1"));
        assert_eq!(judged(ip("::ffff:192.0.2.7")), ip("192.0.2.7"));
    }
}
