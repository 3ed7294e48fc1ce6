//! What the loader says about itself: its counters as metrics, and its warnings as records of
//! `clawker-cp`. Pure but for [`hooks`], which asks the kernel, and [`log`], which is installed once.

pub mod hooks;
mod ledger;
pub mod log;

use crate::{
    export::State,
    record::{REASONS, VERDICTS},
};
use abi::trouble;
use jiff::Timestamp;
pub use ledger::{Ledger, Sums};
use wire::{
    Snapshot, Source,
    metrics::{self as m, Counter, Metric},
    stream,
};

/// Causes of trouble, by number.
const CAUSES: [&str; trouble::COUNT] = [
    "ring_full",
    "rate",
    "folds_full",
    "names_full",
    "addrs_full",
    "answer_malformed",
    "name_collision",
    "scratch_busy",
    "no_state",
    "names_crowded",
    "no_socket",
];

/// Words of [`State::batches`].
const OUTCOMES: [&str; 4] = ["delivered", "partial", "retry", "refused"];

/// What is counted elsewhere than in the kernel's books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Agents under the firewall.
    pub agents: u64,
    /// Whether all their hooks are in force; nothing when there is no agent.
    pub guarded: Option<bool>,
    /// Flows declared lost since the start.
    pub lost: u64,
    /// Entries of the rings that were no records, since the start.
    pub malformed: u64,
    /// The way to the receiver.
    pub export: State,
    /// Own log records that were not sent, since the start.
    pub unsent: u64,
}

/// Who the loader's metrics and log records are from. `instance`: as `dump` names it.
#[must_use]
pub fn source(instance: &str) -> Source {
    Source::new(
        stream::CONTROL_PLANE,
        "ebpf-manager",
        env!("CARGO_PKG_VERSION"),
        instance,
    )
}

/// Everything as metrics. `start`: when the sums began.
#[must_use]
pub fn snapshot(
    source: &Source,
    start: Timestamp,
    now: Timestamp,
    sums: &Sums,
    view: &View,
) -> Snapshot {
    let mut s = Snapshot::new(source, start, now);
    s.set(m::AGENTS, [], view.agents);
    if let Some(guarded) = view.guarded {
        s.set(m::HOOKS, [], guarded.into());
    }
    s.set(m::FLOWS_OPENED, [], sums.opened);
    by(&mut s, m::FLOWS_ENDED, &VERDICTS, &sums.ended);
    by(&mut s, m::FLOWS_RECORDED, &VERDICTS, &sums.recorded);
    by(&mut s, m::FLOWS_DENIED, &REASONS, &sums.denied);
    // The two causes of folding come first.
    let (folded, other) = CAUSES.split_at(trouble::FOLDS_FULL);
    let (folds, rest) = sums.trouble.split_at(trouble::FOLDS_FULL);
    by(&mut s, m::FLOWS_FOLDED, folded, folds);
    by(&mut s, m::TROUBLE, other, rest);
    s.set(m::FLOWS_LOST, [], view.lost);
    s.set(m::FLOWS_UNENROLLED, [], sums.unenrolled);
    s.set(m::MALFORMED, [], view.malformed);
    s.set(m::QUEUE, [], view.export.queued);
    s.set(m::QUEUE_LIMIT, [], view.export.room);
    by(&mut s, m::BATCHES, &OUTCOMES, &view.export.batches);
    s.set(m::UNDELIVERED, [], view.export.given_up);
    s.set(m::LOG_SUPPRESSED, [], view.unsent);
    s
}

/// One value a word of a closed list. All of them, also those that are 0: a series that begins with its
/// first event hides that event from `rate`.
fn by(s: &mut Snapshot, metric: Metric<Counter, 1>, words: &[&str], values: &[u64]) {
    for (word, value) in words.iter().zip(values) {
        s.set(metric, [word], *value);
    }
}

#[cfg(test)]
mod tests;
