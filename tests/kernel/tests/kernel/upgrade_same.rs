//! Loaders of one ABI that take over from each other, the same build and another one, under traffic.

use abi::programs;
use ebpf_manager::{
    instance::{InstanceError, Root},
    kernel::{Engine, KernelError, Pins, Rings, query},
};
use kernel_tests::traffic::{LAST_FLOW, SIZES, Traffic};
use std::{collections::BTreeSet, fs, path::Path};

/// The same ABI from another build.
static OTHER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/other.bpf.o"));

const ID: &str = "serve";

/// Ids of the programs behind an attachment's links.
fn programs_of(pins: &Pins) -> BTreeSet<u32> {
    let of = |name| {
        query::link(&pins.dir().join("links/a").join(name))
            .unwrap()
            .program
    };
    programs::CGROUP.into_iter().map(of).collect()
}

/// Attaches and enrols the client.
fn enrol(traffic: &Traffic, engine: &mut Engine) {
    let fd = traffic.cgroup.open().unwrap();
    engine.attach(&fd, "a").unwrap();
    let (info, config) = traffic.seat(engine, 1, 1);
    engine.enrol(&info, &config).unwrap();
}

/// Reads what is left and holds the books against the records.
fn settle(traffic: &mut Traffic, mut rings: Rings) {
    let ended = traffic.end();
    let books = || rings.books().row(1).unwrap();
    kernel_tests::eventually_within(LAST_FLOW, "every flow to end", || {
        let b = books();
        (b.opened == b.ended.iter().sum::<u64>()).then_some(())
    });
    for _ in 0..3 {
        traffic.drain(&mut rings);
    }
    traffic.must_be_whole(&ended);
    let b = rings.books().row(1).unwrap();
    assert_eq!(b.ended, b.recorded);
}

fn rounds(default: usize) -> usize {
    std::env::var("UPGRADES").map_or(default, |n| n.parse().unwrap())
}

#[test]
fn a_loader_of_the_same_abi_takes_over_without_a_gap() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    let mut taken = root.take_over(ID, SIZES).unwrap();
    assert!(taken.updated.is_none() && taken.seats.is_empty());
    enrol(&traffic, &mut taken.engine);
    traffic.begin();
    let slot = taken.instance.pins.infos().unwrap()[0].1.slot;
    for round in 0..rounds(8) {
        traffic.go_on();
        let before = programs_of(&taken.instance.pins);
        let mut rings = taken.engine.rings().unwrap();
        traffic.drain(&mut rings);
        drop((rings, taken));
        traffic.go_on();
        // Every other time another build comes first.
        let other = round % 2 == 1;
        if other {
            let dir = root.dir().join(ID);
            let mut engine = Engine::adopt_object(OTHER, &dir).unwrap();
            assert!(engine.update().unwrap().changed, "another build");
        }
        taken = root.take_over(ID, SIZES).unwrap();
        let updated = taken.updated.unwrap();
        assert_eq!(updated.changed, other);
        assert_eq!(updated.links, programs::CGROUP.len() + 2);
        let after = programs_of(&taken.instance.pins);
        assert!(before.is_disjoint(&after), "{before:?} {after:?}");
        assert_eq!(taken.seats.len(), 1);
        let seat = taken.seats[0];
        assert_eq!((seat.index, seat.info.slot), (1, slot));
        assert_eq!(seat.config.map(|c| c.slot), Some(slot));
        assert_eq!(seat.info.loader, std::process::id());
        assert_eq!(taken.engine.sizes().ring_bytes, SIZES.ring_bytes);
    }
    // Maps of one load and programs of another belong together all the same.
    let seen = traffic.bench.doctor(&[]);
    let of = |check: &str| {
        seen.findings
            .iter()
            .filter(|f| f["check"] == check)
            .map(|f| f["state"].as_str().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (of("maps"), of("iterators"), of("hooks")),
        (vec!["ok"], vec!["ok"], vec!["ok"]),
        "{:#?}",
        seen.findings
    );
    let rings = taken.engine.rings().unwrap();
    settle(&mut traffic, rings);
    assert!(
        !traffic
            .records
            .iter()
            .any(|r| r["close_reason"] == "upgraded"),
        "flows go on as they are"
    );
}

#[test]
fn an_engine_that_was_adopted_can_do_what_a_fresh_one_can() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    drop(root.take_over(ID, SIZES).unwrap());
    let mut taken = root.take_over(ID, SIZES).unwrap();
    enrol(&traffic, &mut taken.engine);
    traffic.begin();
    traffic.go_on();
    let rings = taken.engine.rings().unwrap();
    settle(&mut traffic, rings);
}

#[test]
fn one_loader_at_a_time() {
    let bench = kernel_tests::run::Bench::new();
    let root = Root::new(&bench.pins);
    root.prepare().unwrap();
    let held = root.take_over(ID, SIZES).unwrap();
    let refused = root.take_over(ID, SIZES).err().unwrap();
    assert!(matches!(refused, InstanceError::Busy { .. }), "{refused}");
    drop(held);
    root.take_over(ID, SIZES).unwrap();
}

#[test]
fn an_attachment_that_was_left_half_way_is_completed() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    let mut taken = root.take_over(ID, SIZES).unwrap();
    let fd = traffic.cgroup.open().unwrap();
    let links = taken.engine.attach(&fd, "a").unwrap().links;
    drop(taken);
    for name in [programs::EGRESS, programs::CONNECT4, programs::SOCK_OPS] {
        fs::remove_file(links.join(name)).unwrap();
    }
    let mut taken = root.take_over(ID, SIZES).unwrap();
    enrol(&traffic, &mut taken.engine);
    assert_eq!(
        programs_of(&taken.instance.pins).len(),
        programs::CGROUP.len()
    );
    traffic.begin();
    traffic.go_on();
    let rings = taken.engine.rings().unwrap();
    settle(&mut traffic, rings);
}

/// What is pinned in a directory, with the ids of links' programs.
fn pinned(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all
}

#[test]
fn pins_that_are_not_ours_are_refused_and_left_alone() {
    let bench = kernel_tests::run::Bench::new();
    let root = Root::new(&bench.pins);
    root.prepare().unwrap();
    let taken = root.take_over(ID, SIZES).unwrap();
    let dir = taken.instance.pins.dir().to_owned();
    drop(taken);
    // A map of another kind under our name, and one that is gone.
    let map = dir.join("maps").join(abi::maps::SLOT_INFO);
    fs::remove_file(&map).unwrap();
    let e = root.take_over(ID, SIZES).err().unwrap();
    assert!(
        matches!(e, InstanceError::Kernel(KernelError::Pin { .. })),
        "{e}"
    );
    let strange: aya::maps::Array<_, u32> = aya::maps::Array::create(3, 0).unwrap();
    strange.pin(&map).unwrap();
    let before = pinned(&dir.join("maps"));
    let e = root.take_over(ID, SIZES).err().unwrap();
    assert!(
        matches!(e, InstanceError::Kernel(KernelError::Layout { name, .. }) if name == abi::maps::SLOT_INFO),
        "{e}"
    );
    assert_eq!(pinned(&dir.join("maps")), before);
}

#[test]
fn a_program_with_other_storage_never_gets_behind_a_link() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    let mut taken = root.take_over(ID, SIZES).unwrap();
    enrol(&traffic, &mut taken.engine);
    traffic.begin();
    let pins = taken.instance.pins.clone();
    let before = programs_of(&pins);
    drop(taken);
    // The pin of the slots leads to another map of the same shape: what is loaded around it would read
    // configurations that nobody writes.
    let beside = root.take_over("beside", SIZES).unwrap();
    let slot = |p: &Pins| p.map_path(abi::maps::SLOT);
    let kept = traffic.bench.pins.join("kept");
    fs::rename(slot(&pins), &kept).unwrap();
    fs::rename(slot(&beside.instance.pins), slot(&pins)).unwrap();
    let e = root.take_over(ID, SIZES).err().unwrap();
    assert!(
        matches!(e, InstanceError::Kernel(KernelError::Storage { .. })),
        "{e}"
    );
    assert_eq!(programs_of(&pins), before, "nothing was touched");
    traffic.go_on();
    fs::rename(slot(&pins), slot(&beside.instance.pins)).unwrap();
    fs::rename(&kept, slot(&pins)).unwrap();
    let taken = root.take_over(ID, SIZES).unwrap();
    let rings = taken.engine.rings().unwrap();
    settle(&mut traffic, rings);
}
