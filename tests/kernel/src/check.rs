//! What tests say about records.

use serde_json::Value;

/// Asserts the fields that `wanted` names; `null` there means absent. Says all that differ.
#[track_caller]
pub fn fields(record: &Value, wanted: &Value) {
    let wanted = wanted.as_object().expect("an object of fields");
    let wrong: Vec<String> = wanted
        .iter()
        .filter(|(k, v)| record.get(*k).unwrap_or(&Value::Null) != *v)
        .map(|(k, v)| format!("{k} is {}, not {v}", record.get(k).unwrap_or(&Value::Null)))
        .collect();
    assert!(wrong.is_empty(), "{}\nof {record:#}", wrong.join("\n"));
}

/// Sum of a number over records.
#[must_use]
pub fn sum<'a>(records: impl IntoIterator<Item = &'a Value>, field: &str) -> u64 {
    records.into_iter().filter_map(|r| r[field].as_u64()).sum()
}

/// Flows that records stand for: folded ones count as many as they say.
#[must_use]
pub fn flows<'a>(records: impl IntoIterator<Item = &'a Value>) -> u64 {
    records
        .into_iter()
        .map(|r| r["count"].as_u64().unwrap_or(1))
        .sum()
}
