//! Names of references, and where they lead.

use super::Fault;
use crate::Object;
use serde_json::Value;
use std::collections::BTreeSet;

/// Values of all keys that end with `RefName`, wherever they are.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::String(name) if key.ends_with("RefName") => {
                        found.insert(name.clone());
                    }
                    inner => names(inner, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| names(inner, found)),
        _ => {}
    }
}

/// Names that the object uses.
pub(super) fn used(object: &Object) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in ["visState", "panelsJSON", "searchSourceJSON"] {
        if let Some(value) = object.text(text) {
            names(&value, &mut found);
        }
    }
    names(object.attributes(), &mut found);
    found
}

/// Types that a reference under this name may lead to.
fn allowed(object: &Object, name: &str) -> &'static [&'static str] {
    match object.kind() {
        "dashboard" if name.starts_with("panel_") => &["visualization", "search", "explore"],
        "search" | "visualization" | "explore" => &["index-pattern"],
        _ => &[],
    }
}

/// Whether there is such an object. A panel that asks Prometheus names the connection, as if it were an
/// index pattern.
fn exists(object: &Object, kind: &str, id: &str, all: &[Object]) -> bool {
    all.iter().any(|o| {
        if object.kind() == "explore" {
            o.kind() == "data-connection" && o.attributes()["connectionId"] == id
        } else {
            o.kind() == kind && o.id() == id
        }
    })
}

/// What is wrong with the references of an object.
pub(super) fn faults(object: &Object, all: &[Object]) -> Vec<Fault> {
    let used = used(object);
    let mut given = BTreeSet::new();
    let mut faults = Vec::new();
    let mut fault = |name: &str, what| {
        faults.push(Fault::Reference {
            of: object.to_string(),
            name: name.to_owned(),
            what,
        });
    };
    for (name, kind, id) in object.references() {
        if !given.insert(name.to_owned()) {
            fault(name, "given twice");
        }
        if !used.contains(name) {
            fault(name, "given and not used");
        }
        if !allowed(object, name).contains(&kind) {
            fault(name, "of a type that it may not lead to");
        }
        if !exists(object, kind, id, all) {
            fault(name, "to an object that is not here");
        }
    }
    for name in used.difference(&given) {
        fault(name, "used and not given");
    }
    faults
}
