//! `doctor`: looks, says what it found, and what to do.

use super::{CommandError, FAILED, progress};
use crate::{
    cli::DoctorArgs,
    doctor::{Finding, State, any_problem, around, gather, inspect, machine, pins},
    instance::{Found, Root},
    render::findings::{self, Marks},
};
use std::io::{self, Write};

pub(super) fn doctor(root: &Root, args: &DoctorArgs) -> Result<u8, CommandError> {
    // Without root the pins cannot be read, and nothing would look like no instance.
    let mut found = match &args.instance {
        _ if !nix::unistd::geteuid().is_root() => Vec::new(),
        Some(id) => vec![root.find(id)?],
        None => root.list()?,
    };
    if !args.whom.is_everybody() {
        let has = |f: &Found| {
            f.pins
                .infos()
                .is_ok_and(|all| all.iter().any(|(_, i)| args.whom.covers(i)))
        };
        found.retain(has);
    }
    let mut all = progress::waiting("looking: something is slow to answer", || {
        examine(root, &found, args)
    });
    for f in all
        .iter_mut()
        .filter(|f| pins::is_accepted(f, &args.accept))
    {
        f.state = State::Note;
    }
    print(&all, args.json).map_err(CommandError::Output)?;
    Ok(if any_problem(&all) { FAILED } else { 0 })
}

fn examine(root: &Root, found: &[Found], args: &DoctorArgs) -> Vec<Finding> {
    let everything = args.instance.is_none() && args.whom.is_everybody();
    let mut all = Vec::new();
    if !args.no_machine {
        all.extend(machine::findings(&gather::machine(root)));
    }
    let resolvers = gather::system_resolvers().unwrap_or_default();
    for instance in found {
        all.extend(inspect::findings(instance, &resolvers, &args.whom));
    }
    if found.is_empty() && nix::unistd::geteuid().is_root() {
        let none = if args.whom.is_everybody() {
            "no instance"
        } else {
            "nobody of that name"
        };
        all.push(Finding::ok("instances", none));
    }
    if !args.no_machine {
        all.extend(around::findings(&gather::around(root, everything)));
    }
    all
}

fn print(all: &[Finding], as_json: bool) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let marks = Marks::for_locale(|name| std::env::var(name).ok());
    for f in all {
        if as_json {
            writeln!(out, "{}", serde_json::to_string(f)?)?;
        } else {
            write!(out, "{}", findings::finding(f, marks))?;
        }
    }
    if !as_json {
        writeln!(out, "{}", findings::total(all))?;
    }
    Ok(())
}
