//! What has come in and what became of it, since the start.

use crate::stamp::Tally;
use serde::Serialize;
use std::sync::{Mutex, PoisonError};

/// Sums that everybody may read.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Counts>);

/// What [`Counters`] have counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests that were acknowledged.
    pub accepted: u64,
    /// Requests that will not be taken, however often they come.
    pub refused: u64,
    /// Requests that the sender has to send again.
    pub put_off: u64,
    /// Connections to the loader's socket that were not root's nor our own.
    pub strangers: u64,
    /// Records and data points of acknowledged requests.
    #[serde(flatten)]
    pub tally: Tally,
}

impl Counters {
    /// What has been counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn change(&self, with: impl FnOnce(&mut Counts)) {
        // Additions leave nothing half-way.
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
