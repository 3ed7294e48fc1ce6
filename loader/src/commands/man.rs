//! `man`: man pages from the definitions that `--help` is made of.

use super::CommandError;
use crate::cli::Cli;
use clap::CommandFactory as _;
use std::{
    io::{self, Write as _},
    path::Path,
};

/// Writes one page for each command below `dir`, or the first one to standard output.
pub(super) fn man(dir: Option<&Path>) -> Result<u8, CommandError> {
    let command = Cli::command();
    match dir {
        Some(dir) => {
            clap_mangen::generate_to(command, dir).map_err(|source| CommandError::Pages {
                dir: dir.to_owned(),
                source,
            })?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut page)
                .and_then(|()| io::stdout().write_all(&page))
                .map_err(CommandError::Output)?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;
    use std::fs;

    /// Every command below this one with the name of its page.
    fn pages(prefix: &str, command: &Command, to: &mut Vec<(String, Command)>) {
        for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = format!("{prefix}-{}", sub.get_name());
            pages(&name, sub, to);
            to.push((name, sub.clone()));
        }
    }

    #[test]
    fn every_command_has_a_page_with_all_of_its_options() {
        let dir = tempfile::tempdir().unwrap();
        man(Some(dir.path())).unwrap();
        let mut all = Vec::new();
        pages("ebpf-manager", &Cli::command(), &mut all);
        assert!(
            all.iter()
                .any(|(name, _)| name == "ebpf-manager-policy-explain")
        );
        for (name, command) in all.iter().filter(|(name, _)| !name.contains("help")) {
            let page = fs::read_to_string(dir.path().join(format!("{name}.1"))).unwrap();
            for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
                let long = arg.get_long().map(|l| l.replace('-', "\\-"));
                let said = long.is_none_or(|l| page.contains(&l));
                assert!(said, "{} in {name}", arg.get_id());
            }
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        let e = man(Some(Path::new("/nonexistent/pages"))).unwrap_err();
        assert!(e.to_string().contains("/nonexistent/pages"), "{e}");
    }
}
