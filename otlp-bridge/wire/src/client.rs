//! Sending one request and learning what became of it. There is no second try here: who holds the records
//! decides about that.

mod connect;
mod grpc;
mod http;

use crate::{
    batch::Payload,
    batch_id::{BatchId, HEADER},
    endpoint::{Endpoint, Protocol},
    outcome::{Failure, Outcome},
};
use ::http::{HeaderMap, HeaderValue};
pub(crate) use connect::{Address, Connector, Tls};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::{task::JoinSet, time::timeout};

/// How a program of this house introduces itself.
const USER_AGENT: &str = concat!("clawker-wire/", env!("CARGO_PKG_VERSION"));

/// A client of one receiver. It connects when there is something to send, and again when the connection
/// is gone. Copies share the connection.
#[derive(Clone)]
pub struct Client {
    endpoint: Arc<Endpoint>,
    way: Arc<Mutex<Way>>,
}

#[derive(Clone)]
enum Way {
    Grpc(grpc::Way),
    Http(Box<http::Way>),
}

/// The headers of a request, with its name if it has one.
fn named(mut headers: HeaderMap, batch: Option<BatchId>) -> HeaderMap {
    // Whoever names a request wrongly is told so by the receiver.
    if let Some(name) = batch.and_then(|batch| HeaderValue::try_from(batch.to_string()).ok()) {
        headers.insert(HEADER, name);
    }
    headers
}

impl Way {
    fn new(endpoint: &Endpoint) -> Self {
        match &endpoint.protocol {
            Protocol::Grpc => Self::Grpc(grpc::Way::new(endpoint)),
            Protocol::Http(path) => Self::Http(Box::new(http::Way::new(endpoint, path))),
        }
    }

    async fn send(self, payload: Payload, batch: Option<BatchId>) -> Outcome {
        match self {
            Self::Grpc(way) => way.send(payload, batch).await,
            Self::Http(way) => way.send(payload, batch).await,
        }
    }
}

impl Client {
    /// A client that is not connected yet. Must be made inside a tokio runtime.
    #[must_use]
    pub fn new(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint.clone()),
            way: Arc::new(Mutex::new(Way::new(endpoint))),
        }
    }

    /// Sends a request, once. Dropping the future gives the request up.
    pub async fn send(&self, payload: &Payload) -> Outcome {
        self.send_as(payload, None).await
    }

    /// Sends a request under a name. A receiver that has taken one of this name does not take it again.
    pub async fn send_batch(&self, payload: &Payload, batch: &BatchId) -> Outcome {
        self.send_as(payload, Some(batch.clone())).await
    }

    async fn send_as(&self, payload: &Payload, batch: Option<BatchId>) -> Outcome {
        let way = self.with_way(|way| way.clone());
        // In a task of its own: what a library makes of a malicious answer must not take its caller down.
        let mut call = JoinSet::new();
        call.spawn(way.send(payload.clone(), batch));
        let retry = |failure| Outcome::Retry {
            after: None,
            failure,
        };
        let limit = self.endpoint.timeout;
        match timeout(limit, call.join_next()).await {
            Err(_) => {
                // A connection that somebody on the way has forgotten would be silent for a long time.
                self.with_way(|way| *way = Way::new(&self.endpoint));
                retry(Failure::Timeout(limit))
            }
            Ok(Some(Ok(outcome))) => outcome,
            Ok(Some(Err(_)) | None) => {
                retry(Failure::Foreign("it cannot be taken apart".to_owned()))
            }
        }
    }

    fn with_way<T>(&self, f: impl FnOnce(&mut Way) -> T) -> T {
        // Copying and replacing leave nothing half-way.
        f(&mut self.way.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
