//! What became of records, counted.

use serde::Serialize;

macro_rules! tally {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// What became of records. Sums over requests; `records` is all of `kept` and those refused.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Tally {
            $($(#[doc = $doc])+ pub $field: u64,)+
        }

        impl Tally {
            /// Adds another one.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.saturating_add(other.$field);)+
            }

            /// Every count with its name.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),+].into_iter()
            }
        }
    };
}

tally! {
    /// Log records that came.
    records,
    /// Of them, those that went on.
    kept,
    /// Refused: no OTLP inside.
    malformed,
    /// Refused: larger than a record may be.
    too_large,
    /// Refused: more than a request may have.
    too_many,
    /// Refused: of the loader, but of no stream of its.
    no_stream,
    /// Kept, but not whole: a part was cut, left out or repaired.
    truncated,
    /// Kept without a lane that the bridge knows, so without identity.
    no_lane,
    /// Look-ups without an address to look up.
    no_address,
    /// Look-ups that gave an identity.
    held,
    /// Look-ups of an address that nobody had.
    nobody,
    /// Look-ups of an address that several could have had.
    ambiguous,
    /// Look-ups of a time that the leases do not know.
    beyond,
    /// Identities from leases that were older than the record.
    stale,
    /// Flows of the loader that could not be counted by slot and verdict.
    uncounted,
    /// Data points of metrics that came.
    points,
    /// Of them, those whose labels read `other`: their container has as many label sets as it may.
    folded,
}

impl Tally {
    /// Records that were refused, by cause.
    #[must_use]
    pub fn refusals(&self) -> [(&'static str, u64); 4] {
        [
            ("malformed", self.malformed),
            ("too_large", self.too_large),
            ("too_many", self.too_many),
            ("no_stream", self.no_stream),
        ]
    }

    /// Records that were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refusals().iter().map(|(_, n)| n).sum()
    }
}
