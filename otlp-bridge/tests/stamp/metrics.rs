//! Metrics: the same identities, on data points.

use crate::make::{CLAIMS, NOW, REUSED, STEADY, book, context, said, says, wall};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    metrics::v1::{
        Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, Summary, SummaryDataPoint, metric::Data,
    },
    resource::v1::Resource,
};
use otlp_bridge::stamp::{Entrance, Limits, Malformed, StampedMetrics, metrics};
use proptest::prelude::*;
use prost::Message as _;

fn number(seconds: u64, attributes: Vec<KeyValue>) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        time_unix_nano: wall(seconds).0,
        exemplars: vec![Exemplar {
            filtered_attributes: claims(),
            ..Exemplar::default()
        }],
        ..NumberDataPoint::default()
    }
}

fn claims() -> Vec<KeyValue> {
    CLAIMS
        .iter()
        .map(|key| says(key, "somebody else"))
        .collect()
}

fn metric(data: Data) -> Metric {
    Metric {
        name: "claude_code.token.usage".to_owned(),
        metadata: claims(),
        data: Some(data),
        ..Metric::default()
    }
}

fn request(resource: Vec<KeyValue>, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    attributes: claims(),
                    ..InstrumentationScope::default()
                }),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn stamp(entrance: Entrance, bytes: &[u8]) -> Result<StampedMetrics, Malformed> {
    let (book, limits) = (book(NOW), Limits::default());
    metrics(bytes, context(entrance, &book, &limits))
}

fn stamped(request: &ExportMetricsServiceRequest) -> ResourceMetrics {
    let stamped = stamp(Entrance::Collector, &request.encode_to_vec()).unwrap();
    let mut decoded = ExportMetricsServiceRequest::decode(&*stamped.bytes).unwrap();
    decoded.resource_metrics.remove(0)
}

/// The attributes of every point.
fn points(group: &ResourceMetrics) -> Vec<Vec<KeyValue>> {
    let metrics = group.scope_metrics.iter().flat_map(|scope| &scope.metrics);
    metrics
        .flat_map(|metric| match metric.data.as_ref().unwrap() {
            Data::Gauge(d) => d.data_points.iter().map(|p| p.attributes.clone()).collect(),
            Data::Sum(d) => d.data_points.iter().map(|p| p.attributes.clone()).collect(),
            Data::Histogram(d) => d.data_points.iter().map(|p| p.attributes.clone()).collect(),
            Data::Summary(d) => d.data_points.iter().map(|p| p.attributes.clone()).collect(),
            Data::ExponentialHistogram(_) => Vec::<Vec<KeyValue>>::new(),
        })
        .collect()
}

fn agents(peer: &str) -> Vec<KeyValue> {
    let mut resource = claims();
    resource.extend([
        says("clawker.lane", "agents"),
        says("clawker.peer", peer),
        says("service.name", "clawker-egress"),
    ]);
    resource
}

fn one_of_each(seconds: u64) -> Vec<Metric> {
    let time_unix_nano = wall(seconds).0;
    vec![
        metric(Data::Gauge(Gauge {
            data_points: vec![number(seconds, claims())],
        })),
        metric(Data::Sum(Sum {
            data_points: vec![number(seconds, vec![says("model", "m")])],
            ..Sum::default()
        })),
        metric(Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                time_unix_nano,
                attributes: claims(),
                ..HistogramDataPoint::default()
            }],
            ..Histogram::default()
        })),
        metric(Data::Summary(Summary {
            data_points: vec![SummaryDataPoint {
                time_unix_nano,
                attributes: claims(),
                ..SummaryDataPoint::default()
            }],
        })),
    ]
}

#[test]
fn points_and_resource_are_the_peers() {
    let group = stamped(&request(agents(REUSED), one_of_each(250)));
    let resource = &group.resource.as_ref().unwrap().attributes;
    assert_eq!(said(resource, "agent").as_deref(), Some("db"));
    assert_eq!(
        said(resource, "service.name").as_deref(),
        Some("clawker-claude")
    );
    let points = points(&group);
    assert_eq!(points.len(), 4);
    for point in &points {
        assert_eq!(said(point, "agent").as_deref(), Some("db"));
        assert_eq!(said(point, "project").as_deref(), Some("project of db"));
        assert_eq!(said(point, "container_name").as_deref(), Some("c-b"));
    }
    assert_eq!(said(&points[1], "model").as_deref(), Some("m"));
    let text = format!("{group:?}");
    assert!(
        !text.contains("somebody else") && !text.contains("clawker."),
        "{text}"
    );
    assert!(!text.contains("Exemplar {"), "{text}");
}

#[test]
fn a_point_from_before_the_address_was_its_senders_is_nobodys_and_so_is_the_resource() {
    let mut metrics = one_of_each(250);
    metrics.extend(one_of_each(150));
    let group = stamped(&request(agents(REUSED), metrics));
    let named: Vec<_> = points(&group)
        .iter()
        .map(|point| said(point, "agent"))
        .collect();
    let db = || Some("db".to_owned());
    assert_eq!(named, [db(), db(), db(), db(), None, None, None, None]);
    assert_eq!(said(&group.resource.unwrap().attributes, "agent"), None);
}

#[test]
fn without_a_lane_nobody_is_named() {
    for lane in [
        vec![],
        vec![says("clawker.lane", "envoy"), says("clawker.peer", STEADY)],
    ] {
        let group = stamped(&request(lane, one_of_each(250)));
        assert!(
            points(&group)
                .iter()
                .all(|point| said(point, "agent").is_none())
        );
    }
}

#[test]
fn what_the_loader_sends_stays() {
    let sent = request(vec![says("agent", "web")], one_of_each(250));
    let stamped = stamp(Entrance::Loader, &sent.encode_to_vec()).unwrap();
    let kept = ExportMetricsServiceRequest::decode(&*stamped.bytes).unwrap();
    assert_eq!((kept, stamped.tally.points), (sent, 4));
}

#[test]
fn a_request_that_would_grow_in_memory_is_refused_unbuilt() {
    let mut many = one_of_each(250);
    many.truncate(1);
    let Some(Data::Gauge(gauge)) = &mut many[0].data else {
        panic!("a gauge");
    };
    gauge.data_points = vec![NumberDataPoint::default(); 200_000];
    let bytes = request(vec![], many).encode_to_vec();
    assert!(bytes.len() < 1 << 20);
    let refused = stamp(Entrance::Collector, &bytes).unwrap_err();
    assert!(refused.to_string().contains("too many parts"), "{refused}");
}

proptest! {
    #[test]
    fn any_bytes_are_stamped_or_refused(
        junk in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, byte: u8,
    ) {
        let mut broken = request(agents(REUSED), one_of_each(250)).encode_to_vec();
        let at = at.index(broken.len());
        broken[at] = byte;
        for bytes in [junk, broken] {
            for entrance in [Entrance::Loader, Entrance::Collector] {
                if let Ok(stamped) = stamp(entrance, &bytes) {
                    prop_assert!(ExportMetricsServiceRequest::decode(&*stamped.bytes).is_ok());
                }
            }
        }
    }
}
