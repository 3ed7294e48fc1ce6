//! The bypasses that run in an instance, as its loader keeps them in mind: to record how each ends, and to
//! tell who watches.

use super::{BypassError, Done, Order, apply, expired, told, wall};
use crate::{
    actor::Actor,
    audit::{BypassChange, BypassEvent, Cause},
    enrol,
    kernel::{KernelError, Pins},
    session::boot_now,
    whom,
};
use abi::SlotInfo;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A running bypass, as watchers are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// Raw label of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Raw label of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Who ordered it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when.
    pub until: Timestamp,
}

impl Lifted {
    /// Whether two tell of one bypass: moments of the boot clock are told in a time of day that moves.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let apart = self.until.duration_since(other.until).abs();
        let moved = Self {
            until: self.until,
            ..other.clone()
        };
        apart.as_secs() < 2 && *self == moved
    }
}

/// What is kept in mind of one.
#[derive(Clone, Debug)]
struct Known {
    info: SlotInfo,
    until: u64,
    generation: u32,
}

/// The bypasses that run in an instance.
#[derive(Debug)]
pub struct Running {
    instance: String,
    by_index: BTreeMap<u32, Known>,
}

impl Running {
    /// None that is known of.
    #[must_use]
    pub fn new(instance: &str) -> Self {
        Self {
            instance: instance.to_owned(),
            by_index: BTreeMap::new(),
        }
    }

    /// Looks which there are, those among them that ended without a loader.
    pub fn look(&mut self, pins: &Pins) -> Result<(), KernelError> {
        let _held = pins.hold()?;
        let mut found = BTreeMap::new();
        for (index, info) in pins.infos()? {
            let config = pins.config(info.cgroup_id)?;
            if let Some(config) = config.filter(|c| c.bypass_until != 0) {
                let (until, generation) = (config.bypass_until, config.generation);
                found.insert(
                    index,
                    Known {
                        info,
                        until,
                        generation,
                    },
                );
            }
        }
        self.by_index = found;
        Ok(())
    }

    /// Carries out an order. Hands every change to `record`.
    pub fn order(
        &mut self,
        pins: &Pins,
        order: &Order,
        actor: &Actor,
        mut record: impl FnMut(&BypassChange),
    ) -> Result<Done, BypassError> {
        let done = apply(pins, &self.instance, order, actor, |change| {
            record(change);
            Ok(())
        })?;
        self.look(pins)?;
        Ok(done)
    }

    /// Ends what is due. The programs have ended it by themselves; this is for the record, and so that it
    /// is recorded once. What is gone with its slot is recorded too.
    pub fn expire(&mut self, pins: &Pins) -> Result<Vec<BypassChange>, KernelError> {
        let now = boot_now();
        if self.by_index.values().all(|k| k.until > now) {
            return Ok(Vec::new());
        }
        let _held = pins.hold()?;
        let mut ended = Vec::new();
        let due: Vec<u32> = self
            .by_index
            .iter()
            .filter(|(_, k)| k.until <= now)
            .map(|(i, _)| *i)
            .collect();
        for index in due {
            let Some((info, config)) = enrol::read(pins, index)?.filter(|(info, _)| {
                self.by_index
                    .get(&index)
                    .is_some_and(|k| k.info.slot == info.slot)
            }) else {
                ended.extend(self.over(index));
                continue;
            };
            if config.bypass_until > now {
                // Somebody else has changed it.
                if let Some(known) = self.by_index.get_mut(&index) {
                    (known.until, known.info) = (config.bypass_until, info);
                }
                continue;
            }
            self.by_index.remove(&index);
            // Nothing if somebody else has ended it, who has told.
            if let Some((new, change)) = expired(&self.instance, &info, &config) {
                // If it fails the end stays in the past, where it lifts nothing.
                let _ = pins.configure(info.cgroup_id, &new);
                ended.push(change);
            }
        }
        Ok(ended)
    }

    /// The slot of this row is gone, and with it the bypass, if there was one.
    pub fn over(&mut self, index: u32) -> Option<BypassChange> {
        let Known {
            info,
            until,
            generation,
        } = self.by_index.remove(&index)?;
        let config = abi::SlotConfig {
            generation,
            ..zerocopy::FromZeros::new_zeroed()
        };
        let mut change = told(
            &self.instance,
            &info,
            &config,
            BypassEvent::Ended,
            Cause::Over,
        );
        if until <= boot_now() {
            change.cause = Cause::Expired;
            change.bypass_until = wall(until);
            change.time = change.bypass_until;
        }
        Some(change)
    }

    /// Everything is over.
    pub fn all_over(&mut self) -> Vec<BypassChange> {
        let all: Vec<u32> = self.by_index.keys().copied().collect();
        all.into_iter().filter_map(|i| self.over(i)).collect()
    }

    /// For watchers.
    #[must_use]
    pub fn lifted(&self) -> Vec<Lifted> {
        let now = boot_now();
        let running = self.by_index.values().filter(|k| k.until > now);
        running.map(|k| lifted(&k.info, k.until)).collect()
    }
}

/// A running bypass, as watchers are told.
fn lifted(info: &SlotInfo, until: u64) -> Lifted {
    Lifted {
        agent: whom::label(&info.agent),
        project: whom::label(&info.project),
        container_name: whom::label(&info.container_name),
        by: enrol::text(&info.bypass_by),
        reason: enrol::text(&info.bypass_reason),
        until: wall(until),
    }
}
