//! Seeing what is there, without changing anything.

use crate::{
    bodies::{self, PIPELINE},
    client::Client,
    report::{Outcome, Report},
    streams::Stream,
};
use serde_json::{Value, json};

/// What is to be there.
struct Wanted {
    kind: &'static str,
    name: &'static str,
    path: String,
    // Where in the answer.
    at: String,
    body: Value,
}

/// Compares everything that OpenSearch itself has to have.
pub async fn store(client: &Client, streams: &[Stream], report: &mut Report) {
    for wanted in wanted(streams) {
        same(client, &wanted, report).await;
    }
}

fn wanted(streams: &[Stream]) -> Vec<Wanted> {
    let one = |kind, name: &'static str, path: &str, at: &str, body| Wanted {
        kind,
        name,
        path: format!("/{path}/{name}"),
        at: at.to_owned(),
        body,
    };
    let at = format!("/{PIPELINE}");
    let mut all = vec![one(
        "pipeline",
        PIPELINE,
        "_ingest/pipeline",
        &at,
        bodies::pipeline(),
    )];
    for (name, mut body) in bodies::components() {
        // Settings come back in another form.
        if let Some(template) = body["template"].as_object_mut() {
            template.remove("settings");
        }
        let at = "/component_templates/0/component_template";
        all.push(one(
            "component template",
            name,
            "_component_template",
            at,
            body,
        ));
    }
    for stream in streams {
        let at = "/index_templates/0/index_template";
        all.push(one(
            "index template",
            stream.name,
            "_index_template",
            at,
            bodies::template(stream),
        ));
        let policy = bodies::policy(stream)["policy"].clone();
        all.push(one(
            "policy",
            stream.name,
            "_plugins/_ism/policies",
            "/policy",
            policy,
        ));
    }
    for stream in streams.iter().filter(|s| s.made) {
        let body = json!({"template": stream.name});
        all.push(one(
            "data stream",
            stream.name,
            "_data_stream",
            "/data_streams/0",
            body,
        ));
    }
    all
}

async fn same(client: &Client, wanted: &Wanted, report: &mut Report) {
    const ADVICE: &str = "run `provision` without `check`";
    let Wanted { kind, name, .. } = *wanted;
    match client.find(&wanted.path).await {
        Ok(Some(there))
            if there
                .pointer(&wanted.at)
                .is_some_and(|t| contains(t, &wanted.body)) =>
        {
            report.done(kind, name, Outcome::Right, "");
        }
        Ok(Some(_)) => report.failed(kind, name, "it is another version", ADVICE),
        Ok(None) => report.failed(kind, name, "it is not there", ADVICE),
        Err(e) => report.failed(kind, name, &e, e.advice()),
    }
}

/// Whether everything that is wanted is there; servers add what was left out.
pub(crate) fn contains(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| there.get(key).is_some_and(|t| contains(t, value))),
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len() && there.iter().zip(wanted).all(|(t, w)| contains(t, w))
        }
        // Numbers of settings come back as texts.
        (Value::String(there), Value::Number(_) | Value::Bool(_)) => {
            serde_json::from_str::<Value>(there).is_ok_and(|t| t == *wanted)
        }
        (there, wanted) => there == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_adds_is_no_difference() {
        let wanted = json!({"states": [{"name": "a", "n": 5}]});
        let more = json!({"states": [{"name": "a", "n": "5", "extra": null}], "id": "x"});
        assert!(contains(&more, &wanted));
        for other in [
            json!({"states": [{"name": "b", "n": 5}]}),
            json!({"states": []}),
            json!({"states": [{"name": "a", "n": 5}, {}]}),
            json!({}),
        ] {
            assert!(!contains(&other, &wanted), "{other}");
        }
    }
}
