//! Readers of single values: ports, protocols, durations, destinations, resolvers, paths, methods.

use crate::destination::{Destination, DestinationError, judged};
use crate::diagnostic::{Reports, quoted};
use crate::fields::{Field, kind_name};
use crate::paths;
use crate::policy::Resolver;
use crate::rule::{Action, PathMatch, PortRange, Proto};
use crate::yaml::{Kind, Node};
use std::ops::Range;
use std::time::Duration;
use thiserror::Error;

/// Words of `proto`.
pub(crate) const PROTOS: [(&str, Proto); 9] = [
    ("https", Proto::Https),
    ("http", Proto::Http),
    ("ws", Proto::Ws),
    ("wss", Proto::Wss),
    ("ssh", Proto::Ssh),
    ("tcp", Proto::Tcp),
    ("udp", Proto::Udp),
    ("icmp", Proto::Icmp),
    ("any", Proto::Any),
];

/// Words of `action`, `default`, `path_default`, `inbound` and `expect`.
pub(crate) const ACTIONS: [(&str, Action); 2] = [("allow", Action::Allow), ("deny", Action::Deny)];

const SHORTEST_IDLE: Duration = Duration::from_secs(1);
const LONGEST_IDLE: Duration = Duration::from_secs(3600);

/// The text of a list's item.
pub(crate) fn item_text<'n>(
    item: &'n Node<'n>,
    what: &str,
    reports: &mut Reports<'_>,
) -> Option<&'n str> {
    match &item.kind {
        Kind::Scalar { text, .. } if !item.is_null() && !text.is_empty() => Some(text),
        Kind::Refused => None,
        kind => {
            let found = if item.is_null() {
                "nothing"
            } else {
                kind_name(kind)
            };
            reports
                .error(&item.span, format!("{what} is {found}"))
                .label("must be text");
            None
        }
    }
}

/// Reports a text that is no destination.
pub(crate) fn destination(
    text: &str,
    at: &Range<usize>,
    reports: &mut Reports<'_>,
) -> Option<Destination> {
    match Destination::parse(text) {
        Ok(destination) => Some(destination),
        Err(error) => {
            not_a_destination(&error, text, at, reports);
            None
        }
    }
}

fn not_a_destination(
    error: &DestinationError,
    text: &str,
    at: &Range<usize>,
    reports: &mut Reports<'_>,
) {
    let diagnostic = reports.error(at, format!("destination {} {error}", quoted(text)));
    diagnostic.label(error.label());
    if let Some(help) = error.help() {
        diagnostic.help(help);
    }
}

/// `443`, `"443"`, `9000-9100`, or a list of these; sorted, and ranges that touch made one.
pub(crate) fn ports(field: &Field<'_>, reports: &mut Reports<'_>) -> Option<Vec<PortRange>> {
    let mut found = Vec::new();
    match &field.node.kind {
        Kind::Refused => return None,
        Kind::List(items) if items.is_empty() => {
            reports
                .error(field.span(), "`port` is an empty list")
                .label("must name a port");
            return None;
        }
        Kind::List(items) => {
            for item in items {
                let text = item_text(item, "a port", reports);
                found.push(text.and_then(|text| port_range(text, &item.span, reports)));
            }
        }
        _ => {
            let text = field.text(reports)?;
            found.push(port_range(text, field.span(), reports));
        }
    }
    let found: Option<Vec<PortRange>> = found.into_iter().collect();
    found.map(merged)
}

fn port_range(text: &str, at: &Range<usize>, reports: &mut Reports<'_>) -> Option<PortRange> {
    let (lo, hi) = text.split_once('-').unwrap_or((text, text));
    let lo = port(lo.trim(), at, reports)?;
    let hi = port(hi.trim(), at, reports)?;
    if lo > hi {
        let message = format!("port range {lo}-{hi} is upside down");
        reports
            .error(at, message)
            .label(format!("must be {hi}-{lo}"));
        return None;
    }
    Some(PortRange { lo, hi })
}

pub(crate) fn port(text: &str, at: &Range<usize>, reports: &mut Reports<'_>) -> Option<u16> {
    match port_number(text) {
        Ok(port) => Some(port),
        Err(error) => {
            let message = format!("port {} {error}", quoted(text));
            reports.error(at, message).label(error.label());
            None
        }
    }
}

/// Why a text is no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PortError {
    /// 0, or more than fits.
    #[error("is out of range")]
    Range,
    /// Something else than digits.
    #[error("is not a number")]
    NotNumber,
}

impl PortError {
    /// What holds instead, for the caret.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Range => "must be 1–65535",
            Self::NotNumber => "must be like 443, \"9000-9100\" or [80, 443]",
        }
    }
}

pub(crate) fn port_number(text: &str) -> Result<u16, PortError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortError::NotNumber);
    }
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or(PortError::Range)
}

/// Sorted, and ranges that touch made one.
pub(crate) fn merged(mut ports: Vec<PortRange>) -> Vec<PortRange> {
    ports.sort_unstable();
    let mut out: Vec<PortRange> = Vec::with_capacity(ports.len());
    for next in ports {
        match out.last_mut() {
            Some(last) if u32::from(next.lo) <= u32::from(last.hi) + 1 => {
                last.hi = last.hi.max(next.hi);
            }
            _ => out.push(next),
        }
    }
    out
}

/// `30s`, `5m`, `1h`.
pub(crate) fn udp_idle(field: &Field<'_>, reports: &mut Reports<'_>) -> Option<Duration> {
    let text = field.text(reports)?;
    let message = match humantime::parse_duration(text) {
        Ok(time) if (SHORTEST_IDLE..=LONGEST_IDLE).contains(&time) => return Some(time),
        Ok(_) => format!("`udp_idle` {} is out of range", quoted(text)),
        Err(_) => format!("`udp_idle` {} is not a duration", quoted(text)),
    };
    reports
        .error(field.span(), message)
        .label("must be from 1s to 1h, like `30s` or `5m`");
    None
}

/// `system`, `coredns` or an address.
pub(crate) fn resolver(item: &Node<'_>, reports: &mut Reports<'_>) -> Option<Resolver> {
    let text = item_text(item, "a resolver", reports)?;
    match text {
        "system" => return Some(Resolver::System),
        "coredns" => return Some(Resolver::CoreDns),
        _ => {}
    }
    if let Ok(addr) = text.parse() {
        return Some(Resolver::Address(judged(addr)));
    }
    let diagnostic = reports.error(&item.span, format!("resolver {} is unknown", quoted(text)));
    diagnostic.label("must be `system`, `coredns` or an address");
    if text.parse::<std::net::SocketAddr>().is_ok() {
        diagnostic.help("resolvers are asked on port 53; write the address alone");
    }
    None
}

/// A path, or `~` and an RE2 expression.
pub(crate) fn path(field: &Field<'_>, reports: &mut Reports<'_>) -> Option<PathMatch> {
    let text = field.text(reports)?;
    if let Some(pattern) = text.strip_prefix('~') {
        if let Err(error) = paths::check(pattern) {
            let message = format!("regular expression {}: {error}", quoted(pattern));
            reports
                .error(field.span(), message)
                .label("must be an RE2 expression");
            return None;
        }
        return Some(PathMatch::Regex(pattern.to_owned()));
    }
    if text.starts_with('/') {
        return Some(PathMatch::Prefix(text.to_owned()));
    }
    let diagnostic = reports.error(field.span(), format!("path {} is not a path", quoted(text)));
    diagnostic.label("must start with `/`, or with `~` and be an RE2 expression");
    None
}

/// Names of HTTP methods, which are case-sensitive.
pub(crate) fn methods(field: &Field<'_>, reports: &mut Reports<'_>) -> Option<Vec<String>> {
    let items = field.list(reports)?;
    if items.is_empty() {
        let diagnostic = reports.error(field.span(), "`methods` is an empty list");
        diagnostic
            .label("must name a method")
            .help("without `methods` the rule is about every one");
        return None;
    }
    let mut found = Vec::with_capacity(items.len());
    for item in items {
        let text = item_text(item, "a method", reports);
        found.push(text.and_then(|text| method(text, &item.span, reports)));
    }
    found.into_iter().collect()
}

pub(crate) fn method(text: &str, at: &Range<usize>, reports: &mut Reports<'_>) -> Option<String> {
    if is_method(text) {
        return Some(text.to_owned());
    }
    let diagnostic = reports.error(at, format!("{} is not a method", quoted(text)));
    diagnostic.label("must be upper-case letters, like GET");
    None
}

pub(crate) fn is_method(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed)
}
