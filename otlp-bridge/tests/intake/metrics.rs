//! Metrics: stamped, passed on while the sender waits, and answered with what whoever gets them says.

use crate::house::{House, endpoint, leases, now, post, publish, says, settings};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    common::v1::KeyValue,
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    resource::v1::Resource,
};
use prost::Message as _;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, codec::CompressionEncoding, transport::Server};
use wire::{Client, Outcome, Payload};

/// A collector that says what it is told to.
#[derive(Clone, Default)]
struct Collector {
    seen: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    answer: Arc<Mutex<Option<Result<ExportMetricsServiceResponse, Status>>>>,
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.seen.lock().unwrap().push(request.into_inner());
        let answer = self.answer.lock().unwrap().clone();
        answer
            .unwrap_or_else(|| Ok(ExportMetricsServiceResponse::default()))
            .map(Response::new)
    }
}

impl Collector {
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service =
            MetricsServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Gzip);
        let serving = Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        url
    }
}

fn payload(resource: Vec<KeyValue>) -> Payload {
    let claim = vec![says("agent", "somebody else")];
    points(resource, vec![claim])
}

/// A request with a point for each of these attributes.
fn points(resource: Vec<KeyValue>, all: Vec<Vec<KeyValue>>) -> Payload {
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let point = |attributes| NumberDataPoint {
        time_unix_nano: now,
        attributes,
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "m".to_owned(),
        data: Some(Data::Gauge(Gauge {
            data_points: all.into_iter().map(point).collect(),
        })),
        ..Metric::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: resource,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![metric],
                ..ScopeMetrics::default()
            }],
            schema_url: String::new(),
        }],
    };
    Payload {
        bytes: request.encode_to_vec().into(),
        records: 1,
    }
}

fn by_an_agent() -> Vec<KeyValue> {
    vec![
        says("clawker.lane", "agents"),
        says("clawker.peer", "10.0.0.1"),
    ]
}

fn of_an_agent() -> Payload {
    payload(by_an_agent())
}

async fn house(collector: &Collector) -> House {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    let complete = now() + Duration::from_secs(86_400);
    publish(&settings.leases, &leases(&[("web", "10.0.0.1")], complete));
    settings.metrics = endpoint(&collector.serve().await).for_metrics();
    House::of(dir, settings).await
}

fn clients(house: &House) -> [Client; 2] {
    ["", "/v1/logs"].map(|path| {
        let endpoint = endpoint(&format!("http://{}{path}", house.address));
        Client::new(&endpoint.for_metrics().unwrap())
    })
}

/// The value of `agent` at the one point of a request.
fn agent(request: &ExportMetricsServiceRequest) -> String {
    let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
    let Some(Data::Gauge(gauge)) = &metric.data else {
        panic!("{metric:?}");
    };
    let attributes = &gauge.data_points[0].attributes;
    format!("{:?}", attributes.iter().find(|pair| pair.key == "agent"))
}

#[tokio::test]
async fn they_are_stamped_and_passed_on() {
    let collector = Collector::default();
    let house = house(&collector).await;
    for client in clients(&house) {
        assert_eq!(client.send(&of_an_agent()).await, Outcome::Delivered);
        let seen = collector.seen.lock().unwrap().pop().unwrap();
        assert!(agent(&seen).contains("web"), "{}", agent(&seen));
        assert!(!format!("{seen:?}").contains("somebody else"));
    }
    assert_eq!(house.keeper.records(), []);
    assert_eq!(house.intake.counters().counts().tally.points, 2);
}

#[tokio::test]
async fn label_sets_of_a_container_are_bounded_over_all_its_requests() {
    let collector = Collector::default();
    let house = house(&collector).await;
    for (client, gateway) in clients(&house).iter().zip(["a", "b"]) {
        let model = |i| vec![says("model", &format!("{gateway}/{i}"))];
        let sent = points(by_an_agent(), (0..300).map(model).collect());
        assert_eq!(client.send(&sent).await, Outcome::Delivered);
    }
    let tally = house.intake.counters().counts().tally;
    assert_eq!((tally.points, tally.folded), (600, 100));
    let seen = format!("{:?}", collector.seen.lock().unwrap());
    assert!(seen.contains("b/199") && !seen.contains("b/200"));
}

#[tokio::test]
async fn those_of_the_loader_are_passed_on_as_they_are() {
    let collector = Collector::default();
    let house = house(&collector).await;
    let sent = of_an_agent();
    let client = Client::new(&house.loader().for_metrics().unwrap());
    assert_eq!(client.send(&sent).await, Outcome::Delivered);
    let seen = collector.seen.lock().unwrap().pop().unwrap();
    assert_eq!(seen.encode_to_vec(), sent.bytes);
}

#[tokio::test]
async fn the_answer_is_that_of_the_collector() {
    let collector = Collector::default();
    let house = house(&collector).await;
    for client in clients(&house) {
        *collector.answer.lock().unwrap() = Some(Ok(ExportMetricsServiceResponse {
            partial_success: Some(ExportMetricsPartialSuccess {
                rejected_data_points: 1,
                error_message: "one is odd".to_owned(),
            }),
        }));
        let partial = Outcome::Partial {
            rejected: 1,
            // Not what it said: that may quote a label.
            message: "the receiver threw away 1 data point(s)".to_owned(),
        };
        assert_eq!(client.send(&of_an_agent()).await, partial);
        *collector.answer.lock().unwrap() = Some(Err(Status::unavailable("later")));
        let outcome = client.send(&of_an_agent()).await;
        assert!(
            matches!(outcome, Outcome::Retry { after: Some(_), .. }),
            "{outcome:?}"
        );
        *collector.answer.lock().unwrap() = Some(Err(Status::invalid_argument("never")));
        let outcome = client.send(&of_an_agent()).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
}

#[tokio::test]
async fn without_a_place_for_them_they_are_refused() {
    let house = House::new().await;
    let body = of_an_agent().bytes;
    let answer = post(
        house.address,
        "/v1/metrics",
        "application/x-protobuf",
        "",
        &body,
    )
    .await;
    assert_eq!(answer.status, 501);
    for client in clients(&house) {
        let outcome = client.send(&of_an_agent()).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    }
}
