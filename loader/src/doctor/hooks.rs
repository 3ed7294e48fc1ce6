//! Findings about hooks: whether each is really in force at each slot's cgroup, and who else is there.

use super::{
    Finding,
    instance::{Hook, Instance, Place, Slot},
};
use crate::kernel::query::Target;
use abi::programs;

/// Everything there is to say about the hooks of an instance.
#[must_use]
pub fn findings(i: &Instance) -> Vec<Finding> {
    i.slots().iter().flat_map(|s| slot(i, s)).collect()
}

fn slot(i: &Instance, s: &Slot) -> Vec<Finding> {
    let place = &s.place;
    match &s.cgroup {
        Place::There(id) if *id == s.cgroup_id => {}
        Place::There(id) => {
            return vec![Finding::problem(
                "hooks",
                format!(
                    "{place} is not the cgroup that was enrolled (id {id}, not {})",
                    s.cgroup_id
                ),
                "nothing guards it: the programs went with the old one",
                i.mend(),
            )];
        }
        Place::Gone if i.over => return Vec::new(),
        Place::Gone => {
            return vec![Finding::problem(
                "hooks",
                format!("cgroup {place} is gone, and the programs with it"),
                "sockets that outlive it are not judged any more",
                i.mend(),
            )];
        }
        Place::Unknown(why) => {
            return vec![Finding::problem(
                "hooks",
                format!("hooks on {place} cannot be checked: {why}"),
                "whether they are in force is not known",
                "mend what is named here",
            )];
        }
    }
    let mut all = own(i, s);
    all.extend(s.hooks.iter().flat_map(|h| strangers(i, s, h)));
    all.extend(below(i, s));
    if s.nested_cut {
        all.push(Finding::note(
            "foreign",
            format!("{place} has too many cgroups below it to look at them all"),
            "a foreign program at one of them is not told of",
            "",
        ));
    }
    all
}

/// Our own hooks.
fn own(i: &Instance, s: &Slot) -> Vec<Finding> {
    let mut bad = Vec::new();
    for hook in &s.hooks {
        match broken(i, s, hook) {
            Ok(None) => {}
            Ok(Some(what)) => {
                bad.push(Finding::problem("hooks", what, loss(hook.name), i.mend()));
            }
            Err(why) => bad.push(Finding::problem(
                "hooks",
                format!("{} on {} cannot be checked: {why}", hook.name, s.place),
                "whether it is in force is not known",
                "mend what is named here",
            )),
        }
    }
    if bad.is_empty() {
        let all = s.hooks.len();
        bad.push(Finding::ok(
            "hooks",
            format!("{all} of {all} hooks effective on {}", s.place),
        ));
    }
    bad
}

/// What is wrong with one of our hooks, if anything; an error when the kernel would not tell.
fn broken(i: &Instance, s: &Slot, hook: &Hook) -> Result<Option<String>, String> {
    let (name, place) = (hook.name, &s.place);
    let effective = hook.effective.as_ref().map_err(Clone::clone)?;
    let link = match &hook.pin {
        Ok(link) => link,
        Err(why) => {
            let is_it = |p: &&u32| i.owns(**p) && named(i, **p, name);
            let rest = match effective.iter().find(is_it) {
                Some(p) => format!(
                    "; program {} runs on as long as a process holds it",
                    i.program(*p)
                ),
                None => format!(", and nothing of ours runs there on {place}"),
            };
            return Ok(Some(format!(
                "the pin of link {name} is gone ({why}){rest}"
            )));
        }
    };
    let program = i.program(link.program);
    Ok(match link.target {
        Target::Cgroup { id: 0, .. } => Some(format!(
            "link {name} is detached from {place}: its pin holds nothing"
        )),
        Target::Cgroup { hook: other, .. } if other != Some(name) => Some(format!(
            "the pin of link {name} was replaced: it holds {}",
            other.unwrap_or("a hook that is not ours")
        )),
        Target::Cgroup { .. } if !(i.owns(link.program) && named(i, link.program, name)) => {
            Some(format!(
                "the pin of link {name} was replaced: it leads to program {program}, which is not ours"
            ))
        }
        Target::Cgroup { id, .. } if id != s.cgroup_id => Some(format!(
            "link {name} is attached to another cgroup (id {id}) than {place}"
        )),
        Target::Cgroup { .. } if !effective.contains(&link.program) => Some(format!(
            "link {name} is pinned, but its program {program} does not run for {place}"
        )),
        Target::Cgroup { .. } => None,
        Target::Iterator { .. } | Target::Interface { .. } | Target::Other => Some(format!(
            "the pin of link {name} was replaced: it is not a link of a cgroup"
        )),
    })
}

fn named(i: &Instance, program: u32, name: &str) -> bool {
    i.programs.get(&program).is_some_and(|p| p.name == name)
}

/// What a hook that is not in force costs.
fn loss(hook: &str) -> &'static str {
    match hook {
        programs::CONNECT4 | programs::CONNECT6 => {
            "connections are judged at their first packet only: the call does not fail, and records lack process and exact times"
        }
        programs::SENDMSG4 | programs::SENDMSG6 => {
            "datagrams are judged at the packet only: the call does not fail, and records lack the process"
        }
        programs::RECVMSG4 | programs::RECVMSG6 => {
            "answers seem to come from the name server instead of the one that was asked: resolvers throw them away"
        }
        programs::GETPEERNAME4 | programs::GETPEERNAME6 => {
            "agents see the proxy's address instead of the one they asked for"
        }
        programs::SOCK_CREATE => {
            "raw sockets and other protocols can be made; only their packets are refused"
        }
        programs::SOCK_RELEASE => "flows of datagram sockets that close are in no record",
        programs::SOCK_OPS => "ends of TCP connections are not seen: their flows are in no record",
        programs::EGRESS => {
            "packets are not judged: DNS queries are not filtered, and rewritten destinations and older sockets pass"
        }
        programs::INGRESS => {
            "answers teach no names, so rules for names do not hold; `inbound: deny` refuses nothing"
        }
        _ => "what it judges passes",
    }
}

/// What a foreign program at a hook can do to us, and whether that is so wherever it stands.
fn harm(hook: &str) -> (&'static str, bool) {
    match hook {
        programs::SOCK_OPS => (
            "it can take away the callbacks that tell how connections end: flows may be in no record",
            true,
        ),
        programs::EGRESS | programs::INGRESS => (
            "it can drop packets without a record; ours count them all the same",
            false,
        ),
        programs::SOCK_CREATE => (
            "it can refuse sockets without a record, or bind them to a device",
            false,
        ),
        programs::SOCK_RELEASE => ("it can watch sockets close", false),
        _ => (
            "it can refuse calls without a record, or rewrite the destination: records show the rewritten one",
            false,
        ),
    }
}

/// Programs that are not ours, at our own cgroup or above it.
fn strangers(i: &Instance, s: &Slot, hook: &Hook) -> Vec<Finding> {
    let (Ok(effective), Ok(attached)) = (&hook.effective, &hook.attached) else {
        return Vec::new();
    };
    let ours = effective
        .iter()
        .position(|p| i.owns(*p))
        .unwrap_or(effective.len());
    let mut all = Vec::new();
    for (at, program) in effective.iter().enumerate().filter(|(_, p)| !i.owns(**p)) {
        let by = if attached.contains(program) {
            format!("attached to {}", s.place)
        } else {
            format!("attached to a cgroup above {}", s.place)
        };
        all.push(stranger(i, *program, hook.name, at < ours, &by));
    }
    all
}

/// Programs at cgroups below ours: the kernel runs them first.
fn below(i: &Instance, s: &Slot) -> Vec<Finding> {
    let mut all = Vec::new();
    for nested in &s.nested {
        for program in nested.programs.iter().filter(|p| !i.owns(**p)) {
            let by = format!("attached to {}", nested.place);
            all.push(stranger(i, *program, nested.hook, true, &by));
        }
    }
    all
}

fn stranger(i: &Instance, program: u32, hook: &str, front: bool, by: &str) -> Finding {
    let (cost, anywhere) = harm(hook);
    let order = if front { "before" } else { "after" };
    let what = format!(
        "foreign program {} runs {order} ours at {hook}, {by}",
        i.program(program)
    );
    let mend = format!(
        "find its owner (bpftool prog show id {program}) and detach it, unless it is meant to be there"
    );
    if front || anywhere {
        Finding::problem("foreign", what, cost, mend)
    } else {
        Finding::note("foreign", what, cost, mend)
    }
}

#[cfg(test)]
mod tests;
