//! The dictionary is consistent, and its page says the same.
//! `CLAWKER_WRITE_DOCS=1 cargo nextest run -p wire` writes the page's table anew.

#[path = "common/page.rs"]
mod page;

use std::collections::HashSet;
use wire::fields::ALL;

fn table() -> String {
    let mut text = "| attribute | type | records | meaning |\n|---|---|---|---|\n".to_owned();
    for f in ALL {
        let meaning = f.meaning.trim();
        text += &format!(
            "| `{}` | {} | {} | {meaning} |\n",
            f.name, f.kind, f.records
        );
    }
    text
}

#[test]
fn the_page_has_the_dictionary() {
    page::has(
        "docs/fields.md",
        "<!-- fields: made from otlp-bridge/wire/src/fields.rs -->\n",
        "<!-- /fields -->\n",
        &table(),
    );
}

#[test]
fn names_are_flat_and_there_once() {
    let mut seen = HashSet::new();
    for f in ALL {
        assert!(seen.insert(f.name), "{} is there twice", f.name);
        assert!(!f.meaning.trim().contains('|'), "{}", f.name);
        let resource = f.records.starts_with("resource");
        let allowed = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || resource && c == '.'
        };
        assert!(f.name.chars().all(allowed), "{}", f.name);
    }
    // A store would take `a.b` beside `a` for an object beside a text.
    for f in ALL {
        for (at, _) in f.name.match_indices('.') {
            assert!(!seen.contains(&f.name[..at]), "{}", f.name);
        }
    }
}
