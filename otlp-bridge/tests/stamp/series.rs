//! How many label sets a container may bring into the collector's one table.

use crate::make::{NOW, REUSED, STEADY, book, context, pair, said, says, wall};
use lease::{BootId, Leases};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
        number_data_point::Value,
    },
    resource::v1::Resource,
};
use otlp_bridge::stamp::{Entrance, Limits, SETS_MOST, Series, StampedMetrics, metrics};
use prost::Message as _;
use std::collections::BTreeSet;

/// An address that is nobody's.
const NOBODY: &str = "10.9.9.9";

fn stamped(peer: &str, points: impl IntoIterator<Item = Vec<KeyValue>>) -> StampedMetrics {
    let point = |attributes| NumberDataPoint {
        attributes,
        time_unix_nano: wall(250).0,
        value: Some(Value::AsInt(1)),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "claude_code.token.usage".to_owned(),
        data: Some(Data::Sum(Sum {
            data_points: points.into_iter().map(point).collect(),
            ..Sum::default()
        })),
        ..Metric::default()
    };
    let way = vec![says("clawker.lane", "agents"), says("clawker.peer", peer)];
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: way,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![metric],
                ..ScopeMetrics::default()
            }],
            schema_url: String::new(),
        }],
    };
    let (book, limits) = (book(NOW), Limits::default());
    let context = context(Entrance::Collector, &book, &limits);
    metrics(&request.encode_to_vec(), context).unwrap()
}

/// The points as they go on.
fn points(stamped: &StampedMetrics) -> Vec<NumberDataPoint> {
    let mut request = ExportMetricsServiceRequest::decode(&*stamped.bytes).unwrap();
    let mut scope = request.resource_metrics.remove(0).scope_metrics.remove(0);
    match scope.metrics.remove(0).data {
        Some(Data::Sum(sum)) => sum.data_points,
        other => panic!("{other:?}"),
    }
}

/// Points of different models, each of another session.
fn models(of: &str, n: usize) -> Vec<Vec<KeyValue>> {
    let point = |i| {
        vec![
            says("model", &format!("{of}-{i}")),
            says("session_id", &format!("s-{i}")),
        ]
    };
    (0..n).map(point).collect()
}

fn bound(series: &mut Series, mut stamped: StampedMetrics) -> StampedMetrics {
    series.bound(&mut stamped, &book(NOW));
    stamped
}

#[test]
fn a_container_that_invents_labels_gets_no_more_series_than_it_may_and_loses_no_value() {
    let mut series = Series::default();
    let flood = bound(&mut series, stamped(REUSED, models("m", 3000)));
    assert_eq!(flood.tally.folded, 2500);
    let points = points(&flood);
    assert_eq!(points.len(), 3000);
    assert!(points.iter().all(|p| p.value == Some(Value::AsInt(1))));
    let labels = |p: &NumberDataPoint| {
        assert_eq!(said(&p.attributes, "agent").as_deref(), Some("db"));
        let mut labels = p.attributes.clone();
        labels.retain(|pair| pair.key != "session_id");
        format!("{labels:?}")
    };
    let sets: BTreeSet<_> = points.iter().map(labels).collect();
    assert_eq!(sets.len(), SETS_MOST + 1);
    let last = &points[2999].attributes;
    for label in ["model", "kind", "tool_name", "start_type"] {
        assert_eq!(said(last, label).as_deref(), Some("other"), "{label}");
    }
    // What it has had before it keeps, and which labels a point has makes no new set.
    let again = bound(&mut series, stamped(REUSED, models("m", 500)));
    assert_eq!(again.tally.folded, 0);
    let other = bound(
        &mut series,
        stamped(REUSED, [vec![], vec![says("language", "x")]]),
    );
    let other = crate::series::points(&other);
    assert_eq!(other[0].attributes, other[1].attributes);
    // Everybody else has what he had.
    let neighbour = bound(&mut series, stamped(STEADY, models("m", 500)));
    assert_eq!(neighbour.tally.folded, 0);
}

#[test]
fn sessions_and_what_is_no_label_use_nothing_up() {
    let point = |i| {
        let id = format!("{i}");
        vec![
            says("model", "m"),
            says("session_id", &id),
            pair("anything", crate::make::text(&id)),
        ]
    };
    let mut series = Series::default();
    let many = stamped(STEADY, (0..5000).map(point));
    assert_eq!(bound(&mut series, many).tally.folded, 0);
    let rest = bound(&mut series, stamped(STEADY, models("n", 499)));
    assert_eq!(rest.tally.folded, 0);
    let last = bound(&mut series, stamped(STEADY, models("o", 1)));
    assert_eq!(last.tally.folded, 1);
}

#[test]
fn points_of_nobody_share_one_quota() {
    let mut series = Series::default();
    let some = bound(&mut series, stamped(NOBODY, models("m", 600)));
    assert_eq!(some.tally.folded, 100);
    let more = bound(&mut series, stamped("10.9.9.8", models("n", 600)));
    assert_eq!(more.tally.folded, 600);
    let named = bound(&mut series, stamped(STEADY, models("n", 500)));
    assert_eq!(named.tally.folded, 0);
}

#[test]
fn what_a_container_has_used_is_forgotten_with_its_lease() {
    let mut series = Series::default();
    bound(&mut series, stamped(STEADY, models("m", 500)));
    let full = bound(&mut series, stamped(STEADY, models("n", 1)));
    assert_eq!(full.tally.folded, 1);
    let without = Leases::new(BootId::parse(&"b".repeat(32)).unwrap());
    series.bound(&mut stamped(REUSED, models("m", 1)), &without);
    let fresh = bound(&mut series, stamped(STEADY, models("n", 500)));
    assert_eq!(fresh.tally.folded, 0);
}
