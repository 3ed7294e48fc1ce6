//! Senders that mean no good: whatever they do, the others are served, and it is said what was refused.

use crate::house::{House, LONG, eventually, post, sent_by, talk};
use flate2::{Compression, write::GzEncoder};
use std::{io::Write as _, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use wire::{Outcome, Payload};

const PROTOBUF: &str = "application/x-protobuf";
/// How long a request may take in these tests.
const SHORT: Duration = Duration::from_millis(300);

async fn impatient() -> House {
    House::with(|settings| settings.bounds.read_time = SHORT).await
}

/// A good request gets through.
async fn is_served(house: &House) {
    for path in ["", "/v1/logs"] {
        let outcome = house.client(path).send(&sent_by("10.0.0.1")).await;
        assert_eq!(outcome, Outcome::Delivered, "{path:?}");
    }
}

fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_request_that_unpacks_to_too_much_is_refused() {
    let house = House::new().await;
    let bomb = bomb();
    assert!(bomb.len() < 1 << 20);
    let gzip = "content-encoding: gzip\r\n";
    let answer = post(house.address, "/v1/logs", PROTOBUF, gzip, &bomb).await;
    assert_eq!(answer.status, 413);
    // gRPC compresses it itself.
    let zeros = Payload {
        bytes: vec![0; 8 << 20].into(),
        records: 1,
    };
    let outcome = house.client("").send(&zeros).await;
    let Outcome::Refused(failure) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(
        failure.to_string().contains("ResourceExhausted"),
        "{failure}"
    );
    is_served(&house).await;
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let house = House::new().await;
    let large = vec![b'x'; 5 << 20];
    for kind in [PROTOBUF, "application/json"] {
        let answer = post(house.address, "/v1/logs", kind, "", &large).await;
        assert_eq!(answer.status, 413, "{}", answer.head);
    }
    is_served(&house).await;
}

#[tokio::test]
async fn garbage_is_answered_or_hung_up_on() {
    let house = impatient().await;
    let mut noise = Vec::new();
    let mut state = 7u32;
    for _ in 0..100_000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.push((state >> 24) as u8);
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for bytes in [
        noise.clone(),
        [&preface[..], &noise].concat(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /v1/logs HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"\r\n".repeat(10_000),
    ] {
        talk(house.address, &bytes).await;
        let mut stream = UnixStream::connect(&house.socket).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut answer))
            .await
            .unwrap();
    }
    is_served(&house).await;
    assert_eq!(house.keeper.records().len(), 2);
}

#[tokio::test]
async fn headers_without_end_are_refused() {
    let house = House::new().await;
    let many: String = (0..200_000).map(|i| format!("x-{i}: y\r\n")).collect();
    for more in [many, format!("x: {}\r\n", "y".repeat(4 << 20))] {
        let head = format!("POST /v1/logs HTTP/1.1\r\nhost: b\r\n{more}\r\n");
        let answer = talk(house.address, head.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }
    is_served(&house).await;
}

#[tokio::test]
async fn whoever_stops_half_way_is_not_waited_for() {
    let house = impatient().await;
    let head = b"POST /v1/logs HTTP/1.1\r\nhost: b\r\ncontent-type: application/x-protobuf\r\n\
        content-length: 1000\r\n\r\nhalf";
    // More of them than may be read at a time.
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        stream.write_all(head).await.unwrap();
        slow.push(stream);
    }
    let counters = house.intake.counters();
    eventually(|| counters.counts().put_off >= 20).await;
    is_served(&house).await;
    let mut answer = Vec::new();
    let _ = timeout(LONG, slow[0].read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(house.keeper.records().len(), 2);
}

#[tokio::test]
async fn whoever_hangs_up_half_way_leaves_nothing() {
    let house = House::new().await;
    let head = b"POST /v1/logs HTTP/1.1\r\nhost: b\r\ncontent-type: application/x-protobuf\r\n\
        content-length: 1000\r\n\r\nhalf";
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    stream.write_all(head).await.unwrap();
    drop(stream);
    let counters = house.intake.counters();
    is_served(&house).await;
    eventually(|| counters.counts().put_off == 1 || counters.counts().accepted == 2).await;
    assert_eq!(house.keeper.records().len(), 2);
}

#[tokio::test]
async fn connections_are_bounded_and_free_again_when_they_end() {
    let house = House::with(|settings| settings.bounds.connections = 2).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(TcpStream::connect(house.address).await.unwrap());
    }
    let served = tokio::spawn({
        let client = house.client("/v1/logs");
        async move { client.send(&sent_by("10.0.0.1")).await }
    });
    // The loader's socket has its own.
    assert_eq!(
        crate::house::get(&house.socket, "/healthz").await.status,
        200
    );
    drop(idle);
    assert_eq!(served.await.unwrap(), Outcome::Delivered);
}

#[tokio::test]
async fn a_flood_of_the_collectors_does_not_close_the_loaders_door() {
    let house = House::with(|settings| settings.bounds.keeping = 1).await;
    house.keeper.set_slow(true);
    let sending = tokio::spawn({
        let client = house.client("");
        async move { client.send(&sent_by("10.0.0.1")).await }
    });
    let keeper = std::sync::Arc::clone(&house.keeper);
    eventually(|| keeper.waiting() == 1).await;
    let loader = tokio::spawn({
        let client = wire::Client::new(&house.loader());
        let one = crate::house::payload("clawker-cp", vec![crate::house::record(vec![])]);
        async move {
            client
                .send_batch(&one, &wire::BatchId::first("l").unwrap())
                .await
        }
    });
    eventually(|| keeper.waiting() == 2).await;
    keeper.set_slow(false);
    assert_eq!(sending.await.unwrap(), Outcome::Delivered);
    assert_eq!(loader.await.unwrap(), Outcome::Delivered);
}
