//! What was seen of an instance, and everything there is to say of it.

use super::{Finding, books, hooks, pins};
use crate::{
    docker::Weakness,
    kernel::query::{Link, MapInfo, ProgramInfo, RingFill},
};
use abi::{SlotConfig, SlotMetrics};
use std::{collections::BTreeMap, net::IpAddr};

/// What was seen of an instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub id: String,
    /// Its loader is running.
    pub alive: bool,
    /// Its loader has not attached it yet.
    pub making: bool,
    /// No process and no flow needs it any more.
    pub over: bool,
    /// Boot clock when it was looked at.
    pub now: u64,
    /// Every map that should be pinned.
    pub maps: Vec<(&'static str, Result<MapInfo, String>)>,
    /// Every iterator that should be pinned, with the map that it should go over.
    pub iterators: Vec<(&'static str, &'static str, Result<Link, String>)>,
    /// Programs behind the pins and at the cgroups.
    pub programs: BTreeMap<u32, ProgramInfo>,
    /// Names of the maps that those programs use.
    pub map_names: BTreeMap<u32, String>,
    /// Enrolled slots, else why they cannot be told.
    pub slots: Result<Vec<Slot>, String>,
    /// Both rings, read before the books.
    pub rings: Vec<(&'static str, Result<RingFill, String>)>,
    /// Entries of each policy map, else why they cannot be told.
    pub policy: Result<Vec<(&'static str, u64)>, String>,
    /// Slots that there is room for.
    pub room: u64,
    /// Flows that were refused while a cgroup had no slot.
    pub unenrolled: u64,
    /// Resolvers that the machine uses.
    pub resolvers: Vec<IpAddr>,
}

/// What was seen of a slot.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// Its row in the books.
    pub index: u32,
    /// Id of the cgroup that was enrolled.
    pub cgroup_id: u64,
    /// Path of the cgroup, with the agent's name if it has one, for people.
    pub place: String,
    /// What weakens the firewall around it.
    pub weaknesses: Vec<Weakness>,
    /// Who ordered the bypass that runs, or the last one, and why.
    pub lifted_by: Option<(String, String)>,
    /// The cgroup that is there now.
    pub cgroup: Place,
    /// The configuration that programs see; none when nothing is attached.
    pub config: Result<Option<SlotConfig>, String>,
    /// Each of our hooks.
    pub hooks: Vec<Hook>,
    /// Programs attached to cgroups below.
    pub nested: Vec<Nested>,
    /// There were too many cgroups below to look at them all.
    pub nested_cut: bool,
    /// Its books.
    pub books: Books,
}

/// What is where a slot's cgroup should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A cgroup with this id.
    There(u64),
    /// Nothing.
    Gone,
    /// It cannot be looked at.
    Unknown(String),
}

/// One of our hooks at a slot's cgroup.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name.
    pub name: &'static str,
    /// The pinned link.
    pub pin: Result<Link, String>,
    /// Programs attached to the cgroup itself, else why the kernel would not tell.
    pub attached: Result<Vec<u32>, String>,
    /// Programs that run for the cgroup, in their order.
    pub effective: Result<Vec<u32>, String>,
}

/// Programs attached to a cgroup below a slot's.
#[derive(Clone, Debug)]
pub struct Nested {
    /// The cgroup, for people.
    pub place: String,
    /// The hook.
    pub hook: &'static str,
    /// The programs.
    pub programs: Vec<u32>,
}

/// A slot's books, read before and after the live flows were counted.
#[derive(Clone, Debug)]
pub struct Books {
    /// Before.
    pub before: SlotMetrics,
    /// Live flows.
    pub live: Result<u64, String>,
    /// After.
    pub after: SlotMetrics,
    /// Flows in folded rows with a destination that nobody has taken yet, counted before all else.
    pub folded: u64,
}

impl Instance {
    /// What to do about an instance that is damaged.
    #[must_use]
    pub fn mend(&self) -> String {
        let id = &self.id;
        if self.alive {
            format!(
                "end its command and run it again; what stays: ebpf-manager detach --instance {id} --force"
            )
        } else {
            format!("end its command, then: ebpf-manager detach --instance {id} --force")
        }
    }

    /// The slots that can be told.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        self.slots.as_deref().unwrap_or_default()
    }

    /// Id of a pinned map.
    #[must_use]
    pub fn map(&self, name: &str) -> Option<u32> {
        let found = self.maps.iter().find(|(n, _)| *n == name)?;
        found.1.as_ref().ok().map(|m| m.id)
    }

    /// Whether a program is one of ours: it uses a map that is pinned here.
    #[must_use]
    pub fn owns(&self, program: u32) -> bool {
        let pinned: Vec<u32> = self
            .maps
            .iter()
            .filter_map(|(name, _)| self.map(name))
            .collect();
        let used = self.programs.get(&program).map(|p| p.maps.as_slice());
        used.unwrap_or_default().iter().any(|m| pinned.contains(m))
    }

    /// A program for people: `4711 (connect4)`.
    #[must_use]
    pub fn program(&self, id: u32) -> String {
        match self.programs.get(&id) {
            Some(p) if !p.name.is_empty() => format!("{id} ({})", p.name),
            _ => id.to_string(),
        }
    }
}

/// Everything there is to say of an instance.
#[must_use]
pub fn findings(i: &Instance) -> Vec<Finding> {
    if i.making {
        return vec![pins::unenrolled(i).of(&i.id)];
    }
    let mut all = hooks::findings(i);
    all.extend(pins::findings(i));
    all.extend(books::findings(i));
    all.into_iter().map(|f| f.of(&i.id)).collect()
}

#[cfg(test)]
pub(super) mod sample {
    //! An instance that is well, for tests to break.

    use super::{
        super::{Finding, State},
        *,
    };
    use crate::kernel::query::Target;
    use abi::{maps, programs};
    use zerocopy::FromZeros as _;

    /// Asserts that there is one finding, of this kind, that says all of this.
    #[track_caller]
    pub(in super::super) fn only(found: &[Finding], state: State, check: &str, says: &[&str]) {
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!((found[0].state, found[0].check), (state, check));
        assert!(!found[0].cost.is_empty());
        for s in says {
            assert!(found[0].what.contains(s), "{s:?} in {found:#?}");
        }
    }

    /// Id of a map by its name.
    pub(in super::super) fn map_id(name: &str) -> u32 {
        100 + maps::ALL.iter().position(|n| *n == name).unwrap() as u32
    }

    /// Id of a program by its name.
    pub(in super::super) fn program_id(name: &str) -> u32 {
        let all = [
            &programs::CGROUP[..],
            &[programs::ITER_TCP, programs::ITER_DGRAM],
        ]
        .concat();
        10 + all.iter().position(|n| *n == name).unwrap() as u32
    }

    fn info(name: &str, used: &[&str]) -> (u32, ProgramInfo) {
        let maps = used.iter().map(|m| map_id(m)).collect();
        let name = name.to_owned();
        (
            program_id(&name),
            ProgramInfo {
                name,
                maps,
                types: Some(7),
            },
        )
    }

    fn hook(name: &'static str) -> Hook {
        let program = program_id(name);
        Hook {
            name,
            pin: Ok(Link {
                program,
                target: Target::Cgroup {
                    id: 55,
                    hook: Some(name),
                },
            }),
            attached: Ok(vec![program]),
            effective: Ok(vec![program]),
        }
    }

    pub(in super::super) fn metrics() -> SlotMetrics {
        SlotMetrics {
            slot: 3,
            max_names: 100,
            max_addrs: 100,
            max_folds: 10,
            opened: 12,
            ended: [7, 3, 0],
            denied: std::array::from_fn(|reason| if reason == 1 { 3 } else { 0 }),
            ..SlotMetrics::new_zeroed()
        }
    }

    pub(in super::super) fn slot() -> Slot {
        let config = SlotConfig {
            slot: 3,
            index: 1,
            policy: 1,
            resolver_count: 1,
            resolvers: [crate::enrol::ip([192, 0, 2, 53].into()); abi::MAX_RESOLVERS],
            ..SlotConfig::new_zeroed()
        };
        Slot {
            number: 3,
            index: 1,
            cgroup_id: 55,
            place: "clawker/run-1".into(),
            weaknesses: vec![],
            lifted_by: None,
            cgroup: Place::There(55),
            config: Ok(Some(config)),
            hooks: programs::CGROUP.map(hook).into(),
            nested: vec![],
            nested_cut: false,
            books: Books {
                before: metrics(),
                live: Ok(2),
                after: metrics(),
                folded: 0,
            },
        }
    }

    pub(in super::super) fn well() -> Instance {
        let map = |name| {
            (
                name,
                Ok(MapInfo {
                    id: map_id(name),
                    types: 7,
                    max_entries: 1,
                }),
            )
        };
        let iterator = |name: &'static str, over: &'static str| {
            let target = Target::Iterator { map: map_id(over) };
            (
                name,
                over,
                Ok(Link {
                    program: program_id(name),
                    target,
                }),
            )
        };
        let used = [maps::SLOT, maps::METRICS, maps::CONTROL, maps::POLICY_ADDRS];
        let mut programs: BTreeMap<_, _> =
            programs::CGROUP.iter().map(|n| info(n, &used)).collect();
        programs.extend([
            info(programs::ITER_TCP, &[maps::TCP_FLOWS]),
            info(programs::ITER_DGRAM, &[maps::DGRAM_FLOWS]),
        ]);
        Instance {
            id: "run-1".into(),
            alive: true,
            making: false,
            over: false,
            now: 1_000_000_000,
            maps: maps::ALL.map(map).into(),
            iterators: vec![
                iterator(programs::ITER_TCP, maps::TCP_FLOWS),
                iterator(programs::ITER_DGRAM, maps::DGRAM_FLOWS),
            ],
            programs,
            map_names: maps::ALL
                .iter()
                .map(|n| (map_id(n), (*n).to_owned()))
                .collect(),
            slots: Ok(vec![slot()]),
            rings: vec![
                (
                    maps::RING_ALLOWED,
                    Ok(RingFill {
                        records: 1,
                        capacity: 100,
                    }),
                ),
                (
                    maps::RING_DENIED,
                    Ok(RingFill {
                        records: 0,
                        capacity: 100,
                    }),
                ),
            ],
            policy: Ok(vec![(maps::POLICY_ADDRS, 5)]),
            room: 1,
            unenrolled: 0,
            resolvers: vec![[192, 0, 2, 53].into()],
        }
    }

    /// What a change makes of the instance: the findings that are not all right.
    pub(in super::super) fn after(change: impl FnOnce(&mut Instance)) -> Vec<Finding> {
        let mut i = well();
        change(&mut i);
        let mut all = findings(&i);
        assert!(all.iter().all(|f| f.instance.as_deref() == Some("run-1")));
        all.retain(|f| f.state != State::Ok);
        all
    }

    /// The only slot.
    pub(in super::super) fn the_slot(i: &mut Instance) -> &mut Slot {
        &mut i.slots.as_mut().unwrap()[0]
    }

    #[test]
    fn an_instance_that_is_well_has_only_good_findings() {
        assert_eq!(after(|_| {}), []);
        let all: Vec<String> = findings(&well()).into_iter().map(|f| f.what).collect();
        assert!(
            all.contains(&"13 of 13 hooks effective on clawker/run-1".to_owned()),
            "{all:#?}"
        );
    }
}
