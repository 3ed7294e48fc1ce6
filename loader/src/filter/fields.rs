//! Fields of a flow by name: every field of the record, and short names for what is asked most.

use super::Test;
use crate::record::{CLOSE_REASONS, DIRECTIONS, REASONS, Record, VERDICTS};
use jiff::Timestamp;
use std::net::IpAddr;

/// One name of the language.
#[derive(Debug)]
pub struct Field {
    /// As written in an expression.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether records have a field of this name.
    pub in_record: bool,
    pub(super) get: Get,
}

/// How a field's value is had, and so what it can be compared with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Get {
    /// Texts of which one must do; no text at all is the empty one.
    Text(fn(&Record) -> Vec<&str>),
    /// The same, of a closed list.
    Word(fn(&Record) -> &str, &'static [&'static str]),
    /// A protocol, by name or number.
    Proto(fn(&Record) -> &str),
    /// A count; absent compares with nothing.
    Number(fn(&Record) -> Option<u64>),
    /// Bytes.
    Size(fn(&Record) -> Option<u64>),
    /// A duration: the value, nanoseconds in one of its units, and whether a bare number is one.
    Span(fn(&Record) -> Option<u64>, u64, Bare),
    /// An address.
    Addr(fn(&Record) -> Option<IpAddr>),
    /// A place: an address and the names it is known by.
    Place(fn(&Record) -> Option<IpAddr>, fn(&Record) -> Vec<&str>),
    /// A moment.
    Time(fn(&Record) -> Option<Timestamp>),
    /// Yes or no.
    Flag(fn(&Record) -> bool),
}

/// Whether a duration may be written without a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bare {
    Counts,
    IsAMistake,
}

impl Get {
    /// Whether a record's value passes. An absent value passes nothing but what holds for the empty text.
    pub(super) fn holds(self, r: &Record, test: &Test) -> bool {
        match self {
            Self::Text(get) => match get(r).as_slice() {
                [] => text("", test),
                some => some.iter().any(|t| text(t, test)),
            },
            Self::Word(get, _) | Self::Proto(get) => text(get(r), test),
            Self::Number(get) | Self::Size(get) | Self::Span(get, ..) => number(get(r), test),
            Self::Addr(get) => address(get(r), test),
            Self::Place(get, names) => {
                let names = names(r);
                names.iter().any(|n| text(n, test))
                    || address(get(r), test)
                    || (names.is_empty() && get(r).is_none() && text("", test))
            }
            Self::Time(get) => match (get(r), test) {
                (Some(t), Test::Time(order, at)) => order.holds(&t, at),
                _ => false,
            },
            Self::Flag(get) => *test == Test::True(get(r)),
        }
    }
}

fn text(value: &str, test: &Test) -> bool {
    match test {
        Test::Is(wanted) => value.to_lowercase() == *wanted,
        Test::Contains(part) => value.to_lowercase().contains(part),
        _ => false,
    }
}

fn number(value: Option<u64>, test: &Test) -> bool {
    match (value, test) {
        (Some(n), Test::Number(order, wanted)) => order.holds(&n, wanted),
        _ => false,
    }
}

fn address(value: Option<IpAddr>, test: &Test) -> bool {
    match (value, test) {
        (Some(ip), Test::Within(net)) => net.contains(&ip),
        (Some(ip), Test::Contains(_)) => text(&ip.to_string(), test),
        _ => false,
    }
}

fn some(text: Option<&String>) -> Vec<&str> {
    text.map(String::as_str).into_iter().collect()
}

fn names(r: &Record) -> Vec<&str> {
    let all = r.dst_host.iter().chain(&r.dst_hosts);
    all.map(String::as_str).collect()
}

fn names_and_query(r: &Record) -> Vec<&str> {
    let mut all = names(r);
    all.extend(r.qname.as_deref());
    all
}

const fn short(name: &'static str, help: &'static str, get: Get) -> Field {
    Field {
        name,
        help,
        in_record: false,
        get,
    }
}

const fn field(name: &'static str, help: &'static str, get: Get) -> Field {
    Field {
        name,
        help,
        in_record: true,
        get,
    }
}

const MILLI: u64 = 1_000_000;
const MICRO: u64 = 1_000;

use Get::{Addr, Flag, Number, Place, Proto, Size, Span, Text, Time, Word};

/// Every field: short names first, then those of records in their order.
#[rustfmt::skip]
pub static FIELDS: [Field; 46] = [
    short("dst", "where to: address, network (10.0.0.0/8) or DNS name", Place(|r| r.dst_ip, names)),
    short("src", "where from: address or network", Addr(|r| r.src_ip)),
    short("host", "DNS names of the destination, and the name of a refused query", Text(names_and_query)),
    short("port", "destination port", Number(|r| r.dst_port.map(u64::from))),
    short("sport", "source port", Number(|r| r.src_port.map(u64::from))),
    short("proto", "protocol: tcp, udp, icmp, … or its number", Proto(|r| &r.l4_proto)),
    short("bytes", "payload both ways: 1000, 1k, 1M, 1KiB, …", Size(|r| Some(r.bytes_in.saturating_add(r.bytes_out)))),
    short("in", "payload that arrived", Size(|r| Some(r.bytes_in))),
    short("out", "payload that left", Size(|r| Some(r.bytes_out))),
    short("packets", "packets both ways", Number(|r| Some(r.packets_in.saturating_add(r.packets_out)))),
    short("duration", "with its unit: 250ms, 2s, 5m, 1h", Span(|r| Some(r.duration_ms), MILLI, Bare::IsAMistake)),
    short("rtt", "round trip of TCP, with its unit: 300us, 20ms", Span(|r| r.rtt_us.map(u64::from), MICRO, Bare::IsAMistake)),
    short("close", "why it ended", Word(|r| r.close_reason.unwrap_or(""), &CLOSE_REASONS)),
    field("time", "end of the flow: 2026-01-31T08:00:00Z", Time(|r| Some(r.time))),
    field("agent", "agent", Text(|r| some(r.agent.as_ref()))),
    field("project", "project", Text(|r| some(r.project.as_ref()))),
    field("container_id", "the engine's id of the container", Text(|r| some(r.container_id.as_ref()))),
    field("container_name", "name of the container", Text(|r| some(r.container_name.as_ref()))),
    field("verdict", "ALLOWED, DENIED or BYPASSED", Word(|r| r.verdict, &VERDICTS)),
    field("direction", "egress, or ingress for accepted flows", Word(|r| r.direction, &DIRECTIONS)),
    field("src_ip", "source address", Addr(|r| r.src_ip)),
    field("src_port", "source port", Number(|r| r.src_port.map(u64::from))),
    field("dst_ip", "destination address", Addr(|r| r.dst_ip)),
    field("dst_port", "destination port", Number(|r| r.dst_port.map(u64::from))),
    field("l4_proto", "transport protocol", Proto(|r| &r.l4_proto)),
    field("dst_host", "the DNS name, if one led there", Text(|r| some(r.dst_host.as_ref()))),
    field("dst_hosts", "the DNS names, if several led there", Text(|r| r.dst_hosts.iter().map(String::as_str).collect())),
    field("qname", "name of a refused DNS query", Text(|r| some(r.qname.as_ref()))),
    field("l7_proto", "application protocol", Text(|r| vec![r.l7_proto])),
    field("bytes_in", "payload that arrived", Size(|r| Some(r.bytes_in))),
    field("bytes_out", "payload that left", Size(|r| Some(r.bytes_out))),
    field("packets_in", "packets that arrived", Number(|r| Some(r.packets_in))),
    field("packets_out", "packets that left", Number(|r| Some(r.packets_out))),
    field("duration_ms", "duration, milliseconds or with a unit", Span(|r| Some(r.duration_ms), MILLI, Bare::Counts)),
    field("start_time", "beginning of the flow", Time(|r| Some(r.start_time))),
    field("reason", "why this verdict: rule, default, builtin, …", Word(|r| r.reason, &REASONS_AND_FOLDED)),
    field("rule", "rule that decided", Text(|r| some(r.rule.as_ref()))),
    field("close_reason", "why it ended: fin, rst, refused, …", Word(|r| r.close_reason.unwrap_or(""), &CLOSE_REASONS)),
    field("pid", "process that opened it", Number(|r| r.pid.map(u64::from))),
    field("comm", "command name of that process", Text(|r| some(r.comm.as_ref()))),
    field("rtt_us", "round trip of TCP, microseconds or with a unit", Span(|r| r.rtt_us.map(u64::from), MICRO, Bare::Counts)),
    field("retransmits", "retransmitted segments of TCP", Number(|r| r.retransmits.map(u64::from))),
    field("flow_id", "number of the flow, unique for ever", Text(|r| some(r.flow_id.as_ref()))),
    field("count", "flows of a folded record", Number(|r| r.count)),
    field("first_time", "end of the first flow of a folded record", Time(|r| r.first_time)),
    field("would_deny", "true if audit mode let it pass", Flag(|r| r.would_deny == Some(true))),
];

/// [`REASONS`], and that of folded records.
const REASONS_AND_FOLDED: [&str; REASONS.len() + 1] = {
    let mut all = [crate::record::FOLDED; REASONS.len() + 1];
    let mut i = 0;
    while i < REASONS.len() {
        all[i] = REASONS[i];
        i += 1;
    }
    all
};
