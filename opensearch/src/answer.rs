//! What the answers of OpenSearch and Dashboards mean, and what to do about the bad ones.

use opensearch::http::transport::BuildError;
use serde_json::Value;
use std::{error::Error, fmt::Write as _};
use thiserror::Error;

/// Why a call came to nothing.
#[derive(Debug, Error)]
pub enum CallError {
    /// The address is none.
    #[error("`{url}` is not an address like https://opensearch:9200")]
    Address {
        /// As it was given.
        url: String,
    },
    /// The client cannot be made.
    #[error("no client for {url}: {source}")]
    Client {
        /// For whom.
        url: String,
        /// Why.
        source: BuildError,
    },
    /// There is no answer.
    #[error("{method} {url}{path}: {why}")]
    NoAnswer {
        /// What was asked.
        method: &'static str,
        /// Whom.
        url: String,
        /// For what.
        path: String,
        /// Why, down to the cause.
        why: String,
        /// Whether it may be otherwise in a moment.
        passing: bool,
    },
    /// The answer is a refusal.
    #[error("{method} {path}: {status}: {why}")]
    Refused {
        /// What was asked.
        method: &'static str,
        /// For what.
        path: String,
        /// HTTP status.
        status: u16,
        /// What the server says.
        why: String,
    },
    /// The answer is not what it should be.
    #[error("{method} {path}: the answer has {what}: {answer}")]
    Answer {
        /// What was asked.
        method: &'static str,
        /// For what.
        path: String,
        /// What is wrong with it.
        what: &'static str,
        /// It, shortened.
        answer: String,
    },
}

impl CallError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Address { .. } | Self::Client { .. } => "correct the address",
            Self::NoAnswer { why, .. } if is_certificate(why) => {
                "give the authority that signed the server's certificate with --ca, and use the name that is in the certificate"
            }
            Self::NoAnswer { .. } => "see whether the server runs and can be reached from here",
            Self::Refused { status: 401, .. } => {
                "the user or the password is wrong: set OPENSEARCH_INITIAL_ADMIN_PASSWORD to that of --user"
            }
            Self::Refused { status: 403, .. } => "this user may not do that: use an administrator",
            Self::Refused { status: 503, .. } => {
                "the server is not ready: try again later, and read its log"
            }
            Self::Refused { .. } | Self::Answer { .. } => {
                "the server does not take what this version sends: use the versions that compose.yaml names together"
            }
        }
    }

    /// Whether the server has no such thing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the server does not know the API at all: a plugin is not there.
    #[must_use]
    pub fn is_unknown_api(&self) -> bool {
        matches!(self, Self::Refused { why, .. } if why.contains("no handler found"))
    }

    /// Whether it is worth to wait and ask again.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::NoAnswer { passing, .. } => *passing,
            Self::Refused { status, .. } => matches!(status, 429 | 502 | 503 | 504),
            _ => false,
        }
    }
}

pub(crate) fn is_certificate(why: &str) -> bool {
    why.contains("certificate")
}

/// An answer that is not what it should be.
pub(crate) fn unexpected(
    method: &'static str,
    path: &str,
    what: &'static str,
    answer: &Value,
) -> CallError {
    CallError::Answer {
        method,
        path: path.to_owned(),
        what,
        answer: shorten(&answer.to_string()),
    }
}

/// What a server gives as its reason.
pub(crate) fn reason(text: &str) -> String {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let error = &answer["error"];
    let causes = [
        &error["caused_by"]["reason"],
        &error["reason"],
        &error["details"],
        &answer["message"],
        error,
    ];
    let said = causes.into_iter().find_map(Value::as_str);
    shorten(said.unwrap_or(text).trim())
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 400;
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(LONGEST)])
}

/// An error with everything under it; a cause that its parent has said already is left out.
pub(crate) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let said = cause.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        below = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_servers_own() {
        let nested = r#"{"error":{"type":"a","reason":"outer","caused_by":{"reason":"inner"}},"status":400}"#;
        assert_eq!(reason(nested), "inner");
        assert_eq!(
            reason(r#"{"error":"no handler found for uri [/_plugins]"}"#),
            "no handler found for uri [/_plugins]"
        );
        assert_eq!(
            reason(r#"{"statusCode":409,"message":"conflict"}"#),
            "conflict"
        );
        assert_eq!(reason(" Unauthorized "), "Unauthorized");
        assert!(reason(&"é".repeat(1000)).len() < 500);
    }

    #[test]
    fn only_what_may_pass_is_waited_for() {
        let refused = |status| CallError::Refused {
            method: "GET",
            path: String::new(),
            status,
            why: String::new(),
        };
        assert!(
            refused(503).is_passing() && !refused(401).is_passing() && !refused(400).is_passing()
        );
        assert!(refused(404).is_absent() && !refused(403).is_absent());
    }
}
