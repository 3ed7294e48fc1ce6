//! Papers that name tests name tests that exist.

use std::{fs, path::Path};

/// `file::function` in backquotes, as docs/threat-model.md names tests of the kernel, docker and stack tiers; `room/file` in a room below.
fn named(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let code = page.split('`').skip(1).step_by(2);
    code.filter_map(|c| c.split_once("::")).filter(|(file, _)| {
        file.bytes()
            .all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'/')
    })
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let mut count = 0;
    for (file, function) in named(&page) {
        let tiers = ["kernel", "docker", "stack"]
            .map(|t| root.join(format!("tests/{t}/tests/{t}/{file}.rs")));
        let path = tiers.iter().find(|p| p.exists());
        let path = path.unwrap_or_else(|| panic!("no tier has {file}::{function}"));
        let text = fs::read_to_string(path).unwrap();
        // The formatter breaks the line behind a long name.
        let test = ["() {", "()\n {"].map(|end| format!("#[test]\nfn {function}{end}"));
        assert!(
            test.iter().any(|t| text.contains(t)),
            "{file} has no test {function}"
        );
        count += 1;
    }
    assert!(count > 40, "only {count} tests are named");
}
