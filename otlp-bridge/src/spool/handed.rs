//! Which records are in the hands of delivery. They are neither handed out twice nor thrown away.

use super::books::Tier;
use std::collections::{BTreeSet, HashMap};

/// All that is handed out, by data stream.
#[derive(Debug, Default)]
pub(super) struct Handed(HashMap<String, Stream>);

/// What is handed out of a data stream.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// Where looking begins, by tier: before it everything is handed out or gone.
    from: [u64; Tier::ALL],
    places: BTreeSet<u64>,
}

impl Stream {
    pub(super) fn from(&self, tier: Tier) -> u64 {
        self.from[tier.index()]
    }

    pub(super) fn has(&self, place: u64) -> bool {
        self.places.contains(&place)
    }

    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Looked at in order: nothing up to it needs to be looked at again.
    pub(super) fn passed(&mut self, tier: Tier, place: u64) {
        let from = &mut self.from[tier.index()];
        *from = (*from).max(place + 1);
    }

    pub(super) fn hand_out(&mut self, place: u64) {
        self.places.insert(place);
    }
}

impl Handed {
    pub(super) fn of(&mut self, stream: &str) -> &mut Stream {
        self.0.entry(stream.to_owned()).or_default()
    }

    pub(super) fn get(&self, stream: &str) -> Option<&Stream> {
        self.0.get(stream)
    }

    /// It is settled, and no longer in the store.
    pub(super) fn settled(&mut self, stream: &str, place: u64) {
        if let Some(s) = self.0.get_mut(stream) {
            s.places.remove(&place);
        }
    }

    /// It is wanted back: to be handed out again later.
    pub(super) fn back(&mut self, stream: &str, tier: Tier, place: u64) {
        let s = self.of(stream);
        s.places.remove(&place);
        let from = &mut s.from[tier.index()];
        *from = (*from).min(place);
    }

    /// A transaction that passed over records did not come to be: look at everything again.
    pub(super) fn rewind(&mut self) {
        for s in self.0.values_mut() {
            s.from = [0; Tier::ALL];
        }
    }
}
