//! The accounting identity, read off the books of a slot: every flow that began is alive, or has ended
//! and is in a record, or is told as lost.
//!
//! A record is counted right after it was written. A loader that is killed between the two leaves one
//! record that is written and told as lost; none is silently lost.

use crate::{record::verdict, render::units, session::Debt};
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

/// What is in no record and never will be, after a loader was killed: of each slot and verdict, the flows
/// that have ended, less those that the receiver has on record (`held`), less those that are still on their
/// way (`waiting`: in the rings, folded in the kernel, or handed over since and not confirmed).
///
/// Read `held` and `waiting` before the books: then what ends meanwhile makes the answer too large, never
/// too small, and the least of several answers is the right one.
#[must_use]
pub fn killed(books: &[SlotMetrics], held: &[Debt], waiting: &[Debt]) -> Vec<Debt> {
    let sum = |of: &[Debt], slot: u32, verdict: u8| -> u64 {
        let same = |d: &&Debt| d.slot == slot && d.verdict == verdict;
        of.iter().filter(same).map(|d| d.flows).sum()
    };
    let rows = books.iter().filter(|b| b.slot != 0);
    let all = rows.flat_map(|b| (0..VERDICTS as u8).map(move |verdict| (b, verdict)));
    let debts = all.map(|(b, verdict)| {
        let told = sum(held, b.slot, verdict) + sum(waiting, b.slot, verdict);
        Debt {
            slot: b.slot,
            verdict,
            flows: b.ended[usize::from(verdict)].saturating_sub(told),
        }
    });
    debts.filter(|d| d.flows > 0).collect()
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
    fn a_killed_loader_has_lost_what_is_neither_held_nor_waiting() {
        let debt = |slot, verdict, flows| Debt {
            slot,
            verdict,
            flows,
        };
        let row = |slot, ended| SlotMetrics {
            slot,
            ..books(0, ended, [0; VERDICTS])
        };
        let all = [row(0, [9, 9, 9]), row(7, [10, 5, 1]), row(8, [3, 0, 0])];
        let held = [debt(7, 0, 6), debt(7, 1, 5), debt(9, 0, 100)];
        let waiting = [debt(7, 0, 1), debt(7, 0, 1), debt(8, 0, 3)];
        assert_eq!(
            killed(&all, &held, &waiting),
            [debt(7, 0, 2), debt(7, 2, 1)]
        );
        // A receiver that was told twice holds no more than there was.
        assert_eq!(
            killed(&all[1..2], &[debt(7, 0, 99)], &[]),
            [debt(7, 1, 5), debt(7, 2, 1)]
        );
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
