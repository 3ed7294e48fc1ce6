//! One saved object.

use crate::fields;
use serde_json::{Map, Value, json};
use std::fmt;
use thiserror::Error;

/// Attributes that Dashboards keeps as JSON inside a string. In the files they are plain JSON.
pub const TEXTS: [&str; 11] = [
    "fieldFormatMap",
    "fields",
    "meta",
    "optionsJSON",
    "panelsJSON",
    "searchSourceJSON",
    "uiState",
    "uiStateJSON",
    "variablesJSON",
    "visState",
    "visualization",
];

/// What is wrong with the file of an object.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// No JSON.
    #[error("saved object: {0}")]
    Json(#[from] serde_json::Error),
    /// A part is not there, or is something else.
    #[error("saved object {id}: `{part}` is missing or of the wrong kind")]
    Part {
        /// Whose.
        id: String,
        /// Which.
        part: &'static str,
    },
}

/// A saved object, as it is saved.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(Value);

/// Turns the attributes of [`TEXTS`] into strings.
fn to_texts(attributes: &mut Map<String, Value>) {
    for (key, value) in attributes {
        match value {
            Value::String(_) => {}
            _ if TEXTS.contains(&key.as_str()) => *value = Value::String(value.to_string()),
            Value::Object(inner) => to_texts(inner),
            _ => {}
        }
    }
}

impl Object {
    /// From the text of a file.
    ///
    /// # Errors
    ///
    /// It is no JSON, or no object with `type`, `id`, `attributes` and `references`.
    pub fn from_source(text: &str) -> Result<Self, ObjectError> {
        let mut value: Value = serde_json::from_str(text)?;
        let id = value["id"].as_str().unwrap_or("without id").to_owned();
        let part = |part| ObjectError::Part {
            id: id.clone(),
            part,
        };
        for text in ["type", "id"] {
            value[text].as_str().ok_or_else(|| part(text))?;
        }
        value["references"]
            .as_array()
            .ok_or_else(|| part("references"))?;
        let pattern = value["type"] == "index-pattern";
        let attributes = value["attributes"]
            .as_object_mut()
            .ok_or_else(|| part("attributes"))?;
        if pattern {
            attributes.insert("fields".to_owned(), fields::pattern());
        }
        to_texts(attributes);
        Ok(Self(value))
    }

    /// Its type, as in `/api/saved_objects/<type>/<id>`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.0["type"].as_str().unwrap_or_default()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or_default()
    }

    /// Its title; empty where there is none.
    #[must_use]
    pub fn title(&self) -> &str {
        self.0["attributes"]["title"].as_str().unwrap_or_default()
    }

    /// Its attributes.
    #[must_use]
    pub fn attributes(&self) -> &Value {
        &self.0["attributes"]
    }

    /// An attribute that is JSON inside a string, such as `visState`; nothing where it is not there or no JSON.
    #[must_use]
    pub fn text(&self, attribute: &str) -> Option<Value> {
        let attributes = &self.0["attributes"];
        let text = match attribute {
            "searchSourceJSON" => &attributes["kibanaSavedObjectMeta"][attribute],
            _ => &attributes[attribute],
        };
        serde_json::from_str(text.as_str()?).ok()
    }

    /// What it refers to: (name, type, id).
    pub fn references(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        let list = self.0["references"].as_array().into_iter().flatten();
        list.map(|r| {
            let part = |key: &str| r[key].as_str().unwrap_or_default();
            (part("name"), part("type"), part("id"))
        })
    }

    /// The id that a reference of this name leads to.
    #[must_use]
    pub fn referred(&self, name: &str) -> Option<&str> {
        self.references()
            .find(|(n, _, _)| *n == name)
            .map(|(_, _, id)| id)
    }

    /// As a line of an import.
    #[must_use]
    pub fn line(&self) -> String {
        self.0.to_string()
    }

    /// As the body of `POST /api/saved_objects/<type>/<id>`.
    #[must_use]
    pub fn body(&self) -> Value {
        json!({ "attributes": self.0["attributes"], "references": self.0["references"] })
    }

    /// The whole of it, to be changed by a test.
    #[cfg(test)]
    pub(crate) fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_inside_strings_is_written_plainly_in_files() {
        let object = Object::from_source(
            r#"{"type":"visualization","id":"v","references":[{"name":"n","type":"search","id":"s"}],
                "attributes":{"title":"T","visState":{"type":"metric"},
                "kibanaSavedObjectMeta":{"searchSourceJSON":{"filter":[]}}}}"#,
        )
        .unwrap();
        assert_eq!(
            object.attributes()["visState"],
            Value::String(r#"{"type":"metric"}"#.to_owned())
        );
        assert_eq!(
            object.text("visState").unwrap(),
            json!({ "type": "metric" })
        );
        assert_eq!(
            object.text("searchSourceJSON").unwrap(),
            json!({ "filter": [] })
        );
        assert_eq!(object.referred("n"), Some("s"));
        assert_eq!((object.kind(), object.title()), ("visualization", "T"));
    }

    #[test]
    fn what_is_no_object_is_refused_by_name() {
        for (text, part) in [
            (r#"{"id":"x","attributes":{},"references":[]}"#, "type"),
            (r#"{"type":"search","attributes":{},"references":[]}"#, "id"),
            (
                r#"{"type":"search","id":"x","attributes":[],"references":[]}"#,
                "attributes",
            ),
            (
                r#"{"type":"search","id":"x","attributes":{}}"#,
                "references",
            ),
        ] {
            let error = Object::from_source(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{part}`")), "{error}");
        }
    }
}
