//! What an event says, as one line.

use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};

/// Bytes of a line that are kept.
const MOST: usize = 1000;
/// Bytes of a value that becomes an attribute; more than a label of a container may have.
const VALUE_MOST: usize = 500;

/// Fields that are attributes under the same name, and are not part of the line.
const APART: [&str; 4] = ["agent", "project", "container_id", "container_name"];

/// Takes the message and the fields of an event.
#[derive(Debug, Default)]
pub(super) struct Said {
    message: Line<MOST>,
    fields: Line<MOST>,
    apart: [Option<Line<VALUE_MOST>>; APART.len()],
}

impl Said {
    /// The message and behind it, as `name=value`, what else it says.
    pub(super) fn sentence(&self) -> String {
        let mut line = self.message.clone();
        if !self.fields.text.is_empty() {
            // A line takes what it has room for and does not fail.
            let _ = write!(line, " ({})", self.fields.text);
        }
        line.text
    }

    /// The value of a field that is not part of the line.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = APART.iter().position(|n| *n == name)?;
        self.apart[at].take().map(|line| line.text)
    }

    fn set(&mut self, name: &str, value: fmt::Arguments<'_>) {
        // A line does not fail.
        let _ = if name == "message" {
            self.message.write_fmt(value)
        } else if let Some(at) = APART.iter().position(|n| *n == name) {
            self.apart[at].insert(Line::default()).write_fmt(value)
        } else {
            let comma = if self.fields.text.is_empty() {
                ""
            } else {
                ", "
            };
            write!(self.fields, "{comma}{name}={value}")
        };
    }
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format_args!("{value:?}"));
    }
}

/// A text without control characters, cut where it gets too long: what is in it may be an agent's words.
#[derive(Clone, Debug, Default)]
struct Line<const MOST: usize> {
    text: String,
    cut: bool,
}

impl<const MOST: usize> fmt::Write for Line<MOST> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            if self.cut {
                break;
            }
            let c = if is_tricky(c) { ' ' } else { c };
            if self.text.len() + c.len_utf8() > MOST {
                self.cut = true;
                self.text.push('…');
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}

/// Control characters, and those that turn the direction of what is written or break a line.
fn is_tricky(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_one_line_and_bounded(parts in prop::collection::vec(".{0,300}", 0..10)) {
            let mut line = Line::<MOST>::default();
            for part in &parts {
                line.write_str(part).unwrap();
            }
            prop_assert!(!line.text.chars().any(is_tricky));
            prop_assert!(line.text.len() <= MOST + '…'.len_utf8());
            let length = |c: char| if is_tricky(c) { 1 } else { c.len_utf8() };
            let whole: usize = parts.iter().flat_map(|p| p.chars()).map(length).sum();
            prop_assert_eq!(line.cut, whole > MOST);
        }
    }
}
