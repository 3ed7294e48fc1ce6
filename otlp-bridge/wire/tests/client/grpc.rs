//! Against a real gRPC server: what it answers, when it is slow, when it is not there and when it goes
//! away half-way.

use crate::{
    client, failure, options,
    receiver::{Answer, Receiver, payload},
    status,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status, body::Body, server::NamedService, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower_service::Service;
use wire::{Failure, Options, Outcome};

#[tokio::test]
async fn what_is_sent_arrives_with_its_headers_and_compressed() {
    let receiver = Receiver::default();
    let options = Options {
        headers: vec![("authorization".to_owned(), "Bearer t".to_owned())],
        ..options()
    };
    let sent = payload(100);
    let client = client(&receiver.tcp().await, &options);
    assert_eq!(client.send(&sent).await, Outcome::Delivered);
    let seen = receiver.seen.lock().unwrap();
    let wanted = ExportLogsServiceRequest::decode(sent.bytes).unwrap();
    assert_eq!(seen.requests, [wanted]);
    assert_eq!(seen.headers[0].get("authorization").unwrap(), "Bearer t");
    assert_eq!(seen.headers[0].get("grpc-encoding").unwrap(), "gzip");
}

#[tokio::test]
async fn a_unix_socket_will_do_and_is_not_compressed() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::default();
    let url = receiver.unix(&dir.path().join("otlp.sock"));
    assert_eq!(
        client(&url, &options()).send(&payload(3)).await,
        Outcome::Delivered
    );
    let seen = receiver.seen.lock().unwrap();
    assert!(seen.headers[0].get("grpc-encoding").is_none());
}

#[tokio::test]
async fn answers_are_told_apart() {
    let partial = ExportLogsServiceResponse {
        partial_success: Some(ExportLogsPartialSuccess {
            rejected_log_records: 2,
            error_message: "two are odd".to_owned(),
        }),
    };
    let wait = Duration::from_millis(2500);
    let advice = || ErrorDetails::with_retry_info(Some(wait));
    let receiver = Receiver::new(
        [
            Ok(partial),
            Err(Status::unavailable("down")),
            Err(Status::with_error_details(Code::Unavailable, "", advice())),
            Err(Status::with_error_details(
                Code::ResourceExhausted,
                "full",
                advice(),
            )),
            Err(Status::resource_exhausted("too large")),
            Err(Status::invalid_argument("bad")),
            Err(Status::internal(
                "Permanent error: flush: connection refused",
            )),
            Err(Status::unauthenticated("")),
        ]
        .map(Answer::Say),
    );
    let client = client(&receiver.tcp().await, &options());
    let retry = |after, failure| Outcome::Retry { after, failure };
    for wanted in [
        Outcome::Partial {
            rejected: 2,
            message: "two are odd".to_owned(),
        },
        retry(None, status("Unavailable", "down")),
        retry(Some(wait), status("Unavailable", "")),
        retry(Some(wait), status("ResourceExhausted", "full")),
        Outcome::Refused(status("ResourceExhausted", "too large")),
        Outcome::Refused(status("InvalidArgument", "bad")),
        Outcome::Refused(status(
            "Internal",
            "Permanent error: flush: connection refused",
        )),
        Outcome::Refused(status("Unauthenticated", "")),
        Outcome::Delivered,
    ] {
        assert_eq!(client.send(&payload(5)).await, wanted);
    }
}

#[tokio::test]
async fn a_slow_receiver_is_not_waited_for_longer_than_said() {
    let receiver = Receiver::new([Answer::Hang]);
    let limit = Duration::from_secs(2);
    let options = Options {
        timeout: limit,
        ..options()
    };
    let client = client(&receiver.tcp().await, &options);
    let began = Instant::now();
    let outcome = client.send(&payload(1)).await;
    assert_eq!(failure(&outcome), &Failure::Timeout(limit));
    assert!(failure(&outcome).may_be_stored());
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(receiver.count(), 1);
    assert_eq!(client.send(&payload(1)).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_connection_that_has_gone_silent_is_not_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let receiver = Receiver::default();
    let later = receiver.clone();
    tokio::spawn(async move {
        // As after a firewall on the way has forgotten the connection: everything is swallowed.
        let (mut forgotten, _) = listener.accept().await.unwrap();
        later.serve(listener);
        while let Ok(1..) = forgotten.read(&mut [0; 4096]).await {}
    });
    let options = Options {
        timeout: Duration::from_secs(2),
        ..options()
    };
    let client = client(&url, &options);
    let outcome = client.send(&payload(1)).await;
    assert!(
        matches!(failure(&outcome), Failure::Timeout(_)),
        "{outcome:?}"
    );
    let copy = client.clone();
    assert_eq!(copy.send(&payload(1)).await, Outcome::Delivered);
}

#[tokio::test]
async fn nobody_there_means_nothing_was_stored_and_the_client_connects_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otlp.sock");
    let client = client(&format!("unix://{}", path.display()), &options());
    for _ in 0..3 {
        let outcome = client.send(&payload(1)).await;
        assert!(
            matches!(failure(&outcome), Failure::Connect(why) if why.contains("No such file")),
            "{outcome:?}"
        );
    }
    Receiver::default().unix(&path);
    assert_eq!(client.send(&payload(1)).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_port_where_nobody_listens_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let outcome = client(&url, &options()).send(&payload(1)).await;
    assert_eq!(
        failure(&outcome),
        &Failure::Connect("Connection refused (os error 111)".to_owned())
    );
}

#[tokio::test]
async fn a_receiver_that_dies_half_way_may_have_stored_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        // Takes some of the request, then the process is gone, as far as TCP can tell.
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut some = [0; 100];
            let _ = stream.read_exact(&mut some).await;
        }
    });
    let outcome = client(&url, &options()).send(&payload(1000)).await;
    assert!(
        matches!(failure(&outcome), Failure::Broken(_)),
        "{outcome:?}"
    );
    assert!(failure(&outcome).may_be_stored());
}

/// Answers with details that are no base64, over which tonic panics.
#[derive(Clone)]
struct Odd;

impl NamedService for Odd {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<http::Request<Body>> for Odd {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "14")
            .header("grpc-status-details-bin", "!!!");
        ready(Ok(response.body(Body::empty()).unwrap()))
    }
}

#[tokio::test]
async fn an_answer_made_to_break_its_reader_breaks_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = Server::builder()
        .add_service(Odd)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    let client = client(&url, &options());
    for _ in 0..2 {
        let outcome = client.send(&payload(1)).await;
        assert!(
            matches!(failure(&outcome), Failure::Foreign(_)),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn something_else_that_listens_there_is_not_a_receiver() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let page = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, page).await;
            let _ = stream.read(&mut [0; 1 << 16]).await;
        }
    });
    let outcome = client(&url, &options()).send(&payload(1)).await;
    assert!(
        matches!(failure(&outcome), Failure::Broken(_)),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn sending_can_be_given_up() {
    let receiver = Receiver::new([Answer::Hang]);
    let client = client(&receiver.tcp().await, &options());
    let sent = payload(1);
    {
        let sending = client.send(&sent);
        tokio::pin!(sending);
        while receiver.count() == 0 {
            tokio::select! {
                _ = &mut sending => panic!("nobody has answered"),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    assert_eq!(client.send(&payload(1)).await, Outcome::Delivered);
}
