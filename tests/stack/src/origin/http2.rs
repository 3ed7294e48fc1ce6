//! HTTP/2, and gRPC over it.

use super::{Io, Origin, down};
use bytes::Bytes;
use h2::{
    Error, RecvStream, SendStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, Request, Response};
use std::future::{pending, poll_fn};

pub(super) async fn serve(io: impl Io, origin: &Origin) {
    let mut builder = Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 22);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (path, host) = (request.uri().path(), request.uri().authority());
        let host = host.map_or("-", |one| one.as_str());
        let line = format!("{} {path} {host}", request.method());
        origin.note(line.clone());
        // Whoever asked may be gone.
        tokio::spawn(async move {
            let _ = answer(request, respond, line).await;
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    line: String,
) -> Result<(), Error> {
    let kind = request.headers().get("content-type");
    let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    if grpc {
        let head = Response::builder().header("content-type", "application/grpc");
        let mut to = respond.send_response(head.body(()).expect("a response"), false)?;
        return echo(&path, body, &mut to).await;
    }
    let mut had = 0;
    while let Some(bytes) = body.data().await {
        let n = bytes?.len();
        had += n;
        body.flow_control().release_capacity(n)?;
    }
    let line = format!("{line} {had}");
    let length = down(&path).unwrap_or(line.len());
    let head = Response::builder().header("content-length", length);
    let mut to = respond.send_response(head.body(()).expect("a response"), false)?;
    match down(&path) {
        Some(length) => zeros(&mut to, length).await,
        None => to.send_data(line.into(), true),
    }
}

async fn echo(path: &str, mut body: RecvStream, to: &mut SendStream<Bytes>) -> Result<(), Error> {
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        body.flow_control().release_capacity(bytes.len())?;
        to.send_data(bytes, false)?;
    }
    if path.ends_with("/Open") {
        // Until whoever asked has enough.
        poll_fn(|context| to.poll_reset(context)).await?;
        return Ok(());
    }
    let digits = path.trim_start_matches(|c: char| !c.is_ascii_digit());
    let status = digits.parse().unwrap_or(0u16);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    to.send_trailers(trailers)
}

async fn zeros(to: &mut SendStream<Bytes>, length: usize) -> Result<(), Error> {
    let chunk = Bytes::from(vec![0; 1 << 16]);
    let mut left = length;
    while left > 0 {
        to.reserve_capacity(left.min(chunk.len()));
        let Some(room) = poll_fn(|context| to.poll_capacity(context)).await else {
            return pending().await;
        };
        let n = room?.min(left).min(chunk.len());
        left -= n;
        to.send_data(chunk.slice(..n), left == 0)?;
    }
    Ok(())
}
