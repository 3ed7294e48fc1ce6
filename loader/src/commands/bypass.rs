//! `bypass` and `enforce`: through the loaders that live, and into the pins where none answers.

use super::{CommandError, FAILED, warn};
use crate::{
    actor::Actor,
    audit::BypassChange,
    bypass::{self, BypassError, Done, Lift, Order, Restore, journal},
    cli::{BypassArgs, EnforceArgs},
    control::{self, AskError, Request},
    instance::{Found, InstanceError, Root},
    render::line::printable,
    whom::Whom,
};
use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::Path,
};

/// Why nobody was bypassed.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// Nobody of this name.
    #[error("nobody is called {wanted}; there {}", known(.agents))]
    Nobody {
        /// As asked for.
        wanted: String,
        /// Everybody there is.
        agents: Vec<String>,
    },
    /// This process cannot be told.
    #[error("cannot tell who gives this order: {0}")]
    Actor(io::Error),
}

fn known(agents: &[String]) -> String {
    match agents {
        [] => "is nobody under a firewall".to_owned(),
        [one] => format!("is {}", printable(one)),
        many => format!("are {}", printable(&many.join(", "))),
    }
}

/// Where instances are found and spoken to.
#[derive(Clone, Copy)]
pub(super) struct Places<'a> {
    pub(super) root: &'a Root,
    pub(super) control_dir: &'a Path,
}

/// What came of it everywhere.
#[derive(Default)]
struct Total {
    changes: Vec<BypassChange>,
    unchanged: Vec<String>,
    agents: BTreeSet<String>,
    failed: Vec<String>,
}

pub(super) fn bypass(places: Places<'_>, args: &BypassArgs) -> Result<u8, CommandError> {
    let order = Order::Lift(Lift {
        agent: args.whom.agent.clone(),
        project: args.whom.project.clone(),
        // Bounded by a day.
        for_ms: args.time.as_millis() as u64,
        reason: args.reason.clone(),
    });
    let total = everywhere(places, args.instance.as_deref(), &order)?;
    report(&total, &args.whom, args.json)
}

pub(super) fn enforce(places: Places<'_>, args: &EnforceArgs) -> Result<u8, CommandError> {
    let order = Order::Restore(Restore {
        agent: args.whom.agent.clone(),
        project: args.whom.project.clone(),
        reason: args.reason.clone(),
    });
    let total = everywhere(places, args.instance.as_deref(), &order)?;
    report(&total, &args.whom, args.json)
}

fn everywhere(
    places: Places<'_>,
    instance: Option<&str>,
    order: &Order,
) -> Result<Total, CommandError> {
    let mut total = Total::default();
    if nix::unistd::geteuid().is_root() {
        let found = match instance {
            Some(id) => vec![places.root.find(id)?],
            None => places.root.list()?,
        };
        for one in found.iter().filter(|f| f.is_whole()) {
            match by_root(places, one, order) {
                Ok(done) => total.add(done),
                // It went while it was spoken to.
                Err(_) if !one.is_whole() => {}
                Err(e) => total.failed.push(format!("{}: {e}", one.id)),
            }
        }
        return Ok(total);
    }
    let mut ids = control::sockets(places.control_dir)?;
    if let Some(id) = instance {
        if !ids.iter().any(|known| known == id) {
            let id = id.to_owned();
            return Err(InstanceError::Unknown { id, instances: ids }.into());
        }
        ids = vec![id.to_owned()];
    }
    for id in ids {
        match control::ask(places.control_dir, &id, &Request::Order(order.clone())) {
            Ok(done) => total.add(done),
            Err(e) => total.failed.push(format!(
                "{id}: {e}; root can do this without its loader: run it with sudo"
            )),
        }
    }
    Ok(total)
}

/// Through the loader if it answers, else into the pins.
fn by_root(places: Places<'_>, found: &Found, order: &Order) -> Result<Done, CommandError> {
    if found.alive {
        match control::ask(
            places.control_dir,
            &found.id,
            &Request::Order(order.clone()),
        ) {
            Ok(done) => return Ok(done),
            Err(AskError::Refused(why)) => {
                return Ok(Done {
                    failed: vec![format!("{}: {why}", found.id)],
                    ..Done::default()
                });
            }
            Err(e) => warn(&format!(
                "{}: {e}; written into the kernel's maps without it",
                found.id
            )),
        }
    }
    directly(places, found, order)
}

/// Into the pins; records of it wait in a file.
fn directly(places: Places<'_>, found: &Found, order: &Order) -> Result<Done, CommandError> {
    let actor = Actor::me().map_err(OperateError::Actor)?;
    let within = actor.cgroup.as_deref().unwrap_or_default();
    if control::is_guarded(within).map_err(OperateError::Actor)? {
        return Err(BypassError::Guarded.into());
    }
    let file = journal::path(places.control_dir, &found.id);
    let ready = control::prepare(places.control_dir).map_err(|e| e.to_string());
    let done = bypass::apply(&found.pins, &found.id, order, &actor, |change| {
        ready.clone().map_err(io::Error::other)?;
        journal::append(&file, change)
    })?;
    if !done.changes.is_empty() {
        let who = if found.alive { "its" } else { "a" };
        anstream::eprintln!(
            "{}: done without a loader; the audit record is in {} until {who} loader takes it over",
            found.id,
            file.display()
        );
    }
    Ok(done)
}

impl Total {
    fn add(&mut self, done: Done) {
        self.changes.extend(done.changes);
        self.unchanged.extend(done.unchanged);
        self.agents.extend(done.agents);
        self.failed.extend(done.failed);
    }
}

fn report(total: &Total, whom: &Whom, as_json: bool) -> Result<u8, CommandError> {
    let nobody = total.changes.is_empty() && total.unchanged.is_empty() && total.failed.is_empty();
    if nobody && !whom.is_everybody() {
        let part = |p: &Option<String>| p.clone().unwrap_or_else(|| "*".to_owned());
        return Err(OperateError::Nobody {
            wanted: printable(&format!("{}/{}", part(&whom.project), part(&whom.agent))),
            agents: total.agents.iter().cloned().collect(),
        }
        .into());
    }
    print(total, as_json).map_err(CommandError::Output)?;
    for why in &total.failed {
        anstream::eprint!(
            "{}",
            super::error_text(&CommandError::Unchanged(why.clone()))
        );
    }
    Ok(if total.failed.is_empty() { 0 } else { FAILED })
}

fn print(total: &Total, as_json: bool) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    for change in &total.changes {
        if as_json {
            writeln!(out, "{}", serde_json::to_string(change)?)?;
        } else {
            writeln!(out, "{change}")?;
        }
    }
    if as_json {
        return Ok(());
    }
    for name in &total.unchanged {
        writeln!(out, "{} was enforced already", printable(name))?;
    }
    if total.changes.is_empty() && total.unchanged.is_empty() && total.failed.is_empty() {
        writeln!(out, "nobody is under a firewall")?;
    }
    Ok(())
}
