//! What is said over the socket: one JSON object a line, both ways. Pure.

use crate::{
    bypass::{Done, Lift, Lifted, Order, Restore},
    record::Record,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// Longest request, in bytes, without the end of its line.
pub const MAX_REQUEST: usize = 4096;

/// What a client may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who the instance is.
    Status,
    /// Flows from now on.
    Watch(Watch),
    /// Enforcement is to be lifted, or put back.
    Order(Order),
}

/// How to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// Live flows once a second, besides the ended ones.
    pub live: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self { live: true }
    }
}

/// Why a request is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not this JSON.
    #[error(
        "a request is one line such as {{\"v\":{VERSION},\"watch\":{{}}}} or {{\"v\":{VERSION},\"status\":{{}}}}: {0}"
    )]
    Json(String),
    /// Another version.
    #[error("version {0} of the protocol is not spoken here, {VERSION} is")]
    Version(u32),
    /// Nothing, or two things at once.
    #[error("a request asks for one thing: status, watch, bypass or enforce")]
    NotOne,
    /// An order without bounds.
    #[error("{0}")]
    Order(String),
    /// The loop that carries orders out does not come round.
    #[error("the loader is too busy to do it; nothing was done")]
    Busy,
    /// Nor does its answer.
    #[error("the loader has not said in time whether it was done")]
    Unanswered,
    /// A line without an end.
    #[error("a request has at most {MAX_REQUEST} bytes")]
    TooLong,
    /// One connection asked for too much.
    #[error("enough was asked for on this connection")]
    TooMany,
    /// The client went on talking.
    #[error("nothing can be asked for while watching")]
    Watching,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    v: u32,
    watch: Option<Watch>,
    status: Option<Empty>,
    bypass: Option<Lift>,
    enforce: Option<Restore>,
}

impl Request {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let asked: Asked =
            serde_json::from_slice(line).map_err(|e| RequestError::Json(e.to_string()))?;
        if asked.v != VERSION {
            return Err(RequestError::Version(asked.v));
        }
        match (asked.watch, asked.status, asked.bypass, asked.enforce) {
            (Some(watch), None, None, None) => Ok(Self::Watch(watch)),
            (None, Some(_), None, None) => Ok(Self::Status),
            (None, None, Some(lift), None) => Self::order(Order::Lift(lift)),
            (None, None, None, Some(restore)) => Self::order(Order::Restore(restore)),
            _ => Err(RequestError::NotOne),
        }
    }

    fn order(order: Order) -> Result<Self, RequestError> {
        match order.check() {
            Ok(()) => Ok(Self::Order(order)),
            Err(e) => Err(RequestError::Order(e.to_string())),
        }
    }

    /// As a line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let asked = match self {
            Self::Status => serde_json::json!({ "v": VERSION, "status": {} }),
            Self::Watch(watch) => serde_json::json!({ "v": VERSION, "watch": watch }),
            Self::Order(Order::Lift(lift)) => {
                serde_json::json!({ "v": VERSION, "bypass": lift })
            }
            Self::Order(Order::Restore(restore)) => {
                serde_json::json!({ "v": VERSION, "enforce": restore })
            }
        };
        format!("{asked}\n")
    }
}

/// Who an instance is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub instance: String,
    /// Raw label of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Raw label of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Command line, as far as it is kept.
    pub command: String,
    /// Policy file; empty if there is none.
    pub policy_file: String,
    /// Process id of the loader.
    pub pid: u32,
    /// Since when.
    pub since: Timestamp,
    /// Version of the loader.
    pub version: String,
}

/// Live flows at one moment.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Live {
    /// How many there are.
    pub total: u64,
    /// Those that moved most, if there are too many.
    pub flows: Vec<Record>,
}

/// What the loader says.
#[derive(Debug)]
pub enum Message<'a> {
    /// Who it is; the first thing a watcher hears.
    Status(Status),
    /// A flow ended; the record as it came.
    Ended(&'a str),
    /// What lives.
    Live(Live),
    /// So many records were not sent, because they were not taken fast enough.
    Lost(u64),
    /// The bypasses that run now.
    Bypasses(Vec<Lifted>),
    /// What came of an order.
    Done(Done),
    /// The instance is over.
    End,
    /// A refusal.
    Error(String),
    /// Something that a later version says.
    Unknown,
}

/// A line that is no message.
#[derive(Debug, thiserror::Error)]
#[error("not a message of the protocol: {0}")]
pub struct MessageError(serde_json::Error);

#[derive(Deserialize)]
struct Said<'a> {
    status: Option<Status>,
    #[serde(borrow)]
    ended: Option<&'a RawValue>,
    live: Option<Live>,
    lost: Option<u64>,
    bypasses: Option<Vec<Lifted>>,
    done: Option<Done>,
    end: Option<Empty>,
    error: Option<String>,
}

/// Around the record of an ended flow.
const ENDED: (&str, &str) = ("{\"ended\":", "}");

impl<'a> Message<'a> {
    /// Reads a line, without its end.
    pub fn parse(line: &'a str) -> Result<Self, MessageError> {
        // Nearly every line is of this kind, and what is in it is read by whoever wants it.
        let ended = line.strip_prefix(ENDED.0);
        if let Some(record) = ended.and_then(|l| l.strip_suffix(ENDED.1)) {
            return Ok(Self::Ended(record));
        }
        let said: Said = serde_json::from_str(line).map_err(MessageError)?;
        Ok(match said {
            Said { error: Some(e), .. } => Self::Error(e),
            Said {
                status: Some(s), ..
            } => Self::Status(s),
            Said { ended: Some(r), .. } => Self::Ended(r.get()),
            Said { live: Some(l), .. } => Self::Live(l),
            Said { lost: Some(n), .. } => Self::Lost(n),
            Said {
                bypasses: Some(b), ..
            } => Self::Bypasses(b),
            Said { done: Some(d), .. } => Self::Done(d),
            Said { end: Some(_), .. } => Self::End,
            _ => Self::Unknown,
        })
    }
}

/// The line of an ended flow, with its end. Nothing if the record cannot be written as JSON.
pub(super) fn ended(r: &Record) -> Option<String> {
    let record = serde_json::to_string(r).ok()?;
    Some(format!("{}{record}{}\n", ENDED.0, ENDED.1))
}

/// The line of live flows, as many of them as fit into `room` bytes.
pub(super) fn live(total: usize, flows: impl Iterator<Item = Record>, room: usize) -> String {
    let mut line = format!("{{\"live\":{{\"total\":{total},\"flows\":[");
    let mut first = true;
    for text in flows.filter_map(|r| serde_json::to_string(&r).ok()) {
        if line.len() + text.len() > room {
            break;
        }
        if !first {
            line.push(',');
        }
        first = false;
        line.push_str(&text);
    }
    line.push_str("]}}\n");
    line
}

/// The line that says who this is.
pub(super) fn status(status: &Status) -> String {
    let text = serde_json::json!({ "v": VERSION, "status": status });
    format!("{text}\n")
}

/// The line that tells a watcher what it missed.
pub(super) fn lost(records: u64) -> String {
    format!("{{\"lost\":{records}}}\n")
}

/// The line that tells watchers which bypasses run.
pub(super) fn bypasses(all: &[Lifted]) -> String {
    let text = serde_json::json!({ "bypasses": all });
    format!("{text}\n")
}

/// The line that tells what came of an order.
pub(super) fn done(done: &Done) -> String {
    let text = serde_json::json!({ "v": VERSION, "done": done });
    format!("{text}\n")
}

/// The last line of an instance.
pub(super) const END: &str = "{\"end\":{}}\n";

/// The line of a refusal.
pub(super) fn error(why: &str) -> String {
    let text = serde_json::json!({ "v": VERSION, "error": why });
    format!("{text}\n")
}

#[cfg(test)]
mod tests;
