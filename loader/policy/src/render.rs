//! Diagnostics as text, laid out like rustc's: where, the line, a caret, why, and the fix.

use crate::diagnostic::{Diagnostic, Severity};
use annotate_snippets::renderer::DEFAULT_TERM_WIDTH;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// A longer line is not shown, only pointed at.
const MAX_LINE: usize = 1000;

/// Renders the diagnostics of `source`, each followed by a newline. `color` asks for terminal
/// escapes; the text is the same.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], file_name: &str, source: &str, color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let renderer = renderer.term_width(DEFAULT_TERM_WIDTH);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let text = renderer.render(&[group(diagnostic, file_name, source)]);
        out.extend(text.chars().map(visible));
        out.push('\n');
    }
    out
}

/// The renderer replaces control characters of ASCII; those behind it begin sequences on terminals, too.
fn visible(c: char) -> char {
    match c {
        '\u{7f}'..='\u{9f}' => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

fn group<'a>(diagnostic: &'a Diagnostic, file_name: &'a str, source: &'a str) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let group = place(
        level.primary_title(&diagnostic.message),
        diagnostic,
        file_name,
        source,
    );
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    }
}

/// Only the one line is handed over, so that a large file with many mistakes stays cheap.
fn place<'a>(
    title: annotate_snippets::Title<'a>,
    diagnostic: &'a Diagnostic,
    file_name: &'a str,
    source: &'a str,
) -> Group<'a> {
    let span = &diagnostic.span;
    let start = source[..span.start]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let end = source[span.end..]
        .find('\n')
        .map_or(source.len(), |newline| span.end + newline);
    if end - start > MAX_LINE {
        let origin = Origin::path(file_name)
            .line(diagnostic.line)
            .char_column(diagnostic.column);
        let group = title.element(origin);
        return match &diagnostic.label {
            Some(label) => group.element(Level::NOTE.message(label)),
            None => group,
        };
    }
    let line = source[start..end].trim_end_matches('\r');
    // A span may reach into the carriage returns, which are not shown.
    let shown = |offset: usize| (offset - start).min(line.len());
    let mut mark = AnnotationKind::Primary.span(shown(span.start)..shown(span.end));
    if let Some(label) = &diagnostic.label {
        mark = mark.label(label);
    }
    title.element(
        Snippet::source(line)
            .line_start(diagnostic.line)
            .path(file_name)
            .annotation(mark),
    )
}
