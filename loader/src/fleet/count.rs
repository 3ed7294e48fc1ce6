//! A fleet in numbers, for metrics. Agents come and go; what they came to stays counted.

use super::{Fleet, Life, roll::Stage};
use crate::{
    session::Session,
    telemetry::{Ledger, Sums, View, hooks},
};
use std::collections::HashMap;

/// What is counted from the start on.
pub(super) struct Count {
    ledger: Ledger,
    /// Flows that were declared lost.
    lost: u64,
    /// Hooks that were missing at the last look.
    missing: HashMap<Life, &'static str>,
}

impl Count {
    /// Counts from here on: what the books say already is another loader's.
    pub(super) fn after(session: &Session) -> Self {
        Self {
            ledger: Ledger::after((0..).zip(&session.all_books())),
            lost: 0,
            missing: HashMap::new(),
        }
    }

    /// Looks at the books. To be called before a row of them is freed, or its last flows are missing.
    pub(super) fn look(&mut self, session: &Session) {
        self.ledger.look((0..).zip(&session.all_books()));
    }

    /// Flows that no record will ever tell of.
    pub(super) fn lost(&mut self, flows: u64) {
        self.lost += flows;
    }
}

impl Fleet {
    /// Sums since the start, up to now.
    pub fn sums(&mut self) -> &Sums {
        self.count.look(&self.session);
        self.count.ledger.sums()
    }

    /// How things stand. Asks the kernel for every hook of every enrolled agent, and says once which is
    /// not in force.
    pub fn view(&mut self) -> View {
        let enrolled: Vec<Life> = self
            .roll
            .iter()
            .filter(|(_, m)| m.stage == Stage::Enrolled)
            .map(|(life, _)| life)
            .collect();
        let missing: HashMap<Life, &'static str> = enrolled
            .iter()
            .filter_map(|life| Some((*life, self.missing_of(*life)?)))
            .collect();
        for (life, hook) in &missing {
            if self.count.missing.get(life) != Some(hook)
                && let Some(m) = self.roll.get(*life)
            {
                hooks::complain(hook, &m.container.cgroup);
            }
        }
        let guarded = (!enrolled.is_empty()).then_some(missing.is_empty());
        self.count.missing = missing;
        View {
            agents: enrolled.len() as u64,
            guarded,
            lost: self.count.lost,
            malformed: self.session.malformed,
            ..View::default()
        }
    }

    /// A hook of an agent that is not in force. A container that has just ended has no cgroup any more,
    /// and nothing in it that could leave.
    fn missing_of(&self, life: Life) -> Option<&'static str> {
        let (guard, m) = (self.guards.get(&life)?, self.roll.get(life)?);
        let cgroup = &m.container.cgroup;
        let links = self.instance.pins.links_of(guard.cgroup_id);
        let missing = hooks::missing(&links, cgroup, guard.cgroup_id);
        missing.filter(|_| cgroup.exists())
    }
}
