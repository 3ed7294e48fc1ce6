//! Why a request is not taken, as gRPC and HTTP say it.

use crate::stamp::Malformed;
use http::StatusCode;
use std::time::Duration;
use tonic::Code;
use wire::BatchIdError;

/// What a sender is told to wait when it does not matter how long.
const LATER: Duration = Duration::from_secs(2);

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the body is no OTLP in JSON: {0}")]
    Json(String),
    #[error("the body is not one gRPC message: {0}")]
    Frame(&'static str),
    #[error("the body is not what its encoding says: {0}")]
    Gzip(String),
    #[error("content type {0:?} is not taken: send application/x-protobuf or application/json")]
    ContentType(String),
    #[error("encoding {0:?} is not taken: send gzip, or none")]
    Encoding(String),
    #[error("the request is larger than {0} bytes: send fewer records at a time")]
    TooLarge(usize),
    #[error("the request did not arrive whole: {0}")]
    Broken(String),
    #[error("the request did not arrive within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("a request of the loader needs a name: {0}")]
    Batch(#[from] BatchIdError),
    #[error("there is too much to do: send it again")]
    Busy,
    #[error("the records cannot be kept: {0}")]
    Keep(String),
    #[error(
        "there is nobody to pass metrics on to: the bridge was started without a place for them"
    )]
    NoMetrics,
    #[error("the metrics could not be passed on: {why}")]
    NotPassedOn {
        why: String,
        after: Option<Duration>,
    },
    #[error("the metrics are not taken: {0}")]
    NotTaken(String),
}

impl Refused {
    pub(super) fn code(&self) -> Code {
        match self {
            Self::Malformed(_)
            | Self::Json(_)
            | Self::Frame(_)
            | Self::Gzip(_)
            | Self::Batch(_)
            | Self::NotTaken(_) => Code::InvalidArgument,
            Self::ContentType(_) | Self::Encoding(_) | Self::NoMetrics => Code::Unimplemented,
            Self::TooLarge(_) => Code::ResourceExhausted,
            Self::Broken(_) => Code::Cancelled,
            Self::Slow(_) => Code::DeadlineExceeded,
            Self::Busy | Self::Keep(_) | Self::NotPassedOn { .. } => Code::Unavailable,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::ContentType(_) | Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoMetrics => StatusCode::NOT_IMPLEMENTED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            // OTLP senders give up at 408.
            Self::Slow(_) | Self::Busy | Self::Keep(_) | Self::NotPassedOn { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// When the sender should try again; nothing if it should not.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Slow(_) | Self::Busy | Self::Keep(_) => Some(LATER),
            Self::NotPassedOn { after, .. } => Some(after.unwrap_or(LATER)),
            _ => None,
        }
    }

    /// Whether the same request may be taken later.
    pub(super) fn is_put_off(&self) -> bool {
        self.retry_after().is_some() || matches!(self, Self::Broken(_))
    }
}
