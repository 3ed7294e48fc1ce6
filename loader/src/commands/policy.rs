//! `policy check` and `policy apply`.

use super::{CommandError, WRONG_USE, color_on_stderr, compile, need_root, warn};
use crate::{
    cli::{Mode, PolicyCommand},
    enrol,
    instance::Root,
    policy_file::{self, PolicyFileError},
    resolvers,
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

fn apply(root: &Root, path: &Path, id: &str, mode: Option<Mode>) -> Result<u8, CommandError> {
    need_root("policy apply")?;
    let file = policy_file::load(path, color_on_stderr())?;
    if file.has_warnings() {
        anstream::eprint!("{}", file.report(color_on_stderr()));
    }
    let found = root.find(id)?;
    let mut changed = 0;
    for (_, info) in found.pins.infos()? {
        let Some(old) = found.pins.config(info.cgroup_id)? else {
            warn(&format!("slot {} is not attached any more", info.slot));
            continue;
        };
        let (agent, project) = (enrol::text(&info.agent), enrol::text(&info.project));
        let label = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let selected = file
            .policy
            .select(label(&agent).as_deref(), label(&project).as_deref());
        let next = old.policy.wrapping_add(1);
        let compiled = compile(&file.name, &selected, next, mode)?;
        let trusted = resolvers::resolve(&compiled.resolvers)?;
        enrol::replace_policy(&found.pins, info.cgroup_id, &old, &compiled, next, &trusted)?;
        changed += 1;
    }
    println!(
        "{id}: {changed} slot{} now under {}",
        if changed == 1 { "" } else { "s" },
        file.name
    );
    Ok(0)
}
