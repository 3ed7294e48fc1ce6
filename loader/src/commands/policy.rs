//! `policy check` and `policy apply`.

use super::{CommandError, WRONG_USE, Who, color_on_stderr, need_root, rules, warn};
use crate::{
    cli::{Mode, PolicyCommand},
    enrol::{self, Replaced},
    instance::Root,
    kernel::Pins,
    policy_file::{self, PolicyFile, PolicyFileError},
};
use std::path::{Path, PathBuf};

pub(super) fn policy(root: &Root, command: PolicyCommand) -> Result<u8, CommandError> {
    match command {
        PolicyCommand::Check { files } => check(&files),
        PolicyCommand::Apply {
            file,
            instance,
            mode,
        } => apply(root, &file, &instance, mode),
    }
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
    enrol::replace_policy(pins, index, &file.name, |id| {
        rules(&file.name, &file.policy, who, id, mode)
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
