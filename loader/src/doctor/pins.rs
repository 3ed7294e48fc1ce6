//! Findings about what is pinned: maps, iterators, the slots' configurations, and what a dead loader
//! left.

use super::{
    Finding,
    instance::{Instance, Slot},
    plural, ways,
};
use crate::{
    docker::Weakness,
    kernel::query::Target,
    render::{line::printable, units},
    weakness,
};
use abi::{MODE_AUDIT, MODE_OBSERVE, PHASE_ALONE, SlotConfig, maps};
use std::{collections::BTreeMap, time::Duration};

/// Everything there is to say about the pins of an instance.
#[must_use]
pub fn findings(i: &Instance) -> Vec<Finding> {
    let mut all: Vec<Finding> = loader(i).into_iter().collect();
    all.extend(all_maps(i));
    all.extend(iterators(i));
    match &i.slots {
        Ok(slots) if slots.is_empty() => all.push(unenrolled(i)),
        Ok(slots) => all.extend(slots.iter().flat_map(|s| slot(i, s))),
        Err(why) => all.push(Finding::problem(
            "slot",
            format!("which cgroups it guards cannot be told: {why}"),
            "hooks and accounting are not checked",
            i.mend(),
        )),
    }
    all
}

/// A loader that is gone.
fn loader(i: &Instance) -> Option<Finding> {
    if i.alive {
        return None;
    }
    let rings: u64 = i
        .rings
        .iter()
        .filter_map(|(_, r)| r.as_ref().ok())
        .map(|r| r.records)
        .sum();
    let folded: u64 = i.slots().iter().map(super::books::folded).sum();
    let waiting = plural(rings + folded, "flow");
    let id = &i.id;
    if i.slots.is_err() {
        return Some(Finding::problem(
            "loader",
            "its loader is dead, and its pins are not whole",
            "what it guards, if anything, cannot be told",
            format!("ebpf-manager detach --instance {id}"),
        ));
    }
    Some(if i.over {
        Finding::problem(
            "loader",
            format!("its loader is dead and nothing needs it any more; never recorded: {waiting}"),
            "its programs and maps hold memory; the flows are told as a number when it is removed",
            format!("ebpf-manager detach --instance {id} (the next `run` does it too)"),
        )
    } else {
        Finding::problem(
            "loader",
            format!(
                "its loader is dead; enforcement goes on, with {waiting} waiting that nobody reads"
            ),
            "records of its flows are not written, and datagram flows do not end when idle",
            format!(
                "end its command, then: ebpf-manager detach --instance {id}; with --force at once, and its processes lose their firewall"
            ),
        )
    })
}

fn all_maps(i: &Instance) -> Vec<Finding> {
    let mut bad = Vec::new();
    for (name, seen) in &i.maps {
        if let Err(why) = seen {
            bad.push(Finding::problem(
                "maps",
                format!("the pin of map {name} is gone or unreadable: {why}"),
                purpose(name),
                i.mend(),
            ));
        }
    }
    for (name, (used, pinned)) in replaced(i) {
        let than = match used {
            Some(used) => format!("the programs use map {used}, the pin holds map {pinned}"),
            None => format!("the pin holds map {pinned}, which another load has made"),
        };
        bad.push(Finding::problem(
            "maps",
            format!("map {name} was replaced: {than}"),
            purpose(name),
            i.mend(),
        ));
    }
    if bad.is_empty() {
        let all = i.maps.len();
        bad.push(Finding::ok(
            "maps",
            format!("{all} of {all} pinned maps are those of its programs"),
        ));
    }
    bad
}

/// Pinned maps that are not those the programs use, with the id of the one that is used, if any
/// program uses it, and of the one that is pinned. Maps that no program uses are held against the type
/// information that the others were made with.
fn replaced(i: &Instance) -> BTreeMap<&'static str, (Option<u32>, u32)> {
    let mut found = BTreeMap::new();
    let ours: Vec<_> = i
        .programs
        .iter()
        .filter(|(id, _)| i.owns(**id))
        .map(|(_, p)| p)
        .collect();
    let used = |name: &str| {
        let ids = ours.iter().flat_map(|p| p.maps.iter().copied());
        let mut of_name = ids.filter(|id| i.map_names.get(id).is_some_and(|n| n == name));
        of_name.next()
    };
    // All maps are of one load. The programs may be of a later one, which has taken the maps over.
    let types = i.maps.iter().find_map(|(name, seen)| match seen {
        Ok(pinned) if used(name) == Some(pinned.id) => Some(pinned.types),
        _ => None,
    });
    for (name, seen) in &i.maps {
        let Ok(pinned) = seen else { continue };
        match used(name) {
            Some(id) if id != pinned.id => {
                found.insert(*name, (Some(id), pinned.id));
            }
            None if types.is_some_and(|t| t != pinned.types) => {
                found.insert(*name, (None, pinned.id));
            }
            _ => {}
        }
    }
    found
}

/// What a map that cannot be reached, or is another, costs.
fn purpose(map: &str) -> &'static str {
    match map {
        maps::SLOT => "changes of policy or mode reach no program",
        maps::METRICS => "the counters that are read are not those that are counted",
        maps::SLOT_INFO => "whose flows these are cannot be told",
        maps::CONTROL => "folded flows cannot be read, and flows cannot be ended",
        maps::TCP_FLOWS | maps::DGRAM_FLOWS => "live flows cannot be listed",
        maps::RING_ALLOWED | maps::RING_DENIED => "records cannot be read",
        maps::POLICY_ADDRS | maps::POLICY_NAMES | maps::POLICY_CHAIN => {
            "a changed policy does not reach the programs, which then deny"
        }
        maps::POLICY_TEXT => "rules cannot be named in records and in `dump`",
        maps::LEARNED_ADDRS | maps::LEARNED_NAMES => {
            "learned names cannot be told or forgotten: records lack them, and the table fills up"
        }
        maps::MARKS => {
            "guard and backstop do not see that sockets are judged, and refuse what they send"
        }
        maps::CONFIGS | maps::DEVICES | maps::EXEMPT => {
            "the backstop judges packets of no socket by what was there before"
        }
        maps::FOLDS => "folded flows are not told apart",
        maps::HANDLED => "at an upgrade to another version flows are counted twice",
        maps::HEIRS | maps::HEIR_NOTES => {
            "at an upgrade from another version connections are judged as if nobody knew them"
        }
        _ => "what is read there is not what the programs use",
    }
}

fn iterators(i: &Instance) -> Vec<Finding> {
    let mut bad = Vec::new();
    for (name, over, seen) in &i.iterators {
        let what = match seen {
            Err(why) => format!("the pin of iterator {name} is gone or unreadable: {why}"),
            Ok(link)
                if link.target
                    == (Target::Iterator {
                        map: i.map(over).unwrap_or(0),
                    }) =>
            {
                continue;
            }
            Ok(_) => format!("the pin of iterator {name} was replaced: it does not go over {over}"),
        };
        let cost = "live flows cannot be listed or ended: datagram flows do not end when idle, and `dump` may not see the instance";
        bad.push(Finding::problem("iterators", what, cost, i.mend()));
    }
    if bad.is_empty() {
        bad.push(Finding::ok("iterators", "flow iterators"));
    }
    bad
}

/// An instance without a slot.
pub(super) fn unenrolled(i: &Instance) -> Finding {
    if i.alive {
        Finding::note(
            "slot",
            "it has no slot yet",
            "until it has, everything in its cgroup is denied",
            "look again in a moment",
        )
    } else {
        Finding::problem(
            "slot",
            "its loader died before a slot was opened",
            "everything in its cgroup is denied",
            i.mend(),
        )
    }
}

fn slot(i: &Instance, s: &Slot) -> Vec<Finding> {
    let place = &s.place;
    let config = match &s.config {
        Ok(Some(config)) => config,
        Ok(None) if i.over => return Vec::new(),
        Ok(None) => {
            return vec![Finding::problem(
                "slot",
                format!(
                    "slot {} of {place} has no configuration: no program is attached there",
                    s.number
                ),
                "nothing is judged",
                i.mend(),
            )];
        }
        Err(why) => {
            return vec![Finding::problem(
                "slot",
                format!("the configuration of {place} cannot be read: {why}"),
                "whether it is enforced is not known",
                i.mend(),
            )];
        }
    };
    if config.slot == 0 {
        return vec![Finding::problem(
            "slot",
            format!("the slot of {place} is zero"),
            "everything in that cgroup is denied, reason not_enrolled",
            i.mend(),
        )];
    }
    let row = s.books.after.slot;
    if (config.slot, config.index, row) != (s.number, s.index, s.number) {
        let what = format!(
            "the configuration of {place} is of slot {} and row {}, but slot {} was enrolled in row {}, which says slot {row}",
            config.slot, config.index, s.number, s.index
        );
        let cost = "flows are counted for another slot, and learned names are not its own";
        return vec![Finding::problem("slot", what, cost, i.mend())];
    }
    let mut all = vec![in_force(i, s, config)];
    all.extend(handed_over(i, s, config));
    all.extend(lifted(i, s, config));
    all.extend(s.weaknesses.iter().map(|w| weak(s, *w)));
    all.extend(ways::missing(s, config));
    all.extend(ways::resolvers(i, config));
    all
}

/// A take-over by or from a loader of another version that has not come to its end.
fn handed_over(i: &Instance, s: &Slot, config: &SlotConfig) -> Option<Finding> {
    if config.phase == PHASE_ALONE || i.alive {
        return None;
    }
    Some(Finding::problem(
        "slot",
        format!(
            "a loader died while the firewall of {} was handed over between versions",
            s.place
        ),
        "every event is judged by one of the two sets of programs, as long as both stay attached: detach neither",
        "start the loader again: it brings the upgrade to its end",
    ))
}

fn in_force(i: &Instance, s: &Slot, config: &SlotConfig) -> Finding {
    let (number, place) = (s.number, &s.place);
    match config.mode {
        MODE_OBSERVE => Finding::note(
            "mode",
            format!("slot {number} only observes {place}"),
            "nothing but the built-in deny set is refused",
            "run it with --policy FILE to enforce one",
        ),
        MODE_AUDIT => Finding::note(
            "mode",
            format!("slot {number} only audits {place}"),
            "what the policy denies passes, and is marked would_deny",
            format!(
                "ebpf-manager policy apply FILE --instance {} --mode enforce",
                i.id
            ),
        ),
        _ => Finding::ok(
            "mode",
            format!("slot {number} enforces policy {} on {place}", config.policy),
        ),
    }
}

fn lifted(i: &Instance, s: &Slot, config: &SlotConfig) -> Option<Finding> {
    let left = config.bypass_until.checked_sub(i.now).filter(|n| *n > 0)?;
    let by = s.lifted_by.as_ref();
    let by = by.map_or(String::new(), |(by, why)| {
        printable(&format!(", by {by}: {why}"))
    });
    Some(Finding::note(
        "bypass",
        format!(
            "{} is bypassed for {} more{by}",
            s.place,
            units::duration(Duration::from_nanos(left))
        ),
        "nothing but the built-in deny set is refused until then",
        format!("to end it now: ebpf-manager enforce --instance {}", i.id),
    ))
}

/// A set-up that weakens the firewall.
fn weak(s: &Slot, w: Weakness) -> Finding {
    let t = weakness::told(w);
    Finding::problem(
        "weakness",
        format!("the container of {} {}", s.place, t.what),
        t.cost,
        format!("{}, or accept it with --accept {}", t.mend, t.word),
    )
}

/// Whether a finding is about a weakness that is meant: one of these words.
#[must_use]
pub fn is_accepted(f: &Finding, accepted: &[String]) -> bool {
    let ends = |word: &String| f.mend.ends_with(&format!("--accept {word}"));
    f.check == "weakness" && accepted.iter().any(ends)
}

#[cfg(test)]
mod tests;
