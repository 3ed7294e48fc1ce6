//! Path rules: which expressions are RE2 as well as ours, and which rule decides a request.
//!
//! Envoy matches with RE2, this crate with `regex`. The two agree on what both can parse, so what
//! only one of them understands is refused when the file is read.

use crate::rule::{Action, PathMatch, PathRule, Rule};
use crate::values::is_method;
use regex::Regex;
use regex_syntax::ast::{
    self, AssertionKind, ClassSetItem, Flag, FlagsItemKind, HexLiteralKind, LiteralKind,
    RepetitionKind, RepetitionRange, SpecialLiteralKind, parse::ParserBuilder,
};
use thiserror::Error;

/// RE2 refuses expressions whose nested repetitions multiply to more.
const MAX_REPEAT: u32 = 1000;
/// Levels of groups; a path needs few.
const MAX_NEST: u32 = 50;
/// Bytes of one expression.
const MAX_LEN: usize = 4096;

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PathError {
    /// No parser would take it.
    #[error("{0}")]
    Syntax(String),
    /// RE2 does not have it.
    #[error("{0} is not part of RE2")]
    NotRe2(&'static str),
    /// Repetitions inside repetitions.
    #[error("repeats more than {MAX_REPEAT} times")]
    Repeats,
    /// Longer than is reasonable.
    #[error("is longer than {MAX_LEN} bytes")]
    TooLong,
}

/// Checks the expression behind a `~`.
pub(crate) fn check(pattern: &str) -> Result<(), PathError> {
    if pattern.len() > MAX_LEN {
        return Err(PathError::TooLong);
    }
    let parsed = ParserBuilder::new()
        .nest_limit(MAX_NEST)
        .build()
        .parse(pattern);
    let tree = parsed.map_err(|error| PathError::Syntax(error.kind().to_string()))?;
    ast::visit(&tree, Re2 { repeats: vec![1] })?;
    whole(pattern)
        .map(|_| ())
        .map_err(|error| PathError::Syntax(last_line(&error.to_string())))
}

fn last_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

/// The expression against the whole path.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    Regex::new(&format!(r"\A(?:{pattern})\z"))
}

/// One HTTP request, as the proxy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, in upper case.
    pub method: String,
    /// The path, without query.
    pub path: String,
}

/// Why a text is no part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Not upper-case letters.
    #[error("is not a method")]
    Method,
    /// No slash in front.
    #[error("is not a path")]
    Path,
    /// A query or fragment behind the path.
    #[error("is more than a path")]
    Query,
}

impl RequestError {
    /// What holds instead, for the caret.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Method => "must be upper-case letters, like GET",
            Self::Path => "must start with `/`",
            Self::Query => "the query, from `?` or `#` on, is not looked at",
        }
    }
}

impl Request {
    /// Checks both parts.
    pub fn new(method: &str, path: &str) -> Result<Self, RequestError> {
        if !is_method(method) {
            return Err(RequestError::Method);
        }
        if !path.starts_with('/') {
            return Err(RequestError::Path);
        }
        if path.contains(['?', '#']) {
            return Err(RequestError::Query);
        }
        Ok(Self {
            method: method.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl Rule {
    /// What happens to one request that the rule is about, and the number of the path rule that
    /// decided; `None` is `path_default`.
    #[must_use]
    pub fn judge_request(&self, request: &Request) -> (Action, Option<usize>) {
        if self.path_rules.is_empty() {
            return (self.action, None);
        }
        let decides = self
            .path_rules
            .iter()
            .position(|rule| rule.mismatch(request).is_none());
        match decides {
            Some(number) => (self.path_rules[number].action, Some(number)),
            None => (self.path_default, None),
        }
    }
}

/// Why a path rule is not about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathMismatch {
    /// The path is another.
    Path,
    /// The method is another.
    Method,
}

impl PathRule {
    /// Why the path rule is not about a request; `None`: it is.
    #[must_use]
    pub fn mismatch(&self, request: &Request) -> Option<PathMismatch> {
        let method = |method: &String| *method == request.method;
        if !self.path.matches(&request.path) {
            Some(PathMismatch::Path)
        } else if !self.methods.is_empty() && !self.methods.iter().any(method) {
            Some(PathMismatch::Method)
        } else {
            None
        }
    }
}

impl PathMatch {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Regex(pattern) => whole(pattern).is_ok_and(|regex| regex.is_match(path)),
        }
    }
}

/// Looks for what RE2 lacks.
struct Re2 {
    /// Product of the repetitions around the current place.
    repeats: Vec<u32>,
}

impl ast::Visitor for Re2 {
    type Output = ();
    type Err = PathError;

    fn finish(self) -> Result<(), PathError> {
        Ok(())
    }

    fn visit_pre(&mut self, node: &ast::Ast) -> Result<(), PathError> {
        match node {
            ast::Ast::Flags(set) => flags(&set.flags),
            ast::Ast::Group(group) => group.flags().map_or(Ok(()), flags),
            ast::Ast::Literal(literal) => re2_literal(literal),
            ast::Ast::Assertion(assertion) => re2_assertion(&assertion.kind),
            ast::Ast::Repetition(repetition) => self.enter(&repetition.op.kind),
            _ => Ok(()),
        }
    }

    fn visit_post(&mut self, node: &ast::Ast) -> Result<(), PathError> {
        if matches!(node, ast::Ast::Repetition(_)) {
            self.repeats.pop();
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), PathError> {
        match item {
            ClassSetItem::Literal(literal) => re2_literal(literal),
            ClassSetItem::Range(range) => {
                re2_literal(&range.start)?;
                re2_literal(&range.end)
            }
            ClassSetItem::Bracketed(_) => Err(PathError::NotRe2("a class inside a class")),
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(
        &mut self,
        _: &ast::ClassSetBinaryOp,
    ) -> Result<(), PathError> {
        Err(PathError::NotRe2("an operation on classes"))
    }
}

impl Re2 {
    fn enter(&mut self, kind: &RepetitionKind) -> Result<(), PathError> {
        let times = match kind {
            RepetitionKind::Range(
                RepetitionRange::Exactly(n)
                | RepetitionRange::AtLeast(n)
                | RepetitionRange::Bounded(_, n),
            ) => (*n).max(1),
            _ => 1,
        };
        let around = self.repeats.last().copied().unwrap_or(1);
        let product = around.saturating_mul(times);
        self.repeats.push(product);
        if product > MAX_REPEAT {
            Err(PathError::Repeats)
        } else {
            Ok(())
        }
    }
}

fn flags(flags: &ast::Flags) -> Result<(), PathError> {
    for item in &flags.items {
        match item.kind {
            FlagsItemKind::Flag(Flag::Unicode) => return Err(PathError::NotRe2("the flag `u`")),
            FlagsItemKind::Flag(Flag::CRLF) => return Err(PathError::NotRe2("the flag `R`")),
            FlagsItemKind::Flag(Flag::IgnoreWhitespace) => {
                return Err(PathError::NotRe2("the flag `x`"));
            }
            FlagsItemKind::Flag(_) | FlagsItemKind::Negation => {}
        }
    }
    Ok(())
}

fn re2_literal(literal: &ast::Literal) -> Result<(), PathError> {
    match literal.kind {
        LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
        | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
            Err(PathError::NotRe2("`\\u`"))
        }
        LiteralKind::Special(SpecialLiteralKind::Space) => Err(PathError::NotRe2("`\\ `")),
        _ => Ok(()),
    }
}

fn re2_assertion(kind: &AssertionKind) -> Result<(), PathError> {
    match kind {
        AssertionKind::StartLine
        | AssertionKind::EndLine
        | AssertionKind::StartText
        | AssertionKind::EndText
        | AssertionKind::WordBoundary
        | AssertionKind::NotWordBoundary => Ok(()),
        _ => Err(PathError::NotRe2("this kind of word boundary")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_both_engines_pass() {
        for good in [
            "/users/[a-z]+/?",
            r"/v[0-9]{1,3}/.*",
            r"(?i)/A/(?P<id>\d+)",
            r"/x(?:a|b)*\.json",
            r"/[[:alpha:]]+\x2f\z",
            r"/p{1000}",
            r"/\pL+",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_either_engine_lacks_is_refused() {
        for bad in [
            "/users/[a-z",
            "/a(?=b)",
            r"/(a)\1",
            "/[a-z&&[^b]]",
            "/[a[bc]]",
            "(?x)/ a",
            "(?R)/a",
            r"/\u0041",
            r"/\b{start}a",
            "/a{1001}",
            "/(a{100}){100}",
            "/a{2,1}",
            "*",
            r"/\p{Nonsense}",
            "(?-u)/\\xff",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&"(".repeat(10_000)).is_err());
        assert!(check(&format!("{}{}", "(".repeat(200), ")".repeat(200))).is_err());
        assert_eq!(check(&"a".repeat(MAX_LEN + 1)), Err(PathError::TooLong));
    }
}
