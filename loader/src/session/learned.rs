//! When learned names and addresses are cleaned, and which of them go.

use crate::kernel::Learned;
use abi::SlotMetrics;
use std::collections::HashSet;

/// Whether a slot has used a quarter of what it may learn.
pub(super) fn is_crowded(b: &SlotMetrics) -> bool {
    let crowded = |used: u64, max: u32| used * 4 > u64::from(max);
    crowded(b.names_used, b.max_names) || crowded(b.addrs_used, b.max_addrs)
}

/// What of a slot expired before `limit` and is not held.
pub(super) fn expired(all: &Learned, slot: u32, limit: u64, held: &HashSet<(u32, u64)>) -> Learned {
    let addrs = all
        .addrs
        .iter()
        .filter(|(k, v)| k.slot == slot && v.names.iter().all(|r| r.hash == 0 || r.expires < limit))
        .copied()
        .collect();
    let names = all
        .names
        .iter()
        .filter(|(k, n)| k.slot == slot && n.expires < limit && !held.contains(&(slot, k.hash)))
        .copied()
        .collect();
    Learned { names, addrs }
}
