//! Records that were set aside, tried again: a receiver may have been mended, or may have blamed a record
//! for what was its own fault.

use super::{
    apply::Apply,
    books::{Books, Tier, size},
    tables::Key,
};
use redb::{Error, ReadableTable as _};
use std::time::{Duration, Instant};

/// After a start: whoever has mended something may have started the bridge anew.
const AFTER_START: Duration = Duration::from_secs(60);
/// After a record was set aside, and the longest rest between tries that change nothing.
const FIRST: Duration = Duration::from_secs(60 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A record that waits again.
pub(super) type Returned = (String, Tier, u64);

/// When to try.
#[derive(Debug)]
pub(super) struct Again {
    next: Instant,
    rest: Duration,
}

impl Again {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now + AFTER_START,
            rest: FIRST,
        }
    }

    /// Whether it is time.
    pub(super) fn is_due(&mut self, books: &Books, now: Instant) -> bool {
        if books.streams.values().any(|b| b.aside_records > 0) {
            return now >= self.next;
        }
        // The first one that is set aside has its rest before it, and no longer one than the first.
        self.rest = FIRST;
        self.next = self.next.max(now + FIRST);
        false
    }

    /// It was tried.
    pub(super) fn tried(&mut self, now: Instant) {
        self.next = now + self.rest;
        self.rest = (self.rest * 2).min(LONGEST);
    }
}

/// Puts all that is set aside back where it was in the queues.
pub(super) fn put_back(a: &mut Apply<'_, '_>) -> Result<Vec<Returned>, Error> {
    let mut returned = Vec::new();
    for entry in a.tables.aside.iter()? {
        let (key, row) = entry?;
        let (stream, place) = key.value();
        let (tier, _, (kept, id, flows, bytes)) = row.value();
        let to: Key<'_> = (stream, tier, place);
        a.tables.records.insert(to, (kept, id, flows, bytes))?;
        let book = a.books.book(stream);
        book.wait_again(Tier(tier), size(id, bytes));
        returned.push((stream.to_owned(), Tier(tier), place));
    }
    for (stream, _, place) in &returned {
        a.tables.aside.remove((stream.as_str(), *place))?;
    }
    Ok(returned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_while_something_stays_aside_and_begin_anew_afterwards() {
        let start = Instant::now();
        let mut again = Again::new(start);
        let (none, mut some) = (Books::default(), Books::default());
        some.book("envoy").aside_records = 1;
        let minutes = |n: u64| start + Duration::from_secs(60 * n);
        assert!(!again.is_due(&some, start));
        // After a start, then after one hour, two, four.
        for at in [1, 61, 181, 421] {
            assert!(!again.is_due(&some, minutes(at) - Duration::from_secs(1)));
            assert!(again.is_due(&some, minutes(at)), "{at}");
            again.tried(minutes(at));
        }
        for _ in 0..10 {
            again.tried(minutes(500));
        }
        assert!(
            again.is_due(&some, minutes(500 + 24 * 60)),
            "once a day at least"
        );
        assert!(!again.is_due(&none, minutes(10_000)));
        assert!(!again.is_due(&some, minutes(10_059)), "not at once");
        assert!(again.is_due(&some, minutes(10_060)));
    }
}
