//! `run --learn FILE`: from the records of the run to a policy.

use super::super::{CommandError, warn};
use crate::{
    cli::RunArgs,
    learn_file::{LearnFile, LearnFileError},
    policy_file::PolicyFile,
    user,
};
use ::policy::{Base, Compiled, Form, LearnError, Learned, Learner};
use std::net::IpAddr;

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
pub enum LearningError {
    /// A policy is enforced.
    #[error(
        "--learn needs a run that denies nothing, and {0} is enforced: add --mode observe, or --mode audit"
    )]
    Enforced(String),
    /// See [`LearnFileError`].
    #[error(transparent)]
    File(#[from] LearnFileError),
    /// See [`LearnError`].
    #[error("--learn {file}: {source}")]
    Learn {
        /// The file.
        file: String,
        /// What was too much.
        source: LearnError,
    },
}

impl LearningError {
    /// The user's mistake, not a failure.
    pub(in crate::commands) fn wrong_use(&self) -> bool {
        match self {
            Self::Enforced(_) => true,
            Self::File(e) => !matches!(e, LearnFileError::Io { .. }),
            Self::Learn { .. } => false,
        }
    }
}

/// What the end of the run needs.
pub(super) struct Learning {
    file: LearnFile,
    earlier: Option<Learned>,
    name: String,
    told: bool,
}

impl Learning {
    /// Looks at the file before anything starts. Nothing without `--learn`.
    pub(super) fn open(
        args: &RunArgs,
        policy: Option<&PolicyFile>,
        (compiled, resolvers): (&Compiled, &[IpAddr]),
    ) -> Result<Option<(Self, Learner)>, CommandError> {
        let Some(path) = args.learn.as_deref() else {
            return Ok(None);
        };
        if compiled.mode == abi::MODE_ENFORCE {
            let what = policy.map_or("the mode", |file| file.name.as_str());
            return Err(LearningError::Enforced(what.to_owned()).into());
        }
        // Not the user that the command runs as: whoever may be told to review the file.
        let owner = user::target(None)?.map(|user| (user.uid.as_raw(), user.gid.as_raw()));
        let file = LearnFile::open(path, owner).map_err(LearningError::from)?;
        let earlier = file.earlier().map_err(LearningError::from)?;
        let base = policy.map(|file| Base {
            policy: file.policy.clone(),
            name: file.name.clone(),
            beyond: false,
        });
        let learning = Self {
            file,
            earlier,
            name: path.display().to_string(),
            told: !args.quiet && !args.json,
        };
        Ok(Some((learning, Learner::new(base, resolvers.to_vec()))))
    }

    /// Writes what was learned, with what earlier runs did. What cannot be written is shown.
    pub(super) fn finish(self, learner: Learner) -> Result<(), CommandError> {
        let failed = |source| LearningError::Learn {
            file: self.name.clone(),
            source,
        };
        let mut learned = learner.finish(false);
        let before = self.earlier.as_ref().map_or(0, Learned::rules);
        if let Some(earlier) = self.earlier {
            learned.merge(earlier).map_err(failed)?;
        }
        let text = learned.render(Form::Kept).map_err(failed)?;
        for note in learned.notes() {
            warn(&format!("not learned: {note}"));
        }
        if let Err(e) = self.file.replace(&text) {
            anstream::eprint!("{text}");
            return Err(LearningError::from(e).into());
        }
        if self.told {
            let (rules, new) = (learned.rules(), learned.rules().saturating_sub(before));
            let s = if rules == 1 { "" } else { "s" };
            anstream::eprintln!("{}: {rules} rule{s} learned, {new} of them new", self.name);
        }
        Ok(())
    }
}
