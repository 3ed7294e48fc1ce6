//! Who is there and what has to be done about it. Pure: news and what was seen of the kernel go in, steps
//! come out, and whoever carries them out says how that went.

mod member;

pub use member::Member;

use crate::docker::{Container, Newborn, News};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

/// Longer than a start usually takes, nanoseconds.
const LONG_START: u64 = 10_000_000_000;

/// One life of a container, from start to end. A restarted container has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(u64);

/// How far a life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No agent: known for its addresses alone.
    Bystander,
    /// An agent that is not enrolled yet. Nothing of it passes once the programs are attached.
    Wanted,
    /// It has a slot.
    Enrolled,
    /// The engine says that it has ended; what it left behind is still under its policy.
    Ended {
        /// When, boot clock.
        since: u64,
    },
    /// Its flows have ended and its slot is taken away; their records are still on their way.
    Closed,
    /// Everything is told and its row is free. The links stay until the kernel has let go of the cgroup.
    Barred,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody whose addresses must be known.
    Meet(Life),
    /// Attach, and open a slot in the row that was set aside; then say [`Roll::enrolled`] or
    /// [`Roll::failed`].
    Enrol(Life),
    /// Attach and leave it at that: there is no row free. Everything is denied.
    Shut(Life),
    /// Its name or its addresses have changed.
    Renew(Life),
    /// It has ended.
    End {
        /// Which one.
        life: Life,
        /// When, nanoseconds of wall time; nothing if nobody saw it.
        at: Option<i64>,
    },
    /// End the flows that are left, and take the slot away.
    Close(Life),
    /// Everything of it is told: free its row.
    Free(Life),
    /// The kernel has let go of its cgroup: remove its links.
    Unpin(Life),
}

/// What was seen of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Lives whose cgroup the kernel has let go of: no process and no socket of it is left. Asked of those
    /// that have ended and of newborns.
    pub gone: HashSet<Life>,
    /// Slots with a socket that has a flow, or a connection that was cut.
    pub busy: HashSet<u32>,
    /// Slots of which flows have ended that are neither recorded nor declared.
    pub owed: HashSet<u32>,
}

/// Everybody who is there.
#[derive(Debug)]
pub struct Roll {
    members: BTreeMap<Life, Member>,
    free: BTreeSet<u32>,
    next: u64,
    /// How long the sockets of an ended container may live on before they are cut, nanoseconds.
    linger: u64,
}

impl Roll {
    /// Nobody, with room for so many agents at once. `linger`: how long the sockets of an ended container
    /// may live on before they are cut.
    #[must_use]
    pub fn new(rows: u32, linger: Duration) -> Self {
        Self {
            members: BTreeMap::new(),
            free: (1..=rows).collect(),
            next: 0,
            linger: u64::try_from(linger.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, life: Life) -> Option<&Member> {
        self.members.get(&life)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Life, &Member)> {
        self.members.iter().map(|(life, m)| (*life, m))
    }

    /// Somebody whom a loader before had enrolled, in this row. Until the engine has described it, it is
    /// treated like one that is being started.
    pub fn adopt(&mut self, container: Container, stage: Stage, index: u32, slot: u32) -> Life {
        self.free.remove(&index);
        self.insert(Member {
            container,
            stage,
            index: Some(index),
            slot: Some(slot),
            newborn: true,
            held_since: None,
        })
    }

    /// A cgroup that is attached and has no slot.
    pub fn adopt_stray(&mut self) -> Life {
        self.insert(Member {
            container: Container::unknown(),
            stage: Stage::Barred,
            index: None,
            slot: None,
            newborn: true,
            held_since: None,
        })
    }

    fn insert(&mut self, member: Member) -> Life {
        let life = Life(self.next);
        self.next += 1;
        self.members.insert(life, member);
        life
    }

    /// Since when somebody who is being started holds addresses, boot clock. Of one whom the engine has been starting for
    /// long nobody else's records are to wait.
    #[must_use]
    pub fn held_since(&self, now: u64) -> Option<u64> {
        let starting = self.members.values().filter(|m| m.newborn && m.is_alive());
        let held = starting.filter_map(|m| m.held_since);
        held.filter(|held| now.saturating_sub(*held) < LONG_START)
            .min()
    }

    /// A container has another cgroup than this life: it was started anew, and nobody has said so.
    pub fn again(&mut self, life: Life, now: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(member) = self.members.get(&life).filter(|m| m.is_alive()).cloned() {
            self.end(life, None, now, &mut steps);
            self.begin(member.container, member.newborn, &mut steps);
        }
        steps
    }

    /// Whose a slot is.
    #[must_use]
    pub fn owner_of(&self, slot: u32) -> crate::record::Owner {
        let mut all = self.members.values();
        all.find(|m| m.slot == Some(slot))
            .map_or_else(Default::default, Member::owner)
    }

    /// What the engine says means this.
    pub fn hear(&mut self, news: News, now: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        match news {
            News::All(all) => {
                let there: HashSet<&str> = all.iter().map(|c| c.id.as_str()).collect();
                // Who is being started is in no list yet.
                let is_gone = |m: &Member| !m.newborn && !there.contains(m.container.id.as_str());
                let alive = self.members.iter().filter(|(_, m)| m.is_alive());
                let gone = alive.filter(|(_, m)| is_gone(m)).map(|(life, _)| *life);
                for life in gone.collect::<Vec<_>>() {
                    self.end(life, None, now, &mut steps);
                }
                for container in all {
                    self.is(container, now, &mut steps);
                }
            }
            News::Is(container) => self.is(*container, now, &mut steps),
            News::Born(newborn) if newborn.is_agent => self.born(*newborn, now, &mut steps),
            News::Ended { id, at } => {
                if let Some(life) = self.alive(&id) {
                    self.end(life, Some(at), now, &mut steps);
                }
            }
            News::Born(_) | News::Unclear { .. } | News::Away(_) | News::Until(_) => {}
        }
        steps
    }

    fn alive(&self, id: &str) -> Option<Life> {
        let is = |(_, m): &(&Life, &Member)| m.is_alive() && m.container.id == id;
        self.members.iter().find(is).map(|(life, _)| *life)
    }

    fn is(&mut self, container: Container, now: u64, steps: &mut Vec<Step>) {
        if let Some(life) = self.alive(&container.id)
            && let Some(member) = self.members.get_mut(&life)
        {
            let same = member.container.started == container.started;
            if same || member.newborn && member.container.cgroup == container.cgroup {
                if member.newborn || member.container != container {
                    member.newborn = false;
                    member.container = container;
                    steps.push(Step::Renew(life));
                }
                return;
            }
            // Its end was missed; it cannot have been later than this.
            self.end(life, Some(container.started), now, steps);
        }
        self.begin(container, false, steps);
    }

    /// Somebody is being started: under the firewall before its first process runs.
    fn born(&mut self, born: Newborn, now: u64, steps: &mut Vec<Step>) {
        if let Some(life) = self.alive(&born.id) {
            let known = self.members.get_mut(&life);
            if let Some(m) = known.filter(|m| m.newborn && m.container.cgroup == born.cgroup) {
                m.hold(&born.ends, now);
                // The directory may be another one of the same name.
                steps.push(Step::Renew(life));
                return;
            }
            self.end(life, None, now, steps);
        }
        let container = Container {
            id: born.id,
            name: born.name,
            agent: born.agent,
            project: born.project,
            cgroup: born.cgroup,
            ..Container::unknown()
        };
        let life = self.begin(container, true, steps);
        if let Some(member) = self.members.get_mut(&life) {
            member.hold(&born.ends, now);
        }
    }

    fn begin(&mut self, container: Container, newborn: bool, steps: &mut Vec<Step>) -> Life {
        let is_agent = container.is_agent;
        let index = is_agent.then(|| self.free.pop_first()).flatten();
        let life = self.insert(Member {
            container,
            stage: if is_agent {
                Stage::Wanted
            } else {
                Stage::Bystander
            },
            index,
            slot: None,
            newborn,
            held_since: None,
        });
        steps.push(match (is_agent, index) {
            (false, _) => Step::Meet(life),
            (true, None) => Step::Shut(life),
            (true, Some(_)) => Step::Enrol(life),
        });
        life
    }

    fn end(&mut self, life: Life, at: Option<i64>, now: u64, steps: &mut Vec<Step>) {
        let Some(member) = self.members.get_mut(&life) else {
            return;
        };
        steps.push(Step::End { life, at });
        match member.stage {
            Stage::Bystander | Stage::Wanted => {
                member.stage = Stage::Barred;
                self.free.extend(member.index.take());
            }
            Stage::Enrolled => member.stage = Stage::Ended { since: now },
            Stage::Ended { .. } | Stage::Closed | Stage::Barred => {}
        }
    }

    /// The step [`Step::Enrol`] was carried out.
    pub fn enrolled(&mut self, life: Life, slot: u32) {
        if let Some(member) = self.members.get_mut(&life) {
            member.slot = Some(slot);
            member.stage = Stage::Enrolled;
        }
    }

    /// The step [`Step::Enrol`] could not be carried out. It comes again.
    pub fn failed(&mut self, life: Life) {
        if let Some(member) = self.members.get_mut(&life) {
            self.free.extend(member.index.take());
        }
    }

    /// Time has passed, and this is what the kernel shows.
    pub fn look(&mut self, seen: &Seen, now: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let lives: Vec<Life> = self.members.keys().copied().collect();
        for life in lives {
            let Some(member) = self.members.get_mut(&life) else {
                continue;
            };
            let gone = seen.gone.contains(&life);
            let has = |set: &HashSet<u32>| member.slot.is_some_and(|slot| set.contains(&slot));
            match member.stage {
                // Its start has failed, and nobody said so.
                Stage::Wanted | Stage::Enrolled if member.newborn && gone => {
                    self.end(life, None, now, &mut steps);
                }
                Stage::Wanted => {
                    if let Some(index) = self.free.pop_first() {
                        member.index = Some(index);
                        steps.push(Step::Enrol(life));
                    }
                }
                Stage::Ended { since } => {
                    let long = now.saturating_sub(since) >= self.linger;
                    if gone || long || !has(&seen.busy) {
                        member.stage = Stage::Closed;
                        steps.push(Step::Close(life));
                    }
                }
                Stage::Closed if !has(&seen.owed) => {
                    member.stage = Stage::Barred;
                    steps.push(Step::Free(life));
                }
                Stage::Barred if gone => {
                    self.members.remove(&life);
                    steps.push(Step::Unpin(life));
                }
                Stage::Bystander | Stage::Enrolled | Stage::Closed | Stage::Barred => {}
            }
        }
        steps
    }

    /// The step [`Step::Free`] could not be carried out: something of it is still owed. It comes again.
    pub fn not_free(&mut self, life: Life) {
        if let Some(member) = self.members.get_mut(&life) {
            member.stage = Stage::Closed;
        }
    }

    /// The step [`Step::Free`] was carried out: its row may be another's.
    pub fn freed(&mut self, life: Life) {
        if let Some(member) = self.members.get_mut(&life) {
            member.slot = None;
            self.free.extend(member.index.take());
        }
    }
}

#[cfg(test)]
mod tests;
