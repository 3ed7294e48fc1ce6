//! The fields of a stored record, with the types that they are searched by: what index patterns list, and
//! what panels may use. They are read off the index templates, so that there is one list of them.

use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The component templates that map the fields, as they are sent.
const TEMPLATES: [&str; 2] = [
    include_str!("../../opensearch/templates/clawker-envelope.json"),
    include_str!("../../opensearch/templates/clawker-attributes.json"),
];

/// How a field is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A word, whole.
    Keyword,
    /// Words of a text: can be searched, not counted by.
    Text,
    /// A whole number.
    Long,
    /// Any number.
    Double,
    /// A moment.
    Date,
    /// An address.
    Ip,
    /// Yes or no.
    Boolean,
}

impl Kind {
    /// Its name in Dashboards.
    fn shown(self) -> &'static str {
        match self {
            Self::Keyword | Self::Text => "string",
            Self::Long | Self::Double => "number",
            Self::Date => "date",
            Self::Ip => "ip",
            Self::Boolean => "boolean",
        }
    }

    /// Whether values can be added up.
    #[must_use]
    pub fn number(self) -> bool {
        matches!(self, Self::Long | Self::Double)
    }

    /// Whether records can be grouped and sorted by it.
    #[must_use]
    pub fn aggregatable(self) -> bool {
        self != Self::Text
    }

    /// Of a type in a mapping; nothing for types that no panel can use (aliases, objects that are not indexed).
    fn of(mapping: &str) -> Option<Self> {
        Some(match mapping {
            "keyword" => Self::Keyword,
            "text" | "match_only_text" => Self::Text,
            "byte" | "short" | "integer" | "long" => Self::Long,
            "float" | "double" => Self::Double,
            "date" => Self::Date,
            "ip" => Self::Ip,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }
}

/// A field by its whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// `attributes.agent`, `@timestamp`, ….
    pub name: String,
    /// How it is searched.
    pub kind: Kind,
    /// Its type in the mapping.
    pub mapping: String,
}

/// Fields that every hit has besides its record, with what they are in Dashboards.
const META: [(&str, &str, bool); 4] = [
    ("_id", "string", true),
    ("_index", "string", true),
    ("_score", "number", false),
    ("_source", "_source", false),
];

static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let mut found = Vec::new();
    for template in TEMPLATES {
        // Files of this repository that are sent as they are; tests read them.
        let read: Value = serde_json::from_str(template).expect("a template is JSON");
        mapped(&read["template"]["mappings"]["properties"], "", &mut found);
    }
    found
});

/// Fields of `properties`, under their whole names.
pub(crate) fn mapped(properties: &Value, above: &str, found: &mut Vec<Field>) {
    for (name, mapping) in properties.as_object().into_iter().flat_map(Map::iter) {
        let name = format!("{above}{name}");
        if let Some(kind) = mapping["type"].as_str().and_then(Kind::of) {
            let mapping = mapping["type"].as_str().unwrap_or_default().to_owned();
            found.push(Field {
                name: name.clone(),
                kind,
                mapping,
            });
        }
        mapped(&mapping["properties"], &format!("{name}."), found);
    }
}

/// Every field of a stored record, once.
#[must_use]
pub fn all() -> &'static [Field] {
    &FIELDS
}

/// A field by its whole name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.name == name)
}

/// The list as an index pattern has it. Dashboards from 3.7 on does not ask OpenSearch for it again.
#[must_use]
pub fn pattern() -> Value {
    let line = |name: &str, shown: &str, types: Value, searched: bool, grouped: bool| {
        json!({
            "name": name,
            "type": shown,
            "esTypes": types,
            "count": 0,
            "scripted": false,
            "searchable": searched,
            "aggregatable": grouped,
            "readFromDocValues": grouped && !name.starts_with('_'),
        })
    };
    let meta = META.iter().map(|(name, shown, found)| {
        let types = if name == &"_score" {
            json!([])
        } else {
            json!([name])
        };
        line(name, shown, types, *found, *found)
    });
    let own = FIELDS.iter().map(|f| {
        let types = json!([f.mapping]);
        line(&f.name, f.kind.shown(), types, true, f.kind.aggregatable())
    });
    meta.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_field_is_there_once() {
        let names: BTreeSet<_> = all().iter().map(|f| &f.name).collect();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn the_templates_are_read_with_their_types() {
        for (name, kind) in [
            ("attributes.agent", Kind::Keyword),
            ("attributes.dst_ip", Kind::Ip),
            ("attributes.dst_port", Kind::Long),
            ("attributes.dst_hosts", Kind::Keyword),
            ("attributes.would_deny", Kind::Boolean),
            ("attributes.bypass_until", Kind::Date),
            ("resource.service.name", Kind::Keyword),
        ] {
            assert_eq!(find(name).map(|f| f.kind), Some(kind), "{name}");
        }
        assert!(
            find("resource.clawker.lane").is_none() && find("attributes.clawker.lane").is_none()
        );
    }

    #[test]
    fn a_pattern_lists_what_can_be_grouped_by() {
        let list = pattern();
        let of = |name: &str| {
            let mut lines = list.as_array().unwrap().iter();
            lines.find(|l| l["name"] == name).unwrap().clone()
        };
        assert_eq!(of("attributes.agent")["aggregatable"], true);
        assert_eq!(of("body")["aggregatable"], false);
        assert_eq!(of("attributes.dst_ip")["esTypes"], json!(["ip"]));
        assert_eq!(of("_source")["searchable"], false);
    }
}
