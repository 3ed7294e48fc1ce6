//! Looks at an instance: its pins, its cgroups, and what the kernel says of both.

use super::{
    Finding, any_problem, guards,
    instance::{self, Books, Hook, Instance, Nested, Place, Slot},
};
use crate::{
    cgroup::{self, Cgroup},
    enrol,
    instance::Found,
    kernel::{
        KernelError, Pins,
        query::{self, Link, ProgramInfo},
    },
    session, weakness,
    whom::{self, Whom},
};
use abi::{FoldKey, FoldRow, SlotInfo, SlotMetrics, maps, programs};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use zerocopy::FromZeros as _;

/// Cgroups below a slot's that are looked at.
const MOST_BELOW: usize = 512;
/// How often the books are read in the hope that no flow moves meanwhile.
const READINGS: usize = 5;
/// An instance that comes or goes is seen half-way; after this long it is looked at again.
const SETTLE: Duration = Duration::from_millis(300);

/// Looks at an instance and says what there is to say, twice if it looks bad at first. Nothing when it
/// went meanwhile. Of its slots only those of `whom` are looked at.
#[must_use]
pub fn findings(found: &Found, resolvers: &[IpAddr], whom: &Whom) -> Vec<Finding> {
    let first = all(found, resolvers, whom);
    if !any_problem(&first) {
        return first;
    }
    thread::park_timeout(SETTLE);
    if !found.pins.dir().exists() {
        return Vec::new();
    }
    all(found, resolvers, whom)
}

fn all(found: &Found, resolvers: &[IpAddr], whom: &Whom) -> Vec<Finding> {
    let mut all = instance::findings(&look(found, resolvers, whom));
    let guards = guards::findings(&guards::look(&found.pins));
    all.extend(guards.into_iter().map(|f| f.of(&found.id)));
    all
}

fn look(found: &Found, resolvers: &[IpAddr], whom: &Whom) -> Instance {
    let pins = &found.pins;
    // What waits is read first: every flow of it is among the ended ones that are counted later.
    let rings = [maps::RING_ALLOWED, maps::RING_DENIED]
        .map(|name| (name, pins.ring_fill(name).map_err(why)));
    let folds = pins.folded().unwrap_or_default();
    let rows = pins.books().unwrap_or_default();
    let slots = pins.infos().map_err(|e| e.to_string()).map(|infos| {
        let of = |(index, info): &(u32, SlotInfo)| slot(pins, *index, info, &rows, &folds);
        let meant = infos.iter().filter(|(_, info)| whom.covers(info));
        meant.map(of).collect()
    });
    let map = |name: &'static str| (name, query::map(&pins.map_path(name)).map_err(why));
    let iterator =
        |name: &'static str, over| (name, over, query::link(&pins.dir().join(name)).map_err(why));
    let policy = pins.policy().and_then(|p| p.entries());
    let mut i = Instance {
        id: found.id.clone(),
        alive: found.alive,
        making: found.alive && link_dirs(pins).all(|dir| empty(&dir)),
        over: !found.alive && slots.is_ok() && found.is_over(),
        now: session::boot_now(),
        maps: maps::ALL.map(map).into(),
        iterators: vec![
            iterator(programs::ITER_TCP, maps::TCP_FLOWS),
            iterator(programs::ITER_DGRAM, maps::DGRAM_FLOWS),
        ],
        programs: BTreeMap::new(),
        map_names: BTreeMap::new(),
        slots,
        rings: rings.into(),
        policy: policy.map_err(|e| e.to_string()),
        room: rows.len().saturating_sub(1) as u64,
        unenrolled: rows.first().map_or(0, |m| m.ended.iter().sum()),
        resolvers: resolvers.to_vec(),
    };
    (i.programs, i.map_names) = described(&i);
    i
}

/// The path is in the finding already.
fn why(e: KernelError) -> String {
    match e {
        KernelError::Pin { source, .. } | KernelError::Map { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// Every program that shows up anywhere, and the names of the maps they use.
fn described(i: &Instance) -> (BTreeMap<u32, ProgramInfo>, BTreeMap<u32, String>) {
    let linked = |link: &Result<Link, String>| link.as_ref().ok().map(|l| l.program);
    let mut ids: BTreeSet<u32> = i
        .iterators
        .iter()
        .filter_map(|(_, _, l)| linked(l))
        .collect();
    for s in i.slots() {
        for h in &s.hooks {
            ids.extend(linked(&h.pin));
            ids.extend(h.attached.iter().chain(&h.effective).flatten());
        }
        ids.extend(s.nested.iter().flat_map(|n| &n.programs));
    }
    // What cannot be described is treated as foreign, which is a finding.
    let programs = query::describe(&ids).unwrap_or_default();
    let used: BTreeSet<u32> = programs
        .values()
        .flat_map(|p| p.maps.iter().copied())
        .collect();
    let names = used
        .into_iter()
        .filter_map(|id| Some((id, query::map_name(id).ok()?)));
    let names = names.collect();
    (programs, names)
}

/// Directories of links, one an attachment.
fn link_dirs(pins: &Pins) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(pins.dir().join("links"))
        .into_iter()
        .flatten()
        .flatten();
    entries.map(|e| e.path())
}

fn empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// The directory of a slot's links: the one of its row's number, else one that leads to its cgroup.
fn links_of(pins: &Pins, index: u32, info: &SlotInfo) -> PathBuf {
    let by_number = pins.dir().join("links").join(index.to_string());
    let by_cgroup = pins.links_of(info.cgroup_id);
    if let Some(there) = [&by_cgroup, &by_number].into_iter().find(|d| d.exists()) {
        return there.clone();
    }
    let leads = |dir: &PathBuf| {
        programs::CGROUP.iter().any(|name| {
            let target = query::link(&dir.join(name)).map(|l| l.target);
            matches!(target, Ok(query::Target::Cgroup { id, .. }) if id == info.cgroup_id)
        })
    };
    link_dirs(pins).find(leads).unwrap_or(by_number)
}

fn slot(
    pins: &Pins,
    index: u32,
    info: &SlotInfo,
    rows: &[SlotMetrics],
    folds: &[(FoldKey, FoldRow)],
) -> Slot {
    let folded = folds.iter().filter(|(k, _)| k.slot == info.slot);
    let folded = folded.map(|(_, row)| row.count).sum();
    let place = enrol::text(&info.cgroup);
    let path = cgroup::root()
        .map(|root| root.join(&place))
        .map_err(|e| e.to_string());
    let open = path
        .clone()
        .and_then(|p| File::open(p).map_err(|e| e.to_string()));
    let links = links_of(pins, index, info);
    let hook = |name: &'static str| {
        let ask = |effective| {
            let cgroup = open.as_ref().map_err(Clone::clone)?;
            query::programs_at(cgroup, name, effective).map_err(|e| e.to_string())
        };
        Hook {
            name,
            pin: query::link(&links.join(name)).map_err(why),
            attached: ask(false),
            effective: ask(true),
        }
    };
    let name = whom::name(&enrol::text(&info.agent), &enrol::text(&info.project));
    let shown = if name.is_empty() {
        place.clone()
    } else {
        format!("{place} ({name})")
    };
    let by = whom::label(&info.bypass_by);
    let (nested, nested_cut) = path
        .as_deref()
        .map_or((Vec::new(), false), |p| below(p, &place));
    Slot {
        number: info.slot,
        index,
        cgroup_id: info.cgroup_id,
        cgroup: there(path),
        config: pins.config(info.cgroup_id).map_err(|e| e.to_string()),
        hooks: programs::CGROUP.map(hook).into(),
        nested,
        nested_cut,
        books: books(pins, index, info.slot, rows, folded),
        place: crate::render::line::printable(&shown),
        weaknesses: weakness::of(info.weaknesses),
        lifted_by: by.map(|by| (by, enrol::text(&info.bypass_reason))),
    }
}

fn there(path: Result<PathBuf, String>) -> Place {
    match path {
        Ok(path) if !path.exists() => Place::Gone,
        Ok(path) => Cgroup::at(path)
            .id()
            .map_or_else(|e| Place::Unknown(e.to_string()), Place::There),
        Err(why) => Place::Unknown(why),
    }
}

/// Programs at every cgroup below, and whether there were too many to look at them all.
fn below(path: &Path, place: &str) -> (Vec<Nested>, bool) {
    let mut found = Vec::new();
    let mut todo = vec![(path.to_owned(), place.to_owned())];
    let mut looked = 0;
    while let Some((dir, place)) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            looked += 1;
            if looked > MOST_BELOW {
                return (found, true);
            }
            let place = format!("{place}/{}", entry.file_name().to_string_lossy());
            found.extend(at(&entry.path(), &crate::render::line::printable(&place)));
            todo.push((entry.path(), place));
        }
    }
    (found, false)
}

fn at(path: &Path, place: &str) -> Vec<Nested> {
    let Ok(cgroup) = File::open(path) else {
        return Vec::new();
    };
    let one = |hook| {
        let programs = query::programs_at(&cgroup, hook, false).unwrap_or_default();
        (!programs.is_empty()).then(|| Nested {
            place: place.to_owned(),
            hook,
            programs,
        })
    };
    programs::CGROUP.into_iter().filter_map(one).collect()
}

/// Reads the books before and after the live flows are counted, once more while flows move.
fn books(pins: &Pins, index: u32, slot: u32, rows: &[SlotMetrics], folded: u64) -> Books {
    let mut blank = SlotMetrics::new_zeroed();
    blank.slot = slot;
    let mut before = rows.get(index as usize).copied().unwrap_or(blank);
    let read = |before: SlotMetrics| -> Result<Books, String> {
        let live = pins.live().map_err(|e| e.to_string())?;
        let live = live.iter().filter(|l| l.flow.slot == slot).count() as u64;
        let rows = pins.books().map_err(|e| e.to_string())?;
        let after = rows.get(index as usize).copied();
        Ok(Books {
            before,
            live: Ok(live),
            after: after.ok_or_else(|| format!("the books have no row {index}"))?,
            folded,
        })
    };
    let moved = |m: &SlotMetrics| (m.opened, m.ended);
    let mut last = Err(String::new());
    for _ in 0..READINGS {
        last = read(before);
        match &last {
            Ok(b) if moved(&b.before) != moved(&b.after) => before = b.after,
            _ => break,
        }
    }
    last.unwrap_or_else(|why| Books {
        before,
        live: Err(why),
        after: before,
        folded,
    })
}
