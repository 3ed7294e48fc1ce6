//! What OpenSearch itself has to have: policies, pipeline, templates and data streams, in this order. A policy
//! takes hold only of indices that are made after it, and a template the same.

use crate::{
    answer::{CallError, unexpected},
    bodies::{self, PIPELINE, VERSION},
    check::contains,
    client::Client,
    report::{Outcome, Report},
    streams::Stream,
};
use serde_json::{Value, json};

const POLICY: &str = "policy";
const STREAM: &str = "data stream";

/// Makes all of it.
pub async fn prepare(client: &Client, streams: &[Stream], report: &mut Report) {
    policies(client, streams, report).await;
    let before = report.failures();
    templates(client, streams, report).await;
    if report.failures() > before {
        // A stream without its template would take the wrong types, for as long as it lives.
        return;
    }
    for stream in streams.iter().filter(|s| s.made) {
        data_stream(client, stream, report).await;
        follow_policy(client, stream, report).await;
    }
}

async fn policies(client: &Client, streams: &[Stream], report: &mut Report) {
    for stream in streams {
        match policy(client, stream).await {
            Err(e) if e.is_unknown_api() => {
                let advice = "records would be kept for ever: use an OpenSearch with the plugin index-management, as the stock image has it";
                return report.failed(
                    POLICY,
                    "all",
                    "this OpenSearch has no index state management",
                    advice,
                );
            }
            came => report.note(POLICY, stream.name, came),
        }
    }
}

/// Puts the policy of a stream where it is not the same already: every change makes a new version of it.
async fn policy(client: &Client, stream: &Stream) -> Result<Outcome, CallError> {
    let path = format!("/_plugins/_ism/policies/{}", stream.name);
    let body = bodies::policy(stream);
    let Some(there) = client.find(&path).await? else {
        policy_answer(stream, &path, &client.put(&path, &body).await?)?;
        return Ok(Outcome::Made);
    };
    if contains(&there["policy"], &body["policy"]) {
        return Ok(Outcome::Right);
    }
    let (Some(number), Some(term)) = (there["_seq_no"].as_u64(), there["_primary_term"].as_u64())
    else {
        return Err(unexpected(
            "GET",
            &path,
            "no _seq_no and _primary_term",
            &there,
        ));
    };
    let versioned = format!("{path}?if_seq_no={number}&if_primary_term={term}");
    policy_answer(stream, &path, &client.put(&versioned, &body).await?)?;
    Ok(Outcome::Brought)
}

fn policy_answer(stream: &Stream, path: &str, answer: &Value) -> Result<(), CallError> {
    if answer["_id"] == stream.name {
        return Ok(());
    }
    Err(unexpected("PUT", path, "another `_id`", answer))
}

async fn templates(client: &Client, streams: &[Stream], report: &mut Report) {
    let before = report.failures();
    let path = format!("/_ingest/pipeline/{PIPELINE}");
    let came = versioned(
        client,
        &path,
        &format!("/{PIPELINE}/version"),
        &bodies::pipeline(),
    )
    .await;
    report.note("pipeline", PIPELINE, came);
    for (name, body) in bodies::components() {
        let path = format!("/_component_template/{name}");
        let came = versioned(
            client,
            &path,
            "/component_templates/0/component_template/version",
            &body,
        )
        .await;
        report.note("component template", name, came);
    }
    if report.failures() > before {
        // They would be refused for what they are made of.
        return;
    }
    for stream in streams {
        let path = format!("/_index_template/{}", stream.name);
        let body = bodies::template(stream);
        let came = versioned(
            client,
            &path,
            "/index_templates/0/index_template/version",
            &body,
        )
        .await;
        report.note("index template", stream.name, came);
    }
}

/// Puts what has a version, unless a newer one is there.
async fn versioned(
    client: &Client,
    path: &str,
    version: &str,
    body: &Value,
) -> Result<Outcome, CallError> {
    let there = client.find(path).await?;
    let installed = there
        .as_ref()
        .map(|t| t.pointer(version).and_then(Value::as_u64).unwrap_or(0));
    if installed.is_some_and(|v| v > VERSION) {
        let found = json!({"version": installed});
        return Err(unexpected(
            "GET",
            path,
            "a newer version than this program's: use that program",
            &found,
        ));
    }
    client.put_acknowledged(path, body).await?;
    Ok(match installed {
        None => Outcome::Made,
        Some(v) if v < VERSION => Outcome::Brought,
        Some(_) => Outcome::Right,
    })
}

async fn data_stream(client: &Client, stream: &Stream, report: &mut Report) {
    let name = stream.name;
    // An index of this name would be refused as a data stream with words that change from version to version.
    let came = match client.find(&format!("/{name}")).await {
        Ok(None) => {
            let came = client.create(&format!("/_data_stream/{name}")).await;
            return report.note(STREAM, name, came.map(|()| Outcome::Made));
        }
        Ok(Some(found)) => {
            let behind = format!(".ds-{name}-");
            let mut indices = found.as_object().into_iter().flatten();
            if !indices.any(|(index, _)| index.starts_with(&behind)) {
                let advice = format!(
                    "it was made by a first write without templates, or by an older monitor: move its records elsewhere with `POST _reindex`, or delete it with `DELETE /{name}`, then run this again"
                );
                let why = "a plain index or alias of this name is in the way";
                return report.failed(STREAM, name, why, &advice);
            }
            client.get(&format!("/_data_stream/{name}")).await
        }
        Err(e) => Err(e),
    };
    match came {
        Ok(found) => bring(client, stream, &found["data_streams"][0], report).await,
        Err(e) => report.failed(STREAM, name, &e, e.advice()),
    }
}

/// Brings the indices of a stream up to the mapping. Where the one that is written cannot be, a new one is begun.
async fn bring(client: &Client, stream: &Stream, found: &Value, report: &mut Report) {
    let name = stream.name;
    let indices: Vec<_> = found["indices"].as_array().into_iter().flatten().collect();
    let indices: Vec<_> = indices
        .iter()
        .filter_map(|i| i["index_name"].as_str())
        .collect();
    let Some((written, older)) = indices.split_last() else {
        let e = unexpected("GET", &format!("/_data_stream/{name}"), "no indices", found);
        return report.failed(STREAM, name, &e, e.advice());
    };
    let mut behind = 0;
    for index in older {
        match update(client, index).await {
            Ok(_) => {}
            Err(CallError::Refused { status: 400, .. }) => behind += 1,
            Err(e) => return report.failed(STREAM, name, &e, e.advice()),
        }
    }
    let outcome = match update(client, written).await {
        Ok(outcome) => outcome,
        // A type cannot be changed where there are records.
        Err(CallError::Refused { status: 400, .. }) => {
            behind += 1;
            match client
                .post_acknowledged(&format!("/{name}/_rollover"), &json!({}))
                .await
            {
                Ok(()) => Outcome::Brought,
                Err(e) => return report.failed(STREAM, name, &e, e.advice()),
            }
        }
        Err(e) => return report.failed(STREAM, name, &e, e.advice()),
    };
    let note = match behind {
        0 => String::new(),
        n => format!("{n} older indices keep other types until they are deleted"),
    };
    report.done(STREAM, name, outcome, note);
}

/// Brings an index up to the mapping, and to the settings that can be changed.
async fn update(client: &Client, index: &str) -> Result<Outcome, CallError> {
    let path = format!("/{index}/_mapping");
    let there = client.get(&path).await?;
    let was = there[index]["mappings"]["_meta"]["version"]
        .as_u64()
        .unwrap_or(0);
    client.put_acknowledged(&path, &bodies::mapping()).await?;
    let settings = json!({"index": {"final_pipeline": PIPELINE}});
    client
        .put_acknowledged(&format!("/{index}/_settings"), &settings)
        .await?;
    Ok(if was < VERSION {
        Outcome::Brought
    } else {
        Outcome::Right
    })
}

/// Gives the indices of a stream its policy, those made before it too, and in its present version.
async fn follow_policy(client: &Client, stream: &Stream, report: &mut Report) {
    match attach(client, stream).await {
        // Said once, by the policies.
        Err(e) if e.is_unknown_api() => {}
        Ok(false) => {}
        Ok(true) => report.done(
            POLICY,
            stream.name,
            Outcome::Brought,
            "attached to indices that are there already",
        ),
        Err(e) => report.failed(POLICY, stream.name, &e, e.advice()),
    }
}

/// Whether anything had to be done.
async fn attach(client: &Client, stream: &Stream) -> Result<bool, CallError> {
    let name = stream.name;
    let path = format!("/_plugins/_ism/explain/{name}?show_policy=true");
    let explained = client.get(&path).await?;
    let (mut bare, mut old) = (false, false);
    for (index, state) in explained.as_object().into_iter().flatten() {
        if index == "total_managed_indices" {
            continue;
        }
        if state["index.plugins.index_state_management.policy_id"].is_null() {
            bare = true;
        } else if state["policy"].is_object()
            && !contains(&state["policy"], &bodies::policy(stream)["policy"])
        {
            old = true;
        }
    }
    let id = json!({"policy_id": name});
    // `add` leaves those alone that have one, `change_policy` those that have none.
    for (wanted, verb) in [(bare, "add"), (old, "change_policy")] {
        if !wanted {
            continue;
        }
        let path = format!("/_plugins/_ism/{verb}/{name}");
        let answer = client.post(&path, &id).await?;
        // The indices that have one already are failures to `add`: those that got it by themselves meanwhile too.
        let failed = answer["failed_indices"].as_array().into_iter().flatten();
        let mut reasons = failed.map(|f| f["reason"].as_str().unwrap_or_default());
        if answer["updated_indices"].is_null() || !reasons.all(|r| r.contains("already")) {
            return Err(unexpected("POST", &path, "failed indices", &answer));
        }
    }
    Ok(bare || old)
}
