//! The bytes of a lease file: JSON, one lease a line. Reading trusts nothing; what it lets through is a
//! book that could have been written.

use crate::{
    clock::{Clock, ClockError},
    index::Index,
    lease::Lease,
    leases::{Forgotten, Leases, LeasesError},
    text::harmless,
    time::{BootId, BootTime},
};
use serde::{Deserialize, Serialize};

/// Version of the format. Raise it with every change, an added field included: readers refuse what they
/// do not know.
pub const VERSION: u64 = 1;

/// Why bytes are no book of leases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Another version.
    #[error(
        "it has version {0}, this program reads version {VERSION}: run the same release everywhere"
    )]
    Version(u64),
    /// No JSON, not all of it, or not of this form.
    #[error("line {line}, column {column}: {what}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the reader said, escaped and cut.
        what: String,
    },
    /// See [`ClockError`].
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// See [`LeasesError`].
    #[error(transparent)]
    Leases(#[from] LeasesError),
}

impl From<serde_json::Error> for FormatError {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        // It may quote what it read, and ends with the place.
        let what = text
            .rsplit_once(" at line ")
            .map_or(&*text, |(what, _)| what);
        Self::Json {
            line: error.line(),
            column: error.column(),
            what: harmless(what),
        }
    }
}

/// All that every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// What stands before the leases.
#[derive(Serialize)]
struct Head<'l> {
    version: u64,
    boot: &'l BootId,
    as_of: BootTime,
    floor: BootTime,
    forgotten: Forgotten,
    clock: &'l Clock,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    #[serde(rename = "version")]
    _version: u64,
    boot: BootId,
    as_of: BootTime,
    floor: BootTime,
    forgotten: Forgotten,
    clock: Clock,
    leases: Vec<Lease>,
}

impl Leases {
    /// The book as a file has it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = json(&Head {
            version: VERSION,
            boot: &self.boot,
            as_of: self.as_of,
            floor: self.floor,
            forgotten: self.forgotten,
            clock: &self.clock,
        });
        // The leases go into the same object, a line each, so that people and grep can read them.
        text.pop();
        text.push_str(",\"leases\":[");
        for (i, lease) in self.leases.iter().enumerate() {
            text.push_str(if i == 0 { "\n" } else { ",\n" });
            text.push_str(&json(lease));
        }
        text.push_str("\n]}\n");
        text.into_bytes()
    }

    /// Reads what [`Self::encode`] wrote; everything else is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        // The version first: another one may have another form.
        let Versioned { version } = serde_json::from_slice(bytes)?;
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let whole: Whole = serde_json::from_slice(bytes)?;
        whole.clock.check()?;
        let empty = Self {
            boot: whole.boot,
            as_of: whole.as_of,
            floor: whole.floor,
            forgotten: whole.forgotten,
            clock: whole.clock,
            leases: Vec::new(),
            index: Index::default(),
        };
        Ok(empty.restore(whole.leases)?)
    }
}

fn json(value: &impl Serialize) -> String {
    // Structures of numbers, texts and lists: no map with odd keys, and memory does not refuse writes.
    serde_json::to_string(value).expect("plain data has a JSON form")
}
