//! Types, attributes, and JSON inside of strings.

use super::Fault;
use crate::{Object, TEXTS};
use serde_json::Value;

/// Attributes of each type, as Dashboards 3.8 maps them; those in front of the bar must be there.
fn attributes(kind: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    let known: (&[_], &[_]) = match kind {
        "index-pattern" => (
            &["title", "timeFieldName", "fields"],
            &[
                "fieldFormatMap",
                "sourceFilters",
                "displayName",
                "description",
            ],
        ),
        "search" => (
            &["title", "columns", "sort", "kibanaSavedObjectMeta"],
            &["description", "hits", "version"],
        ),
        "visualization" => (
            &["title", "visState", "uiStateJSON", "kibanaSavedObjectMeta"],
            &["description", "version", "savedSearchRefName"],
        ),
        "dashboard" => (
            &[
                "title",
                "panelsJSON",
                "optionsJSON",
                "kibanaSavedObjectMeta",
            ],
            &[
                "description",
                "hits",
                "refreshInterval",
                "timeFrom",
                "timeRestore",
                "timeTo",
                "variablesJSON",
                "version",
            ],
        ),
        "explore" => (
            &[
                "title",
                "type",
                "visualization",
                "uiState",
                "kibanaSavedObjectMeta",
            ],
            &["columns", "description", "hits", "sort", "version"],
        ),
        "data-connection" => (&["connectionId", "type", "meta"], &[]),
        _ => return None,
    };
    Some(known)
}

/// Objects of the same type and id.
pub(super) fn twice(all: &[Object]) -> Vec<Fault> {
    let same = |a: &Object, b: &Object| a.kind() == b.kind() && a.id() == b.id();
    let later = all.iter().enumerate();
    later
        .filter(|(at, object)| all[..*at].iter().any(|o| same(o, object)))
        .map(|(_, object)| Fault::Twice {
            of: object.to_string(),
        })
        .collect()
}

/// What is wrong with the attributes of an object.
pub(super) fn faults(object: &Object) -> Vec<Fault> {
    let of = object.to_string();
    let Some((needed, others)) = attributes(object.kind()) else {
        return vec![Fault::Kind { of }];
    };
    let mut faults = Vec::new();
    let form = |attribute: &str| Fault::Form {
        of: of.clone(),
        attribute: attribute.to_owned(),
    };
    let given = object.attributes().as_object();
    for (attribute, value) in given.into_iter().flatten() {
        if !needed.contains(&attribute.as_str()) && !others.contains(&attribute.as_str()) {
            faults.push(Fault::Attribute {
                of: of.clone(),
                attribute: attribute.clone(),
            });
        }
        if TEXTS.contains(&attribute.as_str()) && !json_text(value) {
            faults.push(form(attribute));
        }
    }
    let missing = needed.iter().filter(|n| object.attributes()[**n].is_null());
    faults.extend(missing.map(|n| form(n)));
    if object.id().is_empty() || !object.id().starts_with("clawker-") {
        faults.push(form("id"));
    }
    if needed.contains(&"title") && object.title().is_empty() {
        faults.push(form("title"));
    }
    if needed.contains(&"kibanaSavedObjectMeta") {
        match object.text("searchSourceJSON") {
            Some(source) => faults.extend(source_forms(&source).map(|part| form(&part))),
            None => faults.push(form("searchSourceJSON")),
        }
    }
    faults
}

/// Text with JSON in it.
fn json_text(value: &Value) -> bool {
    let text = value.as_str();
    text.is_some_and(|t| serde_json::from_str::<Value>(t).is_ok())
}

/// Parts of a search source that Dashboards could not read. A query in words would have to be translated by
/// Dashboards; panels use filters, which are sent to OpenSearch as they are.
fn source_forms(source: &Value) -> impl Iterator<Item = String> {
    let mut wrong = Vec::new();
    let language = &source["query"]["language"];
    let empty = source["query"]["query"] == "" && language == "kuery";
    if !empty && language != "PROMQL" {
        wrong.push("searchSourceJSON.query".to_owned());
    }
    match source["filter"].as_array() {
        None => wrong.push("searchSourceJSON.filter".to_owned()),
        Some(filters) => {
            for (at, filter) in filters.iter().enumerate() {
                let read = filter["query"].is_object()
                    && filter["meta"]["negate"].is_boolean()
                    && filter["meta"]["disabled"] == false
                    && filter["meta"]["key"].is_string();
                if !read {
                    wrong.push(format!("searchSourceJSON.filter[{at}]"));
                }
            }
        }
    }
    wrong.into_iter()
}
