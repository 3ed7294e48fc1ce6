//! One flow, one line.

use super::units;
use crate::record::Record;
use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;
use std::{net::IpAddr, time::Duration};

/// Style of a verdict. Whether it shows is decided where it is printed.
#[must_use]
pub fn verdict_style(verdict: &str) -> Style {
    let color = match verdict {
        "ALLOWED" => AnsiColor::Green,
        "BYPASSED" => AnsiColor::Yellow,
        _ => AnsiColor::Red,
    };
    Style::new().fg_color(Some(color.into()))
}

/// Where a flow went, by name if there is one: `api.github.com:443`, `[2001:db8::1]:53`, `-`.
#[must_use]
pub fn destination(r: &Record) -> String {
    let host = match (&r.dst_host, r.dst_hosts.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [first, rest @ ..]) => format!("{first} (+{})", rest.len()),
        (None, []) => match peer(r) {
            Some(IpAddr::V6(a)) if r.dst_port.is_some() => format!("[{a}]"),
            Some(a) => a.to_string(),
            None => return "-".to_owned(),
        },
    };
    match r.dst_port {
        Some(port) if r.direction == "ingress" => format!("{host} → :{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host,
    }
}

/// The far end.
#[must_use]
pub fn peer(r: &Record) -> Option<IpAddr> {
    if r.direction == "ingress" {
        r.src_ip
    } else {
        r.dst_ip
    }
}

/// Why, in words: the rule, or what stood in for one.
#[must_use]
pub fn why(r: &Record) -> String {
    let mut text = match (r.reason, &r.rule) {
        ("rule", Some(rule)) => format!("rule {rule:?}"),
        ("default", _) => match peer(r) {
            Some(ip) => format!(
                "default: no rule names {}",
                r.dst_host.clone().unwrap_or(ip.to_string())
            ),
            None => "default".to_owned(),
        },
        ("builtin", _) => "built-in deny set (allow_builtin opens it)".to_owned(),
        ("observe", _) => String::new(),
        ("raw_socket", _) => "raw sockets are refused".to_owned(),
        ("protocol", _) => format!("protocol {} is refused", r.l4_proto),
        ("resolver", _) if r.verdict == "DENIED" => {
            "DNS goes to the policy's resolvers only".to_owned()
        }
        ("resolver", _) => "resolver".to_owned(),
        ("name", _) => match &r.qname {
            Some(name) => format!("no rule could allow {name}, it is not asked"),
            None => "no rule could allow this name, it is not asked".to_owned(),
        },
        ("query", _) => "not a plain DNS query".to_owned(),
        ("no_state", _) => "no memory for the flow's state".to_owned(),
        ("headers", _) => {
            "source route, headers that cannot be followed, or a source that is not its own"
                .to_owned()
        }
        ("folded", _) => "destinations not told apart".to_owned(),
        (other, Some(rule)) => format!("{other}, rule {rule:?}"),
        (other, None) => other.replace('_', " "),
    };
    let end = match r.close_reason {
        None | Some("fin" | "denied" | "idle") => None,
        Some("policy") => Some("cut by policy"),
        Some(c) => Some(c),
    };
    for part in [end, r.would_deny.map(|_| "would be denied")]
        .into_iter()
        .flatten()
    {
        if !text.is_empty() {
            text.push_str(" · ");
        }
        text.push_str(part);
    }
    text
}

/// The whole line, without its end. Columns line up up to the widths that most flows keep.
#[must_use]
pub fn line(r: &Record, zone: &TimeZone) -> String {
    let time = r.time.to_zoned(zone.clone()).strftime("%H:%M:%S");
    let style = verdict_style(r.verdict);
    let verdict = format!("{style}{:<8}{style:#}", r.verdict);
    let to = destination(r);
    // The address is worth a column of its own when a name stands in the first.
    let named = r.dst_host.is_some() || !r.dst_hosts.is_empty();
    let ip = if named {
        peer(r).map(|a| a.to_string()).unwrap_or_default()
    } else {
        String::new()
    };
    let (up, down) = (units::bytes(r.bytes_out), units::bytes(r.bytes_in));
    let up = if r.bytes_out == 0 {
        up
    } else {
        format!("↑ {up}")
    };
    let down = if r.bytes_in == 0 {
        down
    } else {
        format!("↓ {down}")
    };
    let time_taken = match r.close_reason {
        Some("denied") => "-".to_owned(),
        _ => units::duration(Duration::from_millis(r.duration_ms)),
    };
    let many = r
        .count
        .map(|n| format!("{} flows · ", units::count(n)))
        .unwrap_or_default();
    let comm = printable(r.comm.as_deref().unwrap_or("-"));
    format!(
        "{time}  {verdict}  {:<5} {to:<28} {ip:<16} {up:>9} {down:>9} {time_taken:>7}  {comm:<15} {many}{}",
        r.l4_proto,
        printable(&why(r)),
    )
    .trim_end()
    .to_owned()
}

/// A text from outside, with everything made visible that could steer a terminal, or that would change
/// how the rest of the line looks: reversed direction, no width, combining marks.
#[must_use]
pub fn printable(s: &str) -> String {
    let unseen = |c: char| c.is_control() || (!c.is_ascii() && c.escape_debug().len() > 1);
    s.chars()
        .flat_map(|c| {
            if unseen(c) {
                c.escape_default().collect::<Vec<_>>()
            } else {
                vec![c]
            }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use jiff::Timestamp;

    pub(crate) fn record() -> Record {
        Record {
            time: Timestamp::from_second(1_700_000_000).unwrap(),
            agent: None,
            project: None,
            container_id: None,
            container_name: None,
            verdict: "ALLOWED",
            direction: "egress",
            src_ip: None,
            src_port: None,
            dst_ip: Some("140.82.121.6".parse().unwrap()),
            dst_port: Some(443),
            l4_proto: "tcp".to_owned(),
            dst_host: Some("api.github.com".to_owned()),
            dst_hosts: Vec::new(),
            qname: None,
            l7_proto: "unknown",
            bytes_in: 4800,
            bytes_out: 1200,
            packets_in: 1,
            packets_out: 1,
            duration_ms: 182,
            start_time: Timestamp::from_second(1_700_000_000).unwrap(),
            reason: "rule",
            rule: Some("github api, read only".to_owned()),
            close_reason: Some("fin"),
            pid: Some(1),
            comm: Some("curl".to_owned()),
            rtt_us: None,
            retransmits: None,
            flow_id: None,
            count: None,
            first_time: None,
            would_deny: None,
            proxy_ip: None,
            proxy_port: None,
        }
    }

    /// The same, refused by default and without a name.
    pub(crate) fn denied() -> Record {
        Record {
            verdict: "DENIED",
            dst_host: None,
            bytes_in: 0,
            bytes_out: 0,
            reason: "default",
            rule: None,
            close_reason: Some("denied"),
            ..record()
        }
    }

    fn plain(r: &Record) -> String {
        anstream::adapter::strip_str(&line(r, &TimeZone::UTC)).to_string()
    }

    #[test]
    fn an_allowed_flow_shows_name_address_bytes_and_rule() {
        assert_eq!(
            plain(&record()),
            "22:13:20  ALLOWED   tcp   api.github.com:443           140.82.121.6      ↑ 1.2 kB  ↓ 4.8 kB  182 ms  curl            rule \"github api, read only\""
        );
    }

    #[test]
    fn a_denied_flow_says_why() {
        let denied = Record {
            dst_ip: Some("203.0.113.9".parse().unwrap()),
            dst_port: Some(80),
            ..denied()
        };
        assert_eq!(
            plain(&denied),
            "22:13:20  DENIED    tcp   203.0.113.9:80                                        -         -       -  curl            default: no rule names 203.0.113.9"
        );
    }

    #[test]
    fn what_an_agent_calls_itself_cannot_steer_the_terminal() {
        let r = Record {
            comm: Some("\u{1b}[2Jx\n".to_owned()),
            ..record()
        };
        let shown = plain(&r);
        assert!(shown.contains("\\u{1b}[2Jx\\n"), "{shown}");
        for (said, shown) in [
            ("\u{202e}lruc", "\\u{202e}lruc"),
            ("a\u{200b}b\u{301}", "a\\u{200b}b\\u{301}"),
            ("größe 'x' \\ \"y\"", "größe 'x' \\ \"y\""),
        ] {
            assert_eq!(printable(said), shown);
        }
    }

    #[test]
    fn ipv6_destinations_have_brackets_and_accepted_flows_an_arrow() {
        let r = Record {
            dst_host: None,
            dst_ip: Some("2001:db8::1".parse().unwrap()),
            ..record()
        };
        assert_eq!(destination(&r), "[2001:db8::1]:443");
        let r = Record {
            dst_host: None,
            direction: "ingress",
            src_ip: Some("192.0.2.9".parse().unwrap()),
            ..record()
        };
        assert_eq!(destination(&r), "192.0.2.9 → :443");
    }
}
