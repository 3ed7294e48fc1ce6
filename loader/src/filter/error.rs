//! What is wrong with an expression, and where.

use super::{FIELDS, MAX_LENGTH, MAX_TERMS};
use crate::render::line::printable;
use std::{fmt, ops::Range};

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct FilterError {
    /// What is wrong.
    pub problem: Problem,
    /// Where: bytes of the expression.
    pub at: Range<usize>,
    text: String,
}

/// What can be wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Too many bytes.
    #[error("the filter is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// Too many terms.
    #[error("the filter has more than {MAX_TERMS} terms")]
    TooMany,
    /// A term that begins with something else.
    #[error("a term begins with the name of a field")]
    NoField,
    /// A name that no field has.
    #[error("there is no field `{0}`")]
    UnknownField(String),
    /// Nothing that compares behind a field.
    #[error("an operator is missing behind `{0}`: one of = != ~ > < >= <=")]
    NoOperator(String),
    /// A word between terms.
    #[error("terms are joined by AND without a word for it, and there is no OR")]
    Conjunction,
    /// Nothing behind an operator.
    #[error("a value is missing; the empty text is \"\"")]
    NoValue,
    /// A quotation without its end.
    #[error("the closing quote is missing")]
    OpenQuote,
    /// Something that touches a closing quote.
    #[error("a blank is missing behind the closing quote")]
    AfterQuote,
    /// An operator that means nothing for this kind of field.
    #[error("`{operator}` does not compare {what}: use one of {usable}")]
    Operator {
        /// As written.
        operator: &'static str,
        /// What the field holds.
        what: &'static str,
        /// Operators that would do.
        usable: &'static str,
    },
    /// A value that the field cannot have.
    #[error("`{value}` is not {wanted}")]
    Value {
        /// As written, as far as it is of use.
        value: String,
        /// What would do.
        wanted: String,
    },
}

/// How much of a long expression is shown on either side of a mistake.
const CONTEXT: usize = 40;

impl FilterError {
    pub(super) fn new(problem: Problem, text: &str, at: Range<usize>) -> Self {
        Self {
            problem,
            at,
            text: text.to_owned(),
        }
    }

    /// Column of the mistake's first character, counted from 0.
    #[must_use]
    pub fn column(&self) -> usize {
        self.text[..self.at.start].chars().count()
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, rest) = self.text.split_at(self.at.start);
        let (wrong, after) = rest.split_at(self.at.len());
        let skip = before.chars().count().saturating_sub(CONTEXT);
        let before: String = printable(&before.chars().skip(skip).collect::<String>());
        let head = |s: &str| printable(&s.chars().take(CONTEXT).collect::<String>());
        let (wrong, after) = (head(wrong), head(after));
        let blank = " ".repeat(before.chars().count());
        let mark = "^".repeat(wrong.chars().count().max(1));
        let fields: Vec<_> = FIELDS.iter().map(|f| f.name).collect();
        write!(
            f,
            "{}\n  {before}{wrong}{after}\n  {blank}{mark}\nfields: {}",
            self.problem,
            fields.join(" ")
        )
    }
}
