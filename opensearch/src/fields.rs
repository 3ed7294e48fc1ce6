//! What a stored record has, and how each part of it is indexed. The attributes of the monitor's own programs
//! come from the dictionary (`wire::fields`), so that one cannot be added there and forgotten here. All streams
//! share one mapping: the same field has the same type everywhere.

use serde_json::{Map, Value, json};
use wire::fields::ALL;

/// Longer words are kept and not indexed. In bytes it is well under what the index would refuse.
const LONGEST_WORD: u32 = 1024;

/// How a field is indexed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A word, whole.
    Keyword,
    /// Prose: found by its words.
    Text,
    /// A whole number.
    Long,
    /// Any number.
    Double,
    /// Yes or no.
    Boolean,
    /// A moment.
    Date,
    /// An address.
    Ip,
}

impl Kind {
    /// What the dictionary calls it.
    fn of(dictionary: &str) -> Option<Self> {
        Some(match dictionary {
            "string" | "list of strings" => Self::Keyword,
            "int" => Self::Long,
            "double" => Self::Double,
            "bool" => Self::Boolean,
            "string, IP address" => Self::Ip,
            "string, RFC 3339 time" => Self::Date,
            _ => return None,
        })
    }

    /// Its type in a mapping.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Text => "match_only_text",
            Self::Long => "long",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Ip => "ip",
        }
    }

    fn mapping(self) -> Value {
        match self {
            Self::Keyword => json!({"type": "keyword", "ignore_above": LONGEST_WORD}),
            kind => json!({"type": kind.name()}),
        }
    }
}

use Kind::{Date, Keyword, Long, Text};

/// What the exporter writes around the attributes, and what the pipeline adds.
const ENVELOPE: &[(&str, Kind)] = &[
    ("@timestamp", Date),
    ("observedTimestamp", Date),
    ("body", Text),
    ("severity.text", Keyword),
    ("severity.number", Long),
    ("instrumentationScope.name", Keyword),
    ("instrumentationScope.version", Keyword),
    ("instrumentationScope.schemaUrl", Keyword),
    ("attributes.data_stream.dataset", Keyword),
    ("attributes.data_stream.namespace", Keyword),
    ("attributes.data_stream.type", Keyword),
    ("eventName", Keyword),
    ("schemaUrl", Keyword),
    ("traceId", Keyword),
    ("spanId", Keyword),
    ("odd_fields", Keyword),
];

/// Names under which readers of ss4o records look for the same things.
const ALIASES: &[(&str, &str)] = &[
    ("severityText", "severity.text"),
    ("severityNumber", "severity.number"),
    ("source.ip", "attributes.src_ip"),
    ("source.port", "attributes.src_port"),
    ("source.bytes", "attributes.bytes_out"),
    ("destination.ip", "attributes.dst_ip"),
    ("destination.port", "attributes.dst_port"),
    ("destination.domain", "attributes.dst_host"),
    ("destination.bytes", "attributes.bytes_in"),
    ("resource.attributes.service.name", "resource.service.name"),
];

/// A field by its whole name (`attributes.agent`), and how it is indexed.
pub type Field = (String, Kind);

/// Every field of a stored record, aliases left out.
#[must_use]
pub fn all() -> Vec<Field> {
    let envelope = ENVELOPE.iter().map(|&(name, kind)| (name.to_owned(), kind));
    envelope.chain(own()).collect()
}

/// Fields of the dictionary that are stored.
fn own() -> impl Iterator<Item = Field> {
    let stored = ALL
        .iter()
        .filter(|e| !e.records.contains("between the collector"));
    stored.map(|entry| {
        let part = if entry.records.starts_with("resource") {
            "resource"
        } else {
            "attributes"
        };
        // A kind that is not known here is indexed as a word, which takes every value; a test refuses it.
        (
            format!("{part}.{}", entry.name),
            Kind::of(entry.kind).unwrap_or(Keyword),
        )
    })
}

/// The part of the mapping that is not the attributes'.
#[must_use]
pub fn envelope() -> Value {
    let mut properties = Map::new();
    for (name, kind) in all() {
        if !name.starts_with("attributes.") {
            place(&mut properties, &name, kind.mapping());
        }
    }
    aliases(&mut properties, false);
    let unread = json!({"type": "object", "enabled": false});
    place(
        &mut properties,
        "instrumentationScope.attributes",
        unread.clone(),
    );
    place(&mut properties, "odd", unread);
    Value::Object(properties)
}

/// The attributes' part of the mapping, and their aliases.
#[must_use]
pub fn attributes() -> Value {
    let mut properties = Map::new();
    for (name, kind) in all() {
        if name.starts_with("attributes.") {
            place(&mut properties, &name, kind.mapping());
        }
    }
    aliases(&mut properties, true);
    Value::Object(properties)
}

/// Places the aliases of attributes, or of the rest: an alias is refused where its field is not.
fn aliases(properties: &mut Map<String, Value>, of_attributes: bool) {
    for (name, path) in ALIASES {
        if path.starts_with("attributes.") == of_attributes {
            place(properties, name, json!({"type": "alias", "path": path}));
        }
    }
}

/// Puts a field where its dotted name says.
fn place(properties: &mut Map<String, Value>, name: &str, mapping: Value) {
    let Some((parent, rest)) = name.split_once('.') else {
        properties.insert(name.to_owned(), mapping);
        return;
    };
    let parent = properties
        .entry(parent)
        .or_insert_with(|| json!({"properties": {}}));
    if let Some(children) = parent["properties"].as_object_mut() {
        place(children, rest, mapping);
    }
}

/// What the pipeline has to know of the mapping.
#[must_use]
pub fn shapes() -> Value {
    let (mut record, mut parts, mut stream) = (Map::new(), Map::new(), Map::new());
    for (name, kind) in all() {
        let kind = json!(kind.name());
        match name.split_once('.') {
            None => {
                record.insert(name, kind);
            }
            Some((part, rest)) => {
                record.insert(part.to_owned(), json!("object"));
                let part = parts.entry(part).or_insert_with(|| json!({}));
                match rest.strip_prefix("data_stream.") {
                    None => part[rest] = kind,
                    Some(rest) => {
                        part["data_stream"] = json!("object");
                        stream.insert(rest.to_owned(), kind);
                    }
                }
            }
        }
    }
    // Only the pipeline writes it.
    record.remove("odd_fields");
    parts["instrumentationScope"]["attributes"] = json!("any");
    let parents = |types: &Value| -> Value {
        let names = types.as_object().into_iter().flat_map(Map::keys);
        let firsts = names
            .filter_map(|n| n.split_once('.'))
            .map(|(first, _)| first);
        let mut firsts: Vec<_> = firsts.collect();
        firsts.dedup();
        json!(firsts)
    };
    let mut parents: Map<_, _> = parts.iter().map(|(k, v)| (k.clone(), parents(v))).collect();
    // The alias for readers of ss4o records.
    parents["resource"] = json!(["service", "attributes"]);
    json!({
        "metadata": ["_index", "_id", "_version", "_version_type", "_if_seq_no", "_if_primary_term"],
        "record": record,
        "parts": parts,
        "parents": parents,
        "data_stream": stream,
        "ids": ["record_id", "flow_id"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_attribute_of_the_dictionary_has_a_mapping_of_its_kind() {
        let properties = attributes()["attributes"]["properties"].clone();
        let resource = envelope()["resource"]["properties"].clone();
        for entry in ALL {
            let kind = Kind::of(entry.kind);
            let kind =
                kind.unwrap_or_else(|| panic!("no mapping for values of kind {}", entry.kind));
            let mapping = match entry.records {
                r if r.contains("between the collector") => continue,
                r if r.starts_with("resource") => {
                    let path = entry.name.replace('.', "/properties/");
                    resource.pointer(&format!("/{path}")).cloned()
                }
                _ => properties.get(entry.name).cloned(),
            };
            let mapping = mapping.unwrap_or_else(|| panic!("{} has no mapping", entry.name));
            assert_eq!(mapping["type"], kind.name(), "{}", entry.name);
        }
    }

    #[test]
    fn a_field_is_there_once_and_an_alias_leads_to_one() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "a name is there twice");
        for (alias, path) in ALIASES {
            assert!(names.contains(path) && !names.contains(alias), "{alias}");
        }
        // No field lies under another: one of them could not be indexed.
        for name in &names {
            let mut parts = name.rsplit_once('.');
            while let Some((parent, _)) = parts {
                assert!(!names.contains(parent), "{name} lies under {parent}");
                parts = parent.rsplit_once('.');
            }
        }
    }
}
