//! Findings about guarded parent cgroups and backstops at interfaces.

use super::Finding;
use crate::kernel::{
    Backstop, Guard, Pins,
    query::{Link, Target},
};
use abi::programs;

/// What was seen of the guards and backstops of an instance.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Guards by name, with what is behind their pins.
    pub guards: Vec<(String, Result<Link, String>)>,
    /// Backstops, with the attachment that each belongs to.
    pub backstops: Vec<(String, Backstop)>,
    /// What could not be looked at.
    pub trouble: Vec<String>,
}

/// Looks at the pins.
#[must_use]
pub fn look(pins: &Pins) -> Seen {
    let mut seen = Seen::default();
    match pins.guards() {
        Ok(all) => {
            let told = |g: Guard| (g.name, g.link.map_err(|e| e.to_string()));
            seen.guards = all.into_iter().map(told).collect();
        }
        Err(e) => seen.trouble.push(e.to_string()),
    }
    match pins.every_backstop() {
        Ok(all) => seen.backstops = all,
        Err(e) => seen.trouble.push(e.to_string()),
    }
    seen
}

/// Everything there is to say of them.
#[must_use]
pub fn findings(seen: &Seen) -> Vec<Finding> {
    let mut all: Vec<_> = seen
        .guards
        .iter()
        .map(|(name, link)| guard(name, link))
        .collect();
    let gone = seen.backstops.iter().filter(|(_, b)| !b.attached);
    all.extend(gone.map(|(name, b)| {
        Finding::note(
            "backstop",
            format!("the backstop of {name} at interface {} is detached", b.interface),
            "if the interface is still there, frames of AF_PACKET and sockets made in another cgroup leave it unseen",
            "nothing if the container has left that network: `serve` clears it away",
        )
    }));
    let there = seen.backstops.iter().filter(|(_, b)| b.attached).count();
    if there > 0 {
        let what = format!("{} attached", super::plural(there as u64, "backstop"));
        all.push(Finding::ok("backstop", what));
    }
    all.extend(seen.trouble.iter().map(|why| {
        Finding::problem(
            "guard",
            format!("guards and backstops cannot be checked: {why}"),
            "whether they are in force is not known",
            "mend what is named here",
        )
    }));
    all
}

fn guard(name: &str, link: &Result<Link, String>) -> Finding {
    let what = match link {
        Ok(Link {
            target: Target::Cgroup { id, hook },
            ..
        }) => match (*id, *hook) {
            (0, _) => format!("guard {name} is detached: its pin holds nothing"),
            (_, Some(programs::EGRESS)) => {
                return Finding::ok("guard", format!("guard {name} is in force"));
            }
            _ => format!("the pin of guard {name} was replaced: it is at another hook"),
        },
        Ok(_) => format!("the pin of guard {name} was replaced: it is not a link of a cgroup"),
        Err(why) => format!("the pin of guard {name} is gone ({why})"),
    };
    Finding::problem(
        "guard",
        what,
        "containers below that parent can send before they are enrolled",
        "restart `serve`",
    )
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    fn at(target: Target) -> Seen {
        Seen {
            guards: vec![("agents".to_owned(), Ok(Link { program: 7, target }))],
            ..Seen::default()
        }
    }

    #[test]
    fn a_guard_is_in_force_at_its_hook_only() {
        let whole = at(Target::Cgroup {
            id: 5,
            hook: Some(programs::EGRESS),
        });
        assert_eq!(findings(&whole)[0].state, State::Ok);
        let broken = [
            Target::Cgroup {
                id: 0,
                hook: Some(programs::EGRESS),
            },
            Target::Cgroup {
                id: 5,
                hook: Some(programs::INGRESS),
            },
            Target::Cgroup { id: 5, hook: None },
            Target::Interface { index: 3 },
            Target::Other,
        ];
        for target in broken {
            let found = findings(&at(target));
            assert_eq!(
                (found.len(), found[0].state),
                (1, State::Problem),
                "{target:?}"
            );
        }
        let mut gone = at(Target::Other);
        gone.guards[0].1 = Err("No such file".to_owned());
        assert!(findings(&gone)[0].what.contains("No such file"));
    }

    #[test]
    fn a_backstop_without_its_interface_is_a_note() {
        let one = |attached| {
            let b = Backstop {
                interface: 9,
                attached,
            };
            ("3".to_owned(), b)
        };
        let seen = Seen {
            backstops: vec![one(true), one(false), one(true)],
            ..Seen::default()
        };
        let found = findings(&seen);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert_eq!(found[0].state, State::Note);
        assert!(found[0].what.contains("interface 9"));
        assert!(found[1].what.contains("2 backstops"));
        assert!(findings(&Seen::default()).is_empty());
    }
}
