//! One flow, one sentence: the body of its record.

use super::{
    line::{destination, peer, printable, why},
    units,
};
use crate::record::Record;
use std::time::Duration;

/// What happened, for people, in one line.
#[must_use]
pub fn sentence(r: &Record) -> String {
    let mut text = format!("{} {}", r.verdict, r.l4_proto);
    let way = if r.direction == "ingress" {
        "from"
    } else {
        "to"
    };
    if peer(r).is_some() {
        text += &format!(" {way} {}", destination(r));
    }
    let named = r.dst_host.is_some() || !r.dst_hosts.is_empty();
    if let (true, Some(ip)) = (named, peer(r)) {
        text += &format!(" ({ip})");
    }
    if let Some(comm) = &r.comm {
        text += &format!(" for {comm}");
    }
    if let Some(n) = r.count {
        text += &format!(", {} flows", units::count(n));
    }
    if r.bytes_out + r.bytes_in > 0 {
        let [out, back] = [r.bytes_out, r.bytes_in].map(amount);
        let took = units::duration(Duration::from_millis(r.duration_ms));
        text += &format!(", {out} out, {back} in, {took}");
    }
    let why = why(r);
    if !why.is_empty() {
        text += &format!(": {why}");
    }
    printable(&text)
}

fn amount(bytes: u64) -> String {
    match bytes {
        0 => "nothing".to_owned(),
        n => units::bytes(n),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::line::tests::{denied, record};

    #[test]
    fn a_flow_is_told_in_one_sentence() {
        assert_eq!(
            sentence(&record()),
            "ALLOWED tcp to api.github.com:443 (140.82.121.6) for curl, 1.2 kB out, 4.8 kB in, 182 ms: rule \"github api, read only\""
        );
    }

    #[test]
    fn a_denied_one_says_why_and_no_bytes() {
        assert_eq!(
            sentence(&denied()),
            "DENIED tcp to 140.82.121.6:443 for curl: default: no rule names 140.82.121.6"
        );
    }

    #[test]
    fn folded_and_accepted_ones_too() {
        let folded = Record {
            comm: None,
            dst_host: None,
            count: Some(1200),
            bytes_in: 0,
            duration_ms: 0,
            close_reason: None,
            direction: "ingress",
            src_ip: Some("192.0.2.9".parse().unwrap()),
            ..record()
        };
        assert_eq!(
            sentence(&folded),
            "ALLOWED tcp from 192.0.2.9 → :443, 1 200 flows, 1.2 kB out, nothing in, 0 ms: rule \"github api, read only\""
        );
    }

    #[test]
    fn it_stays_one_line_whatever_a_process_calls_itself() {
        let r = Record {
            comm: Some("a\nb\u{1b}[0m".to_owned()),
            ..record()
        };
        assert!(!sentence(&r).chars().any(char::is_control));
    }
}
