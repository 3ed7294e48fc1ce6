//! Whether what an agent can be given fits into the maps.
//!
//! Trying every agent in every project would take their product in time. Instead every section is
//! weighed once: the most port rules that cover one of its destinations. The patterns of a section
//! that cover a place lie inside each other, so for a selection the sum of the weights is an upper
//! bound. Only selections whose bound is too high are compiled to see, and of those only some; the
//! rest is refused when it is loaded.

use crate::builtin::BUILTIN;
use crate::compile::{CompileError, MAX_COVERING, cover, dedup};
use crate::diagnostic::Reports;
use crate::policy::{Policy, Section};
use abi::{MAX_POLICY_ENTRIES, SET_RULES};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Selections compiled to see whether they fit.
const MAX_TRIED: usize = 16;

/// An agent and a project.
type Identity<'p> = (Option<&'p str>, Option<&'p str>);

/// What a section brings into a selection, at most.
#[derive(Clone, Copy, Default)]
struct Weight {
    covering: usize,
    entries: usize,
}

impl Weight {
    fn of(section: &Section) -> Self {
        let cover = cover(section.rules.iter(), &[], &[]);
        let spots = cover.spots();
        let mut covering = 0;
        for spot in &spots {
            let mut rules = cover.covering(spot).into_iter().copied().collect();
            dedup(&mut rules);
            covering = covering.max(rules.len());
            // Too much already; the rest of a hostile file need not be walked.
            if covering > MAX_COVERING {
                break;
            }
        }
        Self {
            covering,
            entries: spots.len().max(section.rules.len()),
        }
    }

    fn and(self, other: Self) -> Self {
        let entries = self.entries + other.entries;
        Self {
            covering: self.covering + other.covering,
            entries,
        }
    }

    /// Whether a selection of this weight might not fit.
    fn doubtful(self, opened: usize) -> bool {
        let entries = self.entries + BUILTIN.len() + opened;
        let sets = entries * self.covering.div_ceil(SET_RULES);
        self.covering > MAX_COVERING || sets > MAX_POLICY_ENTRIES as usize
    }
}

pub(crate) fn run(policy: &Policy, reports: &mut Reports<'_>) {
    let mut reported = BTreeSet::new();
    for identity in doubtful(policy).into_iter().take(MAX_TRIED) {
        let Err(error) = policy.select(identity.0, identity.1).compile(0) else {
            continue;
        };
        let at = report_place(policy, identity, &error);
        if reported.insert(at.start) {
            let message = format!("{error}{}", of_whom(identity));
            reports.error(&at, message).label("does not fit any more");
        }
        if identity == (None, None) {
            return;
        }
    }
}

/// Selections that might not fit, the common one first.
fn doubtful(policy: &Policy) -> Vec<Identity<'_>> {
    let common = Weight::of(&policy.common);
    let projects = by_key(&policy.projects);
    let agents = by_key(&policy.agents);
    let opened = policy.allow_builtin.len();
    let over = |parts: &[Option<&Weight>]| {
        let parts = parts.iter().copied().flatten();
        parts
            .fold(common, |sum, part| sum.and(*part))
            .doubtful(opened)
    };
    let mut found: Vec<Identity<'_>> = Vec::new();
    found.extend(over(&[]).then_some((None, None)));
    let alone = projects.iter().filter(|(_, weight)| over(&[Some(weight)]));
    found.extend(alone.map(|(key, _)| (None, Some(*key))));
    for (key, weight) in &agents {
        let Some((project, agent)) = key.split_once('/') else {
            found.extend(over(&[Some(weight)]).then_some((Some(*key), None)));
            continue;
        };
        let parts = [Some(weight), projects.get(project), agents.get(agent)];
        found.extend(over(&parts).then_some((Some(agent), Some(project))));
    }
    // Agents of no project in particular may be in any: the heaviest together.
    let plain = agents.iter().filter(|(key, _)| !key.contains('/'));
    if let (Some((agent, one)), Some((project, other))) = (
        plain.max_by_key(|(_, weight)| weight.covering),
        projects.iter().max_by_key(|(_, w)| w.covering),
    ) {
        found.extend(over(&[Some(one), Some(other)]).then_some((Some(*agent), Some(*project))));
    }
    found
}

fn by_key(sections: &BTreeMap<String, Section>) -> BTreeMap<&str, Weight> {
    sections
        .iter()
        .map(|(key, section)| (key.as_str(), Weight::of(section)))
        .collect()
}

/// The rule that made it too many.
fn report_place(policy: &Policy, identity: Identity<'_>, error: &CompileError) -> Range<usize> {
    let selected = policy.select(identity.0, identity.1);
    let number = match error {
        CompileError::Covering {
            rule: Some(rule), ..
        } => *rule as usize,
        _ => selected.rules().len().saturating_sub(1),
    };
    selected
        .rules()
        .get(number)
        .map_or(0..0, |rule| rule.span.clone())
}

fn of_whom(identity: Identity<'_>) -> String {
    match identity {
        (None, None) => String::new(),
        (None, Some(project)) => format!(", for the agents of {project}"),
        (Some(agent), None) => format!(", for the agent {agent}"),
        (Some(agent), Some(project)) => format!(", for the agent {project}/{agent}"),
    }
}
