//! `policy …`: `check` and `apply` here, what asks and learns in files of its own.

mod allow;
mod explain;
mod learn;
pub(super) mod render;
mod test;

pub use render::RenderError;

use super::{CommandError, FAILED, WRONG_USE, Who, color_on_stderr, need_root, rules, warn};
use crate::{
    cli::{Mode, PolicyCommand},
    enrol::{self, Replaced, Way},
    fleet,
    instance::Root,
    kernel::Pins,
    policy_file::{self, PolicyFile, PolicyFileError},
    resolvers::Place,
};
use ::policy::{RequestError, TargetError};
use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Why a question about a policy has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// `--to` is no destination.
    #[error("--to: {source} ({})", source.label())]
    Target {
        /// What is wrong with it.
        source: TargetError,
    },
    /// `--addr` beside an address.
    #[error("--addr is where a name leads: --to has an address already")]
    Addr,
    /// `--method` or `--path` is none.
    #[error("--{flag} {text:?} {error} ({})", error.label())]
    Request {
        /// Which.
        flag: &'static str,
        /// As typed.
        text: String,
        /// What is wrong with it.
        error: RequestError,
    },
    /// The project twice.
    #[error("--project beside --agent {0}: the project is named twice")]
    Project(String),
    /// A file without tests.
    #[error("{0} has no `tests:`")]
    NoTests(String),
    /// No such flow.
    #[error("no record in {file} has the flow_id {flow:?}")]
    NoFlow {
        /// The file.
        file: String,
        /// As typed.
        flow: String,
    },
    /// More than one flow.
    #[error("{count} records in {file} have a flow_id that ends in {flow:?}: give all of it")]
    Flows {
        /// The file.
        file: String,
        /// As typed.
        flow: String,
        /// How many.
        count: usize,
    },
}

pub(super) fn policy(root: &Root, command: PolicyCommand) -> Result<u8, CommandError> {
    match command {
        PolicyCommand::Check { files } => check(&files),
        PolicyCommand::Explain(args) => explain::explain(&args),
        PolicyCommand::Test(args) => test::test(&args),
        PolicyCommand::Learn(args) => learn::learn(&args),
        PolicyCommand::Allow(args) => allow::allow(&args),
        PolicyCommand::Render(args) => render::render(&args),
        PolicyCommand::Apply {
            file,
            instance,
            mode,
        } => apply(root, &file, &instance, mode),
    }
}

/// Reads a policy that a question is about. Its warnings are those of `policy check`.
fn load(path: &Path) -> Result<PolicyFile, CommandError> {
    Ok(policy_file::load(path, color_on_stderr())?)
}

/// Writes to standard output, colours only where somebody looks.
fn print(text: &str) -> Result<(), CommandError> {
    let mut out = anstream::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(CommandError::Output)
}

/// One JSON object on a line of standard output.
fn print_json(value: &impl serde::Serialize) -> Result<(), CommandError> {
    let text = serde_json::to_string(value).map_err(io::Error::other);
    print(&format!("{}\n", text.map_err(CommandError::Output)?))
}

/// Checks every file before saying whether one failed.
fn check(files: &[PathBuf]) -> Result<u8, CommandError> {
    let color = color_on_stderr();
    let mut code = 0;
    for file in files {
        match policy_file::load(file, color) {
            Ok(good) => {
                anstream::eprint!("{}", good.report(color));
                let warnings = good.warnings.len();
                let s = if warnings == 1 { "" } else { "s" };
                println!("{}: ok, {warnings} warning{s}", good.name);
            }
            Err(e @ PolicyFileError::Mistakes { .. }) => {
                anstream::eprintln!("{e}");
                code = WRONG_USE;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(code)
}

/// Puts a slot under a policy for an agent. Nothing when the slot is not attached any more.
pub(super) fn put(
    pins: &Pins,
    index: u32,
    file: &PolicyFile,
    who: Who<'_>,
    mode: Option<Mode>,
) -> Result<Option<Replaced>, CommandError> {
    enrol::replace_policy(pins, index, &file.name, |id, old| {
        let at = (id, Place::of(old));
        rules(
            &file.name,
            &file.policy,
            who,
            at,
            mode,
            Way::of(old).leads(),
        )
    })
}

fn label(s: &str) -> Option<&str> {
    (!s.is_empty()).then_some(s)
}

fn apply(root: &Root, path: &Path, id: &str, mode: Option<Mode>) -> Result<u8, CommandError> {
    need_root("policy apply")?;
    let file = policy_file::load(path, color_on_stderr())?;
    if file.has_warnings() {
        anstream::eprint!("{}", file.report(color_on_stderr()));
    }
    if id == fleet::INSTANCE {
        return Err(CommandError::Followed(id.to_owned()));
    }
    let found = root.find(id)?;
    let mut changed = 0;
    for (index, info) in found.pins.infos()? {
        let (agent, project) = (enrol::text(&info.agent), enrol::text(&info.project));
        let who = (label(&agent), label(&project));
        let Some(replaced) = put(&found.pins, index, &file, who, mode)? else {
            warn(&format!("slot {} is not attached any more", info.slot));
            continue;
        };
        if let Err(e) = replaced.cleaned {
            warn(&format!(
                "the new policy holds, the old one takes room: {e}"
            ));
        }
        changed += 1;
    }
    println!(
        "{id}: {changed} slot{} now under {}",
        if changed == 1 { "" } else { "s" },
        file.name
    );
    Ok(0)
}
