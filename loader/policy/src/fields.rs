//! Typed access to the parsed file: each question reports what is wrong with the answer and goes on.
//!
//! A question answers `None` when the key is absent or its value was reported; either way the reader
//! has nothing to do but use its default.

use crate::diagnostic::{Reports, either, nearest, quoted};
use crate::yaml::{Kind, Node};
use std::collections::HashMap;
use std::ops::Range;

/// One key with its value.
#[derive(Clone, Copy)]
pub(crate) struct Field<'n> {
    pub(crate) key: &'n str,
    pub(crate) key_span: &'n Range<usize>,
    pub(crate) node: &'n Node<'n>,
}

/// The keys of one map.
pub(crate) struct Fields<'n> {
    fields: HashMap<&'n str, Field<'n>>,
    /// Some key was refused.
    refused: bool,
}

impl<'n> Fields<'n> {
    /// Reads a map that may have only the `allowed` keys. `what` names it in messages.
    pub(crate) fn read(
        node: &'n Node<'n>,
        what: &str,
        allowed: &[&str],
        reports: &mut Reports<'_>,
    ) -> Option<Self> {
        let entries = members(node, what, reports)?;
        let mut fields = HashMap::new();
        let mut refused = false;
        for field in entries {
            if allowed.contains(&field.key) {
                fields.insert(field.key, field);
            } else {
                refused = true;
                let message = format!("unknown key {}", quoted(field.key));
                let diagnostic = reports.error(field.key_span, message);
                match nearest(field.key, allowed) {
                    Some(meant) => diagnostic.label(format!("did you mean `{meant}`?")),
                    None => diagnostic.label(format!("{what} has no such key")),
                };
                diagnostic.help(format!("keys here: {}", allowed.join(", ")));
            }
        }
        Some(Self { fields, refused })
    }

    /// Whether nothing is said under any of the keys.
    pub(crate) fn is_empty(&self) -> bool {
        !self.refused && self.fields.values().all(Field::is_empty)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Field<'n>> {
        self.fields.get(key).copied()
    }
}

/// The entries of a map whose keys are free, each key once.
pub(crate) fn members<'n>(
    node: &'n Node<'n>,
    what: &str,
    reports: &mut Reports<'_>,
) -> Option<Vec<Field<'n>>> {
    let entries = match &node.kind {
        Kind::Map(entries) => entries,
        Kind::Refused => return None,
        kind => {
            let message = format!("{what} is {}", kind_name(kind));
            reports
                .error(&node.span, message)
                .label("must be a map of `key: value`");
            return None;
        }
    };
    let mut first_lines = HashMap::new();
    let mut fields = Vec::with_capacity(entries.len());
    for (key_node, value) in entries {
        let Kind::Scalar { text, .. } = &key_node.kind else {
            if !matches!(key_node.kind, Kind::Refused) {
                reports
                    .error(&key_node.span, "a key that is not a word")
                    .label("must be text");
            }
            continue;
        };
        let line = reports.line(key_node.span.start);
        if let Some(first) = first_lines.get(text.as_ref()) {
            let message = format!("key {} is given twice", quoted(text));
            reports
                .error(&key_node.span, message)
                .label(format!("first given on line {first}"));
            continue;
        }
        first_lines.insert(text.as_ref(), line);
        fields.push(Field {
            key: text,
            key_span: &key_node.span,
            node: value,
        });
    }
    Some(fields)
}

impl<'n> Field<'n> {
    /// Where a caret for the value belongs: on the key when there is no value to point at.
    pub(crate) fn span(&self) -> &'n Range<usize> {
        if self.node.span.is_empty() && !matches!(self.node.kind, Kind::Map(_) | Kind::List(_)) {
            self.key_span
        } else {
            &self.node.span
        }
    }

    /// Whether the value is nothing, an empty list or an empty map.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.node.kind {
            Kind::List(items) => items.is_empty(),
            Kind::Map(entries) => entries.is_empty(),
            _ => self.node.is_null(),
        }
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, reports: &mut Reports<'_>) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Refused => None,
            _ if self.node.is_null() => self.wrong("has no value", "must be text", reports),
            Kind::Scalar { text, .. } if text.is_empty() => {
                self.wrong("is empty", "must be text", reports)
            }
            Kind::Scalar { text, .. } => Some(text),
            kind => self.wrong(&format!("is {}", kind_name(kind)), "must be text", reports),
        }
    }

    /// One of the listed words.
    pub(crate) fn word<T: Copy>(
        &self,
        words: &[(&'static str, T)],
        reports: &mut Reports<'_>,
    ) -> Option<T> {
        let typed = self.text(reports)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == typed) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{}` is {}", self.key, quoted(typed));
        let diagnostic = reports.error(self.span(), message);
        diagnostic.label(format!("must be {}", either(&known)));
        if let Some(meant) = nearest(typed, &known) {
            diagnostic.help(format!("did you mean `{meant}`?"));
        }
        None
    }

    /// `true` or `false`, without quotes.
    pub(crate) fn boolean(&self, reports: &mut Reports<'_>) -> Option<bool> {
        match &self.node.kind {
            Kind::Scalar { text, plain: true } => match text.as_ref() {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                "" => self.wrong("has no value", "must be true or false", reports),
                other => self.wrong(
                    &format!("is {}", quoted(other)),
                    "must be true or false",
                    reports,
                ),
            },
            Kind::Refused => None,
            kind => {
                let what = format!("is {}", kind_name(kind));
                self.wrong(&what, "must be true or false, without quotes", reports)
            }
        }
    }

    /// The items of a list.
    pub(crate) fn list(&self, reports: &mut Reports<'_>) -> Option<&'n [Node<'n>]> {
        match &self.node.kind {
            Kind::List(items) => Some(items),
            Kind::Refused => None,
            _ if self.node.is_null() => {
                let label = "must be a list; `[]` is the empty one";
                self.wrong("has no value", label, reports)
            }
            kind => self.wrong(
                &format!("is {}", kind_name(kind)),
                "must be a list",
                reports,
            ),
        }
    }

    fn wrong<T>(&self, what: &str, label: &str, reports: &mut Reports<'_>) -> Option<T> {
        reports
            .error(self.span(), format!("`{}` {what}", self.key))
            .label(label);
        None
    }
}

/// What a value is, in words.
pub(crate) fn kind_name(kind: &Kind<'_>) -> &'static str {
    match kind {
        Kind::Scalar { text, plain: true } if text.is_empty() => "nothing",
        Kind::Scalar { .. } => "a single value",
        Kind::List(_) => "a list",
        Kind::Map(_) => "a map",
        Kind::Refused => "refused",
    }
}
