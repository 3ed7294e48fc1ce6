//! Fields: those of records, used as their type allows, and never one that could hold content.

use super::Fault;
use crate::{
    Object,
    fields::{self, Kind},
};
use serde_json::Value;

/// Attributes of Claude Code's events that hold what was said to or by an agent, or who a person is.
const FORBIDDEN: [&str; 18] = [
    "prompt",
    "response",
    "body",
    "body_ref",
    "tool_parameters",
    "tool_input",
    "tool.output",
    "error",
    "hook_definitions",
    "hook_matcher",
    "server_name",
    "user_prompt",
    "user_system_prompt",
    "full_command",
    "bash_command",
    "file_path",
    "workspace.host_paths",
    "user.email",
];

/// What a field is used for.
#[derive(Clone, Copy, PartialEq)]
enum Use {
    /// To be shown or asked for.
    Shown,
    /// To group, count or sort by.
    Grouped,
    /// To be added up.
    Added,
    /// A time axis.
    Time,
}

/// Every field that the object names, and for what.
fn named(object: &Object) -> Vec<(String, Use)> {
    let mut found = Vec::new();
    let mut add = |field: &Value, how| {
        if let Some(name) = field.as_str() {
            found.push((name.to_owned(), how));
        }
    };
    let attributes = object.attributes();
    add(&attributes["timeFieldName"], Use::Time);
    if object.kind() == "search" {
        for column in attributes["columns"].as_array().into_iter().flatten() {
            add(column, Use::Shown);
        }
        for sort in attributes["sort"].as_array().into_iter().flatten() {
            add(&sort[0], Use::Grouped);
        }
    }
    let source = object.text("searchSourceJSON").unwrap_or_default();
    for filter in source["filter"].as_array().into_iter().flatten() {
        add(&filter["meta"]["key"], Use::Shown);
        asked(&filter["query"], &mut add);
    }
    let state = object.text("visState").unwrap_or_default();
    for control in state["params"]["controls"].as_array().into_iter().flatten() {
        add(&control["fieldName"], Use::Grouped);
    }
    for one in state["aggs"].as_array().into_iter().flatten() {
        let how = match one["type"].as_str() {
            Some("sum" | "avg") => Use::Added,
            Some("date_histogram") => Use::Time,
            _ => Use::Grouped,
        };
        add(&one["params"]["field"], how);
    }
    for formats in object
        .text("fieldFormatMap")
        .iter()
        .filter_map(Value::as_object)
    {
        formats
            .keys()
            .for_each(|name| add(&Value::from(name.as_str()), Use::Shown));
    }
    found
}

/// Fields of a query: keys of `match_phrase`, `term` and `range`, values of `exists`.
fn asked(query: &Value, add: &mut impl FnMut(&Value, Use)) {
    match query {
        Value::Object(map) => {
            for (key, inner) in map {
                match key.as_str() {
                    "match_phrase" | "term" | "range" => {
                        for name in inner.as_object().into_iter().flat_map(|m| m.keys()) {
                            add(&Value::from(name.as_str()), Use::Shown);
                        }
                    }
                    "exists" => add(&inner["field"], Use::Shown),
                    _ => asked(inner, add),
                }
            }
        }
        Value::Array(list) => {
            for inner in list {
                asked(inner, add);
            }
        }
        _ => {}
    }
}

/// Whether a field could hold content.
fn forbidden(field: &str) -> bool {
    let name = ["attributes.", "resource."]
        .iter()
        .find_map(|place| field.strip_prefix(place));
    name.is_some_and(|n| FORBIDDEN.contains(&n))
}

/// What is wrong with this use of a field.
fn wrong(field: &str, how: Use) -> Option<&'static str> {
    if forbidden(field) {
        return Some("may hold content of prompts and is never stored");
    }
    let Some(found) = fields::find(field) else {
        return Some("is not one of records");
    };
    match how {
        Use::Shown => None,
        Use::Grouped if found.kind.aggregatable() => None,
        Use::Grouped => Some("cannot be grouped by"),
        Use::Added if found.kind.number() => None,
        Use::Added => Some("is no number"),
        Use::Time if found.kind == Kind::Date => None,
        Use::Time => Some("is no time"),
    }
}

/// What is wrong with the fields of an object.
pub(super) fn faults(object: &Object) -> Vec<Fault> {
    let fault = |field: &str, what| Fault::Field {
        of: object.to_string(),
        field: field.to_owned(),
        what,
    };
    let mut faults: Vec<_> = named(object)
        .into_iter()
        .filter_map(|(field, how)| Some(fault(&field, wrong(&field, how)?)))
        .collect();
    if object.kind() == "index-pattern" {
        let listed = object.text("fields").unwrap_or_default();
        let listed = listed.as_array().cloned().unwrap_or_default();
        let name = |line: &Value| line["name"].as_str().unwrap_or_default().to_owned();
        for line in &listed {
            if forbidden(&name(line)) {
                faults.push(fault(
                    &name(line),
                    "may hold content of prompts and is never stored",
                ));
            }
        }
        for field in fields::all() {
            let line = listed.iter().find(|line| name(line) == field.name);
            if line.map(|l| &l["esTypes"][0]) != Some(&Value::from(field.mapping.as_str())) {
                faults.push(fault(&field.name, "is not listed with its type"));
            }
        }
    }
    faults
}

/// Looks into the mapping of a live index: its `properties`. Every field of the patterns must be there, under a
/// type that answers the same questions.
#[must_use]
pub fn mappings(of: &str, properties: &Value) -> Vec<Fault> {
    let mut live = Vec::new();
    fields::mapped(properties, "", &mut live);
    let wrong = fields::all().iter().filter_map(|field| {
        let what = match live.iter().find(|f| f.name == field.name) {
            None => "has no mapping",
            Some(found) if found.kind == field.kind => return None,
            Some(_) => "is mapped to another type",
        };
        Some(Fault::Field {
            of: of.to_owned(),
            field: field.name.clone(),
            what,
        })
    });
    wrong.collect()
}
