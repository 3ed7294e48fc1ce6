//! `detach`: removes what dead loaders left.

use super::{CommandError, FAILED, in_use, need_root, report};
use crate::{
    cli::DetachArgs,
    instance::{Found, Root},
    kernel::Rings,
    record::verdict,
    render::units,
};
use abi::{VERDICTS, close};

pub(super) fn detach(root: &Root, args: &DetachArgs) -> Result<u8, CommandError> {
    need_root("detach")?;
    let all = match &args.instance {
        Some(id) => vec![root.find(id)?],
        None => root.list()?,
    };
    let mut code = 0;
    for found in &all {
        match detach_one(found, args.force) {
            Ok(text) => println!("{text}"),
            Err(e) if args.all => {
                report(&e);
                code = FAILED;
            }
            Err(e) => return Err(e),
        }
    }
    if all.is_empty() {
        println!("nothing is attached");
    }
    Ok(code)
}

fn detach_one(found: &Found, force: bool) -> Result<String, CommandError> {
    if let (false, Some(why)) = (force, in_use(found)) {
        return Err(CommandError::InUse {
            id: found.id.clone(),
            why,
        });
    }
    let unreported = unreported(found);
    if !force {
        found.let_go()?;
    }
    found.remove()?;
    Ok(format!("{} detached{unreported}", found.id))
}

/// Ends what lives and tells what nobody has recorded. An instance whose pins cannot be read was never
/// opened, so it has nothing to tell.
pub(super) fn unreported(found: &Found) -> String {
    let Ok(mut rings) = Rings::reopen(&found.pins) else {
        return String::new();
    };
    for (_, info) in found.pins.infos().unwrap_or_default() {
        // What cannot be ended is still removed with its socket.
        let _ = rings.end_flows(info.slot, close::DETACHED);
    }
    let mut counts = [0u64; VERDICTS];
    rings.drain(|e| {
        if let Some(c) = counts.get_mut(usize::from(e.flow.verdict)) {
            *c += 1;
        }
    });
    for (key, row) in rings.folds().unwrap_or_default() {
        if let Some(c) = counts.get_mut(usize::from(key.verdict)) {
            *c += row.count;
        }
    }
    let told: Vec<String> = (0..)
        .zip(counts)
        .filter(|(_, n)| *n > 0)
        .map(|(v, n)| format!("{} {}", units::count(n), verdict(v).to_lowercase()))
        .collect();
    match told.as_slice() {
        [] => String::new(),
        _ => format!("; flows that no record tells of: {}", told.join(", ")),
    }
}
