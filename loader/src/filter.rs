//! The filter language of `watch` and `dump --flows`: which flows to show. Pure: text and records in,
//! yes or no out. A term compares one field with one value; every term must hold.
//!
//! ```
//! use ebpf_manager::filter::Filter;
//! let filter: Filter = r#"verdict=DENIED dst~github port=22 bytes>1M rule="github api""#.parse()?;
//! assert!(!filter.is_empty());
//! # Ok::<(), ebpf_manager::filter::FilterError>(())
//! ```

mod error;
mod fields;
mod parse;
mod values;

pub use error::{FilterError, Problem};
pub use fields::{FIELDS, Field};

use crate::record::Record;
use fields::Get;
use ipnet::IpNet;
use jiff::Timestamp;
use std::str::FromStr;

/// Longest expression, in bytes.
pub const MAX_LENGTH: usize = 4096;
/// Most terms of an expression.
pub const MAX_TERMS: usize = 64;

/// A whole expression. The empty one holds for every flow.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    text: String,
    terms: Vec<Term>,
}

/// One comparison.
#[derive(Clone, Debug)]
struct Term {
    negated: bool,
    get: Get,
    test: Test,
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Above,
    Below,
    AtLeast,
    AtMost,
}

/// What is asked of a field's value. Texts are in lower case.
#[derive(Clone, Debug, PartialEq)]
enum Test {
    Is(String),
    Contains(String),
    Number(Order, u64),
    Within(IpNet),
    Time(Order, Timestamp),
    True(bool),
}

impl Filter {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parse::parse(text)
    }

    /// Whether every term holds for a flow.
    #[must_use]
    pub fn matches(&self, r: &Record) -> bool {
        self.terms
            .iter()
            .all(|t| t.get.holds(r, &t.test) != t.negated)
    }

    /// Whether it holds for every flow.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Self::parse(text)
    }
}

impl Order {
    fn holds<T: Ord>(self, a: &T, b: &T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::Above => a > b,
            Self::Below => a < b,
            Self::AtLeast => a >= b,
            Self::AtMost => a <= b,
        }
    }
}

#[cfg(test)]
mod tests;
