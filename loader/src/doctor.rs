//! What is wrong with this machine and its instances. Facts are gathered by [`gather`] and [`inspect`];
//! the other files turn them into findings, touch nothing, and are tested without root.

pub mod around;
pub mod books;
pub mod gather;
pub mod guards;
pub mod hooks;
pub mod inspect;
pub mod instance;
pub mod machine;
pub mod pins;
mod ways;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth knowing, or it could not be checked.
    Note,
    /// Something does not hold that should.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in one word that stays the same.
    pub check: &'static str,
    /// The instance that it is about; none when it is about the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How bad it is.
    pub state: State,
    /// What was found.
    pub what: String,
    /// What it means; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cost: String,
    /// What to do; empty when there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, State::Ok, what, "", "")
    }

    /// Worth knowing.
    #[must_use]
    pub fn note(
        check: &'static str,
        what: impl Into<String>,
        cost: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(check, State::Note, what, cost, mend)
    }

    /// Not as it should be.
    #[must_use]
    pub fn problem(
        check: &'static str,
        what: impl Into<String>,
        cost: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self::new(check, State::Problem, what, cost, mend)
    }

    fn new(
        check: &'static str,
        state: State,
        what: impl Into<String>,
        cost: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            check,
            instance: None,
            state,
            what: what.into(),
            cost: cost.into(),
            mend: mend.into(),
        }
    }

    /// The same about an instance.
    #[must_use]
    pub fn of(mut self, instance: &str) -> Self {
        self.instance = Some(instance.to_owned());
        self
    }
}

/// Whether something does not hold.
#[must_use]
pub fn any_problem(findings: &[Finding]) -> bool {
    findings.iter().any(|f| f.state == State::Problem)
}

/// `1 flow`, `2 flows`.
fn plural(n: u64, one: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{} {one}{s}", crate::render::units::count(n))
}
