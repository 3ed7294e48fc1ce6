//! OTLP over HTTP: protobuf and JSON, plain and compressed.

use crate::house::{Answer, House, post, said, sent_by};
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;
use std::io::Write as _;
use wire::Outcome;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn as_json() -> Vec<u8> {
    let request = ExportLogsServiceRequest::decode(sent_by("10.0.0.1").bytes).unwrap();
    serde_json::to_vec(&request).unwrap()
}

#[tokio::test]
async fn every_form_is_taken() {
    let house = House::new().await;
    let plain = sent_by("10.0.0.1").bytes;
    let compressed = "content-encoding: gzip\r\n";
    let to = |kind, more, body: Vec<u8>| post_owned(house.address, kind, more, body);
    for answer in [
        to(PROTOBUF, "", plain.to_vec()).await,
        to(PROTOBUF, compressed, gzip(&plain)).await,
        to("application/json; charset=utf-8", "", as_json()).await,
        to(JSON, compressed, gzip(&as_json())).await,
        to(PROTOBUF, "", Vec::new()).await,
    ] {
        assert_eq!(answer.status, 200, "{}", answer.head);
    }
    assert_eq!(
        house.client("/v1/logs").send(&sent_by("10.0.0.1")).await,
        Outcome::Delivered
    );
    let kept = house.keeper.records();
    assert_eq!(kept.len(), 5);
    for incoming in kept {
        assert_eq!(incoming.stream, "clawker-claude");
        assert_eq!(said(&incoming, "src_ip").as_deref(), Some("10.0.0.1"));
    }
}

async fn post_owned(
    address: std::net::SocketAddr,
    kind: &str,
    more: &str,
    body: Vec<u8>,
) -> Answer {
    post(address, "/v1/logs", kind, more, &body).await
}

#[tokio::test]
async fn an_answer_is_in_the_form_of_the_request() {
    let house = House::new().await;
    let answer = post(
        house.address,
        "/v1/logs",
        PROTOBUF,
        "",
        &sent_by("10.0.0.1").bytes,
    )
    .await;
    assert!(answer.head.contains("content-type: application/x-protobuf"));
    assert_eq!(
        ExportLogsServiceResponse::decode(&*answer.body)
            .unwrap()
            .partial_success,
        None
    );
    let answer = post(house.address, "/v1/logs", JSON, "", &as_json()).await;
    assert!(answer.head.contains("content-type: application/json"));
    assert_eq!(answer.body, b"{}");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_for_good() {
    let house = House::new().await;
    for (kind, more, body, status) in [
        (PROTOBUF, "", &b"\xff\xff"[..], 400),
        (JSON, "", b"{", 400),
        (JSON, "", b"7", 400),
        (JSON, "", "[".repeat(100_000).as_bytes(), 400),
        (PROTOBUF, "content-encoding: gzip\r\n", b"no gzip", 400),
        (PROTOBUF, "content-encoding: br\r\n", b"", 415),
        ("text/plain", "", b"", 415),
        ("", "", b"", 415),
    ] {
        let answer = post(house.address, "/v1/logs", kind, more, body).await;
        assert_eq!(answer.status, status, "{kind} {more} {}", answer.head);
        assert!(!answer.head.contains("retry-after"));
        assert!(!answer.body.is_empty(), "refused without a word");
    }
    let answer = post(house.address, "/v1/traces", PROTOBUF, "", b"").await;
    assert_eq!(answer.status, 404);
    assert_eq!(house.keeper.records(), []);
}

#[tokio::test]
async fn a_full_disk_is_a_503_with_a_time_to_come_back() {
    let house = House::new().await;
    house.keeper.set_full(true);
    for (kind, body) in [
        (PROTOBUF, sent_by("10.0.0.1").bytes.to_vec()),
        (JSON, as_json()),
    ] {
        let answer = post(house.address, "/v1/logs", kind, "", &body).await;
        assert_eq!(answer.status, 503);
        assert!(answer.head.contains("retry-after: 2"), "{}", answer.head);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("the disk is full"), "{text}");
    }
}
