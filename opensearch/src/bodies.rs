//! What is sent to OpenSearch: templates, pipeline, policies and roles, as JSON.

use crate::{
    fields::{self, Kind},
    streams::{Age, Stream},
};
use serde_json::{Value, json};
use wire::fields::{AGENT, CONTAINER_ID, CONTAINER_NAME, FLOW_ID, PROJECT, RECORD_ID};

/// Version of what is here. It goes up with every change of the mapping, and is written into what is made, so
/// that an older program does not put back what a newer one has made.
pub const VERSION: u64 = 1;

/// The pipeline at the end of every write.
pub const PIPELINE: &str = "clawker-repair";
/// Before the templates that others may have.
const PRIORITY: u64 = 500;
/// An index is full at this age or size, whichever comes first. Small ones are deleted in small steps, many are
/// a burden: a week is both.
const ROLLOVER_AGE: Age = Age(7);
const ROLLOVER_SIZE: &str = "5gb";

fn meta() -> Value {
    json!({"version": VERSION, "made_by": "clawker provision"})
}

/// The component templates, by name: what streams have in common.
#[must_use]
pub fn components() -> Vec<(&'static str, Value)> {
    let component =
        |template: Value| json!({"version": VERSION, "_meta": meta(), "template": template});
    let settings = json!({"settings": {"index": {
        // One node: a copy would have nowhere to go.
        "number_of_shards": 1,
        "number_of_replicas": 0,
        "codec": "best_compression",
        "final_pipeline": PIPELINE,
        "mapping.ignore_malformed": true,
    }}});
    let mapping =
        |properties: Value| json!({"mappings": {"dynamic": false, "properties": properties}});
    let mut envelope = mapping(fields::envelope());
    // What a live index was made with is read from here.
    envelope["mappings"]["_meta"] = meta();
    vec![
        ("clawker-settings", component(settings)),
        ("clawker-envelope", component(envelope)),
        (
            "clawker-attributes",
            component(mapping(fields::attributes())),
        ),
    ]
}

/// The whole mapping, as a live index is brought up to it.
#[must_use]
pub fn mapping() -> Value {
    let mut properties = fields::envelope();
    if let (Value::Object(all), Value::Object(more)) = (&mut properties, fields::attributes()) {
        all.extend(more);
    }
    json!({"dynamic": false, "_meta": meta(), "properties": properties})
}

/// The index template of a stream.
#[must_use]
pub fn template(stream: &Stream) -> Value {
    let names: Vec<_> = components().into_iter().map(|(name, _)| name).collect();
    json!({
        "index_patterns": [stream.name],
        "data_stream": {},
        "priority": PRIORITY,
        "version": VERSION,
        "_meta": meta(),
        "composed_of": names,
    })
}

/// The pipeline at the end of every write: sets aside what the mapping would refuse.
#[must_use]
pub fn pipeline() -> Value {
    let script = |source: &str, params: Value| json!({"script": {"lang": "painless", "source": source, "params": params}});
    let repair = script(
        include_str!("../pipelines/repair.painless"),
        fields::shapes(),
    );
    let mut first = repair.clone();
    first["script"]["on_failure"] = plainly(repair);
    let mut processors = vec![
        first,
        // The script cannot know it.
        json!({"set": {"field": "@timestamp", "value": "{{{_ingest.timestamp}}}", "override": false}}),
    ];
    for (name, kind) in fields::all() {
        if let (Some(attribute), Kind::Ip) = (name.strip_prefix("attributes."), kind) {
            let aside = script(
                include_str!("../pipelines/aside.painless"),
                json!({"name": attribute}),
            );
            // Scripts have no means to read an address.
            processors.push(json!({"convert": {
                "field": name, "type": "ip", "ignore_missing": true, "on_failure": [aside],
            }}));
        }
    }
    json!({
        "description": "Sets aside what the mapping would refuse, and gives records the id that tells repetitions",
        "version": VERSION,
        "processors": processors,
    })
}

/// What is done with a record that no script can be given: a whole number of more than 64 bits in it is enough,
/// and the exporter writes numbers like 1e20 so. The attributes become text, but for those that say whose the
/// record is; then the script is given the rest.
fn plainly(repair: Value) -> Value {
    const UNREAD: &str = "attributes_as_text";
    let rename = |from: &str, to: &str| json!({"rename": {"field": from, "target_field": to, "ignore_missing": true, "ignore_failure": true}});
    let kept = [
        AGENT,
        PROJECT,
        CONTAINER_ID,
        CONTAINER_NAME,
        RECORD_ID,
        FLOW_ID,
    ]
    .map(|f| f.name);
    let mut steps = vec![rename("attributes", UNREAD)];
    steps.extend(
        kept.map(|name| rename(&format!("{UNREAD}.{name}"), &format!("attributes.{name}"))),
    );
    steps.push(json!({"convert": {"field": UNREAD, "type": "string", "ignore_missing": true}}));
    steps.push(repair);
    json!(steps)
}

/// The policy of a stream: a new index each week, the old ones deleted when they are old enough.
#[must_use]
pub fn policy(stream: &Stream) -> Value {
    let retry = json!({"count": 5, "backoff": "exponential", "delay": "10m"});
    json!({"policy": {
        "description": format!("{}: a new index after {ROLLOVER_AGE} or {ROLLOVER_SIZE}, deleted {} later (clawker {VERSION})", stream.name, stream.retention),
        "default_state": "written",
        "states": [
            {
                "name": "written",
                "actions": [{
                    "retry": retry,
                    "rollover": {
                        "min_index_age": ROLLOVER_AGE.to_string(),
                        "min_primary_shard_size": ROLLOVER_SIZE,
                    },
                }],
                "transitions": [{
                    "state_name": "deleted",
                    "conditions": {"min_rollover_age": stream.retention.to_string()},
                }],
            },
            {
                "name": "deleted",
                "actions": [{"retry": retry, "delete": {}}],
                "transitions": [],
            },
        ],
        "ism_template": [{"index_patterns": [stream.name], "priority": PRIORITY}],
    }})
}

/// The data source that shows Prometheus to Dashboards.
pub const DATA_SOURCE: &str = "clawker_prometheus";

/// Its definition.
#[must_use]
pub fn data_source(prometheus: &str) -> Value {
    json!({
        "name": DATA_SOURCE,
        "description": "Metrics of the agents and of the monitor itself",
        "connector": "prometheus",
        "properties": {"prometheus.uri": prometheus},
        // Without it only administrators could ask.
        "allowedRoles": ["clawker_reader"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams;
    use std::{env, fs, path::Path};

    /// The files under `templates/` are what is sent, for people to read.
    #[test]
    fn the_files_to_read_are_what_is_sent() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        let egress = &streams::all(&[])[0];
        let mut files = components();
        files.push((egress.name, template(egress)));
        files.push(("policy-clawker-egress", policy(egress)));
        for (name, body) in files {
            let file = folder.join(format!("{name}.json"));
            let text = serde_json::to_string_pretty(&body).unwrap() + "\n";
            if env::var_os("CLAWKER_WRITE_DOCS").is_some() {
                fs::write(&file, &text).unwrap();
            }
            let there = fs::read_to_string(&file).unwrap_or_default();
            assert!(
                there == text,
                "{} is not what is sent; `CLAWKER_WRITE_DOCS=1 cargo nextest run -p provision` writes it anew, and VERSION goes up with a change",
                file.display()
            );
        }
    }

    #[test]
    fn the_mapping_of_a_live_index_is_that_of_the_templates() {
        let of = |n: usize| components()[n].1["template"]["mappings"].clone();
        let (envelope, attributes) = (of(1), of(2));
        let all = mapping();
        for part in [&envelope, &attributes] {
            for (name, value) in part["properties"].as_object().unwrap() {
                assert_eq!(&all["properties"][name], value, "{name}");
            }
        }
        assert_eq!(all["_meta"], envelope["_meta"]);
    }
}
