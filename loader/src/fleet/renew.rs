//! Changes of policy while agents live: a changed file, and what others have put a slot under.

use super::{Fleet, FleetError, roll::Life};
use crate::{
    audit::{self, Outcome, PolicyChange},
    enrol::{self, Way, text},
    policy_file::PolicyFile,
    record::Owner,
    resolvers::Place,
    sink::Sink,
};
use abi::SlotConfig;
use anstream::adapter::strip_str;
use jiff::Timestamp;

/// A change of policy as it is told.
fn change(
    owner: &Owner,
    outcome: Outcome,
    policy: &str,
    generation: u32,
    message: &str,
) -> PolicyChange {
    PolicyChange {
        time: Timestamp::now(),
        event_name: audit::POLICY,
        agent: owner.agent.clone(),
        project: owner.project.clone(),
        outcome,
        policy: policy.to_owned(),
        generation,
        message: strip_str(message).to_string(),
    }
}

impl Fleet {
    /// Puts every agent under a file that was read anew. For whom it cannot be put into force, the policy
    /// before it stays.
    pub fn replace_policy(&mut self, file: PolicyFile, sink: &mut Sink) -> Result<(), FleetError> {
        self.rules.replace(file);
        let lives: Vec<Life> = self.guards.keys().copied().collect();
        let _held = self.instance.pins.hold()?;
        for life in lives {
            let Some(owner) = self.roll.get(life).map(super::roll::Member::owner) else {
                continue;
            };
            let Some(old) = self.config(life)? else {
                continue;
            };
            let put = self.put(life, &owner, &old, Place::of(&old));
            let put = put.map_err(|e| e.to_string());
            self.tell_put(&owner, &old, put, "the file has changed", sink);
        }
        let used = self.used()?;
        self.rules.sweep(&self.instance.pins, &used)?;
        Ok(())
    }

    /// Puts into a file's policy what holds here whatever it says: closed networks, and a mode of the command line.
    pub fn suit(&self, file: &mut PolicyFile) {
        self.rules.suit(&mut file.policy);
    }

    /// Tells that the proxies have been given a file, which is in force for nobody yet.
    pub fn offered(&self, file: &str, sink: &mut Sink) {
        let said = "the kernel follows when Envoy has taken it";
        let offered = change(&Owner::default(), Outcome::Offered, file, 0, said);
        sink.change(&offered, "");
    }

    /// Tells that a file was not put into force, for nobody.
    pub fn refuse(&self, file: &str, why: &str, sink: &mut Sink) {
        let said = format!("{why}; the policy before it stays\n");
        let refused = change(
            &Owner::default(),
            Outcome::Refused,
            file,
            0,
            said.trim_end(),
        );
        sink.change(&refused, &said);
    }

    /// Tells what has come of putting an agent under the file.
    pub(super) fn tell_put(
        &self,
        owner: &Owner,
        old: &SlotConfig,
        put: Result<u32, String>,
        why: &str,
        sink: &mut Sink,
    ) {
        let name = self.rules.name();
        match put {
            Ok(generation) => {
                let applied = change(owner, Outcome::Applied, name, generation, why);
                sink.change(&applied, "");
            }
            Err(said) => {
                let refused = change(owner, Outcome::Refused, name, old.generation, &said);
                sink.change(&refused, &format!("{said}\n"));
            }
        }
    }

    /// Puts one agent, which has this configuration, under what the file says for it; its generation then.
    /// The caller holds the maps.
    pub(super) fn put(
        &mut self,
        life: Life,
        owner: &Owner,
        old: &SlotConfig,
        place: Place,
    ) -> Result<u32, FleetError> {
        let used = self.used()?;
        let pins = &self.instance.pins;
        let placed = self.rules.place(pins, owner, place, &used)?;
        let config = enrol::renewed(old, placed.id, &placed.compiled, &placed.resolvers, place);
        let config = self.way_of(life, old).lead(config);
        self.session.renew_rules(placed.id);
        let Some(guard) = self.guards.get_mut(&life) else {
            return Ok(old.generation);
        };
        pins.configure(guard.cgroup_id, &config)?;
        if let Some(before) = guard.policy.replace(placed.id) {
            self.rules.release(before);
        }
        guard.current = placed.id;
        let infos = pins.infos()?;
        if let Some((index, info)) = infos.into_iter().find(|(i, _)| *i == old.index) {
            pins.set_info(index, &enrol::under_file(&info, self.rules.name()))?;
        }
        Ok(config.generation)
    }

    /// The way to the proxy of an agent that has this configuration, which holds until the engine has been asked.
    fn way_of(&self, life: Life, old: &SlotConfig) -> Way {
        let known = self.roll.get(life).filter(|m| m.container.is_known());
        match known {
            Some(m) => self.way(m),
            None => Way::of(old),
        }
    }

    /// Tells of policies that somebody else has put an agent under, and removes those that nobody needs.
    pub(super) fn notice(&mut self, sink: &mut Sink) -> Result<(), FleetError> {
        let lives: Vec<Life> = self.guards.keys().copied().collect();
        for life in lives {
            let (Some(config), Some(owner)) = (
                self.config(life)?,
                self.roll.get(life).map(super::roll::Member::owner),
            ) else {
                continue;
            };
            let Some(guard) = self.guards.get_mut(&life) else {
                continue;
            };
            if config.policy == guard.current {
                continue;
            }
            guard.current = config.policy;
            if let Some(before) = guard.policy.take() {
                self.rules.release(before);
            }
            self.session.renew_rules(config.policy);
            let infos = self.instance.pins.infos()?;
            let info = infos.into_iter().find(|(i, _)| *i == config.index);
            let file = info.map_or(String::new(), |(_, i)| text(&i.policy_file));
            let why = "another process has applied it";
            sink.change(
                &change(&owner, Outcome::Applied, &file, config.generation, why),
                "",
            );
        }
        if self.rules.has_idle() {
            let _held = self.instance.pins.hold()?;
            let used = self.used()?;
            self.rules.sweep(&self.instance.pins, &used)?;
        }
        Ok(())
    }
}
