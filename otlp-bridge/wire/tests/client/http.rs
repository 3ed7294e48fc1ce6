//! OTLP over HTTP: what goes out, what comes back.

use crate::{client, failure, options, receiver::payload, status};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceResponse,
};
use prost::Message as _;
use std::{
    io::Read as _,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use wire::{Failure, Options, Outcome};

/// A request as it came: head and body.
pub(crate) type Seen = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// Answers each request with the next of these bytes; nothing is left, nothing is said.
pub(crate) async fn receiver(answers: Vec<Vec<u8>>) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, &mut answers, &log).await;
        }
    });
    (url, seen)
}

async fn serve(stream: TcpStream, answers: &mut impl Iterator<Item = Vec<u8>>, log: &Seen) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = request(&mut stream).await {
        log.lock().unwrap().push(request);
        let Some(answer) = answers.next() else {
            std::future::pending::<()>().await;
            return;
        };
        if answer.is_empty() {
            return;
        }
        // It may have been given up.
        let _ = stream.write_all(&answer).await;
    }
}

async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_request_is_compressed_protobuf_with_its_headers_to_the_path() {
    let (url, seen) = receiver(vec![answer("200 OK", "", b"")]).await;
    let options = Options {
        headers: vec![("x-scope-orgid".to_owned(), "acme".to_owned())],
        ..options()
    };
    let sent = payload(50);
    assert_eq!(client(&url, &options).send(&sent).await, Outcome::Delivered);
    let (head, body) = seen.lock().unwrap().remove(0);
    assert!(head.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{head}");
    for line in [
        "content-type: application/x-protobuf",
        "content-encoding: gzip",
        "x-scope-orgid: acme",
    ] {
        assert!(head.lines().any(|l| l == line), "{line:?} in {head}");
    }
    let mut plain = Vec::new();
    GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, sent.bytes);
}

#[tokio::test]
async fn answers_are_told_apart_and_redirects_not_followed() {
    let partial = ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: 4,
            error_message: "odd".to_owned(),
        }),
    };
    let (url, seen) = receiver(vec![
        answer("200 OK", "", &partial.encode_to_vec()),
        answer("503 Busy", "retry-after: 7\r\n", b"later"),
        answer("429 Slow", "", b""),
        answer("400 Bad", "", b"no"),
        answer("307 Moved", "location: /elsewhere\r\n", b""),
        answer("200 OK", "content-type: text/html\r\n", b"<html>"),
        answer("200 OK", "", b""),
    ])
    .await;
    let client = client(&url, &options());
    let retry = |after, failure| Outcome::Retry { after, failure };
    for wanted in [
        Outcome::Partial {
            rejected: 4,
            message: "odd".to_owned(),
        },
        retry(Some(Duration::from_secs(7)), status("503", "later")),
        retry(None, status("429", "")),
        Outcome::Refused(status("400", "no")),
        Outcome::Refused(status("307", "")),
    ] {
        assert_eq!(client.send(&payload(9)).await, wanted);
    }
    let outcome = client.send(&payload(9)).await;
    assert!(
        matches!(failure(&outcome), Failure::Foreign(_)),
        "{outcome:?}"
    );
    assert_eq!(client.send(&payload(9)).await, Outcome::Delivered);
    assert_eq!(seen.lock().unwrap().len(), 7);
}

#[tokio::test]
async fn no_answer_half_an_answer_and_an_endless_one_are_no_success() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_vec();
    let endless = answer("200 OK", "", &[0; 300_000]);
    let (url, _) = receiver(vec![Vec::new(), endless]).await;
    let sender = client(&url, &options());
    for _ in 0..2 {
        let outcome = sender.send(&payload(1)).await;
        assert!(
            matches!(failure(&outcome), Failure::Broken(_)),
            "{outcome:?}"
        );
        assert!(failure(&outcome).may_be_stored());
    }
    let limit = Duration::from_secs(2);
    let hasty = Options {
        timeout: limit,
        ..options()
    };
    let (url, _) = receiver(vec![half]).await;
    let outcome = client(&url, &hasty).send(&payload(1)).await;
    assert_eq!(failure(&outcome), &Failure::Timeout(limit));
}

#[tokio::test]
async fn a_port_where_nobody_listens_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/logs", listener.local_addr().unwrap());
    drop(listener);
    let outcome = client(&url, &options()).send(&payload(1)).await;
    assert!(
        matches!(failure(&outcome), Failure::Connect(why) if why.contains("refused")),
        "{outcome:?}"
    );
}
