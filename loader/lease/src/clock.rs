//! From wall time to boot time.
//!
//! The two clocks run at the same rate: the kernel slews both alike, and suspend moves both alike. So
//! wall minus boot is a constant, except that setting the wall clock (an NTP step, a leap second,
//! `date -s`) changes it at once. [`Clock`] is told both clocks again and again and remembers which
//! constant held when. Between the last reading with the old constant and the first with the new one
//! either may have held; both are tried there.

use crate::time::{BootTime, WallTime};
use serde::{Deserialize, Serialize};

/// How far the clocks may seem to move against each other before that is a step, and how long a
/// [`Reading`] may take, nanoseconds. A wall time is known to twice that.
pub const TOLERANCE_NS: u64 = 1_000_000;
/// Constants that are remembered. Whoever sets the clock more often loses the oldest.
pub const MAX_SPANS: usize = 64;

/// Both clocks, read one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The boot clock, before.
    pub before: BootTime,
    /// The wall clock.
    pub wall: WallTime,
    /// The boot clock, after.
    pub after: BootTime,
}

/// What a [`Reading`] showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The wall clock has not been set.
    Steady,
    /// The wall clock has been set, by that many nanoseconds.
    Step(i64),
    /// The reading took longer than [`TOLERANCE_NS`], is older than one before, or is off the scale:
    /// not used, read again.
    Unusable,
}

/// Why a clock as read from a file is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// Too many spans.
    #[error("the clock has {0} spans, more than {MAX_SPANS}")]
    TooMany(usize),
    /// A span ends before it begins, or an open one is not the last, or the last is not open.
    #[error("span {0} of the clock has a wrong end")]
    End(usize),
    /// A span does not follow the one before it.
    #[error("span {0} of the clock does not follow the one before")]
    Order(usize),
    /// The time of the last reading does not fit.
    #[error("the clock was last read before its last span began")]
    Observed,
    /// The range of lost wall times is upside down.
    #[error("the range of wall times that the clock lost ends before it begins")]
    Lost,
}

/// Which wall times stood for which boot times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Time of the last reading.
    observed: BootTime,
    spans: Vec<Span>,
    /// Wall times of which spans are forgotten: they may stand for a moment that is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<Range>,
}

/// A time in which wall minus boot may have been `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    from: BootTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<BootTime>,
    offset: i64,
}

/// Wall times, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: WallTime,
    to: WallTime,
}

impl Clock {
    /// Takes a reading into account. Wall times from before the first reading stand for nothing.
    ///
    /// Two steps between two readings look like one: read at least once a second, and before looking
    /// up what has just arrived.
    pub fn observe(&mut self, reading: Reading) -> Observation {
        let Reading {
            before,
            wall,
            after,
        } = reading;
        let took = after.0.checked_sub(before.0);
        if took.is_none_or(|took| took > TOLERANCE_NS) || before < self.observed {
            return Observation::Unusable;
        }
        let most = i128::from(wall.0) - i128::from(before.0);
        let least = i128::from(wall.0) - i128::from(after.0);
        let Ok(offset) = i64::try_from(i128::midpoint(least, most)) else {
            return Observation::Unusable;
        };
        let Some(last) = self.spans.last_mut() else {
            self.spans.push(Span {
                from: before,
                to: None,
                offset,
            });
            self.observed = after;
            return Observation::Steady;
        };
        let tolerance = i128::from(TOLERANCE_NS);
        if (least - tolerance..=most + tolerance).contains(&i128::from(last.offset)) {
            self.observed = after;
            return Observation::Steady;
        }
        let step = offset.saturating_sub(last.offset);
        last.to = Some(after);
        self.spans.push(Span {
            from: self.observed,
            to: None,
            offset,
        });
        self.observed = after;
        self.lose_oldest();
        Observation::Step(step)
    }

    fn lose_oldest(&mut self) {
        if self.spans.len() <= MAX_SPANS {
            return;
        }
        let span = self.spans.remove(0);
        let (from, to) = (
            span.wall(span.from),
            span.wall(span.to.unwrap_or(BootTime(u64::MAX))),
        );
        self.lost = Some(self.lost.map_or(Range { from, to }, |lost| Range {
            from: lost.from.min(from),
            to: lost.to.max(to),
        }));
    }

    /// Every moment at which the wall clock may have shown that, to two [`TOLERANCE_NS`]: none if it
    /// never did (skipped by a step forward, before the first reading) or if what is known is not
    /// enough, several after a step back.
    pub fn boot_times(&self, wall: WallTime) -> impl Iterator<Item = BootTime> + '_ {
        let lost = self
            .lost
            .is_some_and(|lost| (lost.from..=lost.to).contains(&wall));
        let spans = if lost { &[][..] } else { &self.spans };
        spans.iter().filter_map(move |span| span.boot(wall))
    }

    /// Time of the last reading.
    #[must_use]
    pub fn observed(&self) -> BootTime {
        self.observed
    }

    /// Whether this could have come out of readings.
    pub(crate) fn check(&self) -> Result<(), ClockError> {
        if self.spans.len() > MAX_SPANS {
            return Err(ClockError::TooMany(self.spans.len()));
        }
        for (i, span) in self.spans.iter().enumerate() {
            let last = i + 1 == self.spans.len();
            if span.to.is_none() != last || span.to.is_some_and(|to| to < span.from) {
                return Err(ClockError::End(i));
            }
            // A reading that ends one span is the earliest that can show the next.
            let follows = |before: &Span| {
                before.from <= span.from && before.to.is_some_and(|to| span.from <= to)
            };
            if i > 0 && !follows(&self.spans[i - 1]) {
                return Err(ClockError::Order(i));
            }
        }
        if self.spans.last().is_some_and(|s| self.observed < s.from) {
            return Err(ClockError::Observed);
        }
        if self.lost.is_some_and(|lost| lost.to < lost.from) {
            return Err(ClockError::Lost);
        }
        Ok(())
    }
}

impl Span {
    fn boot(&self, wall: WallTime) -> Option<BootTime> {
        let boot = u64::try_from(i128::from(wall.0) - i128::from(self.offset)).ok()?;
        let to = self.to.unwrap_or(BootTime(u64::MAX));
        (self.from..=to)
            .contains(&BootTime(boot))
            .then_some(BootTime(boot))
    }

    /// The nearest wall time that can be written down.
    fn wall(&self, boot: BootTime) -> WallTime {
        let wall = i128::from(boot.0) + i128::from(self.offset);
        WallTime(u64::try_from(wall.max(0)).unwrap_or(u64::MAX))
    }
}
