//! How large the maps are made.

use abi::maps;

/// How large the maps are made.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of each of the two rings; a power of two and a multiple of the page size.
    pub ring_bytes: u32,
    /// Slots that can be attached at once.
    pub slots: u32,
    /// Names that one slot may learn.
    pub names: u32,
    /// Addresses that one slot may learn.
    pub addrs: u32,
    /// Folded rows that one slot may hold in one epoch.
    pub folds: u32,
    /// Records a second of one slot before flows are folded.
    pub rate: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            ring_bytes: 1 << 20,
            slots: 1,
            names: 2048,
            addrs: 4096,
            folds: 256,
            rate: 2000,
        }
    }
}

/// Interfaces that one container has, on average, at most.
const DEVICES_A_SLOT: u32 = 16;
/// Live flows of a slot that find room when another set of programs takes over.
const HEIRS_A_SLOT: u32 = 4096;
/// What is noted of a slot meanwhile.
const NOTES_A_SLOT: u32 = 1024;
/// The same of all slots together.
const HEIRS_MOST: u32 = 1 << 16;

impl Sizes {
    /// Rows of the books: one a slot, and row 0 for what is not enrolled.
    pub(super) fn rows(&self) -> u32 {
        self.slots + 1
    }

    /// Maps that are not made as large as the object says, and how large.
    pub(super) fn entries(&self) -> [(&'static str, u32); 12] {
        [
            (maps::RING_ALLOWED, self.ring_bytes),
            (maps::RING_DENIED, self.ring_bytes),
            (maps::METRICS, self.rows()),
            (maps::SLOT_INFO, self.rows()),
            (maps::CONFIGS, self.rows()),
            (maps::HANDLED, self.rows()),
            (
                maps::HEIRS,
                self.slots.saturating_mul(HEIRS_A_SLOT).min(HEIRS_MOST),
            ),
            (
                maps::HEIR_NOTES,
                self.slots.saturating_mul(NOTES_A_SLOT).min(HEIRS_MOST),
            ),
            (maps::DEVICES, self.slots.saturating_mul(DEVICES_A_SLOT)),
            (maps::LEARNED_ADDRS, self.slots * self.addrs),
            (maps::LEARNED_NAMES, self.slots * self.names),
            // Two epochs of each slot, and row 0 for what is not enrolled.
            (maps::FOLDS, self.rows() * self.folds * 2),
        ]
    }
}
