//! OTLP over HTTP/1.1: protobuf, gzip.

use super::{Connector, USER_AGENT, named};
use crate::{
    batch::Payload,
    batch_id::BatchId,
    endpoint::Endpoint,
    outcome::{Failure, Outcome, chain, of_http},
};
use ::http::{
    HeaderMap, HeaderValue, Request, Uri,
    header::{CONTENT_ENCODING, CONTENT_TYPE, USER_AGENT as AGENT},
    uri::PathAndQuery,
};
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use jiff::Timestamp;
use prost::bytes::Bytes;
use std::io::{self, Write as _};

/// No answer of OTLP is longer: one that names every record of a request that it refuses.
const ANSWER_MOST: usize = 256 << 10;

/// A client and what every request has in common.
#[derive(Clone)]
pub(super) struct Way {
    client: legacy::Client<Connector, Full<Bytes>>,
    uri: Uri,
    pub(super) headers: HeaderMap,
}

impl Way {
    pub(super) fn new(endpoint: &Endpoint, path: &PathAndQuery) -> Self {
        let mut parts = endpoint.origin.clone().into_parts();
        parts.path_and_query = Some(path.clone());
        let mut headers = endpoint.headers.clone();
        for (name, value) in [
            (CONTENT_TYPE, "application/x-protobuf"),
            (CONTENT_ENCODING, "gzip"),
            (AGENT, USER_AGENT),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Self {
            client: legacy::Client::builder(TokioExecutor::new()).build(endpoint.connector.clone()),
            // Its three parts come from one that was whole.
            uri: Uri::from_parts(parts).unwrap_or_default(),
            headers,
        }
    }

    pub(super) async fn send(self, payload: Payload, batch: Option<BatchId>) -> Outcome {
        let retry = |failure| Outcome::Retry {
            after: None,
            failure,
        };
        let body = match gzip(&payload.bytes) {
            Ok(body) => body,
            Err(e) => return retry(Failure::Broken(e.to_string())),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = ::http::Method::POST;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = named(self.headers, batch);
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(e) if e.is_connect() => return retry(Failure::Connect(chain(&e))),
            Err(e) => return retry(Failure::Broken(chain(&e))),
        };
        let (head, body) = response.into_parts();
        match Limited::new(body, ANSWER_MOST).collect().await {
            Ok(body) => of_http(
                head.status,
                &head.headers,
                &body.to_bytes(),
                payload.records,
                Timestamp::now(),
            ),
            Err(e) => retry(Failure::Broken(chain(e.as_ref()))),
        }
    }
}

fn gzip(bytes: &[u8]) -> io::Result<Bytes> {
    // Records resemble each other so much that trying harder gains little.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}
