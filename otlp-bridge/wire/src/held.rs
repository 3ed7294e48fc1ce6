//! What the bridge has on record of a boot: the answer to `GET /v1/held?boot=ID`, and how to ask. With it
//! the loader tells, after a restart, which flows were lost on the way.

use crate::{
    client::Connector,
    endpoint::Endpoint,
    flow_id::is_boot,
    outcome::{chain, clean},
};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{client::legacy, rt::TokioExecutor};
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// Path that is asked.
pub const PATH: &str = "/v1/held";
/// Largest answer that is read, bytes: some half a million slots.
const ANSWER_MOST: usize = 64 << 20;

/// Flows on record, of one slot and verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Slot of the kernel's maps.
    pub slot: u32,
    /// ALLOWED, DENIED or BYPASSED.
    pub verdict: String,
    /// Flows in records that were ever kept, those delivered since included.
    pub flows: u64,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// One entry a slot and verdict; what has none has no flows on record.
    pub held: Vec<Held>,
}

/// Why there is no answer. None of them says that nothing is held: ask again.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The question cannot be asked.
    #[error("{0:?} is no boot id: 32 hexadecimal digits without dashes are")]
    Boot(String),
    /// The bridge cannot be reached, or the connection broke.
    #[error("cannot ask {url} what it holds: {why}")]
    Connection {
        /// Whom.
        url: String,
        /// What stood in the way.
        why: String,
    },
    /// It takes too long.
    #[error("{url} did not say within {} s what it holds", limit.as_secs_f64())]
    Timeout {
        /// Whom.
        url: String,
        /// How long it had.
        limit: Duration,
    },
    /// It says that it cannot tell.
    #[error("{url} cannot say what it holds: it answered {status}: {message}")]
    Status {
        /// Whom.
        url: String,
        /// Status of HTTP.
        status: u16,
        /// What it says, made printable and cut.
        message: String,
    },
    /// Something else answers there.
    #[error("{url} is no bridge of this release: {why}")]
    Foreign {
        /// Whom.
        url: String,
        /// What is wrong with its answer.
        why: String,
    },
}

/// Asks a bridge what it has on record of a boot. `endpoint`: where records go to; its time-out holds.
pub async fn ask(endpoint: &Endpoint, boot: &str) -> Result<Vec<Held>, HeldError> {
    if !is_boot(boot) {
        return Err(HeldError::Boot(clean(boot)));
    }
    let limit = endpoint.timeout;
    let late = |_| HeldError::Timeout {
        url: endpoint.url.clone(),
        limit,
    };
    timeout(limit, exchange(endpoint, boot))
        .await
        .map_err(late)?
}

async fn exchange(endpoint: &Endpoint, boot: &str) -> Result<Vec<Held>, HeldError> {
    let url = || endpoint.url.clone();
    let foreign = |why| HeldError::Foreign { url: url(), why };
    let broken = |why| HeldError::Connection { url: url(), why };
    let client: legacy::Client<Connector, Empty<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build(endpoint.connector.clone());
    let mut parts = endpoint.origin.clone().into_parts();
    parts.path_and_query = format!("{PATH}?boot={boot}").parse().ok();
    let mut request = Request::new(Empty::new());
    // Its three parts come from one that was whole.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.headers_mut() = endpoint.headers.clone();
    let response = client
        .request(request)
        .await
        .map_err(|e| broken(chain(&e)))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MOST)
        .collect()
        .await;
    let body = body.map_err(|e| broken(chain(e.as_ref())))?.to_bytes();
    if status != StatusCode::OK {
        return Err(HeldError::Status {
            url: url(),
            status: status.as_u16(),
            message: clean(&String::from_utf8_lossy(&body)),
        });
    }
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|e| foreign(clean(&e.to_string())))?;
    Ok(answer.held)
}
