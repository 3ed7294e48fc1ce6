//! Lifting enforcement for a time, and putting it back: orders, and what they do to the pins of an
//! instance. Whether a loader lives makes no difference: the end of a bypass is in the configuration that
//! the programs read, on the boot clock, which they ask themselves.

pub mod journal;
mod running;

pub use running::{Lifted, Running};

use crate::{
    actor::Actor,
    audit::{BypassChange, BypassEvent, Cause},
    enrol,
    kernel::{KernelError, Pins},
    session::boot_now,
    whom::{self, Whom},
};
use abi::{INFO_REASON, INFO_TEXT, SlotConfig, SlotInfo};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{io, time::Duration};

/// The longest bypass.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest one.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// Most bytes of a reason.
pub const MAX_REASON: usize = 200;

/// Lift enforcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// Only this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Only this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// For how long, milliseconds.
    pub for_ms: u64,
    /// Why.
    pub reason: String,
}

/// Put it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// Only this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Only this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Why, if there is anything to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Begin a bypass, or change a running one.
    Lift(Lift),
    /// End it.
    Restore(Restore),
}

/// Why an order is none, or was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum BypassError {
    /// Too long, or too short.
    #[error("a bypass lasts from 1 second to 24 hours")]
    Time,
    /// No reason, or one that does not fit.
    #[error("a reason is one line of 1 to {MAX_REASON} bytes")]
    Reason,
    /// A process under the firewall.
    #[error("processes under the firewall may not lift it")]
    Guarded,
    /// See [`KernelError`].
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What came of an order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// What was changed, one for each slot.
    pub changes: Vec<BypassChange>,
    /// Who is enforced already, and stays so.
    #[serde(default)]
    pub unchanged: Vec<String>,
    /// Everybody there is.
    #[serde(default)]
    pub agents: Vec<String>,
    /// What was meant too and could not be changed, with the reason.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl Order {
    /// Whom it is about.
    #[must_use]
    pub fn whom(&self) -> Whom {
        let (agent, project) = match self {
            Self::Lift(l) => (&l.agent, &l.project),
            Self::Restore(r) => (&r.agent, &r.project),
        };
        Whom {
            agent: agent.clone(),
            project: project.clone(),
        }
    }

    /// Whether it can be meant: bounds of time and text.
    pub fn check(&self) -> Result<(), BypassError> {
        let reason = match self {
            Self::Lift(l) => {
                let time = Duration::from_millis(l.for_ms);
                if !(SHORTEST..=LONGEST).contains(&time) {
                    return Err(BypassError::Time);
                }
                Some(&l.reason)
            }
            Self::Restore(r) => r.reason.as_ref(),
        };
        let fits = |r: &String| {
            !r.trim().is_empty() && r.len() <= MAX_REASON && !r.chars().any(char::is_control)
        };
        if reason.is_none_or(fits) {
            Ok(())
        } else {
            Err(BypassError::Reason)
        }
    }
}

/// The time of day of a moment of the boot clock.
#[must_use]
pub fn wall(boot_ns: u64) -> Timestamp {
    let off = i128::from(boot_ns) - i128::from(boot_now());
    let off = SignedDuration::from_nanos_i128(off.clamp(i64::MIN.into(), i64::MAX.into()));
    Timestamp::now()
        .checked_add(off)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What becomes of a slot by an order: the new configuration and row, and the record of it. Nothing if it
/// stays as it is.
fn plan(
    instance: &str,
    (info, config): (&SlotInfo, &SlotConfig),
    order: &Order,
    actor: &Actor,
) -> Option<(SlotInfo, SlotConfig, BypassChange)> {
    let now = boot_now();
    let was = config.bypass_until > now;
    match order {
        Order::Lift(lift) => {
            let until = now.saturating_add(lift.for_ms.saturating_mul(1_000_000));
            let info = SlotInfo {
                bypass_since: now,
                bypass_by: enrol::field::<INFO_TEXT>(&actor.to_string()),
                bypass_reason: enrol::field::<INFO_REASON>(&lift.reason),
                ..*info
            };
            let new = lifted_until(config, until);
            let mut change = told(instance, &info, &new, BypassEvent::Begun, Cause::Operator);
            change.bypass_until = wall(until);
            change.replaced_until = was.then(|| wall(config.bypass_until));
            change.actor = Some(actor.clone());
            Some((info, new, change))
        }
        Order::Restore(restore) => {
            if !was {
                return None;
            }
            let new = lifted_until(config, 0);
            let mut change = told(instance, info, &new, BypassEvent::Ended, Cause::Operator);
            change.actor = Some(actor.clone());
            change.message.clone_from(&restore.reason);
            Some((*info, new, change))
        }
    }
}

/// The same configuration with another end of its bypass; live flows are judged again.
fn lifted_until(config: &SlotConfig, until: u64) -> SlotConfig {
    SlotConfig {
        bypass_until: until,
        generation: config.generation.wrapping_add(1),
        ..*config
    }
}

/// The record of a change of this moment.
fn told(
    instance: &str,
    info: &SlotInfo,
    config: &SlotConfig,
    event_name: BypassEvent,
    cause: Cause,
) -> BypassChange {
    let now = Timestamp::now();
    BypassChange {
        time: now,
        event_name,
        agent: whom::label(&info.agent),
        project: whom::label(&info.project),
        container_id: whom::label(&info.container_id),
        container_name: whom::label(&info.container_name),
        instance: instance.to_owned(),
        slot: info.slot,
        cause,
        actor: None,
        bypass_by: enrol::text(&info.bypass_by),
        bypass_reason: enrol::text(&info.bypass_reason),
        bypass_from: wall(info.bypass_since),
        bypass_until: now,
        replaced_until: None,
        message: None,
        generation: config.generation,
    }
}

/// The configuration and the record of a bypass whose time is up and whose end nobody has recorded yet: a
/// recorded end is zero.
fn expired(
    instance: &str,
    info: &SlotInfo,
    config: &SlotConfig,
) -> Option<(SlotConfig, BypassChange)> {
    if config.bypass_until == 0 || config.bypass_until > boot_now() {
        return None;
    }
    let new = lifted_until(config, 0);
    let mut change = told(instance, info, &new, BypassEvent::Ended, Cause::Expired);
    change.bypass_until = wall(config.bypass_until);
    change.time = change.bypass_until;
    Some((new, change))
}

/// Whether a process lives in the cgroup of a slot, or below it.
fn is_guarded(actor: &Actor, info: &SlotInfo) -> bool {
    let place = enrol::text(&info.cgroup);
    let Some(cgroup) = &actor.cgroup else {
        return true;
    };
    let below = cgroup.strip_prefix(place.as_str());
    !place.is_empty() && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Carries out an order in every slot of an instance that it is about. `note` is told of each change
/// before it is made, and of bypasses that ended by time and were not told of; a bypass of which it cannot
/// keep a record does not begin.
pub fn apply(
    pins: &Pins,
    instance: &str,
    order: &Order,
    actor: &Actor,
    mut note: impl FnMut(&BypassChange) -> io::Result<()>,
) -> Result<Done, BypassError> {
    order.check()?;
    let _held = pins.hold()?;
    let infos = pins.infos()?;
    if infos.iter().any(|(_, info)| is_guarded(actor, info)) {
        return Err(BypassError::Guarded);
    }
    let whom = order.whom();
    let mut done = Done {
        agents: infos.iter().map(|(_, i)| whom::of(i)).collect(),
        ..Done::default()
    };
    for (index, info) in infos.iter().filter(|(_, i)| whom.covers(i)) {
        let Some(mut config) = pins.config(info.cgroup_id)? else {
            // Its cgroup is gone; nothing is attached that could be lifted.
            continue;
        };
        if let Some((new, change)) = expired(instance, info, &config)
            && note(&change).is_ok()
        {
            pins.configure(info.cgroup_id, &new)?;
            config = new;
        }
        let Some((row, new, change)) = plan(instance, (info, &config), order, actor) else {
            done.unchanged.push(whom::of(info));
            continue;
        };
        match (note(&change), order) {
            (Err(e), Order::Lift(_)) => {
                done.failed.push(format!(
                    "{}: nothing is lifted without a record, and none can be kept: {e}",
                    whom::of(info)
                ));
                continue;
            }
            // Putting the firewall back does not wait for paper.
            (Err(e), Order::Restore(_)) => done.failed.push(format!(
                "{}: it is enforced, but no record of that can be kept: {e}",
                whom::of(info)
            )),
            (Ok(()), _) => {}
        }
        // The row first: whenever a bypass runs, it is known whose it is.
        let written = pins.set_info(*index, &row);
        match written.and_then(|()| pins.configure(info.cgroup_id, &new)) {
            Ok(()) => done.changes.push(change),
            Err(e) => done.failed.push(format!("{}: {e}", whom::of(info))),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests;
