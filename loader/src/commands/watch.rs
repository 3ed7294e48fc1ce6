//! `watch`: flows of running instances, as a table on a terminal, as lines elsewhere.

mod lines;
mod screen;

use super::CommandError;
use crate::{
    cli::WatchArgs,
    control::Watch,
    watch::links::{Links, News},
};
use std::{io::IsTerminal as _, path::Path};

pub(super) fn watch(control_dir: &Path, args: &WatchArgs) -> Result<u8, CommandError> {
    let terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let table = terminal && !args.plain && !args.json;
    let watch = Watch { live: table };
    let links = Links::new(control_dir.to_owned(), args.instance.clone(), watch);
    if table {
        screen::watch(links, args)
    } else {
        lines::watch(links, args)
    }
}

/// Looks for instances. That none of those there are may be opened is an error; that some may not is told.
fn look(
    links: &mut Links,
    tell: &mut impl FnMut(&str, News<'_>),
) -> Result<Vec<String>, CommandError> {
    let denied = links.look(tell)?;
    match denied.as_slice() {
        [first, ..] if links.is_empty() => Err(CommandError::NotAMember(first.clone())),
        _ => Ok(denied),
    }
}

/// What is said of an instance that may not be opened.
fn not_ours(id: &str) -> String {
    format!("{id} is left out: its control socket is for root and another group")
}
