//! OTLP over gRPC.

use super::{Address, USER_AGENT, named};
use crate::{
    batch::Payload,
    batch_id::BatchId,
    endpoint::{Endpoint, Signal},
    outcome::{Outcome, accepted, of_status},
};
use ::http::{HeaderMap, uri::PathAndQuery};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::{
    Message as _,
    bytes::{BufMut as _, Bytes},
};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint as Transport},
};

const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// A channel to the receiver.
#[derive(Clone)]
pub(super) struct Way {
    channel: Channel,
    path: PathAndQuery,
    headers: HeaderMap,
    compress: bool,
}

impl Way {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        // The connector encrypts, so tonic is told of a plain URL: it would set up a TLS of its own.
        let transport = Transport::from_static("http://receiver").origin(endpoint.origin.clone());
        let transport = match transport.clone().user_agent(USER_AGENT) {
            Ok(named) => named,
            // It is no reason not to send.
            Err(_) => transport,
        };
        Self {
            channel: transport.connect_with_connector_lazy(endpoint.connector.clone()),
            path: PathAndQuery::from_static(match endpoint.signal {
                Signal::Logs => LOGS,
                Signal::Metrics => METRICS,
            }),
            headers: endpoint.headers.clone(),
            // Within one machine, bytes are cheaper than the work to make them fewer.
            compress: matches!(endpoint.connector.address, Address::Tcp { .. }),
        }
    }

    pub(super) async fn send(self, payload: Payload, batch: Option<BatchId>) -> Outcome {
        // Go's servers answer in the encoding of the request, whether they are asked to or not.
        let mut grpc = Grpc::new(self.channel).accept_compressed(CompressionEncoding::Gzip);
        if self.compress {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        if let Err(e) = grpc.ready().await {
            return of_status(&Status::from_error(e.into()));
        }
        let mut request = Request::new(payload.bytes);
        *request.metadata_mut() = MetadataMap::from_headers(named(self.headers, batch));
        match grpc.unary(request, self.path, Encoded).await {
            Ok(response) => accepted(response.into_inner(), payload.records),
            Err(status) => of_status(&status),
        }
    }
}

/// Sends what is encoded already. The answer to metrics has the same fields under the same numbers as that
/// to logs.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportLogsServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put(item);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportLogsServiceResponse;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let decoded = ExportLogsServiceResponse::decode(src);
        // With a source, so that it is not taken for the receiver's own word.
        decoded.map(Some).map_err(|e| Status::from_error(e.into()))
    }
}
