//! Aggregations and what is drawn of them.

use super::Fault;
use crate::Object;
use serde_json::Value;

/// Schemas of aggregations that a kind of panel knows: for numbers, and for groups.
fn schemas(kind: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    let known: (&[_], &[_]) = match kind {
        "metric" => (&["metric"], &["group"]),
        "table" => (&["metric"], &["bucket", "split"]),
        "histogram" | "horizontal_bar" | "area" | "line" => {
            (&["metric", "radius"], &["segment", "group", "split"])
        }
        "markdown" | "input_control_vis" => (&[], &[]),
        _ => return None,
    };
    Some(known)
}

const METRICS: [&str; 6] = ["count", "sum", "avg", "max", "min", "cardinality"];
const BUCKETS: [&str; 2] = ["terms", "date_histogram"];

/// What is wrong with an aggregation. `all` are those of the panel.
fn wrong(kind: &str, one: &Value, all: &[Value]) -> Option<&'static str> {
    let (numbers, groups) = schemas(kind)?;
    let (schema, class) = (one["schema"].as_str()?, one["type"].as_str()?);
    let params = &one["params"];
    let number = METRICS.contains(&class);
    if !number && !BUCKETS.contains(&class) {
        return Some("is of a type that is not known here");
    }
    if !(if number { numbers } else { groups }).contains(&schema) {
        return Some("has a schema that this kind of panel does not know");
    }
    if class != "count" && !params["field"].is_string() {
        return Some("is of no field");
    }
    let merged = params["json"].as_str();
    if merged.is_some_and(|text| !serde_json::from_str(text).is_ok_and(|v: Value| v.is_object())) {
        return Some("has JSON of its own that is none");
    }
    if class == "terms" {
        let by = params["orderBy"].as_str();
        let among = |a: &Value| a["id"].as_str() == by && METRICS.iter().any(|m| a["type"] == *m);
        if by != Some("_key") && !all.iter().any(among) {
            return Some("is ordered by what is no number of the panel");
        }
        if params["size"].as_u64().is_none_or(|size| size == 0) {
            return Some("has no size");
        }
    }
    None
}

/// What is wrong with a panel's state.
pub(super) fn faults(object: &Object) -> Vec<Fault> {
    if object.kind() != "visualization" {
        return Vec::new();
    }
    let of = object.to_string();
    let form = |attribute: &str| Fault::Form {
        of: of.clone(),
        attribute: attribute.to_owned(),
    };
    // Text that is no JSON has been told of.
    let Some(state) = object.text("visState") else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    let kind = state["type"].as_str().unwrap_or_default();
    let Some((numbers, _)) = schemas(kind) else {
        return vec![form("visState.type")];
    };
    if state["title"] != object.attributes()["title"] {
        faults.push(form("visState.title"));
    }
    let Some(aggs) = state["aggs"].as_array() else {
        return vec![form("visState.aggs")];
    };
    let id = |one: &Value| one["id"].as_str().unwrap_or_default().to_owned();
    for (at, one) in aggs.iter().enumerate() {
        let twice = aggs[..at].iter().any(|o| o["id"] == one["id"]);
        let what = twice.then_some("has the id of another");
        let off = (one["enabled"] != true).then_some("is not enabled");
        if let Some(what) = what.or(off).or_else(|| wrong(kind, one, aggs)) {
            faults.push(Fault::Aggregation {
                of: of.clone(),
                id: id(one),
                what,
            });
        }
    }
    let counts = |one: &&Value| METRICS.iter().any(|m| one["type"] == *m);
    if !numbers.is_empty() && !aggs.iter().any(|one| counts(&one)) {
        faults.push(form("visState.aggs"));
    }
    for series in state["params"]["seriesParams"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let drawn = &series["data"]["id"];
        if !aggs.iter().filter(counts).any(|one| &one["id"] == drawn) {
            faults.push(form("visState.params.seriesParams"));
        }
    }
    faults
}
