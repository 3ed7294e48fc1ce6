//! Who may do what, where the security plugin is on. What is laid down in its files (reserved) is left alone.

use crate::{
    answer::{CallError, unexpected},
    client::Client,
    report::{Outcome, Report},
};
use serde_json::{Value, json};

/// The role that may write records and nothing else.
pub const WRITER: &str = "clawker_writer";
/// The role that may read records and nothing else.
pub const READER: &str = "clawker_reader";

/// A user, and where its password comes from.
#[derive(Clone, Debug)]
pub struct User {
    /// Its name.
    pub name: &'static str,
    /// The variable of the environment that holds the password.
    pub variable: &'static str,
    /// The password, if it is given.
    pub password: Option<String>,
    roles: &'static [&'static str],
}

/// The users of the stack; `password` looks a variable up.
pub fn users(password: impl Fn(&str) -> Option<String>) -> Vec<User> {
    let one = |name, variable, roles| User {
        name,
        variable,
        password: password(variable).filter(|p| !p.is_empty()),
        roles,
    };
    vec![
        one("clawker-collector", "CLAWKER_COLLECTOR_PASSWORD", &[WRITER]),
        // `kibana_user` opens Dashboards, `kibana_read_only` takes its means to change things away.
        one(
            "clawker-viewer",
            "CLAWKER_VIEWER_PASSWORD",
            &[READER, "kibana_user", "kibana_read_only"],
        ),
        one(
            "clawker-dashboards",
            "CLAWKER_DASHBOARDS_PASSWORD",
            &["kibana_server"],
        ),
    ]
}

/// The roles, by name.
#[must_use]
pub fn roles() -> [(&'static str, Value); 2] {
    [
        (
            WRITER,
            json!({
                "description": "Adds records to the monitor's data streams",
                "cluster_permissions": ["indices:data/write/bulk"],
                "index_permissions": [{
                    "index_patterns": ["clawker-*"],
                    // Nothing that makes an index: one without templates would refuse records later.
                    "allowed_actions": ["indices:data/write/index", "indices:data/write/bulk[s]"],
                }],
            }),
        ),
        (
            READER,
            json!({
                "description": "Reads the monitor's data streams",
                "cluster_permissions": [
                    "cluster_composite_ops_ro",
                    "cluster:monitor/main",
                    // Queries in PPL and PromQL, as the panels of Dashboards send them.
                    "cluster:admin/opensearch/ppl",
                    "cluster:admin/opensearch/ql/datasources/read",
                    "cluster:admin/opensearch/direct_query/read/*",
                ],
                "index_permissions": [{
                    "index_patterns": ["clawker-*"],
                    "allowed_actions": [
                        "read",
                        "indices:monitor/stats",
                        "indices:admin/get",
                        "indices:admin/mappings/get",
                        "indices:admin/mappings/fields/get*",
                        "indices:admin/resolve/index",
                        "indices:admin/data_stream/get",
                    ],
                }],
            }),
        ),
    ]
}

/// Makes roles and users.
pub async fn prepare(client: &Client, users: &[User], report: &mut Report) {
    match client.get("/_plugins/_security/authinfo").await {
        Ok(_) => {}
        Err(e) if e.is_unknown_api() || e.is_absent() => {
            let note = "OpenSearch has no security here: whoever reaches it may do everything";
            return report.done("security", "off", Outcome::Left, note);
        }
        Err(e) => return report.failed("security", "authinfo", &e, e.advice()),
    }
    for (name, body) in roles() {
        let came = put(client, "roles", name, &body).await;
        report.note("role", name, came);
    }
    for user in users {
        self::user(client, user, report).await;
    }
}

async fn user(client: &Client, user: &User, report: &mut Report) {
    let body = json!({
        "password": user.password,
        "opendistro_security_roles": user.roles,
        "description": "Of the clawker monitor",
    });
    let came = match &user.password {
        Some(_) => put(client, "internalusers", user.name, &body).await,
        None => match client.find(&path("internalusers", user.name)).await {
            Ok(Some(_)) => Ok(Outcome::Left),
            Ok(None) => {
                let advice = format!("set {} to its password", user.variable);
                return report.failed("user", user.name, "it is not there", &advice);
            }
            Err(e) => Err(e),
        },
    };
    report.note("user", user.name, came);
}

fn path(kind: &str, name: &str) -> String {
    format!("/_plugins/_security/api/{kind}/{name}")
}

/// Puts what is not reserved.
async fn put(client: &Client, kind: &str, name: &str, body: &Value) -> Result<Outcome, CallError> {
    let path = path(kind, name);
    let there = client.find(&path).await?;
    if there.as_ref().is_some_and(|t| t[name]["reserved"] == true) {
        return Ok(Outcome::Left);
    }
    let answer = client.put(&path, body).await?;
    if !matches!(answer["status"].as_str(), Some("CREATED" | "OK")) {
        return Err(unexpected("PUT", &path, "neither CREATED nor OK", &answer));
    }
    Ok(if there.is_none() {
        Outcome::Made
    } else {
        Outcome::Right
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_password_is_told_from_one_with() {
        let given = |variable: &str| match variable {
            "CLAWKER_COLLECTOR_PASSWORD" => Some("x".to_owned()),
            "CLAWKER_VIEWER_PASSWORD" => Some(String::new()),
            _ => None,
        };
        let users = users(given);
        let have: Vec<_> = users
            .iter()
            .map(|u| (u.name, u.password.is_some()))
            .collect();
        assert_eq!(
            have,
            [
                ("clawker-collector", true),
                ("clawker-viewer", false),
                ("clawker-dashboards", false)
            ]
        );
    }

    #[test]
    fn the_writer_can_neither_read_nor_delete_nor_make_indices() {
        let text = roles()[0].1.to_string();
        for word in ["read", "delete", "admin", "update", "*\"]", "manage"] {
            let actions = text.replace("clawker-*\"]", "");
            assert!(!actions.contains(word), "{word} in {text}");
        }
    }
}
