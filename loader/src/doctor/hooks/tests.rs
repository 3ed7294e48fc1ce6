use super::{
    super::{
        State,
        instance::{
            Nested,
            sample::{after, program_id, the_slot},
        },
    },
    *,
};
use crate::kernel::query::{Link, ProgramInfo};

fn hook<'a>(i: &'a mut Instance, name: &str) -> &'a mut Hook {
    let hooks = &mut the_slot(i).hooks;
    hooks.iter_mut().find(|h| h.name == name).unwrap()
}

fn foreign(i: &mut Instance, id: u32) {
    let maps = vec![9999];
    i.programs.insert(
        id,
        ProgramInfo {
            name: "theirs".into(),
            maps,
            types: None,
        },
    );
}

/// The only finding is a problem that says all of this.
#[track_caller]
fn problem(found: &[Finding], says: &[&str]) {
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].state, State::Problem);
    assert!(!found[0].cost.is_empty() && !found[0].mend.is_empty());
    for s in says {
        assert!(found[0].what.contains(s), "{s:?} in {found:#?}");
    }
}

#[test]
fn every_hook_that_is_detached_is_named_with_what_it_costs() {
    for name in programs::CGROUP {
        let found = after(|i| {
            let h = hook(i, name);
            h.pin = Ok(Link {
                program: program_id(name),
                target: Target::Cgroup {
                    id: 0,
                    hook: Some(name),
                },
            });
            h.effective = Ok(vec![]);
        });
        problem(&found, &[name, "detached from clawker/run-1"]);
        assert_ne!(found[0].cost, "what it judges passes", "{name}");
    }
}

#[test]
fn a_lost_pin_is_named_whether_or_not_the_program_runs_on() {
    let gone = |i: &mut Instance| hook(i, "egress").pin = Err("No such file".into());
    problem(
        &after(gone),
        &["pin of link egress is gone", "runs on as long as"],
    );
    let found = after(|i| {
        gone(i);
        hook(i, "egress").effective = Ok(vec![]);
    });
    problem(&found, &["egress", "No such file", "nothing of ours runs"]);
}

#[test]
fn a_pin_that_holds_something_else_is_replaced() {
    for (target, program, says) in [
        (Target::Other, 15, "not a link of a cgroup"),
        (Target::Iterator { map: 1 }, 15, "not a link of a cgroup"),
        (
            Target::Cgroup {
                id: 55,
                hook: Some("ingress"),
            },
            program_id("ingress"),
            "holds ingress",
        ),
        (
            Target::Cgroup {
                id: 55,
                hook: Some("egress"),
            },
            99,
            "program 99 (theirs), which is not ours",
        ),
        // One of our own under a wrong name.
        (
            Target::Cgroup {
                id: 55,
                hook: Some("egress"),
            },
            program_id("ingress"),
            "is not ours",
        ),
    ] {
        let found = after(|i| {
            foreign(i, 99);
            hook(i, "egress").pin = Ok(Link { program, target });
        });
        problem(&found, &["pin of link egress was replaced", says]);
    }
}

#[test]
fn a_link_elsewhere_and_a_program_that_does_not_run_are_told_apart() {
    let elsewhere = after(|i| {
        hook(i, "connect6").pin = Ok(Link {
            program: program_id("connect6"),
            target: Target::Cgroup {
                id: 56,
                hook: Some("connect6"),
            },
        });
    });
    problem(&elsewhere, &["connect6", "another cgroup (id 56)"]);
    let idle = after(|i| hook(i, "connect6").effective = Ok(vec![]));
    problem(
        &idle,
        &["connect6 is pinned, but its program", "does not run"],
    );
}

#[test]
fn a_foreign_program_in_front_is_a_problem_and_behind_a_note() {
    let put = |name: &'static str, at: usize, direct: bool| {
        after(move |i| {
            foreign(i, 99);
            let h = hook(i, name);
            h.effective.as_mut().unwrap().insert(at, 99);
            if direct {
                h.attached.as_mut().unwrap().insert(0, 99);
            }
        })
    };
    problem(
        &put("connect4", 0, true),
        &[
            "99 (theirs)",
            "before ours at connect4",
            "attached to clawker/run-1",
        ],
    );
    problem(
        &put("egress", 0, false),
        &["before ours at egress", "above clawker/run-1"],
    );
    let behind = put("egress", 1, false);
    assert_eq!(
        (behind.len(), behind[0].state),
        (1, State::Note),
        "{behind:#?}"
    );
    assert!(behind[0].what.contains("after ours at egress"));
    // Callbacks of connections can be taken from behind too.
    problem(&put("sock_ops", 1, false), &["after ours at sock_ops"]);
}

#[test]
fn a_program_below_runs_first() {
    let found = after(|i| {
        foreign(i, 99);
        let place = "clawker/run-1/inner".to_owned();
        the_slot(i).nested = vec![Nested {
            place,
            hook: "egress",
            programs: vec![99],
        }];
    });
    problem(
        &found,
        &[
            "99 (theirs)",
            "before ours at egress",
            "clawker/run-1/inner",
        ],
    );
}

#[test]
fn a_cgroup_that_is_gone_or_another_is_named() {
    problem(
        &after(|i| the_slot(i).cgroup = Place::Gone),
        &["clawker/run-1 is gone"],
    );
    problem(
        &after(|i| the_slot(i).cgroup = Place::There(77)),
        &["id 77, not 55"],
    );
    let unknown = |i: &mut Instance| the_slot(i).cgroup = Place::Unknown("no cgroup v2".into());
    problem(&after(unknown), &["cannot be checked: no cgroup v2"]);
    let silent = |i: &mut Instance| hook(i, "egress").effective = Err("not permitted".into());
    problem(
        &after(silent),
        &["egress", "cannot be checked: not permitted"],
    );
}
