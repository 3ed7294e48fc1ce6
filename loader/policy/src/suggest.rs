//! The line to add to a policy to allow what was denied.

use crate::builtin;
use crate::decide::is_dns;
use crate::destination::Destination;
use crate::rule::Proto;
use abi::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};

/// A rule as one line of YAML, such as `- {dst: 203.0.113.9, proto: http}`. `None` where no rule
/// would help: DNS belongs to `resolvers`, the built-in deny set to `allow_builtin`, and some texts
/// are no destinations.
#[must_use]
pub fn suggest(dst: &str, proto: u8, port: u16) -> Option<String> {
    let destination = Destination::parse(dst).ok()?;
    let builtin = match &destination {
        Destination::Network(net) => builtin::covers(net, &[]),
        _ => None,
    };
    if builtin.is_some() || is_dns(proto, port) {
        return None;
    }
    let proto = match (proto, port) {
        (IPPROTO_TCP, 443) => Proto::Https,
        (IPPROTO_TCP, 80) => Proto::Http,
        (IPPROTO_TCP, 22) => Proto::Ssh,
        (IPPROTO_TCP, _) => Proto::Tcp,
        (IPPROTO_UDP, _) => Proto::Udp,
        (IPPROTO_ICMP | IPPROTO_ICMPV6, _) => Proto::Icmp,
        _ => Proto::Any,
    };
    let port = match proto {
        Proto::Tcp | Proto::Udp => format!(", port: {port}"),
        _ => String::new(),
    };
    Some(format!(
        "- {{dst: {}, proto: {proto}{port}}}",
        scalar(&destination.to_string())
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, Question};

    #[test]
    fn lines_are_as_short_as_they_can_be() {
        for (dst, proto, port, line) in [
            ("203.0.113.9", 6, 80, "- {dst: 203.0.113.9, proto: http}"),
            (
                "Api.GitHub.com.",
                6,
                443,
                "- {dst: api.github.com, proto: https}",
            ),
            ("host.internal", 6, 22, "- {dst: host.internal, proto: ssh}"),
            (
                "2001:db8::1",
                6,
                8443,
                "- {dst: \"2001:db8::1\", proto: tcp, port: 8443}",
            ),
            (
                "a.example",
                17,
                123,
                "- {dst: a.example, proto: udp, port: 123}",
            ),
            ("198.51.100.1", 1, 0, "- {dst: 198.51.100.1, proto: icmp}"),
            ("198.51.100.1", 132, 9, "- {dst: 198.51.100.1, proto: any}"),
            ("null", 6, 443, "- {dst: \"null\", proto: https}"),
        ] {
            assert_eq!(suggest(dst, proto, port).as_deref(), Some(line));
        }
    }

    #[test]
    fn a_line_does_what_it_promises() {
        for (dst, proto, port) in [
            ("203.0.113.9", 6, 80),
            ("2001:db8::1", 17, 1),
            ("x", 6, 443),
            ("198.51.100.1", 1, 0),
        ] {
            let source = format!("rules:\n  {}\n", suggest(dst, proto, port).unwrap());
            let policy = Policy::parse(&source).policy.unwrap();
            let addr = dst.parse().ok();
            let question = Question {
                host: Some(dst),
                addr,
                proto,
                port,
                resolver: false,
            };
            let verdict = policy.select(None, None).decide(&question);
            assert_eq!(verdict.action, crate::Action::Allow, "{source}");
        }
    }

    #[test]
    fn no_line_where_no_rule_helps() {
        assert_eq!(suggest("169.254.169.254", 6, 80), None);
        assert_eq!(suggest("8.8.8.8", 17, 53), None);
        assert_eq!(suggest("8.8.8.8", 6, 853), None);
        assert_eq!(suggest("not a name", 6, 443), None);
    }
}
