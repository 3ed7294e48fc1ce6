//! YAML with positions, as much of it as a policy needs: scalars, lists and maps.
//!
//! Built on the events of `saphyr-parser`, so that nothing is expanded or recursed before it was
//! looked at: anchors, aliases and tags are refused (an alias bomb is a list of mistakes, not of
//! copies), nesting is bounded, and every repeated key is still there to be reported.

use crate::diagnostic::Reports;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::borrow::Cow;
use std::ops::Range;

/// Largest file read.
pub const MAX_SOURCE: usize = 16 << 20;
/// A policy needs six levels.
const MAX_DEPTH: usize = 16;
/// Characters between two remembered byte offsets.
const STRIDE: usize = 256;

/// One value of the file.
#[derive(Debug)]
pub(crate) struct Node<'s> {
    pub(crate) span: Range<usize>,
    pub(crate) kind: Kind<'s>,
}

/// What a value is.
#[derive(Debug)]
pub(crate) enum Kind<'s> {
    /// A scalar; `plain` is one without quotes, which YAML may take for a number or a boolean.
    Scalar {
        text: Cow<'s, str>,
        plain: bool,
    },
    List(Vec<Node<'s>>),
    Map(Vec<(Node<'s>, Node<'s>)>),
    /// Something already reported, to be passed over in silence.
    Refused,
}

impl Node<'_> {
    /// Whether this is nothing at all: `key:`, `key: ~` or `key: null`.
    pub(crate) fn is_null(&self) -> bool {
        match &self.kind {
            Kind::Scalar { text, plain: true } => {
                matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }
}

/// Reads the one document of the source. `None` when there is none or its syntax is wrong, which
/// has been reported then.
pub(crate) fn load<'s>(source: &'s str, reports: &mut Reports<'_>) -> Option<Node<'s>> {
    if source.len() > MAX_SOURCE {
        let message = format!("the file has {} bytes", source.len());
        reports
            .error(&(0..0), message)
            .label(format!("at most {MAX_SOURCE} are read"));
        return None;
    }
    if !only_text(source, reports) {
        return None;
    }
    let mut builder = Builder {
        offsets: Offsets::new(source),
        reports,
        open: Vec::new(),
        root: None,
    };
    for event in Parser::new_from_str(source) {
        match event {
            Ok((event, span)) => builder.event(event, span)?,
            Err(error) => {
                let at = builder.offsets.byte(error.marker().index());
                builder.broken(at, error.info());
                return None;
            }
        }
    }
    if builder.root.is_none() {
        let diagnostic = builder.reports.error(&(0..0), "the file is empty");
        diagnostic.help("a policy that denies everything is `rules: []`");
    }
    builder.root
}

/// YAML has no control characters; the parser takes some for the end of the file.
fn only_text(source: &str, reports: &mut Reports<'_>) -> bool {
    let odd = |c: &char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    match source.char_indices().find(|(_, c)| odd(c)) {
        None => true,
        Some((at, c)) => {
            let message = format!("control character {} in the file", c.escape_unicode());
            reports
                .error(&(at..at + c.len_utf8()), message)
                .label("must not be in a text file");
            false
        }
    }
}

/// A list or map whose end has not come.
struct Open<'s> {
    start: usize,
    kind: Kind<'s>,
    /// Key whose value has not come.
    key: Option<Node<'s>>,
}

struct Builder<'s, 'r, 'd> {
    offsets: Offsets<'s>,
    reports: &'r mut Reports<'d>,
    open: Vec<Open<'s>>,
    root: Option<Node<'s>>,
}

impl<'s> Builder<'s, '_, '_> {
    /// `None` stops the reading.
    fn event(&mut self, event: Event<'s>, span: Span) -> Option<()> {
        let at = self.offsets.byte(span.start.index())..self.offsets.byte(span.end.index());
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let refused = self.refuse(&at, anchor, tag.is_some());
                let kind = if refused {
                    Kind::Refused
                } else {
                    Kind::Scalar { text, plain }
                };
                self.add(Node { span: at, kind });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse(&at, anchor, tag.is_some());
                self.descend(&at, Kind::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse(&at, anchor, tag.is_some());
                self.descend(&at, Kind::Map(Vec::new()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.ascend(at.end),
            Event::Alias(_) => {
                let diagnostic = self.reports.error(&at, "aliases are not read");
                diagnostic.label("write the value out");
                self.add(Node {
                    span: at,
                    kind: Kind::Refused,
                });
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                self.reports
                    .error(&at, "a second document")
                    .label("a policy is one document");
                return None;
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => {}
        }
        Some(())
    }

    /// The parser gives up where it notices; what it waits for often began earlier.
    fn broken(&mut self, at: usize, info: &str) {
        let message = format!("the YAML cannot be read: {info}");
        let waiting = self.open.iter().rev().find_map(|open| {
            let bracket = self.offsets.source[open.start..].chars().next()?;
            matches!(bracket, '[' | '{').then_some((bracket, open.start))
        });
        let line = waiting.map(|(bracket, start)| (bracket, self.reports.line(start)));
        let diagnostic = self.reports.error(&(at..at + 1), message);
        if let Some((bracket, line)) = line {
            diagnostic.help(format!(
                "the `{bracket}` on line {line} is not closed before this"
            ));
        }
    }

    fn refuse(&mut self, at: &Range<usize>, anchor: usize, tagged: bool) -> bool {
        if anchor != 0 {
            self.reports
                .error(at, "anchors are not read")
                .label("remove the `&` and its name");
        }
        if tagged {
            self.reports
                .error(at, "tags are not read")
                .label("remove the `!` and its name");
        }
        anchor != 0 || tagged
    }

    fn descend(&mut self, at: &Range<usize>, kind: Kind<'s>) -> Option<()> {
        if self.open.len() >= MAX_DEPTH {
            let diagnostic = self.reports.error(at, "nested too deeply");
            diagnostic.label(format!("a policy has at most {MAX_DEPTH} levels"));
            return None;
        }
        self.open.push(Open {
            start: at.start,
            kind,
            key: None,
        });
        Some(())
    }

    fn ascend(&mut self, end: usize) {
        if let Some(Open { start, kind, .. }) = self.open.pop() {
            self.add(Node {
                span: start..end,
                kind,
            });
        }
    }

    fn add(&mut self, node: Node<'s>) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open {
                kind: Kind::List(items),
                ..
            }) => items.push(node),
            Some(Open {
                kind: Kind::Map(entries),
                key,
                ..
            }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
            Some(_) => {}
        }
    }
}

/// Turns the parser's character numbers into byte offsets.
struct Offsets<'s> {
    source: &'s str,
    /// Byte offset of every [`STRIDE`]th character; empty when every character is one byte.
    marks: Vec<usize>,
}

impl<'s> Offsets<'s> {
    fn new(source: &'s str) -> Self {
        let marks = if source.is_ascii() {
            Vec::new()
        } else {
            source
                .char_indices()
                .step_by(STRIDE)
                .map(|(at, _)| at)
                .collect()
        };
        Self { source, marks }
    }

    fn byte(&self, character: usize) -> usize {
        if self.marks.is_empty() {
            return character.min(self.source.len());
        }
        let Some(mark) = self.marks.get(character / STRIDE) else {
            return self.source.len();
        };
        let mut rest = self.source[*mark..].char_indices();
        rest.nth(character % STRIDE)
            .map_or(self.source.len(), |(at, _)| mark + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(source: &str) -> Vec<String> {
        let mut reports = Reports::new(source);
        load(source, &mut reports);
        reports.finish().into_iter().map(|d| d.message).collect()
    }

    fn scalars<'n>(node: &'n Node<'_>, found: &mut Vec<(Range<usize>, &'n str)>) {
        match &node.kind {
            Kind::Scalar { text, .. } => found.push((node.span.clone(), text)),
            Kind::List(items) => items.iter().for_each(|item| scalars(item, found)),
            Kind::Map(entries) => entries.iter().for_each(|(key, value)| {
                scalars(key, found);
                scalars(value, found);
            }),
            Kind::Refused => {}
        }
    }

    #[test]
    fn spans_are_the_bytes_of_each_scalar() {
        let long = "ö".repeat(STRIDE);
        let source = format!("\u{feff}é: [ü, 1]\r\n{long}: {{k: v}}\r\n");
        let mut reports = Reports::new(&source);
        let root = load(&source, &mut reports).unwrap();
        let mut found = Vec::new();
        scalars(&root, &mut found);
        assert_eq!(found.len(), 6);
        for (span, text) in found {
            assert_eq!(&source[span], text);
        }
        assert!(reports.finish().is_empty());
    }

    #[test]
    fn anchors_aliases_and_tags_are_one_mistake_each() {
        let source = "a: &x 1\nb: *x\nc: !!int 2\nd: &y [1]\n";
        let expected = [
            "anchors are not read",
            "aliases are not read",
            "tags are not read",
            "anchors are not read",
        ];
        assert_eq!(messages(source), expected);
    }

    #[test]
    fn an_alias_bomb_is_only_a_list_of_mistakes() {
        let mut source = String::from("a0: &a0 [x]\n");
        for i in 1..40 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            source.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        assert_eq!(messages(&source).len(), 40 + 39 * 10);
    }

    #[test]
    fn deep_nesting_is_refused_at_once() {
        for source in [
            "[".repeat(100_000),
            "- ".repeat(100_000),
            "{a: ".repeat(100_000),
        ] {
            let found = messages(&source);
            assert_eq!(found.len(), 1, "{found:?}");
        }
        assert_eq!(messages(&"- ".repeat(20)), ["nested too deeply"]);
        assert!(messages(&format!("{}x", "- ".repeat(MAX_DEPTH))).is_empty());
    }

    #[test]
    fn control_characters_do_not_cut_the_file_short() {
        for source in ["a: 1\n\0b: 2\n", "a: \u{1b}[31m\n", "a: \u{85}\n", "\u{7f}"] {
            let found = messages(source);
            assert_eq!(found.len(), 1, "{source:?}");
            assert!(found[0].starts_with("control character"), "{found:?}");
        }
    }

    #[test]
    fn a_policy_is_one_document() {
        assert_eq!(messages("a: 1\n---\nb: 2\n"), ["a second document"]);
        assert_eq!(messages("# nothing\n"), ["the file is empty"]);
        assert_eq!(messages(""), ["the file is empty"]);
        let too_long = " ".repeat(MAX_SOURCE + 1);
        assert_eq!(
            messages(&too_long),
            [format!("the file has {} bytes", MAX_SOURCE + 1)]
        );
    }
}
