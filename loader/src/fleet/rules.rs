//! Policies of the agents: one file, compiled once for each distinct selection, and shared by everybody
//! to whom it comes down to the same.

use super::FleetError;
use crate::{
    cli::Mode,
    commands,
    enrol::{self, Leads},
    kernel::{KernelError, Pins},
    policy_file::PolicyFile,
    record::Owner,
    resolvers::{self, Place},
};
use ipnet::IpNet;
use policy::{Compiled, Policy, Selected};
use std::{collections::BTreeSet, net::IpAddr};

/// What tells one selection of a file from another: the rules, by where they are, and the mode.
type Key = (policy::Mode, Vec<usize>);

/// A policy in the maps.
struct Loaded {
    /// Nothing when it belongs to a file that has been replaced.
    key: Option<Key>,
    id: u32,
    /// Without its entries, which are in the maps.
    compiled: Compiled,
    users: usize,
}

impl Loaded {
    fn placed(&self, resolvers: Vec<IpAddr>) -> Placed {
        Placed {
            id: self.id,
            compiled: head(&self.compiled),
            resolvers,
        }
    }
}

/// What a slot is put under.
#[derive(Debug)]
pub(super) struct Placed {
    /// Id of the policy.
    pub(super) id: u32,
    /// The policy, without its entries.
    pub(super) compiled: Compiled,
    /// Addresses of its resolvers.
    pub(super) resolvers: Vec<IpAddr>,
}

/// The policy file and what is in the maps.
pub(super) struct Rules {
    file: Option<PolicyFile>,
    observe: Policy,
    /// Reaches nothing.
    nothing: Policy,
    mode: Option<Mode>,
    /// Networks of the monitor itself.
    own: Vec<IpNet>,
    /// What is led to proxies.
    leads: Leads,
    loaded: Vec<Loaded>,
    last: u32,
    /// How often the file has been replaced.
    replaced: u64,
}

fn key(selected: &Selected<'_>) -> Key {
    let at = |rule: &&policy::Rule| std::ptr::from_ref(*rule) as usize;
    (selected.mode, selected.rules().iter().map(at).collect())
}

/// Puts in the networks of the monitor itself and the mode of the command line: part of the policy for everybody who
/// enforces it, the proxies too.
fn suit(policy: &mut Policy, own: &[IpNet], mode: Option<Mode>) {
    policy.close(own);
    if let Some(mode) = mode {
        policy.put_mode(mode.into());
    }
}

/// The head of a compiled policy, whose entries are in the maps.
fn head(compiled: &Compiled) -> Compiled {
    Compiled {
        resolvers: compiled.resolvers.clone(),
        addrs: Vec::new(),
        names: Vec::new(),
        chain: Vec::new(),
        texts: Vec::new(),
        ..*compiled
    }
}

impl Rules {
    pub(super) fn new(
        file: Option<PolicyFile>,
        mode: Option<Mode>,
        own: &[IpNet],
        leads: Leads,
    ) -> Self {
        // An empty policy denies everything.
        let empty = Policy::parse("version: 1\n").policy;
        let suited = |mut policy: Policy| {
            suit(&mut policy, own, mode);
            policy
        };
        let file = file.map(|mut file| {
            suit(&mut file.policy, own, mode);
            file
        });
        Self {
            file,
            observe: suited(Policy::observe()),
            nothing: empty.unwrap_or_else(Policy::observe),
            mode,
            own: own.to_vec(),
            leads,
            loaded: Vec::new(),
            last: 0,
            replaced: 0,
        }
    }

    /// Name of the file; empty without one.
    pub(super) fn name(&self) -> &str {
        self.file.as_ref().map_or("", |f| f.name.as_str())
    }

    /// The policy of everybody; what only observes without a file.
    pub(super) fn policy(&self) -> &Policy {
        self.file.as_ref().map_or(&self.observe, |f| &f.policy)
    }

    /// How often it was replaced.
    pub(super) fn number(&self) -> u64 {
        self.replaced
    }

    /// Puts in what holds here whatever a policy says.
    pub(super) fn suit(&self, policy: &mut Policy) {
        suit(policy, &self.own, self.mode);
    }

    /// Takes another file. What is in the maps stays there until nobody is under it.
    pub(super) fn replace(&mut self, mut file: PolicyFile) {
        self.suit(&mut file.policy);
        self.file = Some(file);
        self.replaced += 1;
        for loaded in &mut self.loaded {
            loaded.key = None;
        }
    }

    /// The policy of an agent, in the maps and counted as used once more. The caller holds the maps, and
    /// `used` are the ids that slots name.
    pub(super) fn place(
        &mut self,
        pins: &Pins,
        owner: &Owner,
        place: Place,
        used: &BTreeSet<u32>,
    ) -> Result<Placed, FleetError> {
        let policy = self.file.as_ref().map_or(&self.observe, |f| &f.policy);
        let selected = policy.select(owner.agent.as_deref(), owner.project.as_deref());
        let key = Some(key(&selected));
        let at = match self.loaded.iter().position(|l| l.key == key) {
            Some(at) => at,
            None => {
                let id = self.fresh(used);
                let wrong = |e| FleetError::Rules(Box::new(e));
                let compiled =
                    commands::compile(self.name(), &selected, id, None, self.leads.proxy)
                        .map_err(wrong)?;
                self.load(pins, key, id, &compiled)?
            }
        };
        let loaded = &mut self.loaded[at];
        let resolvers = resolvers::resolve(&loaded.compiled.resolvers, place, self.leads.names)?;
        loaded.users += 1;
        Ok(loaded.placed(resolvers))
    }

    /// A policy under which nothing passes.
    pub(super) fn place_nothing(
        &mut self,
        pins: &Pins,
        used: &BTreeSet<u32>,
    ) -> Result<Placed, FleetError> {
        let id = self.fresh(used);
        let wrong = |e| FleetError::Rules(Box::new(e));
        let selected = self.nothing.select(None, None);
        let enforce = Some(Mode::Enforce);
        let mut compiled = commands::compile("", &selected, id, enforce, false).map_err(wrong)?;
        compiled.inbound_deny = true;
        compiled.default_allow = false;
        let at = self.load(pins, None, id, &compiled)?;
        self.loaded[at].users += 1;
        Ok(self.loaded[at].placed(Vec::new()))
    }

    fn fresh(&self, used: &BTreeSet<u32>) -> u32 {
        enrol::next_policy(used).max(self.last.wrapping_add(1))
    }

    /// Writes a policy into the maps, with nobody under it yet.
    fn load(
        &mut self,
        pins: &Pins,
        key: Option<Key>,
        id: u32,
        compiled: &Compiled,
    ) -> Result<usize, KernelError> {
        let mut maps = pins.policy()?;
        maps.discard(id)?;
        maps.write(compiled)?;
        self.last = id;
        self.loaded.push(Loaded {
            key,
            id,
            compiled: head(compiled),
            users: 0,
        });
        Ok(self.loaded.len() - 1)
    }

    /// Whether some policy is there that nobody is under.
    pub(super) fn has_idle(&self) -> bool {
        self.loaded.iter().any(|l| l.users == 0)
    }

    /// Removes what was written for somebody who could not be put under it.
    pub(super) fn sweep(&mut self, pins: &Pins, used: &BTreeSet<u32>) -> Result<(), KernelError> {
        let idle: Vec<u32> = self
            .loaded
            .extract_if(.., |l| l.users == 0)
            .map(|l| l.id)
            .collect();
        if idle.is_empty() {
            return Ok(());
        }
        let mut maps = pins.policy()?;
        idle.into_iter().try_for_each(|id| maps.erase(id, used))
    }

    /// A slot is not under this policy any more. It goes with the next [`Self::sweep`] if nobody is.
    pub(super) fn release(&mut self, id: u32) {
        if let Some(loaded) = self.loaded.iter_mut().find(|l| l.id == id) {
            loaded.users = loaded.users.saturating_sub(1);
        }
    }
}
