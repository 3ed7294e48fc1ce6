//! Filter expressions: any text is read or refused with a message that points into it, and what is read
//! answers for any record, the same when it is read again.
#![no_main]

use ebpf_manager::{filter::Filter, record::Record};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static RECORDS: LazyLock<Vec<Record>> = LazyLock::new(|| {
    let lines = include_str!("records.jsonl").lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a record"))
        .collect()
});

fuzz_target!(|text: &str| {
    match Filter::parse(text) {
        Ok(filter) => {
            let again = Filter::parse(text).expect("the same text");
            for record in RECORDS.iter() {
                assert_eq!(filter.matches(record), again.matches(record));
            }
        }
        Err(e) => {
            let said = e.to_string();
            let shown = said.chars().all(|c| !c.is_control() || c == '\n');
            assert!(shown, "control characters in {said:?}");
        }
    }
});
