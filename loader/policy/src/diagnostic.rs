//! What is wrong with a policy file: one [`Diagnostic`] a mistake, with its place, why, and the fix.
//!
//! The readers collect into [`Reports`], which knows the source and turns byte offsets into lines.
//! Nothing here knows what a policy is.

use std::fmt::Write;
use std::ops::Range;

/// More errors, or more warnings, than this are counted, not kept: a hostile file must not fill memory.
const MAX_KEPT: usize = 1000;
/// Characters of a value that a message repeats.
const MAX_QUOTED: usize = 60;

/// Whether a diagnostic stops the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file is not a policy.
    Error,
    /// The file is a policy, but probably not the one that was meant.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the load.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Bytes of the source, within one line.
    pub span: Range<usize>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What stands beside the caret: the rule that was broken.
    pub label: Option<String>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Diagnostic {
    fn new(severity: Severity, message: String) -> Self {
        Self {
            severity,
            message,
            span: 0..0,
            line: 1,
            column: 1,
            label: None,
            help: None,
        }
    }

    /// Sets what stands beside the caret.
    pub(crate) fn label(&mut self, text: impl Into<String>) -> &mut Self {
        self.label = Some(text.into());
        self
    }

    /// Sets how to mend it.
    pub(crate) fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help = Some(text.into());
        self
    }
}

/// How many errors and warnings, and whether they stop the load: `2 errors, 1 warning; nothing was
/// changed`.
#[must_use]
pub fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .count();
    let warnings = diagnostics.len() - errors;
    let outcome = if errors > 0 {
        "; nothing was changed"
    } else {
        ""
    };
    format!(
        "{}, {}{outcome}",
        counted(errors, "error"),
        counted(warnings, "warning")
    )
}

/// A number and its noun.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A value from the file inside a message: short, on one line, without control characters.
pub(crate) fn quoted(value: &str) -> String {
    let mut out = String::from("`");
    for c in value.chars().take(MAX_QUOTED) {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if value.chars().nth(MAX_QUOTED).is_some() {
        out.push('…');
    }
    out.push('`');
    out
}

/// `a, b or c`.
pub(crate) fn either(words: &[&str]) -> String {
    let mut out = String::new();
    for (i, word) in words.iter().enumerate() {
        let joint = match i {
            0 => "",
            _ if i + 1 == words.len() => " or ",
            _ => ", ",
        };
        // Writing to a `String` cannot fail.
        let _ = write!(out, "{joint}{word}");
    }
    out
}

/// The word that was probably meant.
pub(crate) fn nearest<'w>(typed: &str, words: &[&'w str]) -> Option<&'w str> {
    if typed.len() > MAX_QUOTED {
        return None;
    }
    let typed = typed.to_lowercase();
    let far = |word: &str| strsim::damerau_levenshtein(&typed, word);
    let best = words.iter().copied().min_by_key(|word| far(word))?;
    (far(best) <= best.len().div_ceil(3)).then_some(best)
}

/// Collects the mistakes of one source.
pub(crate) struct Reports<'s> {
    source: &'s str,
    line_starts: Vec<usize>,
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    /// What is labelled when it is not kept.
    dropped: Diagnostic,
}

impl<'s> Reports<'s> {
    pub(crate) fn new(source: &'s str) -> Self {
        let newlines = source
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        Self {
            source,
            line_starts,
            kept: Vec::new(),
            errors: 0,
            warnings: 0,
            dropped: Diagnostic::new(Severity::Warning, String::new()),
        }
    }

    /// Records a mistake that stops the load.
    pub(crate) fn error(
        &mut self,
        at: &Range<usize>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.errors += 1;
        self.push(self.errors, Severity::Error, at, message.into())
    }

    /// Records something that is probably not meant.
    pub(crate) fn warning(
        &mut self,
        at: &Range<usize>,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.warnings += 1;
        self.push(self.warnings, Severity::Warning, at, message.into())
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Line of a byte, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= at)
    }

    /// Everything found, in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.kept.sort_by_key(|d| (d.span.start, d.severity));
        let end = self.source.len();
        let counts = [
            (self.errors, Severity::Error),
            (self.warnings, Severity::Warning),
        ];
        for (count, severity) in counts {
            let noun = if severity == Severity::Error {
                "more error"
            } else {
                "more warning"
            };
            let more = count.saturating_sub(MAX_KEPT);
            if more > 0 {
                let message = format!("{} not shown", counted(more, noun));
                let diagnostic = self.diagnostic(severity, &(end..end), message);
                self.kept.push(diagnostic);
            }
        }
        self.kept
    }

    /// `count` is how many of this severity there are by now.
    fn push(
        &mut self,
        count: usize,
        severity: Severity,
        at: &Range<usize>,
        message: String,
    ) -> &mut Diagnostic {
        if count > MAX_KEPT {
            return &mut self.dropped;
        }
        let diagnostic = self.diagnostic(severity, at, message);
        self.kept.push(diagnostic);
        let last = self.kept.len() - 1;
        &mut self.kept[last]
    }

    /// Clips the span to its first line, so that a caret always points at something to read.
    fn diagnostic(&self, severity: Severity, at: &Range<usize>, message: String) -> Diagnostic {
        let start = self.source.floor_char_boundary(at.start);
        let rest = &self.source[start..self.source.ceil_char_boundary(at.end.max(start))];
        let clipped = rest.find('\n').map_or(rest, |newline| &rest[..newline]);
        let span = start..start + clipped.trim_end().len();
        let line = self.line(start);
        let line_start = self.line_starts[line - 1];
        let column = self.source[line_start..start].chars().count() + 1;
        Diagnostic {
            span,
            line,
            column,
            ..Diagnostic::new(severity, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_clipped_to_its_line_and_counted_in_characters() {
        let source = "é: ü\nrules:\n  - a\n";
        let mut reports = Reports::new(source);
        reports.error(&(4..6), "one");
        reports.error(&(7..source.len()), "two");
        let found = reports.finish();
        assert_eq!((found[0].line, found[0].column), (1, 4));
        assert_eq!((found[1].line, found[1].column), (2, 1));
        assert_eq!(&source[found[1].span.clone()], "rules:");
    }

    #[test]
    fn more_than_the_limit_is_counted_and_stays_what_it_is() {
        let mut reports = Reports::new("a\n");
        for i in 0..MAX_KEPT + 5 {
            reports.warning(&(0..1), i.to_string());
        }
        reports.error(&(0..1), "late");
        let found = reports.finish();
        assert_eq!(found.len(), MAX_KEPT + 2);
        assert_eq!(found[0].message, "late");
        let last = &found[MAX_KEPT + 1];
        let expected = (Severity::Warning, "5 more warnings not shown");
        assert_eq!((last.severity, last.message.as_str()), expected);
    }

    #[test]
    fn summaries_count_and_say_what_happened() {
        let mut reports = Reports::new("");
        assert_eq!(summary(&[]), "0 errors, 0 warnings");
        reports.warning(&(0..0), "w");
        reports.error(&(0..0), "e");
        reports.error(&(0..0), "e");
        assert_eq!(
            summary(&reports.finish()),
            "2 errors, 1 warning; nothing was changed"
        );
    }

    #[test]
    fn quoting_keeps_terminals_and_lines_whole() {
        assert_eq!(quoted("a\u{1b}[31m\n\u{202e}"), r"`a\u{1b}[31m\n\u{202e}`");
        assert_eq!(quoted(r#"it's "x""#), r#"`it's "x"`"#);
        assert_eq!(quoted(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn only_near_words_are_offered() {
        assert_eq!(nearest("aciton", &["action", "port"]), Some("action"));
        assert_eq!(nearest("Action", &["action", "port"]), Some("action"));
        assert_eq!(nearest("zebra", &["action", "port"]), None);
        assert_eq!(either(&["a"]), "a");
        assert_eq!(either(&["a", "b", "c"]), "a, b or c");
    }
}
