//! What is said of records that did not arrive.

use super::Tally;
use crate::record::VERDICTS;
use std::fmt;

/// Records that did not arrive, or are not known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    pub(super) url: String,
    pub(super) missing: Tally,
    pub(super) rejected: u64,
}

impl Undelivered {
    /// How many records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.missing.records.iter().sum::<u64>() + self.rejected
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records were not delivered to {} (or not confirmed):",
            self.records(),
            self.url
        )?;
        let mut comma = "";
        for (i, verdict) in VERDICTS.iter().enumerate() {
            let (records, flows) = (self.missing.records[i], self.missing.flows[i]);
            if records > 0 {
                write!(f, "{comma} {records} {verdict}")?;
                comma = ",";
            }
            if flows != records {
                write!(f, " ({flows} flows)")?;
            }
        }
        if self.rejected > 0 {
            write!(f, "{comma} {} that the receiver threw away", self.rejected)?;
        }
        Ok(())
    }
}
