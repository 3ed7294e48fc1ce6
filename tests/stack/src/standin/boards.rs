//! Dashboards: its status, workspaces and saved objects. An import answers 200 whatever became of the objects,
//! as the real one does, and checks references to index patterns and searches only.

use super::{Refusal, Request, bad, only, text};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What Dashboards holds.
#[derive(Default)]
pub struct Boards {
    /// Saved objects by workspace (empty for none), type and id.
    pub objects: BTreeMap<(String, String, String), Value>,
    /// Workspaces by id.
    pub workspaces: BTreeMap<String, Value>,
    /// Ids of objects that an import is to refuse.
    pub refuse: BTreeSet<String>,
}

/// The attributes that the mapping of a type knows; it is strict.
const TYPES: [(&str, &[&str]); 6] = [
    (
        "index-pattern",
        &[
            "title",
            "timeFieldName",
            "fields",
            "fieldFormatMap",
            "intervalName",
            "sourceFilters",
            "type",
            "typeMeta",
            "displayName",
            "description",
            "signalType",
            "schemaMappings",
        ],
    ),
    (
        "search",
        &[
            "title",
            "description",
            "hits",
            "columns",
            "sort",
            "version",
            "kibanaSavedObjectMeta",
        ],
    ),
    (
        "visualization",
        &[
            "title",
            "visState",
            "uiStateJSON",
            "description",
            "savedSearchRefName",
            "version",
            "kibanaSavedObjectMeta",
        ],
    ),
    (
        "dashboard",
        &[
            "title",
            "description",
            "hits",
            "panelsJSON",
            "optionsJSON",
            "version",
            "timeRestore",
            "timeTo",
            "timeFrom",
            "refreshInterval",
            "kibanaSavedObjectMeta",
            "variablesJSON",
        ],
    ),
    (
        "explore",
        &[
            "title",
            "description",
            "hits",
            "columns",
            "sort",
            "version",
            "type",
            "legacyType",
            "visualization",
            "uiState",
            "kibanaSavedObjectMeta",
        ],
    ),
    ("data-connection", &["connectionId", "type", "meta"]),
];

impl Boards {
    pub(super) fn answer(&mut self, request: &Request) -> Result<Value, Refusal> {
        let path = request.path();
        if request.method == "GET" && path == "/api/status" {
            return Ok(json!({"status": {"overall": {"state": "green"}}}));
        }
        if request.method != "GET" && request.header("osd-xsrf").is_none() {
            return Err(bad("Request must contain a osd-xsrf header."));
        }
        let (space, path) = match path.strip_prefix("/w/") {
            None => ("", path),
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (&rest[..end], &rest[end..])
            }
        };
        if !space.is_empty() && !self.workspaces.contains_key(space) {
            return Err((404, format!("no workspace {space}")));
        }
        match (
            request.method.as_str(),
            path.strip_prefix("/api/").unwrap_or_default(),
        ) {
            ("POST", "workspaces/_list") => self.list(&request.json()?),
            ("POST", "workspaces") => self.workspace(None, &request.json()?),
            ("POST", "saved_objects/_import") => self.import(space, request),
            ("POST", "saved_objects/_bulk_get") => self.bulk_get(space, &request.json()?),
            (method, rest) => match rest.split('/').collect::<Vec<_>>()[..] {
                ["workspaces", id] if method == "PUT" => self.workspace(Some(id), &request.json()?),
                ["saved_objects", kind, id] if method == "POST" => {
                    self.create(space, kind, id, request)
                }
                _ => Err((404, "Not Found".to_owned())),
            },
        }
    }

    fn list(&self, body: &Value) -> Result<Value, Refusal> {
        only(
            "body",
            body,
            &[
                "search",
                "sortOrder",
                "perPage",
                "page",
                "sortField",
                "searchFields",
                "permissionModes",
            ],
        )?;
        let all: Vec<_> = self.workspaces.values().collect();
        Ok(
            json!({"success": true, "result": {"page": 1, "per_page": body["perPage"], "total": all.len(), "workspaces": all}}),
        )
    }

    fn workspace(&mut self, id: Option<&str>, body: &Value) -> Result<Value, Refusal> {
        only("body", body, &["attributes", "settings"])?;
        let attributes = &body["attributes"];
        only(
            "attributes",
            attributes,
            &[
                "name",
                "features",
                "description",
                "color",
                "icon",
                "defaultVISTheme",
                "reserved",
            ],
        )?;
        let name = text(attributes, "name")?;
        let cases = [
            "all",
            "observability",
            "security-analytics",
            "essentials",
            "search",
        ]
        .map(|c| json!(format!("use-case-{c}")));
        let features = attributes["features"]
            .as_array()
            .ok_or_else(|| bad("[features] must be a list"))?;
        if name.len() > 40 || features.iter().filter(|f| cases.contains(f)).count() != 1 {
            return Err(bad("a workspace has a short name and one use case"));
        }
        only(
            "settings",
            &body["settings"],
            &["permissions", "dataSources", "dataConnections"],
        )?;
        for connection in body["settings"]["dataConnections"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let id = connection.as_str().unwrap_or_default().to_owned();
            if !self.objects.contains_key(&(
                String::new(),
                "data-connection".to_owned(),
                id.clone(),
            )) {
                return Err((
                    404,
                    format!("Saved object [data-connection/{id}] not found"),
                ));
            }
        }
        let answer = id.map_or_else(|| json!({"id": "w1"}), |_| json!(true));
        let id = id.unwrap_or("w1");
        if answer != json!(true) && self.workspaces.values().any(|w| w["name"] == name) {
            return Ok(
                json!({"success": false, "error": "workspace name has already been used, try with a different name"}),
            );
        }
        let mut workspace = attributes.clone();
        workspace["id"] = id.into();
        workspace["dataConnections"] = body["settings"]["dataConnections"].clone();
        self.workspaces.insert(id.to_owned(), workspace);
        Ok(json!({"success": true, "result": answer}))
    }

    fn create(
        &mut self,
        space: &str,
        kind: &str,
        id: &str,
        request: &Request,
    ) -> Result<Value, Refusal> {
        let body = request.json()?;
        only(
            "body",
            &body,
            &[
                "attributes",
                "references",
                "migrationVersion",
                "initialNamespaces",
                "workspaces",
            ],
        )?;
        attributes(kind, &body["attributes"])?;
        let key = (space.to_owned(), kind.to_owned(), id.to_owned());
        if self.objects.contains_key(&key) && request.query("overwrite") != Some("true") {
            return Err((409, format!("Saved object [{kind}/{id}] conflict")));
        }
        let object = json!({"type": kind, "id": id, "attributes": body["attributes"], "references": body["references"]});
        self.objects.insert(key, object.clone());
        Ok(object)
    }

    fn import(&mut self, space: &str, request: &Request) -> Result<Value, Refusal> {
        let lines = file(request)?;
        let parse =
            |l: &str| serde_json::from_str::<Value>(l).map_err(|e| bad(format!("no JSON: {e}")));
        let objects = lines
            .lines()
            .filter(|l| !l.is_empty())
            .map(parse)
            .collect::<Result<Vec<_>, _>>()?;
        let mut errors = Vec::new();
        for object in &objects {
            if let Err(error) = self.acceptable(space, object, &objects) {
                errors.push(json!({"type": object["type"], "id": object["id"], "title": object["attributes"]["title"], "error": error}));
                continue;
            }
            let part = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
            self.objects
                .insert((space.to_owned(), part("type"), part("id")), object.clone());
        }
        let mut answer = Map::new();
        answer.insert(
            "successCount".to_owned(),
            (objects.len() - errors.len()).into(),
        );
        answer.insert("success".to_owned(), errors.is_empty().into());
        if !errors.is_empty() {
            answer.insert("errors".to_owned(), errors.into());
        }
        Ok(answer.into())
    }

    fn acceptable(&self, space: &str, object: &Value, others: &[Value]) -> Result<(), Value> {
        let (kind, id) = (
            object["type"].as_str().unwrap_or_default(),
            object["id"].as_str().unwrap_or_default(),
        );
        if self.refuse.contains(id) {
            return Err(
                json!({"type": "unknown", "message": "the test refuses it", "statusCode": 500}),
            );
        }
        // Explore objects can be imported only alone; nothing here does that.
        if !["index-pattern", "search", "visualization", "dashboard"].contains(&kind) {
            return Err(json!({"type": "unsupported_type"}));
        }
        attributes(kind, &object["attributes"])
            .map_err(|(_, why)| json!({"type": "unknown", "message": why, "statusCode": 400}))?;
        let missing = |r: &&Value| {
            let checked = r["type"] == "index-pattern" || r["type"] == "search";
            let here = others
                .iter()
                .any(|o| o["type"] == r["type"] && o["id"] == r["id"]);
            let part = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
            checked
                && !here
                && !self
                    .objects
                    .contains_key(&(space.to_owned(), part("type"), part("id")))
        };
        let references = object["references"].as_array().into_iter().flatten();
        let missing: Vec<_> = references.filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(json!({"type": "missing_references", "references": missing}))
    }

    fn bulk_get(&self, space: &str, body: &Value) -> Result<Value, Refusal> {
        let wanted = body.as_array().ok_or_else(|| bad("a list is expected"))?;
        let one = |w: &Value| {
            let part = |key: &str| w[key].as_str().unwrap_or_default().to_owned();
            let found = self
                .objects
                .get(&(space.to_owned(), part("type"), part("id")));
            found.cloned().unwrap_or_else(|| {
                json!({"type": w["type"], "id": w["id"], "error": {"statusCode": 404, "error": "Not Found", "message": "Not found"}})
            })
        };
        Ok(json!({"saved_objects": wanted.iter().map(one).collect::<Vec<_>>()}))
    }
}

fn attributes(kind: &str, attributes: &Value) -> Result<(), Refusal> {
    let known = TYPES.iter().find(|(name, _)| *name == kind);
    let (_, keys) = known.ok_or_else(|| bad(format!("Unsupported saved object type: '{kind}'")))?;
    only(kind, attributes, keys)
}

/// The file of a form.
fn file(request: &Request) -> Result<String, Refusal> {
    let kind = request.header("content-type").unwrap_or_default();
    let boundary = kind
        .strip_prefix("multipart/form-data; boundary=")
        .ok_or_else(|| bad("Unsupported Media Type"))?;
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let boundary = format!("--{boundary}");
    let mut parts = body.split(&boundary);
    let part = parts
        .find(|p| p.contains("name=\"file\"") && p.contains(".ndjson\""))
        .ok_or_else(|| bad("no file"))?;
    let (_, content) = part.split_once("\r\n\r\n").ok_or_else(|| bad("no file"))?;
    Ok(content.trim_end().to_owned())
}
