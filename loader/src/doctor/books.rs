//! Findings about numbers: whether the accounting adds up, what is nearly full, what has gone wrong.

use super::{
    Finding,
    instance::{Books, Instance, Slot},
    plural,
};
use crate::{accounting, render::units};
use abi::{SlotMetrics, VERDICT_DENIED, maps};

/// From this part on something is nearly full, in percent.
const NEARLY_FULL: u64 = 80;

/// A counter of [`abi::trouble`] for people.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub counts: &'static str,
    /// What that means.
    pub cost: &'static str,
    /// What to do.
    pub mend: &'static str,
}

/// Every counter, in the order of [`abi::trouble`].
pub const TROUBLE: [Trouble; abi::trouble::COUNT] = [
    Trouble {
        name: "ring_full",
        counts: "flows found no room in a ring",
        cost: "they were folded: counted by destination, without times and process of each",
        mend: "run with a larger --ring-kib",
    },
    Trouble {
        name: "rate_exceeded",
        counts: "flows were over the record rate",
        cost: "they were folded: counted by destination, without times and process of each",
        mend: "look for a flood in the records; run with a higher --rate if it is meant",
    },
    Trouble {
        name: "folds_full",
        counts: "flows found no folded row of their own",
        cost: "they are in the catch-all record of their verdict, without destination",
        mend: "look for a scan in the records",
    },
    Trouble {
        name: "names_full",
        counts: "names were not learned because the quota was used up",
        cost: "connections to them were judged by address alone, and may have been denied",
        mend: "look for made-up names in the records",
    },
    Trouble {
        name: "addresses_full",
        counts: "addresses were not learned because the quota was used up",
        cost: "connections to them were judged by address alone, and may have been denied",
        mend: "look for made-up names in the records",
    },
    Trouble {
        name: "answer_malformed",
        counts: "answers of trusted resolvers could not be parsed",
        cost: "they taught nothing or only their beginning: connections may have been denied",
        mend: "check the resolver; somebody may speak in its place on the way",
    },
    Trouble {
        name: "name_collision",
        counts: "names had the hash of another",
        cost: "they were not learned: connections to them may have been denied",
        mend: "look for made-up names in the records",
    },
    Trouble {
        name: "scratch_busy",
        counts: "packets or answers found no working memory on their processor",
        cost: "packets were denied and counted, answers not learned",
        mend: "nothing, if they are few",
    },
    Trouble {
        name: "no_state",
        counts: "packets could not be tied to a flow because socket memory was used up",
        cost: "they were denied: a socket with a huge filter or many options does this to itself",
        mend: "look for reason no_state in the records",
    },
    Trouble {
        name: "names_crowded",
        counts: "names made room for others of the same address",
        cost: "one address keeps 8 names; rules for the forgotten ones held no more",
        mend: "allow the address of that shared host by a rule of its own, if it is meant",
    },
    Trouble {
        name: "no_socket",
        counts: "packets of no socket were let pass by policy at the interface",
        cost: "they are in no record: the kernel answers so, and forwards for containers inside the container",
        mend: "nothing, if containers run inside it; else look at what it forwards",
    },
];

/// Everything there is to say about the numbers of an instance.
#[must_use]
pub fn findings(i: &Instance) -> Vec<Finding> {
    let mut all = accounting(i);
    all.extend(fill(i));
    all.extend(i.slots().iter().flat_map(trouble));
    if i.unenrolled > 0 {
        all.push(Finding::note(
            "unenrolled",
            format!(
                "{} refused while a cgroup had no slot",
                plural(i.unenrolled, "attempt")
            ),
            "they are in no record of an agent, reason not_enrolled",
            "",
        ));
    }
    all
}

fn ended(m: &SlotMetrics) -> u64 {
    m.ended.iter().sum()
}

/// Flows of a slot in folded rows that nobody has taken yet, catch-all rows included: as of before the
/// flows that ended were counted.
#[must_use]
pub fn folded(s: &Slot) -> u64 {
    let catch_all = s.books.before.catch_all.iter().flatten();
    s.books.folded + catch_all.map(|row| row.count).sum::<u64>()
}

/// The accounting identity. Flows that wait are in a ring, in a folded row, or in the loader's hands.
fn accounting(i: &Instance) -> Vec<Finding> {
    if i.slots().is_empty() {
        return Vec::new();
    }
    let mut bad: Vec<Finding> = i
        .slots()
        .iter()
        .filter_map(|s| wrong(&s.place, &s.books))
        .collect();
    let waiting: u64 = i.slots().iter().map(folded).sum();
    let mut in_rings = 0;
    for (name, fill) in &i.rings {
        match fill {
            Ok(fill) => in_rings += fill.records,
            Err(why) => bad.push(Finding::problem(
                "accounting",
                format!("{name} cannot be looked into: {why}"),
                "how many flows wait there is not known",
                i.mend(),
            )),
        }
    }
    let done: u64 = i.slots().iter().map(|s| ended(&s.books.after)).sum();
    // The rings belong to row 0 too, whose flows have no slot.
    if waiting + in_rings > done + i.unenrolled {
        bad.push(Finding::problem(
            "accounting",
            format!(
                "{} in rings and folded, but only {} ended",
                plural(waiting + in_rings, "flow"),
                units::count(done)
            ),
            "records tell of flows that there were not",
            i.mend(),
        ));
    }
    if bad.is_empty() {
        let live: u64 = i
            .slots()
            .iter()
            .filter_map(|s| s.books.live.as_ref().ok())
            .sum();
        let waiting: u64 = i
            .slots()
            .iter()
            .flat_map(|s| accounting::unrecorded(&s.books.after))
            .sum();
        let all = units::count(done + live);
        let [recorded, waiting, live] =
            [done.saturating_sub(waiting), waiting, live].map(units::count);
        bad.push(Finding::ok(
            "accounting",
            format!(
                "accounting: {all} flows = {recorded} recorded + {waiting} waiting + {live} live"
            ),
        ));
    }
    bad
}

/// What is wrong with the books of one slot. Flows begin and end while they are counted, so the number
/// of live ones is held against the least and the most that the books allow.
fn wrong(place: &str, b: &Books) -> Option<Finding> {
    let lost = |what: String| {
        Some(Finding::problem(
            "accounting",
            format!("accounting of {place}: {what}"),
            "records do not tell everything that happened",
            "keep `ebpf-manager dump --counters --json`, and report it",
        ))
    };
    let live = match &b.live {
        Ok(live) => *live,
        Err(why) => return lost(format!("live flows cannot be counted: {why}")),
    };
    let (opened, done) = (b.after.opened, ended(&b.after));
    let least = b.before.opened.saturating_sub(done);
    let Some(most) = opened.checked_sub(ended(&b.before)) else {
        return lost(format!("{done} ended, but only {opened} were opened"));
    };
    if live < least {
        return lost(format!(
            "{} opened, {done} ended, {live} live: {} in neither",
            b.before.opened,
            plural(least - live, "flow")
        ));
    }
    if live > most {
        return lost(format!(
            "{opened} opened, {} ended, {live} live: {} too many",
            ended(&b.before),
            plural(live - most, "flow")
        ));
    }
    let denied = usize::from(VERDICT_DENIED);
    let reasons = |m: &SlotMetrics| m.denied.iter().sum::<u64>();
    if reasons(&b.before) > b.after.ended[denied] || reasons(&b.after) < b.before.ended[denied] {
        return lost(format!(
            "{} were denied, but the reasons add up to {}",
            b.after.ended[denied],
            reasons(&b.after)
        ));
    }
    let over = b
        .before
        .folded
        .iter()
        .zip(b.after.ended)
        .any(|(folded, ended)| *folded > ended);
    if over {
        return lost("more flows were folded than ended".to_owned());
    }
    None
}

/// Something that fills up.
struct Filling {
    what: String,
    used: u64,
    room: u64,
    cost: &'static str,
    mend: &'static str,
    /// What does not fit is still told, only less finely.
    soft: bool,
}

/// What is nearly full.
fn fill(i: &Instance) -> Vec<Finding> {
    let mut all: Vec<Finding> = fillings(i).iter().filter_map(nearly).collect();
    if let Err(why) = &i.policy {
        all.push(Finding::note(
            "fill",
            format!("policy entries cannot be counted: {why}"),
            "whether a changed policy finds room is not known",
            "",
        ));
    }
    if all.is_empty() {
        let what = format!("nothing is over {NEARLY_FULL} % full");
        all.push(Finding::ok("fill", what));
    }
    all
}

fn fillings(i: &Instance) -> Vec<Filling> {
    let mut all: Vec<Filling> = i.slots().iter().flat_map(quotas).collect();
    for (name, seen) in &i.rings {
        all.extend(seen.as_ref().ok().map(|fill| Filling {
            what: (*name).to_owned(),
            used: fill.records,
            room: fill.capacity,
            cost: "further flows are folded: counted by destination",
            mend: if i.alive {
                "the reader is behind: run with a larger --ring-kib"
            } else {
                "nobody reads it: its loader is dead"
            },
            soft: true,
        }));
    }
    for (name, used) in i.policy.as_deref().unwrap_or_default() {
        all.push(Filling {
            what: (*name).to_owned(),
            used: *used,
            room: abi::MAX_POLICY_ENTRIES.into(),
            cost: "a change of policy needs room for both and is refused",
            mend: "use wider patterns, or split the policy by project",
            soft: false,
        });
    }
    // A run has one slot, which is always in use.
    if i.room > 1 {
        all.push(Filling {
            what: maps::SLOT_INFO.to_owned(),
            used: i.slots().len() as u64,
            room: i.room,
            cost: "further containers cannot be enrolled",
            mend: "start another instance",
            soft: false,
        });
    }
    all
}

/// What a slot may use.
fn quotas(s: &Slot) -> [Filling; 3] {
    let (m, place) = (&s.books.after, &s.place);
    let learned = |what: &str, used: u64, room: u32| Filling {
        what: format!("learned {what} of {place}"),
        used,
        room: room.into(),
        cost: "new names are not learned when it is full: rules for them do not hold",
        mend: "look for made-up names in the records; expired ones make room by themselves",
        soft: false,
    };
    [
        learned("names", m.names_used, m.max_names),
        learned("addresses", m.addrs_used, m.max_addrs),
        Filling {
            what: format!("folded rows of {place}"),
            used: m.folds_used.iter().copied().max().unwrap_or(0),
            room: m.max_folds.into(),
            cost: "further destinations go into one record without destination",
            mend: "look for a flood or a scan in the records",
            soft: true,
        },
    ]
}

fn nearly(f: &Filling) -> Option<Finding> {
    if f.used * 100 < f.room * NEARLY_FULL || f.room == 0 {
        return None;
    }
    let [used, room] = [f.used, f.room].map(units::count);
    let percent = f.used * 100 / f.room;
    let what = format!("{}: {used} of {room} used ({percent} %)", f.what);
    Some(if f.used >= f.room && !f.soft {
        Finding::problem("fill", what, f.cost, f.mend)
    } else {
        Finding::note("fill", what, f.cost, f.mend)
    })
}

/// What has gone wrong so far.
fn trouble(s: &Slot) -> Vec<Finding> {
    let counters = TROUBLE.iter().zip(s.books.after.trouble);
    counters
        .filter(|(_, n)| *n > 0)
        .map(|(t, n)| {
            let what = format!("{} {} ({})", units::count(n), t.counts, t.name);
            Finding::note("trouble", what, t.cost, t.mend)
        })
        .collect()
}

#[cfg(test)]
mod tests;
