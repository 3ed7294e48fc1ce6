//! The data streams: what their records are kept for, and how long.

use std::{fmt, str::FromStr};
use thiserror::Error;
use wire::stream;

/// Where what programs that agents run do will be written; only its name is taken.
pub const EXEC: &str = "clawker-exec";

/// A data stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stream {
    /// Its name.
    pub name: &'static str,
    /// How long records are kept after their index is full.
    pub retention: Age,
    /// Whether it is made; of one that is not, only the name is taken.
    pub made: bool,
}

/// Days.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Age(pub u16);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}d", self.0)
    }
}

/// How long a stream is to be kept, as it is typed: `egress=90d`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retention {
    stream: &'static str,
    age: Age,
}

/// What is wrong with a retention.
#[derive(Debug, Error, Eq, PartialEq)]
pub enum RetentionError {
    /// It has another form.
    #[error("`{0}` is not STREAM=DAYS, for example egress=90d")]
    Form(String),
    /// There is no such stream.
    #[error(
        "there is no stream `{0}`; there are: egress, envoy, coredns, claude, cp, overseer, unknown, exec"
    )]
    Stream(String),
    /// No number of days that can be kept.
    #[error("`{0}` is not a number of days between 1d and 3650d")]
    Age(String),
}

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let (name, age) = text
            .split_once('=')
            .ok_or_else(|| RetentionError::Form(text.to_owned()))?;
        let whole = format!("clawker-{}", name.trim_start_matches("clawker-"));
        let found = TABLE.iter().find(|(stream, ..)| *stream == whole);
        let (stream, ..) = found.ok_or_else(|| RetentionError::Stream(name.to_owned()))?;
        let days = age.strip_suffix('d').and_then(|d| d.parse().ok());
        let days = days.filter(|d| (1..=3650).contains(d));
        let age = Age(days.ok_or_else(|| RetentionError::Age(age.to_owned()))?);
        Ok(Self { stream, age })
    }
}

/// Name, days, whether it is made.
const TABLE: [(&str, u16, bool); 8] = [
    (stream::EGRESS, 30, true),
    (stream::ENVOY, 30, true),
    (stream::COREDNS, 14, true),
    // What was spent is asked for by the quarter.
    (stream::CLAUDE, 90, true),
    (stream::CONTROL_PLANE, 30, true),
    // Audit.
    (stream::OVERSEER, 365, true),
    (stream::UNKNOWN, 14, true),
    (EXEC, 30, false),
];

/// Every data stream, with other retentions where some are given; the last one for a stream counts.
#[must_use]
pub fn all(retentions: &[Retention]) -> Vec<Stream> {
    let one = |&(name, days, made): &(&'static str, u16, bool)| {
        let given = retentions.iter().rev().find(|r| r.stream == name);
        Stream {
            name,
            retention: given.map_or(Age(days), |r| r.age),
            made,
        }
    };
    TABLE.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_of_a_stream_and_of_days() {
        let given: Vec<Retention> = ["egress=7d", "clawker-cp=1d", "egress=90d"]
            .map(|t| t.parse().unwrap())
            .into();
        let streams = all(&given);
        let of = |name| streams.iter().find(|s| s.name == name).unwrap().retention;
        assert_eq!(of(stream::EGRESS), Age(90));
        assert_eq!(of(stream::CONTROL_PLANE), Age(1));
        assert_eq!(of(stream::OVERSEER), Age(365));
        for bad in [
            "egress",
            "mail=3d",
            "egress=0d",
            "egress=3",
            "egress=-1d",
            "egress=9999d",
            "=3d",
        ] {
            assert!(bad.parse::<Retention>().is_err(), "{bad}");
        }
    }
}
