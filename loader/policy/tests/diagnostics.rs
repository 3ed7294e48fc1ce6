//! What `policy check` prints, compared whole with the files in `tests/golden`. After a wanted
//! change run with `UPDATE_GOLDEN=1` and read the difference.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use policy::{Policy, Severity, render, summary};
use std::path::Path;

fn compare(name: &str) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = format!("{name}.yaml");
    let source = std::fs::read_to_string(golden.join(&file)).unwrap();
    let parsed = Policy::parse(&source);
    let errors = parsed
        .diagnostics
        .iter()
        .any(|d| d.severity == Severity::Error);
    assert_eq!(
        parsed.policy.is_none(),
        errors,
        "a policy exactly when there is no error"
    );
    let text = render(&parsed.diagnostics, &file, &source, false);
    let text = format!("{text}{}\n", summary(&parsed.diagnostics));
    let expected = golden.join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&expected, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&expected).unwrap(), "{name}");
}

#[test]
fn every_mistake_is_reported_at_once() {
    compare("mistakes");
}

#[test]
fn warnings_say_what_never_decides() {
    compare("warnings");
}

#[test]
fn broken_yaml_has_a_place_too() {
    compare("syntax");
}

#[test]
fn good_files_are_silent() {
    compare("full");
    compare("ancestor");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let source = "mode: x\nrulse: []\n";
    let diagnostics = Policy::parse(source).diagnostics;
    let plain = render(&diagnostics, "p.yaml", source, false);
    let colored = render(&diagnostics, "p.yaml", source, true);
    assert!(colored.contains('\u{1b}') && !plain.contains('\u{1b}'));
    let mut stripped = String::new();
    for (i, part) in colored.split('\u{1b}').enumerate() {
        let text = if i == 0 {
            part
        } else {
            part.split_once('m').unwrap().1
        };
        stripped.push_str(text);
    }
    assert_eq!(stripped, plain);
}

/// U+009B begins a sequence on a terminal as ESC [ does.
#[test]
fn no_control_character_of_a_file_is_shown() {
    for c in ('\u{0}'..='\u{9f}').filter(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        let source = format!("rules:\n  - {{ dst: a{c}b }}\n");
        let diagnostics = Policy::parse(&source).diagnostics;
        let text = render(&diagnostics, "p.yaml", &source, false);
        assert!(!diagnostics.is_empty());
        let shown = text.chars().all(|c| !c.is_control() || c == '\n');
        assert!(shown, "{text:?}");
    }
}

/// Carriage returns at the end of a line are not shown, and a mistake may be found among them.
#[test]
fn a_mistake_among_carriage_returns_can_be_shown() {
    for source in ["rules:\n\r\r\r[-verver\r\r", "mode: x\r\r\n", "a: [\r"] {
        let diagnostics = Policy::parse(source).diagnostics;
        let text = render(&diagnostics, "p.yaml", source, false);
        assert!(
            text.contains("error: ") && text.contains("p.yaml:"),
            "{text}"
        );
        assert!(!text.contains('\r'), "{text:?}");
    }
}
