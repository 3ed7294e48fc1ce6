//! `serve` takes over from programs of another version, under traffic.

use crate::upgrade_other::old_loader;
use ebpf_manager::{
    cli::LeadArgs,
    fleet::{Fleet, Setup},
    instance::Root,
    policy_file,
    sink::{Format, Sink},
};
use kernel_tests::{
    eventually, eventually_within,
    fleet::LINGER,
    run::Bench,
    traffic::{LAST_FLOW, POLICY, SIZES, Traffic},
};

fn open(bench: &Bench, root: &Root, sink: &mut Sink) -> Fleet {
    let policy = policy_file::load(&bench.policy(POLICY), false).unwrap();
    let setup = Setup {
        sizes: SIZES,
        policy: Some(policy),
        mode: None,
        linger: LINGER,
        leases: Some(&bench.path("leases.json")),
        leases_group: None,
        control_dir: &bench.control(),
        parents: &[],
        engine: None,
        own: &[],
        lead: &LeadArgs::default(),
    };
    Fleet::open(root, setup, sink).unwrap()
}

#[test]
fn an_upgrade_of_the_daemon_loses_no_flow_and_no_connection() {
    let mut traffic = Traffic::prepare();
    let root = Root::new(&traffic.bench.pins);
    root.prepare().unwrap();
    let old = old_loader(&traffic);
    traffic.begin();
    traffic.go_on();
    let file = traffic.bench.path("records.jsonl");
    let mut sink = Sink::open(Format::Quiet, Some(&file), None).unwrap();
    let mut fleet = open(&traffic.bench, &root, &mut sink);
    assert_eq!(fleet.enrolled(), 1);
    fleet.turn(&mut sink).unwrap();
    traffic.go_on();
    eventually("the old set to go", || {
        fleet.turn(&mut sink).unwrap();
        (!old.exists()).then_some(())
    });
    // A restart on top of it, which reads what is left.
    drop(fleet);
    traffic.go_on();
    let mut fleet = open(&traffic.bench, &root, &mut sink);
    traffic.go_on();
    let ended = traffic.end();
    let pins = traffic.bench.pins_of("serve");
    eventually_within(LAST_FLOW, "every flow to be told", || {
        fleet.turn(&mut sink).unwrap();
        let row = pins.books().unwrap()[1];
        let over = row.opened == row.ended.iter().sum::<u64>();
        (over && row.recorded == row.ended).then_some(())
    });
    traffic.records = traffic.bench.records();
    traffic.must_be_whole(&ended);
    let gaps = traffic.bench.events();
    let gaps: Vec<_> = gaps
        .iter()
        .filter(|e| e["event_name"] == "clawker.overseer.gap")
        .collect();
    assert!(gaps.is_empty(), "{gaps:#?}");
}
