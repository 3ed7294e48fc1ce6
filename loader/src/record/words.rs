//! Numbers of the kernel side as the words of records.

use abi::{DIRECTION_INGRESS, VERDICT_ALLOWED, VERDICT_BYPASSED, close, reason};

/// One word of a closed list.
pub type Word = &'static str;

/// Verdicts of records.
pub const VERDICTS: [Word; 3] = ["ALLOWED", "DENIED", "BYPASSED"];

/// Directions of records.
pub const DIRECTIONS: [Word; 2] = ["egress", "ingress"];

/// Verdict as in records.
#[must_use]
pub fn verdict(v: u8) -> Word {
    match v {
        VERDICT_ALLOWED => "ALLOWED",
        VERDICT_BYPASSED => "BYPASSED",
        _ => "DENIED",
    }
}

pub(super) fn direction(d: u8) -> Word {
    if d == DIRECTION_INGRESS {
        "ingress"
    } else {
        "egress"
    }
}

/// Protocol as in records.
#[must_use]
pub fn proto(n: u8) -> String {
    match n {
        abi::IPPROTO_TCP => "tcp".to_owned(),
        abi::IPPROTO_UDP => "udp".to_owned(),
        abi::IPPROTO_ICMP => "icmp".to_owned(),
        abi::IPPROTO_ICMPV6 => "icmp6".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        255 => "raw".to_owned(),
        n => n.to_string(),
    }
}

/// Protocol of a record as a number, where it is one that rules can be about.
#[must_use]
pub fn proto_number(name: &str) -> Option<u8> {
    let known = [
        abi::IPPROTO_TCP,
        abi::IPPROTO_UDP,
        abi::IPPROTO_ICMP,
        abi::IPPROTO_ICMPV6,
    ];
    known.into_iter().find(|number| proto(*number) == name)
}

/// Reasons of a verdict, by number.
pub const REASONS: [Word; reason::COUNT] = [
    "rule",
    "default",
    "builtin",
    "bypass",
    "observe",
    "raw_socket",
    "protocol",
    "resolver",
    "name",
    "query",
    "no_state",
    "mid_stream",
    "not_enrolled",
    "inbound",
    "headers",
    "unjudged",
    "no_proxy_path",
];

/// Reason of a folded record that tells destinations not apart.
pub const FOLDED: Word = "folded";

/// Why flows end, by number less one.
pub const CLOSE_REASONS: [Word; close::COUNT as usize - 1] = [
    "fin",
    "rst",
    "refused",
    "timeout",
    "unreachable",
    "idle",
    "replaced",
    "policy",
    "denied",
    "container_exit",
    "upgraded",
    "detached",
];

/// Reason as in records.
#[must_use]
pub fn reason_name(r: u8) -> Word {
    REASONS.get(usize::from(r)).copied().unwrap_or("unknown")
}

/// Close reason as in records; nothing for a live flow.
pub(super) fn close_name(c: u64) -> Option<Word> {
    let at = usize::try_from(c).ok()?.checked_sub(1)?;
    Some(CLOSE_REASONS.get(at).copied().unwrap_or("unknown"))
}
