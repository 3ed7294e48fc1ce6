//! What Docker calls things: the labels that make a container an agent, and its name.

use crate::text::{self, TextError};

/// The label that makes a container an agent.
pub const AGENT_LABEL: &str = "dev.clawker.agent";
/// The label that says what it works on.
pub const PROJECT_LABEL: &str = "dev.clawker.project";

/// A label whose value cannot be an attribute. It is not repaired: nothing is synthesised (D17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label {label} {source}: records will not have it; start the container with another value")]
pub struct Refused {
    /// Which label.
    pub label: &'static str,
    /// What is wrong with it.
    pub source: TextError,
}

/// What the labels of a container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Whether it is an agent at all: the label is there, whatever it says. This decides about the
    /// firewall, so a value that cannot be used must not lift it.
    pub is_agent: bool,
    /// Raw value of [`AGENT_LABEL`].
    pub agent: Option<String>,
    /// Raw value of [`PROJECT_LABEL`].
    pub project: Option<String>,
    /// What cannot be used.
    pub refused: Vec<Refused>,
}

impl Labels {
    /// Reads Docker's map of labels, of which it has one value a key.
    pub fn read<'m, K, V>(labels: impl IntoIterator<Item = (&'m K, &'m V)>) -> Self
    where
        K: AsRef<str> + 'm,
        V: AsRef<str> + 'm,
    {
        let mut found = Self::default();
        for (key, value) in labels {
            let (label, place) = match key.as_ref() {
                AGENT_LABEL => {
                    found.is_agent = true;
                    (AGENT_LABEL, &mut found.agent)
                }
                PROJECT_LABEL => (PROJECT_LABEL, &mut found.project),
                _ => continue,
            };
            match text::check(value.as_ref()) {
                Ok(()) => *place = Some(value.as_ref().to_owned()),
                Err(source) => found.refused.push(Refused { label, source }),
            }
        }
        found
    }
}

/// A container's name as people know it: inspection has a slash before it, events have none.
#[must_use]
pub fn container_name(docker: &str) -> &str {
    docker.strip_prefix('/').unwrap_or(docker)
}
