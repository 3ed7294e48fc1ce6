//! A client of gRPC, with calls that stay open.

use crate::greeting::Greeting;
use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest, handshake},
};
use http::{HeaderMap, Request};
use kernel_tests::PATIENCE;
use rustls::pki_types::ServerName;
use std::{net::TcpStream, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Runtime,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// A connection.
pub struct Grpc {
    runtime: Runtime,
    client: SendRequest<Bytes>,
}

/// A call.
pub struct Call<'a> {
    runtime: &'a Runtime,
    to: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    from: Option<RecvStream>,
    head: HeaderMap,
}

async fn talk(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> SendRequest<Bytes> {
    let (client, connection) = handshake(io).await.expect("HTTP/2");
    tokio::spawn(connection);
    client.ready().await.expect("room for a call")
}

impl Grpc {
    /// Greets over a connection.
    #[must_use]
    pub fn over(greeting: &Greeting<'_>, stream: TcpStream) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let name = greeting.name.expect("a name").to_owned();
        let config = Arc::new(greeting.config());
        stream.set_nonblocking(true).expect("a socket");
        let client = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
            let name = ServerName::try_from(name).expect("a name");
            let tls = TlsConnector::from(config).connect(name, stream).await;
            talk(tls.expect("a handshake")).await
        });
        Self { runtime, client }
    }

    /// Begins a call.
    #[track_caller]
    pub fn call(&mut self, host: &str, path: &str) -> Call<'_> {
        let request = Request::post(format!("https://{host}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let client = &mut self.client;
        let (response, to) = self
            .runtime
            .block_on(async { client.send_request(request, false) })
            .expect("a call");
        Call {
            runtime: &self.runtime,
            to,
            response: Some(response),
            from: None,
            head: HeaderMap::new(),
        }
    }
}

impl Call<'_> {
    /// Sends a message.
    #[track_caller]
    pub fn say(&mut self, message: &[u8]) {
        let mut framed = vec![0];
        framed.extend((message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        self.to.send_data(framed.into(), false).expect("a stream");
    }

    /// Says that no message follows.
    #[track_caller]
    pub fn end(&mut self) {
        self.to.send_data(Bytes::new(), true).expect("a stream");
    }

    /// Takes the call back.
    pub fn cancel(mut self) {
        self.to.send_reset(h2::Reason::CANCEL);
        // The connection gets its turns while somebody waits.
        self.runtime.block_on(async {
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
        });
    }

    async fn body(&mut self) -> &mut RecvStream {
        if let Some(response) = self.response.take() {
            let (head, body) = response.await.expect("an answer").into_parts();
            self.head = head.headers;
            self.from = Some(body);
        }
        self.from.as_mut().expect("an answer")
    }

    /// Waits for so many bytes of messages, their frames not counted.
    #[track_caller]
    pub fn hear(&mut self, bytes: usize) -> Vec<u8> {
        let runtime = self.runtime;
        let mut all = Vec::new();
        let heard = async {
            let body = self.body().await;
            while all.len() < bytes + 5 {
                let more = body.data().await.expect("a message").expect("a message");
                body.flow_control()
                    .release_capacity(more.len())
                    .expect("a stream");
                all.extend(more);
            }
        };
        runtime
            .block_on(async { timeout(PATIENCE, heard).await })
            .expect("a message in time");
        all.split_off(5)
    }

    /// Waits for the end, and its status.
    #[track_caller]
    pub fn status(&mut self) -> Option<u16> {
        let runtime = self.runtime;
        let trailers = async {
            let body = self.body().await;
            while let Some(Ok(_)) = body.data().await {}
            body.trailers().await.ok().flatten()
        };
        let trailers = runtime
            .block_on(async { timeout(PATIENCE, trailers).await })
            .expect("an end in time");
        // An answer without a body has it in its head.
        let all = trailers.as_ref().unwrap_or(&self.head);
        all.get("grpc-status")?.to_str().ok()?.parse().ok()
    }
}
