//! What was seen and did not become a rule, and why.

use super::more;
use crate::diagnostic::{counted, quoted};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Different notes that are kept; what an agent does must not fill memory.
const MAX_NOTES: usize = 100;

/// Why flows that passed did not become a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Note {
    /// DNS to this server.
    Dns(IpAddr),
    /// Port 853.
    DnsOverTls,
    /// This address of the built-in deny set.
    Builtin(IpAddr),
    /// This rule of the base denies it.
    Base(String),
    /// A protocol that no rule is about.
    Protocol,
    /// No destination in the record.
    NoDestination,
    /// Passed during a bypass.
    Bypassed,
    /// More ports of this destination than a policy can hold.
    ManyPorts(String),
    /// More destinations than are kept.
    TooMany,
}

/// Notes and how many flows each is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    kept: BTreeMap<Note, u64>,
    others: u64,
}

impl Notes {
    pub(super) fn add(&mut self, note: Note, flows: u64) {
        if self.kept.len() >= MAX_NOTES && !self.kept.contains_key(&note) {
            more(&mut self.others, flows);
        } else {
            more(self.kept.entry(note).or_default(), flows);
        }
    }

    /// One line a note. `base` is the name of the base policy.
    pub(super) fn lines(&self, base: &str) -> Vec<String> {
        let line = |(note, flows): (&Note, &u64)| {
            let flows = usize::try_from(*flows).unwrap_or(usize::MAX);
            format!("{} {}", counted(flows, "flow"), note.why(base))
        };
        let mut lines: Vec<String> = self.kept.iter().map(line).collect();
        if self.others > 0 {
            lines.push(format!(
                "{} flows for other reasons of these kinds",
                self.others
            ));
        }
        lines
    }
}

impl Note {
    fn why(&self, base: &str) -> String {
        match self {
            Self::Dns(addr) => {
                format!("to {addr} port 53: DNS needs no rule, but an entry in `resolvers`")
            }
            Self::DnsOverTls => "to port 853: DNS over TLS is closed to everybody".into(),
            Self::Builtin(addr) => {
                format!("to {addr} of the built-in deny set: only `allow_builtin` opens it")
            }
            Self::Base(rule) => format!("that the rule {} of {base} denies", quoted(rule)),
            Self::Protocol => "of protocols or sockets that no rule can allow".into(),
            Self::NoDestination => "without a destination in the record".into(),
            Self::Bypassed => "that passed because of a bypass".into(),
            Self::ManyPorts(dst) => {
                format!("to more ports of {dst} than a policy can tell apart: write a range")
            }
            Self::TooMany => "to more destinations than are kept".into(),
        }
    }
}
