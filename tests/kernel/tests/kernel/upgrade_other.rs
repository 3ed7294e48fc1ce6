//! A loader that takes over from a set of programs of another ABI, under traffic.

use abi::{FlowEvent, FoldKey, FoldRow, SlotConfig, SlotInfo, SlotMetrics};
use aya::maps::{Array, Map, MapData};
use ebpf_manager::{
    instance::{InstanceError, OldNames, Retired, Root, Seat, Successor, Taken},
    kernel::Engine,
    record::Owner,
    session,
};
use kernel_tests::{
    eventually_within,
    traffic::{LAST_FLOW, SIZES, Traffic},
};
use serde_json::Value;
use std::{fs, path::PathBuf};
use zerocopy::{FromZeros as _, IntoBytes as _};

/// Another ABI: flows and books begin eight bytes later.
static NEXT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/next.bpf.o"));
/// How much its version and its layouts differ.
const VERSIONS: u32 = 100;
const SHIFT: usize = 8;
const ROW: usize = size_of::<SlotMetrics>() + SHIFT;

pub(crate) const ID: &str = "serve";

/// Does what a loader of the other version did before it died.
pub(crate) fn old_loader(traffic: &Traffic) -> PathBuf {
    let version = abi::ABI_VERSION + VERSIONS;
    let dir = traffic.bench.pins.join(format!("v{version}")).join(ID);
    fs::create_dir_all(&dir).unwrap();
    let mut engine = Engine::load_object(NEXT, &dir, SIZES, &[]).unwrap();
    let fd = traffic.cgroup.open().unwrap();
    engine.attach(&fd, "a").unwrap();
    let (info, config) = traffic.seat(&engine, 1, 1);
    let mut limits = SlotMetrics::new_zeroed();
    (limits.slot, limits.rate, limits.max_folds) = (config.slot, SIZES.rate, SIZES.folds);
    let mut row = [0; ROW];
    row[SHIFT..].copy_from_slice(limits.as_bytes());
    let pinned = MapData::from_pin(engine.pins().map_path(abi::maps::METRICS)).unwrap();
    let mut books: Array<_, [u8; ROW]> = Array::try_from(Map::Array(pinned)).unwrap();
    books.set(1, row, 0).unwrap();
    // Identity and configuration are the same in both.
    engine.pins().set_info(1, &info).unwrap();
    engine.pins().configure(info.cgroup_id, &config).unwrap();
    dir
}

/// Goes on with the client under the same policy.
struct Heir<'a> {
    traffic: &'a mut Traffic,
    /// Answer with an error so many times.
    refuse: usize,
}

impl Successor for Heir<'_> {
    fn seat(
        &mut self,
        engine: &Engine,
        old: &Seat,
    ) -> Result<Option<(SlotInfo, SlotConfig)>, InstanceError> {
        if self.refuse > 0 {
            self.refuse -= 1;
            return Err(InstanceError::Slot(std::io::Error::other("not today")));
        }
        // Row and phase are the caller's business.
        let (info, config) = self.traffic.seat(engine, 7, 3);
        assert_eq!(old.info.cgroup_id, info.cgroup_id);
        Ok(Some((info, config)))
    }

    fn ended(&mut self, event: &FlowEvent, names: &mut OldNames<'_>) -> bool {
        let context = session::context(Owner::default());
        let record = context.ended(event, names);
        self.traffic.note(&record)
    }

    fn folded(&mut self, key: &FoldKey, row: &FoldRow, names: &mut OldNames<'_>) -> bool {
        let context = session::context(Owner::default());
        let record = context.folded(key, row, names);
        self.traffic.note(&record)
    }
}

fn hand_over(traffic: &mut Traffic, mut taken: Taken) -> (Taken, Retired) {
    let before = taken.before.take().expect("a set of another version");
    let mut heir = Heir { traffic, refuse: 0 };
    let (retired, remains) = before.hand_over(&mut taken.engine, &mut heir).unwrap();
    assert_eq!(retired.lost, None);
    remains.remove().unwrap();
    (taken, retired)
}

fn settle(traffic: &mut Traffic, taken: &Taken) {
    let ended = traffic.end();
    let mut rings = taken.engine.rings().unwrap();
    eventually_within(LAST_FLOW, "every flow to end", || {
        let b = rings.books().row(1).unwrap();
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

/// One upgrade under traffic, from the first to the last flow.
fn upgrade() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    let dir = old_loader(&traffic);
    traffic.begin();
    traffic.go_on();
    let taken = root.take_over(ID, SIZES).unwrap();
    let old = taken.before.as_ref().unwrap().seats().unwrap();
    let (taken, retired) = hand_over(&mut traffic, taken);
    assert!(!dir.exists(), "nothing of the old set is left");
    assert_eq!(retired.lost, None);
    assert_eq!(retired.malformed, 0);
    let of = &retired.books[1];
    assert_eq!(of.opened, of.ended.iter().sum::<u64>(), "{of:?}");
    assert_eq!(of.ended, of.recorded);
    let new = taken.instance.pins.infos().unwrap();
    assert_eq!((new.len(), new[0].0, old.len()), (1, 1, 1));
    assert_ne!(
        new[0].1.slot, old[0].info.slot,
        "a slot number is never used twice"
    );
    assert_eq!(retired.seats[0].1, Some(new[0].1.slot));
    let config = taken
        .instance
        .pins
        .config(new[0].1.cgroup_id)
        .unwrap()
        .unwrap();
    assert_eq!(config.phase, abi::PHASE_ALONE);
    traffic.go_on();
    settle(&mut traffic, &taken);
    // Conversations go on in the new set, by whom they were begun.
    let upgraded: Vec<&Value> = traffic
        .records
        .iter()
        .filter(|r| r["close_reason"] == "upgraded")
        .collect();
    for (port, direction) in [
        (80, "egress"),
        (84, "egress"),
        (81, "egress"),
        (90, "ingress"),
        (91, "ingress"),
    ] {
        let of = |r: &&&Value| r["dst_port"] == port && r["direction"] == direction;
        assert_eq!(
            upgraded.iter().filter(of).count(),
            if port == 80 { 2 } else { 1 },
            "{port}: {upgraded:#?}"
        );
    }
    let on = traffic
        .records
        .iter()
        .filter(|r| r["dst_port"] == 84 && r["reason"] == "mid_stream");
    assert!(
        on.clone()
            .all(|r| r["comm"] == "python3" && r["pid"].as_u64().is_some()),
        "{:?}",
        on.collect::<Vec<_>>()
    );
}

#[test]
fn a_loader_of_another_abi_takes_over_without_a_gap() {
    for _ in 0..rounds(2) {
        upgrade();
    }
}

#[test]
fn what_was_begun_is_brought_to_its_end() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    old_loader(&traffic);
    traffic.begin();
    let mut taken = root.take_over(ID, SIZES).unwrap();
    let before = taken.before.take().unwrap();
    let mut heir = Heir {
        traffic: &mut traffic,
        refuse: 1,
    };
    let e = before.hand_over(&mut taken.engine, &mut heir).unwrap_err();
    assert!(e.to_string().contains("not today"), "{e}");
    traffic.go_on();
    drop(taken);
    let taken = root.take_over(ID, SIZES).unwrap();
    let (taken, retired) = hand_over(&mut traffic, taken);
    assert_eq!(retired.lost, None);
    settle(&mut traffic, &taken);
}
