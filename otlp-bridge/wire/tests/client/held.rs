//! Asking what is held: anything but a whole answer is an error, never "nothing".

use crate::options;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use wire::{
    Endpoint, Options,
    held::{Held, HeldError, ask},
};

const BOOT: &str = "0123456789abcdef0123456789abcdef";

/// Asks somebody who answers every question with these bytes, or not at all.
async fn answered(answer: Option<String>) -> Result<Vec<Held>, HeldError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut question = [0; 4096];
        let n = stream.read(&mut question).await.unwrap();
        let question = String::from_utf8_lossy(&question[..n]).into_owned();
        assert!(question.starts_with(&format!("GET /v1/held?boot={BOOT} HTTP/1.1\r\n")));
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
            None => while let Ok(1..) = stream.read(&mut [0; 64]).await {},
        }
    });
    let options = Options {
        timeout: Duration::from_secs(1),
        ..options()
    };
    ask(&Endpoint::new(&url, &options).unwrap(), BOOT).await
}

fn response(status: &str, body: &str) -> Option<String> {
    let len = body.len();
    Some(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {len}\r\n\r\n{body}"
    ))
}

#[tokio::test]
async fn an_answer_is_read() {
    let body = r#"{"held":[{"slot":7,"verdict":"ALLOWED","flows":12}]}"#;
    let wanted = Held {
        slot: 7,
        verdict: "ALLOWED".to_owned(),
        flows: 12,
    };
    assert_eq!(answered(response("200 OK", body)).await.unwrap(), [wanted]);
    assert_eq!(
        answered(response("200 OK", r#"{"held":[]}"#))
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    for body in ["", "{}", "null", "[]x", r#"{"held":[{"slot":-1}]}"#] {
        let failed = answered(response("200 OK", body)).await.unwrap_err();
        assert!(
            matches!(failed, HeldError::Foreign { .. }),
            "{body}: {failed}"
        );
    }
    let failed = answered(response("503 No", "the disk\u{1b} fails"))
        .await
        .unwrap_err();
    assert!(
        matches!(failed, HeldError::Status { status: 503, .. }),
        "{failed}"
    );
    assert!(!failed.to_string().contains('\u{1b}'));
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"held\":[]}".to_owned();
    let failed = answered(Some(cut)).await.unwrap_err();
    assert!(matches!(failed, HeldError::Connection { .. }), "{failed}");
    let failed = answered(None).await.unwrap_err();
    assert!(matches!(failed, HeldError::Timeout { .. }), "{failed}");
}
