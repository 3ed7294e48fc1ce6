//! A rule as one line of YAML, as short as it can be.

use crate::destination::Destination;
use crate::rule::{PortRange, Proto};
use abi::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use std::fmt;

/// What the line says. The ports are left out where the protocol has its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'r> {
    pub(crate) dst: &'r Destination,
    pub(crate) proto: Proto,
    pub(crate) ports: &'r [PortRange],
    pub(crate) private: bool,
}

/// The word for a protocol and port.
pub(crate) fn word(proto: u8, port: u16) -> Option<Proto> {
    match (proto, port) {
        (IPPROTO_TCP, 443) => Some(Proto::Https),
        (IPPROTO_TCP, 80) => Some(Proto::Http),
        (IPPROTO_TCP, 22) => Some(Proto::Ssh),
        (IPPROTO_TCP, _) => Some(Proto::Tcp),
        (IPPROTO_UDP, _) => Some(Proto::Udp),
        (IPPROTO_ICMP | IPPROTO_ICMPV6, _) => Some(Proto::Icmp),
        _ => None,
    }
}

/// `{dst: db.example, proto: tcp, port: [5432, "6000-6010"]}`.
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dst = scalar(&self.dst.to_string());
        write!(f, "{{dst: {dst}, proto: {}", self.proto)?;
        let own = |own| self.ports == [own];
        match self.ports {
            _ if self.proto.default_ports().is_some_and(own) => {}
            [one] => write!(f, ", port: {}", ports(one))?,
            many => {
                let many: Vec<String> = many.iter().map(ports).collect();
                write!(f, ", port: [{}]", many.join(", "))?;
            }
        }
        if self.private {
            f.write_str(", private: true")?;
        }
        f.write_str("}")
    }
}

fn ports(range: &PortRange) -> String {
    if range.lo == range.hi {
        range.to_string()
    } else {
        format!("\"{range}\"")
    }
}

/// YAML takes colons and stars for more than text.
fn scalar(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'/');
    let word = text.bytes().all(plain) && text.bytes().any(|byte| byte == b'.');
    if word && !text.starts_with('.') {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}
