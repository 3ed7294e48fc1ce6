//! Dashboards: the workspace, the saved objects, and the data source that shows Prometheus there.

use crate::{
    answer::{CallError, unexpected},
    bodies::{self, DATA_SOURCE},
    client::Client,
    report::{Outcome, Report},
};
use dashboards::Object;
use serde_json::{Value, json};

/// Name of the workspace that the saved objects are in.
pub const WORKSPACE: &str = "clawker";
const OBJECT: &str = "saved object";

/// Registers Prometheus as a data source of OpenSearch, which asks it on behalf of Dashboards.
pub async fn data_source(client: &Client, prometheus: &str, report: &mut Report) {
    match put_data_source(client, prometheus).await {
        Err(e) if e.is_unknown_api() => {
            let advice = "panels about metrics would be empty: use an OpenSearch with the plugin sql, as the stock image has it";
            report.failed(
                "data source",
                DATA_SOURCE,
                "this OpenSearch has no data sources",
                advice,
            );
        }
        came => report.note("data source", DATA_SOURCE, came),
    }
}

async fn put_data_source(client: &Client, prometheus: &str) -> Result<Outcome, CallError> {
    const ALL: &str = "/_plugins/_query/_datasources";
    let path = format!("{ALL}/{DATA_SOURCE}");
    let body = bodies::data_source(prometheus);
    let outcome = if client.find(&path).await?.is_some() {
        client.put(ALL, &body).await?;
        Outcome::Right
    } else {
        client.post(ALL, &body).await?;
        Outcome::Made
    };
    // The answers are sentences; what is there now is the proof.
    let there = client.get(&path).await?;
    let uri = &there["properties"]["prometheus.uri"];
    if there["name"] != DATA_SOURCE || uri != prometheus {
        return Err(unexpected("GET", &path, "another definition", &there));
    }
    Ok(outcome)
}

/// Imports the saved objects, and sees that each is there.
pub async fn prepare(client: &Client, report: &mut Report) {
    let connection = dashboards::connection();
    let came = create(client, "", connection).await;
    report.note(OBJECT, &name(connection), came);
    let space = match workspace(client, connection.id()).await {
        Ok((space, outcome)) => {
            let note = if space.is_empty() {
                "Dashboards has none: the objects are for all"
            } else {
                ""
            };
            report.done("workspace", WORKSPACE, outcome, note);
            space
        }
        Err(e) => return report.failed("workspace", WORKSPACE, &e, e.advice()),
    };
    // Before the import: dashboards refer to them.
    for object in dashboards::explore() {
        let came = create(client, &space, object).await;
        if came.is_err() {
            report.note(OBJECT, &name(object), came);
        }
    }
    import(client, &space, report).await;
    let all = dashboards::imported().iter().chain(dashboards::explore());
    let all: Vec<_> = all.collect();
    verify(client, &space, &all, report).await;
}

fn name(object: &Object) -> String {
    format!("{} {}", object.kind(), object.id())
}

/// The path in front of the API's for the workspace, and what came of making it. Where there are no workspaces,
/// nothing is in front.
async fn workspace(client: &Client, connection: &str) -> Result<(String, Outcome), CallError> {
    const ALL: &str = "/api/workspaces";
    let list = format!("{ALL}/_list");
    let found = match client.post(&list, &json!({"perPage": 1000})).await {
        Ok(found) => found,
        Err(e) if e.is_absent() => return Ok((String::new(), Outcome::Left)),
        Err(e) => return Err(e),
    };
    let spaces = found["result"]["workspaces"].as_array();
    let spaces =
        spaces.ok_or_else(|| unexpected("POST", &list, "no list of workspaces", &found))?;
    let there = spaces.iter().find(|s| s["name"] == WORKSPACE);
    let body = json!({
        "attributes": {
            "name": WORKSPACE,
            "description": "What the agents do, and what it costs",
            "features": ["use-case-observability"],
        },
        "settings": {"dataConnections": [connection]},
    });
    let (id, outcome) = if let Some(id) = there.and_then(|s| s["id"].as_str()) {
        let path = format!("{ALL}/{id}");
        let answer = client.put(&path, &body).await?;
        if answer["success"] != true {
            return Err(unexpected("PUT", &path, "no success", &answer));
        }
        (id.to_owned(), Outcome::Right)
    } else {
        let answer = client.post(ALL, &body).await?;
        let id = answer["result"]["id"].as_str();
        let id = id.ok_or_else(|| unexpected("POST", ALL, "no id", &answer))?;
        (id.to_owned(), Outcome::Made)
    };
    Ok((format!("/w/{id}"), outcome))
}

/// Creates an object by itself, or puts it in the place of the one that is there.
async fn create(client: &Client, space: &str, object: &Object) -> Result<Outcome, CallError> {
    let path = format!(
        "{space}/api/saved_objects/{}/{}?overwrite=true",
        object.kind(),
        object.id()
    );
    let answer = client.post(&path, &object.body()).await?;
    if answer["id"] != object.id() {
        return Err(unexpected("POST", &path, "another id", &answer));
    }
    Ok(Outcome::Right)
}

/// The answer is 200 whatever became of the objects.
async fn import(client: &Client, space: &str, report: &mut Report) {
    let path = format!("{space}/api/saved_objects/_import?overwrite=true");
    let answer = match client.post_file(&path, dashboards::ndjson()).await {
        Ok(answer) => answer,
        Err(e) => return report.failed(OBJECT, "import", &e, e.advice()),
    };
    for error in answer["errors"].as_array().into_iter().flatten() {
        let of = |key: &str| error[key].as_str().unwrap_or("?");
        let why = &error["error"];
        let why = why["message"]
            .as_str()
            .or(why["type"].as_str())
            .unwrap_or("unknown");
        let name = format!("{} {}", of("type"), of("id"));
        report.failed(
            OBJECT,
            name,
            why,
            "use the Dashboards version that compose.yaml names",
        );
    }
    if answer["success"] != true && answer["errors"].as_array().is_none_or(Vec::is_empty) {
        let e = unexpected("POST", &path, "neither success nor errors", &answer);
        report.failed(OBJECT, "import", &e, e.advice());
    }
}

/// Asks for each object by its id.
async fn verify(client: &Client, space: &str, objects: &[&Object], report: &mut Report) {
    let path = format!("{space}/api/saved_objects/_bulk_get");
    let ids: Vec<_> = objects
        .iter()
        .map(|o| json!({"type": o.kind(), "id": o.id()}))
        .collect();
    let answer = match client.post(&path, &json!(ids)).await {
        Ok(answer) => answer,
        Err(e) => return report.failed(OBJECT, "all", &e, e.advice()),
    };
    let there = |object: &Object| {
        let mut list = answer["saved_objects"].as_array().into_iter().flatten();
        list.any(|o: &Value| {
            o["id"] == object.id() && o["type"] == object.kind() && o["error"].is_null()
        })
    };
    let mut right = 0;
    for object in objects {
        if there(object) {
            right += 1;
        } else {
            report.failed(
                OBJECT,
                name(object),
                "it is not there after the import",
                "read the log of Dashboards, then run this again",
            );
        }
    }
    report.done(
        OBJECT,
        format!("{right} of {}", objects.len()),
        Outcome::Right,
        "",
    );
}
