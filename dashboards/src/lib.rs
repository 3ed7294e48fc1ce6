//! Saved objects of OpenSearch Dashboards: index patterns, saved searches, panels and dashboards.
//!
//! Each is a file of `objects/`, written as Dashboards exports it but for two things: what Dashboards
//! keeps as JSON inside a string is plain JSON there (see [`TEXTS`]), and index patterns have no `fields`,
//! which are made from the dictionary ([`fields`]). The files are embedded by `build.rs` and joined here.
//!
//! [`ndjson`] goes through `POST /api/saved_objects/_import?overwrite=true`. The panels that ask Prometheus
//! ([`explore`]) cannot: they refer to a data source under the type `index-pattern`, which the import takes
//! for a missing index pattern. They are created one by one, before the import, with
//! `POST /api/saved_objects/explore/<id>?overwrite=true`. So is the data connection ([`connection`]), outside
//! of any workspace. Dashboards answers an import with 200 although objects failed: read `success` and
//! `errors`, then ask for each object by [`Object::kind`] and [`Object::id`].

pub mod check;
pub mod fields;
mod object;

pub use object::{Object, ObjectError, TEXTS};
use std::sync::LazyLock;

/// Every file of `objects/`, in the order of their paths.
const FILES: &[&str] = include!(concat!(env!("OUT_DIR"), "/objects.rs"));

/// Kinds in the order in which they are imported: what is referred to comes first.
const IMPORTED: [&str; 4] = ["index-pattern", "search", "visualization", "dashboard"];

static OBJECTS: LazyLock<Vec<Object>> = LazyLock::new(|| {
    let read = FILES.iter().map(|text| Object::from_source(text));
    // A test reads all of them, and they are part of the program: there is no other outcome later.
    read.collect::<Result<_, _>>()
        .expect("the embedded objects are read by a test")
});

static IMPORT: LazyLock<Vec<Object>> = LazyLock::new(|| {
    let of = |kind: &'static str| OBJECTS.iter().filter(move |o| o.kind() == kind).cloned();
    IMPORTED.into_iter().flat_map(of).collect()
});

static EXPLORE: LazyLock<Vec<Object>> = LazyLock::new(|| {
    let metrics = OBJECTS.iter().filter(|o| o.kind() == "explore");
    metrics.cloned().collect()
});

static NDJSON: LazyLock<String> = LazyLock::new(|| {
    let mut lines = String::new();
    for object in IMPORT.iter() {
        lines += &object.line();
        lines.push('\n');
    }
    lines
});

/// Every object, as it is saved.
#[must_use]
pub fn objects() -> &'static [Object] {
    &OBJECTS
}

/// The body of the import: one object a line.
#[must_use]
pub fn ndjson() -> &'static str {
    &NDJSON
}

/// The objects of [`ndjson`], in its order.
#[must_use]
pub fn imported() -> &'static [Object] {
    &IMPORT
}

/// Panels that ask Prometheus. To be created one by one, before the import.
#[must_use]
pub fn explore() -> &'static [Object] {
    &EXPLORE
}

/// The object that shows the data source `clawker_prometheus` to Dashboards. To be created outside of
/// workspaces, and named in the settings of the workspace.
#[must_use]
pub fn connection() -> &'static Object {
    let found = OBJECTS.iter().find(|o| o.kind() == "data-connection");
    // Among the embedded files, as a test sees.
    found.expect("objects/connections holds it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_file_is_an_object_and_has_its_way_into_dashboards() {
        assert_eq!(FILES.len(), objects().len());
        assert_eq!(objects().len(), imported().len() + explore().len() + 1);
        assert_eq!(connection().id(), "clawker-prometheus");
    }

    #[test]
    fn the_import_is_one_object_a_line_each_after_what_it_refers_to() {
        let mut seen = Vec::new();
        for (line, object) in ndjson().lines().zip(imported()) {
            let value: Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["id"], object.id());
            assert_eq!(value["type"], object.kind());
            for reference in value["references"].as_array().unwrap() {
                let to = (reference["type"].clone(), reference["id"].clone());
                assert!(to.0 == "explore" || seen.contains(&to), "{to:?} in {line}");
            }
            seen.push((value["type"].clone(), value["id"].clone()));
        }
        assert_eq!(seen.len(), imported().len());
    }

    #[test]
    fn what_is_created_one_by_one_has_no_id_in_its_body() {
        for object in explore().iter().chain([connection()]) {
            let body = object.body();
            assert!(body.get("id").is_none() && body.get("type").is_none());
            assert!(body["attributes"].is_object());
        }
    }
}
