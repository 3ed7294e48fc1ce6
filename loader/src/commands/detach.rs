//! `detach`: removes what dead loaders left.

use super::{CommandError, FAILED, in_use, need_root, report};
use crate::{
    accounting,
    bypass::journal,
    cli::DetachArgs,
    control,
    instance::{self, Found, Root},
    kernel::Rings,
};
use abi::close;
use std::path::Path;

pub(super) fn detach(
    root: &Root,
    control_dir: &Path,
    args: &DetachArgs,
) -> Result<u8, CommandError> {
    need_root("detach")?;
    let all = match &args.instance {
        Some(id) => vec![root.find(id)?],
        None => root.list()?,
    };
    control::sweep(control_dir);
    let mut code = 0;
    for found in &all {
        match detach_one(found, args.force) {
            Ok(text) => {
                println!("{text}");
                let kept = journal::path(control_dir, &found.id);
                if kept.exists() {
                    println!(
                        "{} holds audit records of it that no loader has taken over",
                        kept.display()
                    );
                }
            }
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
    Ok(format!("{} detached{}", found.id, take_down(found, force)?))
}

/// Removes an instance and tells, as the end of a sentence, what nobody has recorded. What cannot be
/// read was never opened and has nothing to tell. A loader that is alive tells of its flows itself: two
/// readers would take records from each other.
pub(super) fn take_down(found: &Found, force: bool) -> Result<String, CommandError> {
    let rings = (!found.alive).then(|| Rings::reopen(&found.pins).ok());
    let Some(rings) = rings.flatten() else {
        found.remove()?;
        return Ok(String::new());
    };
    let slots: Vec<_> = found.pins.infos().unwrap_or_default();
    let end = || {
        for (_, info) in &slots {
            // What cannot be ended is told as a flow whose end was not seen.
            let _ = rings.end_flows(info.slot, close::DETACHED);
        }
    };
    end();
    if !force {
        found.let_go()?;
    }
    instance::remove_pins(&found.pins.dir().join("links"))?;
    rings.settle()?;
    // Flows that began in between.
    end();
    found.remove()?;
    let books: Vec<_> = slots
        .iter()
        .filter_map(|(index, _)| rings.books().row(*index))
        .collect();
    Ok(accounting::losses(&books).map_or(String::new(), |lost| {
        format!("; flows that no record tells of: {lost}")
    }))
}
