//! A receiver that answers as it is told to, over gRPC, and one that speaks raw bytes, for HTTP.

use opentelemetry_proto::tonic::collector::{
    logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
};
use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{
    Request, Response, Status, async_trait,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Server, ServerTlsConfig},
};
use wire::{Batch, Limits, Payload, RecordBuilder, Severity, Source, fields, stream};

/// What a receiver does with a request.
pub(crate) enum Answer {
    /// Says this.
    Say(Result<ExportLogsServiceResponse, Status>),
    /// Says nothing.
    Hang,
}

/// What a receiver has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<ExportLogsServiceRequest>,
    pub(crate) metrics: Vec<ExportMetricsServiceRequest>,
    pub(crate) headers: Vec<MetadataMap>,
}

/// A receiver that answers from a list, then takes everything.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

#[async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.headers.push(request.metadata().clone());
            seen.requests.push(request.into_inner());
        }
        let next = self.answers.lock().unwrap().pop_front();
        match next {
            None => Ok(Response::new(ExportLogsServiceResponse::default())),
            Some(Answer::Say(answer)) => answer.map(Response::new),
            Some(Answer::Hang) => pending().await,
        }
    }
}

#[async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.seen.lock().unwrap().metrics.push(request.into_inner());
        let partial = ExportMetricsPartialSuccess {
            rejected_data_points: 1,
            error_message: "one is odd".to_owned(),
        };
        Ok(Response::new(ExportMetricsServiceResponse {
            partial_success: Some(partial),
        }))
    }
}

impl Receiver {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            seen: Arc::default(),
        }
    }

    fn service(&self) -> LogsServiceServer<Self> {
        // Go's servers compress their answers when the request was.
        LogsServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip)
    }

    /// Serves on a port of loopback; the URL.
    pub(crate) async fn tcp(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        self.serve(listener);
        url
    }

    /// Serves whoever connects to a listener.
    pub(crate) fn serve(&self, listener: TcpListener) {
        let metrics = MetricsServiceServer::new(self.clone());
        let serving = Server::builder()
            .add_service(self.service())
            .add_service(metrics.accept_compressed(CompressionEncoding::Gzip))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
    }

    /// The same behind TLS, under the name localhost.
    pub(crate) async fn tls(&self, config: ServerTlsConfig) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        let serving = Server::builder()
            .tls_config(config)
            .unwrap()
            .add_service(self.service())
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        url
    }

    /// Serves on a unix socket; the URL.
    pub(crate) fn unix(&self, path: &std::path::Path) -> String {
        let listener = tokio::net::UnixListener::bind(path).unwrap();
        let serving = Server::builder()
            .add_service(self.service())
            .serve_with_incoming(UnixListenerStream::new(listener));
        tokio::spawn(serving);
        format!("unix://{}", path.display())
    }

    /// Requests seen so far.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }
}

/// A request of `n` records.
pub(crate) fn payload(n: u64) -> Payload {
    let now = "2026-11-01T12:00:00Z".parse().unwrap();
    let source = Source::new(stream::EGRESS, "test", "1", "1");
    let mut batch = Batch::new(&source, Limits::default());
    for i in 0..n {
        let record = RecordBuilder::new(stream::FLOW, now, now, Severity::Info, "one".to_owned());
        batch.push(record.with(fields::COUNT, i).build());
    }
    batch.take()
}
