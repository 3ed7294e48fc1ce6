//! Records read back: the part of them that learning and suggesting look at.

use crate::{
    record::{Record, proto_number},
    render::line::printable,
};
use policy::{NoRule, Observation, Outcome, Refused, Suggestion};
use serde::Deserialize;
use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader},
    net::IpAddr,
    path::{Path, PathBuf},
};

/// Mistakes that are shown.
const SHOWN: usize = 20;

/// Why records are of no use.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// A file cannot be read.
    #[error("cannot read records {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Lines that are no records.
    #[error("lines that are no records: {count}\n  {lines}")]
    Mistakes {
        /// How many.
        count: usize,
        /// The first of them, each with its place.
        lines: String,
    },
}

/// What a record says of a flow.
#[derive(Clone, Debug, Deserialize)]
pub struct Seen<'r> {
    /// `verdict`; a line without one is about something else than a flow.
    pub verdict: Option<Cow<'r, str>>,
    #[serde(default)]
    direction: Cow<'r, str>,
    #[serde(default)]
    reason: Cow<'r, str>,
    src_ip: Option<IpAddr>,
    src_port: Option<u16>,
    dst_ip: Option<IpAddr>,
    dst_port: Option<u16>,
    #[serde(default)]
    l4_proto: Cow<'r, str>,
    dst_host: Option<Cow<'r, str>>,
    #[serde(default)]
    dst_hosts: Vec<Cow<'r, str>>,
    qname: Option<Cow<'r, str>>,
    rule: Option<Cow<'r, str>>,
    close_reason: Option<Cow<'r, str>>,
    comm: Option<Cow<'r, str>>,
    count: Option<u64>,
    would_deny: Option<bool>,
    /// `flow_id`.
    pub flow_id: Option<Cow<'r, str>>,
    agent: Option<Cow<'r, str>>,
    project: Option<Cow<'r, str>>,
}

fn borrowed(text: Option<&String>) -> Option<Cow<'_, str>> {
    text.map(|text| Cow::Borrowed(text.as_str()))
}

impl<'r> From<&'r Record> for Seen<'r> {
    fn from(r: &'r Record) -> Self {
        Self {
            verdict: Some(Cow::Borrowed(r.verdict)),
            direction: Cow::Borrowed(r.direction),
            reason: Cow::Borrowed(r.reason),
            src_ip: r.src_ip,
            src_port: r.src_port,
            dst_ip: r.dst_ip,
            dst_port: r.dst_port,
            l4_proto: Cow::Borrowed(&r.l4_proto),
            dst_host: borrowed(r.dst_host.as_ref()),
            dst_hosts: r.dst_hosts.iter().map(Into::into).collect(),
            qname: borrowed(r.qname.as_ref()),
            rule: borrowed(r.rule.as_ref()),
            close_reason: r.close_reason.map(Cow::Borrowed),
            comm: borrowed(r.comm.as_ref()),
            count: r.count,
            would_deny: r.would_deny,
            flow_id: borrowed(r.flow_id.as_ref()),
            agent: borrowed(r.agent.as_ref()),
            project: borrowed(r.project.as_ref()),
        }
    }
}

impl Seen<'_> {
    fn ingress(&self) -> bool {
        self.direction == "ingress"
    }

    fn hosts(&self) -> Vec<&str> {
        let names = self.dst_host.iter().chain(&self.dst_hosts);
        names.map(AsRef::as_ref).collect()
    }

    /// It was allowed, and a later policy or the end of a bypass cut it.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.close_reason.as_deref() == Some("policy")
    }

    /// What became of the flow. One that a later policy cut would not have passed under it.
    pub fn outcome(&self) -> Result<Outcome, String> {
        let refused = self.would_deny == Some(true) || self.was_cut();
        match self.verdict.as_deref().unwrap_or_default() {
            "DENIED" => Ok(Outcome::Denied),
            "ALLOWED" | "BYPASSED" if refused => Ok(Outcome::Denied),
            "ALLOWED" => Ok(Outcome::Allowed),
            "BYPASSED" => Ok(Outcome::Bypassed),
            other => Err(format!("verdict {other:?} is not known")),
        }
    }

    /// Hands the flow over as an observation.
    pub fn observe(&self, outcome: Outcome, take: impl FnOnce(&Observation<'_>)) {
        take(&Observation {
            outcome,
            ingress: self.ingress(),
            hosts: &self.hosts(),
            qname: self.qname.as_deref(),
            addr: self.dst_ip,
            proto: proto_number(&self.l4_proto),
            port: self.dst_port.unwrap_or(0),
            peer: self.src_ip.zip(self.src_port).filter(|_| self.ingress()),
            comm: self.comm.as_deref(),
            flows: self.count.unwrap_or(1),
            folded: self.count.is_some(),
            resolver: self.reason == "resolver",
            agent: self.agent.as_deref(),
            project: self.project.as_deref(),
        });
    }

    /// The rule that would have let a denied flow through. What a peer opened is denied for where the
    /// peer is, if `inbound` does not deny it.
    pub fn suggest(&self) -> Result<Suggestion, NoRule> {
        let (addr, port) = if self.ingress() {
            (self.src_ip, self.src_port)
        } else {
            (self.dst_ip, self.dst_port)
        };
        Refused {
            reason: &self.reason,
            rule: self.rule.as_deref(),
            hosts: &self.hosts(),
            qname: self.qname.as_deref(),
            addr,
            proto: proto_number(&self.l4_proto),
            port: port.unwrap_or(0),
        }
        .suggest()
    }
}

/// Reads files of records, one JSON object a line, and hands over each that is about a flow. Returns
/// how many lines were about something else. Every line that is no record is a mistake.
pub fn read(
    files: &[PathBuf],
    mut take: impl FnMut(&Seen<'static>, Outcome),
) -> Result<u64, RecordsError> {
    let mut others = 0;
    let mut mistakes = Mistakes::default();
    for path in files {
        let mut lines = open(path)?;
        let mut line = String::new();
        let mut number = 0;
        while read_line(&mut *lines, &mut line, path)? {
            number += 1;
            if line.trim().is_empty() {
                continue;
            }
            match parse(&line) {
                Ok(Some((seen, outcome))) => take(&seen, outcome),
                Ok(None) => others += 1,
                Err(why) => mistakes.add(path, number, &why),
            }
        }
    }
    mistakes.end().map(|()| others)
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, RecordsError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(path).map_err(|source| RecordsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(Box::new(BufReader::new(file)))
}

/// The next line; false at the end.
fn read_line(
    lines: &mut dyn BufRead,
    line: &mut String,
    path: &Path,
) -> Result<bool, RecordsError> {
    line.clear();
    let read = lines.read_line(line).map_err(|source| RecordsError::Read {
        path: path.to_owned(),
        source,
    })?;
    Ok(read > 0)
}

/// Nothing where the line is about something else than a flow.
fn parse(line: &str) -> Result<Option<(Seen<'static>, Outcome)>, String> {
    let seen: Seen<'static> = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if seen.verdict.is_none() {
        return Ok(None);
    }
    let outcome = seen.outcome()?;
    Ok(Some((seen, outcome)))
}

/// The first few mistakes, and how many there are.
#[derive(Default)]
struct Mistakes {
    shown: Vec<String>,
    count: usize,
}

impl Mistakes {
    fn add(&mut self, path: &Path, line: usize, why: &str) {
        self.count += 1;
        if self.count <= SHOWN {
            let why = printable(why);
            self.shown.push(format!("{}:{line}: {why}", path.display()));
        }
    }

    fn end(mut self) -> Result<(), RecordsError> {
        if self.count == 0 {
            return Ok(());
        }
        if self.count > SHOWN {
            self.shown.push("…".to_owned());
        }
        Err(RecordsError::Mistakes {
            count: self.count,
            lines: self.shown.join("\n  "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(rest: &str) -> Result<Option<Outcome>, String> {
        let line = format!("{{\"l4_proto\":\"tcp\"{rest}}}");
        parse(&line).map(|found| found.map(|(_, outcome)| outcome))
    }

    #[test]
    fn what_was_or_would_be_denied_is_denied() {
        for (rest, wanted) in [
            (r#","verdict":"ALLOWED""#, Some(Outcome::Allowed)),
            (r#","verdict":"DENIED""#, Some(Outcome::Denied)),
            (r#","verdict":"BYPASSED""#, Some(Outcome::Bypassed)),
            (
                r#","verdict":"ALLOWED","would_deny":true"#,
                Some(Outcome::Denied),
            ),
            (
                r#","verdict":"ALLOWED","close_reason":"policy""#,
                Some(Outcome::Denied),
            ),
            (
                r#","verdict":"BYPASSED","close_reason":"policy""#,
                Some(Outcome::Denied),
            ),
            (r#","event":"policy_changed""#, None),
        ] {
            assert_eq!(outcome(rest), Ok(wanted), "{rest}");
        }
        assert!(outcome(r#","verdict":"MAYBE""#).is_err());
        for bad in ["[]", "{", "{\"verdict\": 1}", "x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_bad_line_has_its_place() {
        let dir = tempfile::TempDir::with_prefix("clawker-test-").unwrap();
        let file = dir.path().join("out.jsonl");
        let good = "{\"verdict\":\"DENIED\",\"l4_proto\":\"tcp\",\"count\":7}\n";
        std::fs::write(
            &file,
            format!("{good}\nnonsense\n{{}}\n{good}{{\"verdict\""),
        )
        .unwrap();
        let mut flows = 0;
        let add = |seen: &Seen<'_>, outcome| seen.observe(outcome, |o| flows += o.flows);
        let error = read(std::slice::from_ref(&file), add)
            .unwrap_err()
            .to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(lines[1].contains("out.jsonl:3: "), "{error}");
        assert!(lines[2].contains("out.jsonl:6: "), "{error}");
        assert_eq!(flows, 14);
    }
}
