use super::*;
use abi::SlotMetrics;
use opentelemetry_proto::tonic::{
    common::v1::any_value,
    metrics::v1::{Metric as Data, metric::Data as Values, number_data_point},
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use zerocopy::FromZeros as _;

fn books(slot: u32, opened: u64, ended: [u64; 3]) -> SlotMetrics {
    SlotMetrics {
        slot,
        opened,
        ended,
        recorded: ended,
        ..SlotMetrics::new_zeroed()
    }
}

/// Values by `name` or `name label`.
fn values(s: Snapshot) -> BTreeMap<String, i64> {
    let request = s.request();
    let all = &request.resource_metrics[0].scope_metrics[0].metrics;
    all.iter().flat_map(points).collect()
}

fn points(m: &Data) -> Vec<(String, i64)> {
    let points = match m.data.as_ref().unwrap() {
        Values::Sum(sum) => &sum.data_points,
        Values::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let one = |p: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let labels = p
            .attributes
            .iter()
            .map(|a| match &a.value.as_ref().unwrap().value {
                Some(any_value::Value::StringValue(text)) => format!(" {text}"),
                other => panic!("{other:?}"),
            });
        let Some(number_data_point::Value::AsInt(n)) = p.value else {
            panic!("{p:?}")
        };
        (m.name.clone() + &labels.collect::<String>(), n)
    };
    points.iter().map(one).collect()
}

fn at(s: &str) -> Timestamp {
    s.parse().unwrap()
}

fn taken(ledger: &Ledger, view: &View) -> BTreeMap<String, i64> {
    let (start, now) = (at("2026-03-01T12:00:00Z"), at("2026-03-01T12:00:10Z"));
    values(snapshot(&source("run-1"), start, now, ledger.sums(), view))
}

#[test]
fn every_metric_of_the_loader_is_there_and_nothing_else() {
    let view = View {
        guarded: Some(true),
        ..View::default()
    };
    let all = taken(&Ledger::default(), &view);
    let there: std::collections::BTreeSet<_> =
        all.keys().map(|k| k.split(' ').next().unwrap()).collect();
    let wanted = m::ALL_METRICS
        .iter()
        .filter(|e| ["loader", "both"].contains(&e.program));
    assert_eq!(there, wanted.map(|e| e.name).collect());
    // What is not known is not sent as 0.
    assert!(!taken(&Ledger::default(), &View::default()).contains_key(m::HOOKS.name));
}

#[test]
fn books_become_metrics_under_the_words_of_records() {
    let mut row = books(3, 20, [7, 11, 1]);
    row.denied[usize::from(abi::reason::RAW_SOCKET)] = 11;
    row.trouble[trouble::RATE] = 5;
    row.trouble[trouble::NAMES_FULL] = 6;
    let mut ledger = Ledger::default();
    ledger.look([(0, &books(0, 0, [0, 4, 0])), (1, &row)]);
    let view = View {
        agents: 1,
        guarded: Some(false),
        export: State {
            queued: 9,
            batches: [1, 0, 2, 0],
            ..State::default()
        },
        ..View::default()
    };
    let all = taken(&ledger, &view);
    for (name, wanted) in [
        ("clawker.loader.flows.opened", 20),
        ("clawker.loader.flows.ended ALLOWED", 7),
        ("clawker.loader.flows.recorded BYPASSED", 1),
        ("clawker.loader.flows.denied raw_socket", 11),
        ("clawker.loader.flows.denied rule", 0),
        ("clawker.loader.flows.folded rate", 5),
        ("clawker.loader.trouble names_full", 6),
        ("clawker.loader.flows.unenrolled", 4),
        ("clawker.loader.hooks.effective", 0),
        ("clawker.loader.batches retry", 2),
        ("clawker.loader.queue.records", 9),
    ] {
        assert_eq!(all[name], wanted, "{name}");
    }
    assert!(!all.contains_key("clawker.loader.trouble rate"));
}

#[test]
fn what_another_loader_counted_is_not_counted_again() {
    let mut ledger = Ledger::after([(1, &books(3, 20, [10, 0, 0]))]);
    ledger.look([(1, &books(3, 25, [12, 0, 0])), (2, &books(4, 2, [1, 0, 0]))]);
    assert_eq!((ledger.sums().opened, ledger.sums().ended[0]), (7, 3));
}

proptest! {
    /// Slots come, grow and go, rows are used again, free rows are in between: the sums are those of
    /// all that was ever looked at, and never fall.
    #[test]
    fn sums_are_those_of_every_slot_that_ever_was(
        steps in prop::collection::vec((0usize..4, 0u64..50, any::<bool>()), 1..60),
    ) {
        let mut ledger = Ledger::default();
        let mut rows = [None::<SlotMetrics>; 4];
        let (mut next, mut wanted, mut before) = (1, 0, 0);
        for (at, more, ends) in steps {
            let row = rows[at].get_or_insert_with(|| {
                next += 1;
                books(next, 0, [0; 3])
            });
            row.opened += more;
            wanted += more;
            let free = SlotMetrics::new_zeroed();
            ledger.look((1..).zip(rows.iter().map(|r| r.as_ref().unwrap_or(&free))));
            if ends {
                rows[at] = None;
            }
            prop_assert_eq!(ledger.sums().opened, wanted);
            prop_assert!(wanted >= before);
            before = wanted;
        }
    }
}
