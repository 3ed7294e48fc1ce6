//! The accounting identity, read off the books of a slot: every flow that began is alive, or has ended
//! and is in a record, or is told as lost.
//!
//! A record is counted right after it was written. A loader that is killed between the two leaves one
//! record that is written and told as lost; none is silently lost.

use crate::{record::verdict, render::units};
use abi::{SlotMetrics, VERDICTS};

/// Flows that ended and that no record tells of, by verdict. A running loader will tell of them; those
/// of a dead one are lost.
#[must_use]
pub fn unrecorded(b: &SlotMetrics) -> [u64; VERDICTS] {
    std::array::from_fn(|v| b.ended[v].saturating_sub(b.recorded[v]))
}

/// Flows that began and are neither among the `live` ones nor among those that ended.
#[must_use]
pub fn astray(b: &SlotMetrics, live: u64) -> u64 {
    let ended: u64 = b.ended.iter().sum();
    b.opened.saturating_sub(ended + live)
}

/// What is lost when nothing is alive any more and nobody will write another record: `3 allowed, 1 200
/// denied`, nothing when nothing is.
#[must_use]
pub fn losses(books: &[SlotMetrics]) -> Option<String> {
    let ended = books.iter().map(unrecorded);
    let counts = ended.fold([0; VERDICTS], |sum, row| {
        std::array::from_fn(|v| sum[v] + row[v])
    });
    let astray: u64 = books.iter().map(|b| astray(b, 0)).sum();
    let mut told: Vec<String> = (0..)
        .zip(counts)
        .filter(|(_, n)| *n > 0)
        .map(|(v, n)| format!("{} {}", units::count(n), verdict(v).to_lowercase()))
        .collect();
    if astray > 0 {
        told.push(format!("{} whose end was not seen", units::count(astray)));
    }
    (!told.is_empty()).then(|| told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    fn books(opened: u64, ended: [u64; VERDICTS], recorded: [u64; VERDICTS]) -> SlotMetrics {
        SlotMetrics {
            opened,
            ended,
            recorded,
            ..SlotMetrics::new_zeroed()
        }
    }

    #[test]
    fn what_ended_is_recorded_or_lost() {
        let b = books(20, [10, 5, 1], [10, 2, 0]);
        assert_eq!(unrecorded(&b), [0, 3, 1]);
        assert_eq!(astray(&b, 4), 0);
        assert_eq!(astray(&b, 1), 3);
        // Books that are read while flows begin and end may be ahead of each other.
        assert_eq!(astray(&b, 5), 0);
        assert_eq!(unrecorded(&books(1, [1, 0, 0], [2, 0, 0])), [0; VERDICTS]);
    }

    #[test]
    fn losses_are_told_by_verdict_over_all_slots() {
        let whole = books(7, [4, 3, 0], [4, 3, 0]);
        assert_eq!(losses(&[whole, whole]), None);
        let some = books(1206, [4, 1200, 0], [3, 0, 0]);
        assert_eq!(
            losses(&[whole, some]).unwrap(),
            "1 allowed, 1 200 denied, 2 whose end was not seen"
        );
    }
}
