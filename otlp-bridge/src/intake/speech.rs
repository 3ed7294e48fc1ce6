//! OTLP as it is spoken: gRPC, or HTTP with protobuf or JSON. Requests are unpacked here within bounds,
//! and answers packed.

use super::refused::Refused;
use axum::{body::Body, response::Response};
use flate2::read::MultiGzDecoder;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt as _, Full};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{
        ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    },
};
use prost::{Message, bytes::Bytes};
use serde::{Serialize, de::DeserializeOwned};
use std::io::Read as _;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const GRPC: &str = "application/grpc";
/// Flag and length of a gRPC message.
const FRAME: usize = 5;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    Logs,
    Metrics,
}

/// What a request was answered with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Records or data points that were refused, or thrown away by whoever they were passed on to.
    pub(super) rejected: u64,
    /// What there is to say.
    pub(super) message: Option<String>,
}

/// How a request is spoken, and so its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Grpc,
    Protobuf,
    Json,
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}

/// Whether a request is one of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    header(headers, CONTENT_TYPE.as_str()).starts_with(GRPC)
}

impl Speech {
    /// The speech of a request over HTTP.
    pub(super) fn of_http(headers: &HeaderMap) -> Result<Self, Refused> {
        let full = header(headers, CONTENT_TYPE.as_str());
        let kind = full.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case(PROTOBUF) {
            Ok(Self::Protobuf)
        } else if kind.eq_ignore_ascii_case(JSON) {
            Ok(Self::Json)
        } else {
            Err(Refused::ContentType(full.chars().take(80).collect()))
        }
    }

    /// The message in a body: uncompressed, at most `limit` bytes.
    pub(super) fn unpack(
        self,
        headers: &HeaderMap,
        body: Bytes,
        limit: usize,
    ) -> Result<Bytes, Refused> {
        let (message, encoding) = match self {
            Self::Grpc => {
                let encoding = header(headers, "grpc-encoding");
                let (message, compressed) = unframe(&body)?;
                (message, if compressed { encoding } else { "" })
            }
            Self::Protobuf | Self::Json => (body, header(headers, CONTENT_ENCODING.as_str())),
        };
        match encoding {
            "" | "identity" if message.len() > limit => Err(Refused::TooLarge(limit)),
            "" | "identity" => Ok(message),
            "gzip" => gunzip(&message, limit),
            other => Err(Refused::Encoding(other.chars().take(80).collect())),
        }
    }

    /// The answer to a request that was taken.
    pub(super) fn accept(self, signal: Signal, accepted: Accepted) -> Response {
        let rejected = i64::try_from(accepted.rejected).unwrap_or(i64::MAX);
        let error_message = accepted.message.unwrap_or_default();
        let all = rejected == 0 && error_message.is_empty();
        if all && self == Self::Json {
            // What is not there is not written as null.
            return plain(StatusCode::OK, JSON, b"{}".to_vec());
        }
        match signal {
            Signal::Logs => self.ok(&ExportLogsServiceResponse {
                partial_success: (!all).then_some(ExportLogsPartialSuccess {
                    rejected_log_records: rejected,
                    error_message,
                }),
            }),
            Signal::Metrics => self.ok(&ExportMetricsServiceResponse {
                partial_success: (!all).then_some(ExportMetricsPartialSuccess {
                    rejected_data_points: rejected,
                    error_message,
                }),
            }),
        }
    }

    fn ok(self, answer: &(impl Message + Serialize)) -> Response {
        match self {
            Self::Grpc => framed(&answer.encode_to_vec()),
            Self::Protobuf => plain(StatusCode::OK, PROTOBUF, answer.encode_to_vec()),
            // Numbers and texts: there is always a form for them.
            Self::Json => plain(
                StatusCode::OK,
                JSON,
                serde_json::to_vec(answer).unwrap_or_default(),
            ),
        }
    }

    /// The answer to a request that was not.
    pub(super) fn refuse(self, refused: &Refused) -> Response {
        let message = refused.to_string();
        let code = refused.code();
        let after = refused.retry_after();
        let mut response = match self {
            Self::Grpc => {
                let details = match after {
                    Some(after) => ErrorDetails::with_retry_info(Some(after)),
                    None => ErrorDetails::new(),
                };
                return Status::with_error_details(code, message, details).into_http();
            }
            Self::Protobuf => {
                let status = tonic_types::Status {
                    code: code.into(),
                    message,
                    details: Vec::new(),
                };
                plain(refused.status(), PROTOBUF, status.encode_to_vec())
            }
            Self::Json => {
                let text = serde_json::json!({"code": i32::from(code), "message": message});
                plain(refused.status(), JSON, text.to_string().into_bytes())
            }
        };
        if let Some(after) = after {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

/// JSON to the protobuf that everything else reads. What is built on the way is many times the body.
pub(super) fn from_json(signal: Signal, body: &[u8]) -> Result<Bytes, Refused> {
    fn convert<T: Message + DeserializeOwned>(body: &[u8]) -> Result<Bytes, Refused> {
        let message: T = serde_json::from_slice(body).map_err(|e| {
            // It may quote the sender.
            let text: String = e.to_string().chars().take(200).collect();
            Refused::Json(text.escape_debug().to_string())
        })?;
        Ok(message.encode_to_vec().into())
    }
    match signal {
        Signal::Logs => convert::<ExportLogsServiceRequest>(body),
        Signal::Metrics => convert::<ExportMetricsServiceRequest>(body),
    }
}

/// The one message of a gRPC body, and whether it is compressed.
fn unframe(body: &Bytes) -> Result<(Bytes, bool), Refused> {
    let head: [u8; FRAME] = *body
        .first_chunk()
        .ok_or(Refused::Frame("it has no beginning"))?;
    let [flag, a, b, c, d] = head;
    let compressed = match flag {
        0 => false,
        1 => true,
        _ => return Err(Refused::Frame("its flags are not known")),
    };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if body.len() - FRAME != len {
        return Err(Refused::Frame("its length is another"));
    }
    Ok((body.slice(FRAME..), compressed))
}

fn gunzip(bytes: &[u8], limit: usize) -> Result<Bytes, Refused> {
    let mut out = Vec::new();
    let mut decoder = MultiGzDecoder::new(bytes).take(limit as u64 + 1);
    decoder
        .read_to_end(&mut out)
        .map_err(|e| Refused::Gzip(e.to_string()))?;
    if out.len() > limit {
        return Err(Refused::TooLarge(limit));
    }
    Ok(out.into())
}

fn framed(message: &[u8]) -> Response {
    let mut body = Vec::with_capacity(FRAME + message.len());
    body.push(0);
    // An answer is some hundred bytes.
    body.extend((message.len() as u32).to_be_bytes());
    body.extend_from_slice(message);
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let body = Full::new(Bytes::from(body)).with_trailers(trailers);
    let mut response = Response::new(Body::new(body));
    let kind = HeaderValue::from_static(GRPC);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// An answer over HTTP.
pub(super) fn plain(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
