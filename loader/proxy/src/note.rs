//! What a rendering leaves out, and what happens instead.

use std::fmt;

/// One thing that the rules ask for and the rendering does not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Line of the rule in the policy file, from 1; 0 where no rule is meant.
    pub line: usize,
    /// The rule, as records call it.
    pub rule: String,
    /// What is left out, and what happens instead.
    pub what: String,
}

impl Note {
    pub(crate) fn of(rule: &policy::Rule, what: impl Into<String>) -> Self {
        Self {
            line: rule.line,
            rule: rule.title().to_owned(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.rule, self.what)
    }
}
