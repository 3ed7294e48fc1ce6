//! The policy while the command runs: a changed file is applied, or told why not, and changes that
//! somebody else makes are told too.

use super::{
    super::{
        CommandError, Who, color_on_stderr,
        follow::{Follow, PATIENCE},
        policy,
    },
    FIRST_POLICY,
};
use crate::{
    audit::{self, Outcome, PolicyChange},
    cli::{Mode, RunArgs},
    enrol::{self, Replaced},
    kernel::{KernelError, Pins},
    policy_file::{self, PolicyFile},
    sink::Sink,
    trust,
    user::Target,
};
use ::policy::Compiled;
use abi::MODE_ENFORCE;
use anstream::adapter::strip_str;
use jiff::Timestamp;
use std::{
    io,
    path::{Path, PathBuf},
    time::Instant,
};
use wire::log_layer::SECURITY;

/// Why a policy file is not followed, or a change of it left aside.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A pipe, say.
    #[error("--reload {}: it is not a file, so it does not change; leave --reload out", .0.display())]
    NotAFile(PathBuf),
    /// The command could have written this itself.
    #[error(
        "policy {}: the command can change {} by now; mend that and write the file again, or use `policy apply`",
        file.display(), part.display()
    )]
    Exposed {
        /// The policy file.
        file: PathBuf,
        /// What the command can change.
        part: PathBuf,
    },
    /// Not to be told who could have written it, because it is gone, say.
    #[error("cannot look at policy {}: {source}", file.display())]
    Trust {
        /// The policy file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be read as the command would.
    #[error("cannot read policy {} as the command's user: {source}", file.display())]
    Eyes {
        /// The policy file.
        file: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody does not close the file.
    #[error("policy {}: it is open for writing and will be read when that is over", .0.display())]
    Busy(PathBuf),
    /// The slot is gone.
    #[error("the command's cgroup is not attached any more")]
    Detached,
}

/// The policy of a running command.
pub(super) struct Reload {
    follow: Option<Follow>,
    /// Whom the command runs as.
    user: Option<Target>,
    /// Whether the file is followed even where the command could change it.
    told: bool,
    agent: Option<String>,
    project: Option<String>,
    mode: Option<Mode>,
    /// What was last seen in the file, or why nothing was.
    seen: Result<Vec<u8>, String>,
    /// What is in force, as far as it came from the file.
    applied: Option<Vec<u8>>,
    /// Policy and generation in force, as far as is known.
    policy: u32,
    generation: u32,
    /// The command kept CAP_NET_RAW because nothing was enforced when it started.
    raw: bool,
}

impl Reload {
    /// Decides whether the file is followed, and says so where that may surprise.
    pub(super) fn new(
        args: &RunArgs,
        file: Option<&PolicyFile>,
        compiled: &Compiled,
        user: Option<&Target>,
    ) -> Result<Self, CommandError> {
        let source = file.map(|f| f.source.clone().into_bytes());
        Ok(Self {
            follow: follow(args, uid(user))?,
            user: user.cloned(),
            told: args.reload,
            agent: args.agent.clone(),
            project: args.project.clone(),
            mode: args.mode,
            seen: Ok(source.clone().unwrap_or_default()),
            applied: source,
            policy: FIRST_POLICY,
            generation: 1,
            raw: uid(user) == 0 && compiled.mode != MODE_ENFORCE,
        })
    }

    /// Looks at the file and applies it when it has changed; the id of the policy that is in force then.
    pub(super) fn look(&mut self, pins: &Pins, index: u32, sink: &mut Sink) -> Option<u32> {
        let follow = self.follow.as_mut()?;
        let waited = follow.news(Instant::now())?;
        let path = follow.path().to_owned();
        let read = read(&path, self.user.as_ref(), self.told);
        match read {
            Ok(None) if waited < PATIENCE => return None,
            Ok(None) => {}
            _ => follow.read(),
        }
        let bytes = match read.and_then(|r| Ok(r.ok_or(ReloadError::Busy(path.clone()))?)) {
            Ok(bytes) => bytes,
            Err(e) => {
                // The same trouble is told once.
                let seen = Err(e.to_string());
                if self.seen != seen {
                    self.seen = seen;
                    self.refuse(&path, &e, sink);
                }
                return None;
            }
        };
        let known = self.seen.as_ref() == Ok(&bytes) || self.applied.as_ref() == Some(&bytes);
        self.seen = Ok(bytes.clone());
        if known {
            return None;
        }
        match self.apply(&path, bytes.clone(), pins, index) {
            Ok((file, replaced)) => {
                self.applied = Some(bytes);
                self.accept(&file, &replaced, sink);
                Some(self.policy)
            }
            Err(e) => {
                // Mistakes stay until the text changes; other trouble may be gone when it is written again.
                if !matches!(e, CommandError::PolicyFile(_)) {
                    self.seen = Err(e.to_string());
                }
                self.refuse(&path, &e, sink);
                None
            }
        }
    }

    fn apply(
        &self,
        path: &Path,
        bytes: Vec<u8>,
        pins: &Pins,
        index: u32,
    ) -> Result<(PolicyFile, Replaced), CommandError> {
        let file = policy_file::check(path, bytes, color_on_stderr())?;
        let who: Who<'_> = (self.agent.as_deref(), self.project.as_deref());
        let replaced = policy::put(pins, index, &file, who, self.mode)?;
        Ok((file, replaced.ok_or(ReloadError::Detached)?))
    }

    fn accept(&mut self, file: &PolicyFile, replaced: &Replaced, sink: &mut Sink) {
        self.policy = replaced.config.policy;
        self.generation = replaced.config.generation;
        let mut report = String::new();
        if file.has_warnings() {
            report.push_str(&file.report(color_on_stderr()));
        }
        if let Err(e) = &replaced.cleaned {
            report.push_str(&format!("warning: the old policy takes room: {e}\n"));
        }
        if self.raw && replaced.config.mode == MODE_ENFORCE {
            report.push_str(
                "warning: the command has CAP_NET_RAW from a start without enforcement: packets of AF_PACKET sockets are not seen\n",
            );
        }
        self.tell(
            Outcome::Applied,
            &file.name,
            "the file has changed",
            &report,
            sink,
        );
    }

    fn refuse(&self, path: &Path, e: &CommandError, sink: &mut Sink) {
        let report = super::super::error_text(e);
        let file = path.display().to_string();
        tracing::warn!(target: SECURITY, "policy refused: {}", strip_str(&report));
        self.tell(Outcome::Refused, &file, "", &report, sink);
    }

    /// `report` is for people; the stream gets it too, behind `why`.
    fn tell(&self, outcome: Outcome, policy: &str, why: &str, report: &str, sink: &mut Sink) {
        let lines = [why, report.trim_end()];
        let said: Vec<_> = lines.into_iter().filter(|l| !l.is_empty()).collect();
        let change = PolicyChange {
            time: Timestamp::now(),
            event_name: audit::POLICY,
            agent: self.agent.clone(),
            project: self.project.clone(),
            outcome,
            policy: policy.to_owned(),
            generation: self.generation,
            message: strip_str(&said.join("\n")).to_string(),
        };
        sink.change(&change, report);
    }

    /// Tells of a policy that somebody else has put the command under; the id of the one in force.
    pub(super) fn notice(
        &mut self,
        pins: &Pins,
        index: u32,
        sink: &mut Sink,
    ) -> Result<u32, KernelError> {
        if let Some((info, config)) = enrol::current(pins, index)? {
            self.generation = config.generation;
            if config.policy != self.policy {
                self.policy = config.policy;
                // What the file says is news again.
                self.applied = None;
                let file = enrol::text(&info.policy_file);
                self.tell(
                    Outcome::Applied,
                    &file,
                    "another process has applied it",
                    "",
                    sink,
                );
            }
        }
        Ok(self.policy)
    }
}

/// Whether and how the policy file is followed.
fn follow(args: &RunArgs, uid: u32) -> Result<Option<Follow>, CommandError> {
    let Some(path) = args.policy.as_deref().filter(|_| !args.no_reload) else {
        return Ok(None);
    };
    if !path.is_file() {
        return if args.reload {
            Err(ReloadError::NotAFile(path.to_owned()).into())
        } else {
            Ok(None)
        };
    }
    match (exposed(path, uid)?, args.reload) {
        (Some(part), true) => super::alarm(&format!(
            "--reload: the command can change {} and so lift its own firewall",
            part.display()
        )),
        (Some(part), false) => {
            if !args.quiet && !args.json {
                anstream::eprintln!(
                    "changes of {} are not followed, because the command can change {} too (--reload follows them all the same)",
                    path.display(),
                    part.display()
                );
            }
            return Ok(None);
        }
        (None, _) => {}
    }
    Ok(Some(Follow::new(path, Instant::now())))
}

fn exposed(path: &Path, uid: u32) -> Result<Option<PathBuf>, ReloadError> {
    trust::exposed(path, uid).map_err(|source| ReloadError::Trust {
        file: path.to_owned(),
        source,
    })
}

/// What the file holds; nothing while somebody writes to it. A file within the command's reach is only
/// read when it was told to, and then through the command's eyes: it could be a link to what is root's
/// alone, and mistakes are shown with their lines.
fn read(path: &Path, user: Option<&Target>, told: bool) -> Result<Option<Vec<u8>>, CommandError> {
    let part = exposed(path, uid(user))?;
    let _eyes = match (part, user) {
        (Some(part), _) if !told => {
            return Err(ReloadError::Exposed {
                file: path.to_owned(),
                part,
            }
            .into());
        }
        (Some(_), Some(user)) => Some(user.eyes().map_err(|source| ReloadError::Eyes {
            file: path.to_owned(),
            source,
        })?),
        _ => None,
    };
    Ok(policy_file::read_written(path)?)
}

fn uid(user: Option<&Target>) -> u32 {
    user.map_or(0, |u| u.uid.as_raw())
}
