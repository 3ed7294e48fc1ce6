//! Agents and projects by name: who is meant, and how they are called.

use crate::{enrol, record::Record};
use abi::{INFO_TEXT, SlotInfo};
use clap::Args;
use serde::{Deserialize, Serialize};

/// Whom something is about. Labels are compared as they are, letter by letter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
pub struct Whom {
    /// Only this agent, by its exact name
    #[arg(long, value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Only this project, by its exact name
    #[arg(long, value_name = "NAME")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

impl Whom {
    /// Whether nobody is left out.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a slot is meant. Long labels are kept cut, so they are compared cut.
    #[must_use]
    pub fn covers(&self, info: &SlotInfo) -> bool {
        let same = |wanted: Option<&String>, kept: &[u8; INFO_TEXT]| {
            wanted.is_none_or(|w| enrol::field::<INFO_TEXT>(w) == *kept)
        };
        same(self.agent.as_ref(), &info.agent) && same(self.project.as_ref(), &info.project)
    }

    /// Whether a flow is of somebody who is meant.
    #[must_use]
    pub fn covers_flow(&self, r: &Record) -> bool {
        let same = |wanted: Option<&String>, label: Option<&String>| {
            wanted.is_none_or(|w| w == label.map_or("", String::as_str))
        };
        same(self.agent.as_ref(), r.agent.as_ref())
            && same(self.project.as_ref(), r.project.as_ref())
    }
}

/// How an agent is called: `project/agent`, or what there is of it.
#[must_use]
pub fn name(agent: &str, project: &str) -> String {
    match (agent, project) {
        ("", one) | (one, "") => one.to_owned(),
        _ => format!("{project}/{agent}"),
    }
}

/// How whoever has a slot is called; by its place where it has no name.
#[must_use]
pub fn of(info: &SlotInfo) -> String {
    let name = name(&enrol::text(&info.agent), &enrol::text(&info.project));
    if name.is_empty() {
        enrol::text(&info.cgroup)
    } else {
        name
    }
}

/// A text out of a slot's row, if there is one.
#[must_use]
pub fn label(field: &[u8]) -> Option<String> {
    Some(enrol::text(field)).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{enrol::Identity, render::line::tests::record};

    fn whom(agent: Option<&str>, project: Option<&str>) -> Whom {
        Whom {
            agent: agent.map(ToOwned::to_owned),
            project: project.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn labels_are_compared_letter_by_letter() {
        let long = "ä".repeat(100);
        let info = Identity {
            agent: Some(long.clone()),
            project: Some("acme".to_owned()),
            ..Identity::default()
        }
        .info(1, 0);
        let r = Record {
            agent: Some(long.clone()),
            project: Some("acme".to_owned()),
            ..record()
        };
        for (who, covered) in [
            (whom(None, None), true),
            (whom(Some(&long), None), true),
            (whom(Some(&long), Some("acme")), true),
            (whom(Some(&long), Some("Acme")), false),
            (whom(Some(""), None), false),
            (whom(Some("x"), Some("acme")), false),
        ] {
            assert_eq!(who.covers(&info), covered, "{who:?}");
            assert_eq!(who.covers_flow(&r), covered, "{who:?}");
        }
        let nameless = Record {
            agent: None,
            ..record()
        };
        assert!(whom(Some(""), None).covers_flow(&nameless));
    }

    #[test]
    fn names_have_what_there_is() {
        assert_eq!(name("reviewer", "acme"), "acme/reviewer");
        assert_eq!(name("reviewer", ""), "reviewer");
        assert_eq!(name("", "acme"), "acme");
        let place = Identity {
            cgroup: "clawker/run-1".to_owned(),
            ..Identity::default()
        };
        assert_eq!(of(&place.info(1, 0)), "clawker/run-1");
    }
}
