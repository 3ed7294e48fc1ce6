//! Metrics: the same ways, to another service or path.

use crate::{
    http::{answer, receiver},
    options,
    receiver::Receiver,
};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message as _;
use std::io::Read as _;
use wire::{
    Client, Endpoint, Outcome, Snapshot, Source,
    metrics::{AGENTS, FLOWS_ENDED},
    stream,
};

fn snapshot() -> Snapshot {
    let source = Source::new(stream::CONTROL_PLANE, "test", "1", "1");
    let now = "2026-11-01T12:00:00Z".parse().unwrap();
    let mut s = Snapshot::new(&source, now, now);
    s.set(AGENTS, [], 3);
    s.set(FLOWS_ENDED, ["DENIED"], 4);
    s
}

#[tokio::test]
async fn over_grpc_they_go_to_the_metrics_service() {
    let service = Receiver::default();
    let endpoint = Endpoint::new(&service.tcp().await, &options()).unwrap();
    let client = Client::new(&endpoint.for_metrics().unwrap());
    let outcome = client.send(&snapshot().payload()).await;
    let wanted = Outcome::Partial {
        rejected: 1,
        message: "one is odd".to_owned(),
    };
    assert_eq!(outcome, wanted);
    let seen = service.seen.lock().unwrap();
    assert_eq!(seen.metrics, [snapshot().request()]);
    assert!(seen.requests.is_empty());
}

#[tokio::test]
async fn over_http_they_go_to_the_path_beside_that_of_logs() {
    let (url, seen) = receiver(vec![answer("200 OK", "", b"")]).await;
    let endpoint = Endpoint::new(&url.replace("/v1/logs", "/base/v1/logs"), &options()).unwrap();
    let client = Client::new(&endpoint.for_metrics().unwrap());
    assert_eq!(client.send(&snapshot().payload()).await, Outcome::Delivered);
    let seen = seen.lock().unwrap();
    let (head, body) = &seen[0];
    assert!(
        head.starts_with("POST /base/v1/metrics HTTP/1.1\r\n"),
        "{head}"
    );
    let mut bytes = Vec::new();
    GzDecoder::new(body.as_slice())
        .read_to_end(&mut bytes)
        .unwrap();
    let got = ExportMetricsServiceRequest::decode(bytes.as_slice()).unwrap();
    assert_eq!(got, snapshot().request());
}

#[test]
fn a_path_of_ones_own_says_nothing_about_metrics() {
    for url in [
        "http://c:1/otlp",
        "http://c:1/v1/logs/",
        "http://c:1/v1/logsx",
    ] {
        let endpoint = Endpoint::new(url, &options()).unwrap();
        assert!(endpoint.for_metrics().is_none(), "{url}");
    }
    let plain = Endpoint::new("http://c:1", &options()).unwrap();
    assert_eq!(plain.for_metrics().unwrap().url(), "http://c:1");
}
