//! What passes between a set of programs that goes and the loader that takes over from it.

use super::{InstanceError, Seat};
use crate::{
    enrol::text,
    kernel::{Engine, Foreign},
    record::Lookup,
};
use abi::{FlowEvent, FoldKey, FoldRow, LearnedNameKey, SlotConfig, SlotInfo, SlotMetrics};
use std::collections::HashMap;

/// What the loader that takes over has to say and to do.
pub trait Successor {
    /// What a cgroup that was enrolled is to be under from now on; the policy has been written to the
    /// engine's maps, a bypass that runs goes on if it is told here. Row and phase are set by the caller.
    /// Without an answer its flows end, and so does its firewall.
    fn seat(
        &mut self,
        engine: &Engine,
        old: &Seat,
    ) -> Result<Option<(SlotInfo, SlotConfig)>, InstanceError>;
    /// Takes the record of a flow that the old set has ended; whether it is kept.
    fn ended(&mut self, event: &FlowEvent, names: &mut OldNames<'_>) -> bool;
    /// The same for a folded row.
    fn folded(&mut self, key: &FoldKey, row: &FoldRow, names: &mut OldNames<'_>) -> bool;
}

/// What is left of a set that was taken over from.
#[derive(Clone, Debug)]
pub struct Retired {
    /// Its slots, and the slot that each goes on as.
    pub seats: Vec<(Seat, Option<u32>)>,
    /// The last word of its books, row 0 first.
    pub books: Vec<SlotMetrics>,
    /// Entries of its rings that were no records.
    pub malformed: u64,
    /// Its flows that no record tells of, by verdict.
    pub lost: Option<String>,
}

/// Names and rules as the old set knows them.
pub struct OldNames<'a> {
    old: &'a Foreign,
    names: HashMap<(u32, u64), Option<String>>,
    rules: HashMap<(u32, u32), Option<String>>,
}

impl<'a> OldNames<'a> {
    pub(super) fn new(old: &'a Foreign) -> Self {
        Self {
            old,
            names: HashMap::new(),
            rules: HashMap::new(),
        }
    }
}

impl Lookup for OldNames<'_> {
    fn name(&mut self, slot: u32, hash: u64) -> Option<String> {
        let read = || {
            let found = self.old.name(&LearnedNameKey { slot, pad: 0, hash })?;
            let name = text(&found.reversed);
            Some(name.chars().rev().collect())
        };
        self.names.entry((slot, hash)).or_insert_with(read).clone()
    }

    fn rule(&mut self, policy: u32, rule: u32) -> Option<String> {
        let read = || self.old.rule(policy, rule).map(|r| text(&r.name));
        self.rules
            .entry((policy, rule))
            .or_insert_with(read)
            .clone()
    }
}
