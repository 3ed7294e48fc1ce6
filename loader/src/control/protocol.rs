//! What is said over the socket: one JSON object a line, both ways. Pure.

use crate::record::Record;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// Longest request, in bytes, without the end of its line.
pub const MAX_REQUEST: usize = 4096;

/// What a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who the instance is.
    Status,
    /// Flows from now on.
    Watch(Watch),
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
    #[error("a request asks for one thing: watch or status")]
    NotOne,
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
}

impl Request {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let asked: Asked =
            serde_json::from_slice(line).map_err(|e| RequestError::Json(e.to_string()))?;
        match (asked.v, asked.watch, asked.status) {
            (VERSION, Some(watch), None) => Ok(Self::Watch(watch)),
            (VERSION, None, Some(_)) => Ok(Self::Status),
            (VERSION, ..) => Err(RequestError::NotOne),
            (v, ..) => Err(RequestError::Version(v)),
        }
    }

    /// As a line, with its end.
    #[must_use]
    pub fn line(&self) -> String {
        let asked = match self {
            Self::Status => serde_json::json!({ "v": VERSION, "status": {} }),
            Self::Watch(watch) => serde_json::json!({ "v": VERSION, "watch": watch }),
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

/// The last line of an instance.
pub(super) const END: &str = "{\"end\":{}}\n";

/// The line of a refusal.
pub(super) fn error(why: &str) -> String {
    let text = serde_json::json!({ "v": VERSION, "error": why });
    format!("{text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::line::tests::record;
    use proptest::prelude::*;

    #[test]
    fn requests_ask_for_one_thing_in_one_version() {
        let parse = |line: &str| Request::parse(line.as_bytes());
        assert_eq!(parse(r#"{"v":1,"status":{}}"#), Ok(Request::Status));
        let all = Request::Watch(Watch { live: true });
        assert_eq!(parse(r#"{"v":1,"watch":{}}"#), Ok(all));
        let ended = Request::Watch(Watch { live: false });
        assert_eq!(parse(r#"{"watch":{"live":false},"v":1}"#), Ok(ended));
        for request in [Request::Status, all, ended] {
            assert_eq!(parse(request.line().trim_end()), Ok(request));
        }
        assert_eq!(
            parse(r#"{"v":2,"watch":{}}"#),
            Err(RequestError::Version(2))
        );
        assert_eq!(parse(r#"{"v":1}"#), Err(RequestError::NotOne));
        let both = parse(r#"{"v":1,"watch":{},"status":{}}"#);
        assert_eq!(both, Err(RequestError::NotOne));
        for wrong in [
            "",
            "{",
            "1",
            "[]",
            r#"{"watch":{}}"#,
            r#"{"v":1,"watch":{"fast":1}}"#,
            r#"{"v":1,"watch":1}"#,
            r#"{"v":-1,"watch":{}}"#,
            r#"{"v":1,"kill":{}}"#,
        ] {
            assert!(
                matches!(parse(wrong), Err(RequestError::Json(_))),
                "{wrong}"
            );
        }
        assert!(Request::parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn what_is_said_is_understood() {
        let r = record();
        let line = ended(&r).unwrap();
        let Ok(Message::Ended(json)) = Message::parse(line.trim_end()) else {
            panic!("{line}")
        };
        assert_eq!(serde_json::from_str::<Record>(json).unwrap(), r);
        let spaced = format!(" {{ \"ended\" : {json} }} ");
        assert!(matches!(Message::parse(&spaced), Ok(Message::Ended(j)) if j == json));
        assert!(matches!(
            Message::parse(lost(7).trim_end()),
            Ok(Message::Lost(7))
        ));
        assert!(matches!(Message::parse(END.trim_end()), Ok(Message::End)));
        assert!(
            matches!(Message::parse(error("a \"b\"").trim_end()), Ok(Message::Error(e)) if e == "a \"b\"")
        );
        assert!(matches!(
            Message::parse(r#"{"v":1,"weather":{}}"#),
            Ok(Message::Unknown)
        ));
        assert!(Message::parse("nonsense").is_err());
    }

    #[test]
    fn a_snapshot_has_what_fits_and_says_how_many_there_are() {
        let flows = |n| std::iter::repeat_with(record).take(n);
        for n in [0, 1, 3] {
            let line = live(n, flows(n), 1 << 20);
            let Ok(Message::Live(l)) = Message::parse(line.trim_end()) else {
                panic!("{line}")
            };
            assert_eq!((l.total, l.flows.len()), (n as u64, n));
        }
        let line = live(9000, flows(9000), 10_000);
        assert!(line.len() < 10_100);
        let Ok(Message::Live(l)) = Message::parse(line.trim_end()) else {
            panic!("{line}")
        };
        assert_eq!(l.total, 9000);
        assert!((5..100).contains(&l.flows.len()), "{}", l.flows.len());
    }

    #[test]
    fn the_documentation_is_right() {
        let page = include_str!("../../../docs/control.md");
        let lines = |kind: &str| {
            let block = page.split(&format!("```{kind}\n")).nth(1).unwrap();
            block
                .split("```")
                .next()
                .unwrap()
                .lines()
                .collect::<Vec<_>>()
        };
        assert_eq!(lines("request").len(), 3);
        for line in lines("request") {
            assert!(Request::parse(line.as_bytes()).is_ok(), "{line}");
        }
        for line in lines("said") {
            assert!(
                matches!(Message::parse(line), Ok(Message::Status(_))),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".*") {
            let _ = Request::parse(&bytes);
            let _ = Request::parse(text.as_bytes());
            let _ = Message::parse(&text);
        }
    }
}
