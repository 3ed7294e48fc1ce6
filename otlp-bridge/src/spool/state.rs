//! What is in the spool, as numbers.

use super::{
    books::{Book, Tier},
    handed::Handed,
    tables::{Key, RECORDS},
};
use redb::{Error, ReadTransaction};
use serde::{Deserialize, Serialize};

/// What is in the spool, and what has become of what was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What the records take of the bound.
    pub bytes: u64,
    /// The bound.
    pub max_bytes: u64,
    /// Size of the file, which has room that is free.
    pub file_bytes: u64,
    /// Losses that no record declares yet, because too many declarations wait.
    pub undeclared: u64,
    /// Why the disk does not take records; nothing when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Every data stream that there ever was, by name.
    pub streams: Vec<StreamState>,
}

/// One data stream. `kept = delivered + shed + pending + set_aside`, always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Its name.
    pub stream: String,
    /// Records ever taken.
    pub kept: u64,
    /// Records that the receiver has.
    pub delivered: u64,
    /// Records thrown away for want of room or because of their age, and declared.
    pub shed: u64,
    /// Records that wait for delivery.
    pub pending: u64,
    /// Of these, how many delivery works on.
    pub in_delivery: u64,
    /// Records that no receiver takes, still here.
    pub set_aside: u64,
    /// Records ever set aside.
    pub set_aside_ever: u64,
    /// What it takes of the bound.
    pub bytes: u64,
    /// When its oldest record was kept, milliseconds since 1970; nothing when none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_ms: Option<u64>,
    /// Why its records do not arrive; nothing when they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl StreamState {
    pub(super) fn new(
        stream: &str,
        book: &Book,
        handed: &Handed,
        txn: &ReadTransaction,
    ) -> Result<Self, Error> {
        Ok(Self {
            stream: stream.to_owned(),
            kept: book.kept,
            delivered: book.delivered,
            shed: book.shed,
            pending: book.pending(),
            in_delivery: handed.get(stream).map_or(0, |h| h.count() as u64),
            set_aside: book.aside_records,
            set_aside_ever: book.aside_ever,
            bytes: book.total(),
            oldest_ms: oldest(txn, stream)?,
            trouble: None,
        })
    }
}

fn oldest(txn: &ReadTransaction, stream: &str) -> Result<Option<u64>, Error> {
    let records = txn.open_table(RECORDS)?;
    let mut oldest = None;
    for tier in 0..Tier::ALL as u8 {
        let range: (Key<'_>, Key<'_>) = ((stream, tier, 0), (stream, tier, u64::MAX));
        if let Some(first) = records.range(range.0..=range.1)?.next() {
            let kept = first?.1.value().0;
            oldest = Some(oldest.map_or(kept, |o: u64| o.min(kept)));
        }
    }
    Ok(oldest)
}
