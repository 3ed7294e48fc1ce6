//! The name of a request of the loader, so that one that comes twice is kept once.

use std::{fmt, str::FromStr};

/// Metadata of gRPC that carries it.
pub const HEADER: &str = "clawker-batch";
/// Longest sender, bytes.
pub const SENDER_MOST: usize = 64;

/// Names a request of the loader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// One run of one loader: 1 to [`SENDER_MOST`] letters, digits, `-` and `_`.
    pub sender: String,
    /// Grows by one a request, from 1. A request that is sent again keeps it.
    pub number: u64,
}

/// A text that names no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{HEADER} must be SENDER/NUMBER: at most {SENDER_MOST} letters, digits, '-' and '_', then a number from 1"
)]
pub struct BatchIdError;

fn is_sender(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=SENDER_MOST).contains(&text.len()) && text.bytes().all(allowed)
}

impl BatchId {
    /// The first request of a sender.
    pub fn first(sender: &str) -> Result<Self, BatchIdError> {
        if is_sender(sender) {
            Ok(Self {
                sender: sender.to_owned(),
                number: 1,
            })
        } else {
            Err(BatchIdError)
        }
    }

    /// The request after this one.
    #[must_use]
    pub fn next(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            // Nobody sends so many.
            number: self.number.saturating_add(1),
        }
    }
}

impl FromStr for BatchId {
    type Err = BatchIdError;

    fn from_str(text: &str) -> Result<Self, BatchIdError> {
        let (sender, number) = text.split_once('/').ok_or(BatchIdError)?;
        // `parse` would take a sign and zeros in front: one request would have several names.
        let canonical = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        match number.parse() {
            Ok(number) if canonical && is_sender(sender) => Ok(Self {
                sender: sender.to_owned(),
                number,
            }),
            _ => Err(BatchIdError),
        }
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sender, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_read_as_it_is_written(sender in "[A-Za-z0-9_-]{1,64}", number in 1u64..) {
            let id = BatchId { sender, number };
            prop_assert_eq!(id.to_string().parse::<BatchId>(), Ok(id));
        }

        #[test]
        fn what_is_read_has_one_spelling(text in "[a/0-9+-]{0,8}") {
            if let Ok(id) = text.parse::<BatchId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn what_names_no_request_is_refused() {
        let long = format!("{}/1", "a".repeat(SENDER_MOST + 1));
        for text in [
            "",
            "/",
            "a",
            "a/",
            "/1",
            "a/0",
            "a/01",
            "a/+1",
            "a/-1",
            "a/1/2",
            "a b/1",
            "ä/1",
            "a/18446744073709551616",
            &long,
        ] {
            assert_eq!(text.parse::<BatchId>(), Err(BatchIdError), "{text}");
        }
    }

    #[test]
    fn requests_are_counted_from_one() {
        let first = BatchId::first("a").unwrap();
        assert_eq!(first.to_string(), "a/1");
        assert_eq!(first.next().to_string(), "a/2");
        assert_eq!(BatchId::first("a/b"), Err(BatchIdError));
    }
}
