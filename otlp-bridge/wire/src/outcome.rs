//! What became of a request. Classified by what the protocol says (codes, headers, details), never by the
//! wording of a message.

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;
use std::{error::Error, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// No receiver is obeyed that asks for a longer wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Characters of a receiver's message that are shown.
const MESSAGE_MOST: usize = 200;
/// Characters of a receiver's message that are kept, for who looks for names of records in it.
const ANSWER_MOST: usize = 128 << 10;

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The receiver has taken every record.
    Delivered,
    /// The receiver has taken the request and thrown away some of its records; it does not say which.
    Partial {
        /// How many, at most as many as there were.
        rejected: u64,
        /// What it says about that.
        message: String,
    },
    /// Not delivered, or not known to be; the same request may succeed later.
    Retry {
        /// How long the receiver asks to be left alone.
        after: Option<Duration>,
        /// What happened.
        failure: Failure,
    },
    /// The receiver will not take this request, however often it comes.
    Refused(Failure),
}

/// What stood in the way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There was no connection: the receiver has seen nothing.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No answer in time: the receiver may have taken the records.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The connection broke before the answer: the receiver may have taken the records.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The answer is none of OTLP: something else listens there.
    #[error("the answer is not OTLP: {0}")]
    Foreign(String),
    /// The receiver answered with an error.
    #[error("the receiver answered {code}{}{}", if message.is_empty() { "" } else { ": " }, clean(message))]
    Status {
        /// Its code: of gRPC by name, of HTTP by number.
        code: String,
        /// What it says, made printable. It may be long; what is shown of it is not.
        message: String,
    },
}

impl Failure {
    /// Whether the receiver may have taken the records all the same, so that sending them again could
    /// make duplicates (with equal ids).
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        !matches!(self, Self::Connect(_))
    }
}

/// A text from the network, fit for a terminal and for one line.
pub(crate) fn clean(text: &str) -> String {
    printable(text, MESSAGE_MOST)
}

/// The first `most` characters of a text, without what steers terminals.
fn printable(text: &str, most: usize) -> String {
    let text = text.trim();
    let mut out: String = text
        .chars()
        .take(most)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// An error with everything that led to it, each said once.
pub(crate) fn chain(e: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(e);
    while let Some(e) = next {
        let text = clean(&e.to_string());
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
        next = e.source();
    }
    parts.join(": ")
}

/// The receiver's answer to a request of `sent` records.
pub(crate) fn accepted(response: ExportLogsServiceResponse, sent: u64) -> Outcome {
    match response.partial_success {
        Some(p) if p.rejected_log_records > 0 => Outcome::Partial {
            rejected: p.rejected_log_records.unsigned_abs().min(sent),
            message: clean(&p.error_message),
        },
        _ => Outcome::Delivered,
    }
}

/// A gRPC call that failed. A status with a source was made on our side; one without is the receiver's.
pub(crate) fn of_status(status: &Status) -> Outcome {
    if let Some(source) = status.source() {
        return Outcome::Retry {
            after: None,
            failure: local(source),
        };
    }
    let asked = status
        .get_details_retry_info()
        .map(|info| info.retry_delay.unwrap_or_default());
    let failure = Failure::Status {
        code: format!("{:?}", status.code()),
        message: printable(status.message(), ANSWER_MOST),
    };
    if retryable(status.code(), asked.is_some()) {
        Outcome::Retry {
            after: asked.map(|d| d.min(LONGEST_WAIT)),
            failure,
        }
    } else {
        Outcome::Refused(failure)
    }
}

fn local(source: &(dyn Error + 'static)) -> Failure {
    let mut next = Some(source);
    while let Some(e) = next {
        if e.is::<tonic::ConnectError>() {
            return Failure::Connect(chain(e));
        }
        next = e.source();
    }
    Failure::Broken(chain(source))
}

/// The OTLP specification's table. `advised`: the answer carries a RetryInfo, without which an exhausted
/// resource does not come back.
fn retryable(code: Code, advised: bool) -> bool {
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => advised,
        _ => false,
    }
}

/// An answer over HTTP to a request of `sent` records. `now`: for dates in Retry-After.
pub(crate) fn of_http(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    sent: u64,
    now: Timestamp,
) -> Outcome {
    if status.is_success() {
        return match ExportLogsServiceResponse::decode(body) {
            Ok(response) => accepted(response, sent),
            // Whoever that is has not said that it took anything.
            Err(e) => Outcome::Retry {
                after: None,
                failure: Failure::Foreign(format!(
                    "status {}, {}",
                    status.as_u16(),
                    clean(&e.to_string())
                )),
            },
        };
    }
    let failure = Failure::Status {
        code: status.as_u16().to_string(),
        message: http_message(body),
    };
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Outcome::Retry {
            after: retry_after(headers, now),
            failure,
        },
        _ => Outcome::Refused(failure),
    }
}

/// OTLP/HTTP puts a `google.rpc.Status` into the body of an error; what is not one is taken as text.
fn http_message(body: &[u8]) -> String {
    match tonic_types::Status::decode(body) {
        Ok(status) if !status.message.is_empty() => printable(&status.message, ANSWER_MOST),
        _ => printable(&String::from_utf8_lossy(body), ANSWER_MOST),
    }
}

/// Seconds, or a date. One that is past means now.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = DateTimeParser::new().parse_timestamp(text).ok()?;
            let wait: SignedDuration = at.duration_since(now);
            Duration::try_from(wait).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests;
