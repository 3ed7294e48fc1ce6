//! The dictionary is consistent, and its page says the same.
//! `CLAWKER_WRITE_DOCS=1 cargo nextest run -p wire` writes the page's table anew.

use std::{collections::HashSet, env, fs, path::Path};
use wire::fields::ALL;

const BEGIN: &str = "<!-- fields: made from otlp-bridge/wire/src/fields.rs -->\n";
const END: &str = "<!-- /fields -->\n";

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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fields.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the beginning is marked");
    let (there, after) = rest.split_once(END).expect("the end is marked");
    let wanted = table();
    if env::var_os("CLAWKER_WRITE_DOCS").is_some_and(|v| v == "1") {
        fs::write(&path, [before, BEGIN, &wanted, END, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        there, wanted,
        "docs/fields.md is out of date: CLAWKER_WRITE_DOCS=1 writes it"
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
