use super::*;
use crate::stream::CONTROL_PLANE;
use proptest::prelude::*;

fn snapshot() -> Snapshot {
    let source = Source::new(CONTROL_PLANE, "test", "1", "run-1");
    let at = |s: &str| s.parse().unwrap();
    Snapshot::new(
        &source,
        at("2026-03-01T12:00:00Z"),
        at("2026-03-01T12:00:10Z"),
    )
}

fn metrics(s: Snapshot) -> Vec<MetricData> {
    let mut request = s.request();
    let mut resource = request.resource_metrics.pop().unwrap();
    assert!(request.resource_metrics.is_empty());
    resource.scope_metrics.pop().unwrap().metrics
}

fn value(p: &NumberDataPoint) -> i64 {
    match p.value {
        Some(number_data_point::Value::AsInt(n)) => n,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn sums_are_cumulative_and_gauges_are_not_sums() {
    let mut s = snapshot();
    s.set(FLOWS_ENDED, ["ALLOWED"], 7);
    s.set(AGENTS, [], 2);
    let all = metrics(s);
    let (ended, agents) = (&all[0], &all[1]);
    assert_eq!(
        (ended.name.as_str(), ended.unit.as_str()),
        (FLOWS_ENDED.name, "{flow}")
    );
    assert_eq!(
        ended.description,
        "Flows that ended in the kernel, by verdict."
    );
    let Some(Data::Sum(sum)) = &ended.data else {
        panic!("{ended:?}")
    };
    assert!(sum.is_monotonic);
    assert_eq!(
        sum.aggregation_temporality(),
        AggregationTemporality::Cumulative
    );
    let point = &sum.data_points[0];
    assert_eq!(
        point.time_unix_nano - point.start_time_unix_nano,
        10_000_000_000
    );
    assert_eq!(point.attributes[0].key, "verdict");
    assert_eq!(value(point), 7);
    assert!(matches!(&agents.data, Some(Data::Gauge(g)) if value(&g.data_points[0]) == 2));
}

#[test]
fn the_names_of_prometheus_have_units_and_kinds() {
    let name = |of: &str| {
        let found = ALL_METRICS.iter().find(|m| m.name == of);
        found.unwrap().prometheus()
    };
    assert_eq!(name(SPOOL_SIZE.name), "clawker_bridge_spool_size_bytes");
    assert_eq!(name(SPOOL_AGE.name), "clawker_bridge_spool_age_seconds");
    assert_eq!(name(FLOWS_ENDED.name), "clawker_loader_flows_ended_total");
    assert_eq!(name(AGENTS.name), "clawker_loader_agents");
}

proptest! {
    #[test]
    fn every_series_is_there_once_with_its_last_value(
        values in prop::collection::vec((0usize..4, any::<u64>()), 0..20),
    ) {
        let labels = ["a", "b", "c", "d"];
        let mut s = snapshot();
        let mut wanted = std::collections::BTreeMap::new();
        for (at, n) in values {
            s.set(TROUBLE, [labels[at]], n);
            wanted.insert(labels[at].to_owned(), i64::try_from(n).unwrap_or(i64::MAX));
        }
        let payload = s.clone().payload();
        prop_assert_eq!(payload.records, u64::from(!wanted.is_empty()));
        let decoded = ExportMetricsServiceRequest::decode(payload.bytes).unwrap();
        prop_assert_eq!(decoded, s.clone().request());
        let mut got = std::collections::BTreeMap::new();
        for m in metrics(s) {
            let Some(Data::Sum(sum)) = m.data else { panic!() };
            for p in sum.data_points {
                let Some(any_value::Value::StringValue(label)) =
                    p.attributes[0].value.clone().unwrap().value else { panic!() };
                prop_assert!(got.insert(label, value(&p)).is_none());
            }
        }
        prop_assert_eq!(got, wanted);
    }
}
