//! From text to terms, in one pass from left to right.

use super::{
    FIELDS, Field, Filter, FilterError, MAX_LENGTH, MAX_TERMS, Problem, Term,
    values::{Operator, test},
};
use std::ops::Range;

/// Operators as written, longer ones before those they begin with.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::Differs),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=", Operator::Equals),
    ("~", Operator::Contains),
    (">", Operator::Above),
    ("<", Operator::Below),
];

/// What is left of an expression.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

pub(super) fn parse(text: &str) -> Result<Filter, FilterError> {
    if text.len() > MAX_LENGTH {
        let mut shown = 60;
        while !text.is_char_boundary(shown) {
            shown -= 1;
        }
        return Err(FilterError::new(Problem::TooLong, &text[..shown], 0..0));
    }
    let mut rest = Rest { text, at: 0 };
    let mut terms = Vec::new();
    rest.skip_blanks();
    while rest.at < text.len() {
        let start = rest.at;
        let term = rest.term()?;
        if terms.len() == MAX_TERMS {
            return Err(rest.error(Problem::TooMany, start..rest.at));
        }
        terms.push(term);
        rest.skip_blanks();
    }
    Ok(Filter {
        text: text.trim().to_owned(),
        terms,
    })
}

impl<'a> Rest<'a> {
    fn left(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, problem: Problem, at: Range<usize>) -> FilterError {
        FilterError::new(problem, self.text, at)
    }

    /// Takes characters as long as they fit.
    fn take(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let left = self.left();
        let end = left.find(|c| !fits(c)).unwrap_or(left.len());
        self.at += end;
        &left[..end]
    }

    fn skip_blanks(&mut self) {
        self.take(char::is_whitespace);
    }

    fn term(&mut self) -> Result<Term, FilterError> {
        let negated = self.left().starts_with('!');
        if negated {
            self.at += 1;
        }
        let start = self.at;
        let name = self.take(|c| c.is_alphanumeric() || c == '_');
        let named = start..self.at;
        if name.is_empty() {
            let next = self.left().chars().next().map_or(0, char::len_utf8);
            let problem = match self.left() {
                l if l.starts_with("&&") || l.starts_with("||") => Problem::Conjunction,
                _ => Problem::NoField,
            };
            return Err(self.error(problem, start..start + next));
        }
        self.skip_blanks();
        let operator = self.operator().ok_or_else(|| {
            let problem = match name.to_lowercase().as_str() {
                "and" | "or" | "not" => Problem::Conjunction,
                _ => Problem::NoOperator(name.to_owned()),
            };
            self.error(problem, named.clone())
        })?;
        let field = find(name)
            .ok_or_else(|| self.error(Problem::UnknownField(name.to_owned()), named.clone()))?;
        self.skip_blanks();
        let start = self.at;
        let value = self.value()?;
        let test = test(field.get, operator, &value)
            .map_err(|problem| self.error(problem, start..self.at))?;
        Ok(Term {
            negated: negated != (operator == Operator::Differs),
            get: field.get,
            test,
        })
    }

    fn operator(&mut self) -> Option<Operator> {
        let left = self.left();
        let (written, operator) = OPERATORS.iter().find(|(w, _)| left.starts_with(w))?;
        self.at += written.len();
        Some(*operator)
    }

    /// A word, or a text in quotes with `\"` and `\\` in it.
    fn value(&mut self) -> Result<String, FilterError> {
        if !self.left().starts_with('"') {
            let start = self.at;
            let word = self.take(|c| !c.is_whitespace());
            if word.is_empty() {
                return Err(self.error(Problem::NoValue, start..start));
            }
            return Ok(word.to_owned());
        }
        let start = self.at;
        let mut value = String::new();
        let mut chars = self.left().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + i + 1;
                    let next = self.left().chars().next();
                    if let Some(c) = next.filter(|c| !c.is_whitespace()) {
                        let at = self.at..self.at + c.len_utf8();
                        return Err(self.error(Problem::AfterQuote, at));
                    }
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                c => value.push(c),
            }
        }
        Err(self.error(Problem::OpenQuote, start..self.text.len()))
    }
}

fn find(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.name.eq_ignore_ascii_case(name))
}
