//! Data sources of the SQL plugin: `_plugins/_query/_datasources`.

use super::{Refusal, Request, bad, only, text};
use serde_json::{Map, Value, json};

/// Data sources by name.
#[derive(Default)]
pub(super) struct Sources(Map<String, Value>);

impl Sources {
    pub(super) fn answer(&mut self, request: &Request) -> Result<(u16, Value), Refusal> {
        let rest = request
            .path()
            .strip_prefix("/_plugins/_query/_datasources")
            .unwrap_or_default();
        let name = rest.trim_matches('/');
        match (request.method.as_str(), name) {
            ("GET", "") => Ok((200, self.0.values().cloned().collect())),
            ("GET", name) => {
                let found = self.0.get(name).cloned();
                found
                    .map(|f| (200, f))
                    .ok_or((404, format!("DataSource with name {name} doesn't exist.")))
            }
            ("POST" | "PUT", "") => self.write(request),
            _ => Err((405, "no such call".to_owned())),
        }
    }

    fn write(&mut self, request: &Request) -> Result<(u16, Value), Refusal> {
        let mut body = request.json()?;
        let known = [
            "name",
            "description",
            "connector",
            "properties",
            "allowedRoles",
            "resultIndex",
            "status",
        ];
        only("data source", &body, &known)?;
        let name = text(&body, "name")?.to_owned();
        if !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-*@".contains(c))
        {
            return Err(bad(format!(
                "DataSource Name: {name} contains illegal characters."
            )));
        }
        if !text(&body, "connector")?.eq_ignore_ascii_case("prometheus") {
            return Err(bad("the stand-in knows no other connector than prometheus"));
        }
        only(
            "properties",
            &body["properties"],
            &[
                "prometheus.uri",
                "prometheus.auth.type",
                "prometheus.auth.username",
                "prometheus.auth.password",
            ],
        )?;
        let uri = text(&body["properties"], "prometheus.uri")?;
        let host = uri.strip_prefix("http://").or(uri.strip_prefix("https://"));
        if host.is_none_or(str::is_empty) {
            return Err(bad(format!("Invalid URI {uri}")));
        }
        if !body["allowedRoles"]
            .as_array()
            .is_none_or(|r| r.iter().all(Value::is_string))
        {
            return Err(bad("[allowedRoles] is a list of names"));
        }
        body["connector"] = "PROMETHEUS".into();
        body["status"] = "ACTIVE".into();
        let there = self.0.contains_key(&name);
        let (status, said) = match (request.method.as_str(), there) {
            ("POST", true) => {
                return Err(bad(format!(
                    "A datasource already exists with name: {name}"
                )));
            }
            ("PUT", false) => {
                return Err((404, format!("Datasource with name: {name} doesn't exist")));
            }
            ("POST", _) => (201, "Created"),
            _ => (200, "Updated"),
        };
        self.0.insert(name.clone(), body);
        Ok((status, json!(format!("{said} DataSource with name {name}"))))
    }

    pub(super) fn all(&self) -> Value {
        self.0.clone().into()
    }
}
