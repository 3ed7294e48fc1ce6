//! Pages with a table that is made from a dictionary.

use std::{env, fs, path::Path};

/// Asserts that a page has this between two marks, or writes it there.
#[track_caller]
pub(crate) fn has(page: &str, begin: &str, end: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(page);
    let text = fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = text.split_once(begin).expect("the beginning is marked");
    let (there, after) = rest.split_once(end).expect("the end is marked");
    if env::var_os("CLAWKER_WRITE_DOCS").is_some_and(|v| v == "1") {
        fs::write(&path, [before, begin, wanted, end, after].concat())
            .expect("the page is written");
        return;
    }
    assert_eq!(
        there, wanted,
        "{page} is out of date: CLAWKER_WRITE_DOCS=1 writes it"
    );
}
