//! Index state management: `_plugins/_ism`. Policies by the documented schema; which index follows which policy
//! is worked out from the times at which both were made, as the real one does.

use super::{Refusal, Request, bad, only, text};
use crate::opensearch::Asker;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

/// Policies, and who follows them.
#[derive(Default)]
pub(super) struct Ism {
    policies: BTreeMap<String, Policy>,
    // Index, and the policy as it was when the index began to follow it.
    followed: BTreeMap<String, Value>,
    // Indices that are not to begin by themselves.
    detached: BTreeSet<String>,
    number: u64,
}

struct Policy {
    body: Value,
    number: u64,
    written: u64,
    millis: u64,
}

const STATES: [&str; 13] = [
    "retry",
    "timeout",
    "rollover",
    "delete",
    "force_merge",
    "read_only",
    "read_write",
    "replica_count",
    "close",
    "open",
    "snapshot",
    "index_priority",
    "allocation",
];
const CONDITIONS: [&str; 7] = [
    "min_index_age",
    "min_rollover_age",
    "min_doc_count",
    "min_size",
    "no_alias",
    "min_state_age",
    "cron",
];

impl Ism {
    pub(super) fn answer(
        &mut self,
        request: &Request,
        rest: &str,
        store: &Asker,
    ) -> Result<(u16, Value), Refusal> {
        let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
        match (request.method.as_str(), kind) {
            ("GET", "policies") => {
                let policy = self
                    .policies
                    .get(name)
                    .ok_or((404, "Policy not found".to_owned()))?;
                Ok((200, policy_answer(name, policy)))
            }
            ("PUT", "policies") => self.put(request, name),
            ("GET", "explain") => {
                self.explain(name, request.query("show_policy") == Some("true"), store)
            }
            ("POST", "add" | "change_policy") => self.attach(request, kind, name, store),
            _ => Err((405, format!("no such call: {} {rest}", request.method))),
        }
    }

    fn put(&mut self, request: &Request, name: &str) -> Result<(u16, Value), Refusal> {
        let body = request.json()?;
        check(&body)?;
        let given =
            ["if_seq_no", "if_primary_term"].map(|n| request.query(n).and_then(|v| v.parse().ok()));
        let (number, written, status) = match (self.policies.get(name), given) {
            (None, [None, None]) => (self.number, 1, 201),
            (Some(p), [Some(number), Some(1)]) if number == p.number => {
                (self.number, p.written + 1, 200)
            }
            _ => return Err((409, format!("version conflict, document [{name}]"))),
        };
        self.number += 1;
        let mut body = body["policy"].clone();
        body["policy_id"] = name.into();
        body["schema_version"] = 24.into();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let millis = u64::try_from(now.as_millis()).expect("a time");
        let policy = Policy {
            body,
            number,
            written,
            millis,
        };
        let mut answer = policy_answer(name, &policy);
        answer["policy"] = json!({"policy": policy.body});
        self.policies.insert(name.to_owned(), policy);
        Ok((status, answer))
    }

    /// Indices of a data stream, each with the policy that it follows.
    fn follow(&mut self, name: &str, store: &Asker) -> Vec<String> {
        let settings = store.ask("GET", &format!("/{name}/_settings"), None).body;
        let indices: Vec<_> = settings.as_object().into_iter().flatten().collect();
        for (index, settings) in &indices {
            let made = settings["settings"]["index"]["creation_date"]
                .as_str()
                .and_then(|t| t.parse::<u64>().ok());
            let Some(policy) = self.policies.get(name) else {
                continue;
            };
            let later = made.is_some_and(|m| m >= policy.millis);
            if later && !self.detached.contains(*index) && !self.followed.contains_key(*index) {
                self.followed.insert((*index).clone(), policy.body.clone());
            }
        }
        indices
            .into_iter()
            .map(|(index, _)| index.clone())
            .collect()
    }

    fn explain(&mut self, name: &str, whole: bool, store: &Asker) -> Result<(u16, Value), Refusal> {
        let mut answer = Map::new();
        let mut managed = 0;
        for index in self.follow(name, store) {
            let policy = self.followed.get(&index);
            managed += u64::from(policy.is_some());
            let id = policy.map_or(Value::Null, |p| p["policy_id"].clone());
            let mut state = json!({
                "index.plugins.index_state_management.policy_id": id,
                "index.opendistro.index_state_management.policy_id": id,
                "enabled": policy.map(|_| true),
            });
            if let Some(policy) = policy {
                state["index"] = index.clone().into();
                state["policy_id"] = id;
                if whole {
                    state["policy"] = policy.clone();
                }
            }
            answer.insert(index, state);
        }
        answer.insert("total_managed_indices".to_owned(), managed.into());
        Ok((200, answer.into()))
    }

    fn attach(
        &mut self,
        request: &Request,
        verb: &str,
        name: &str,
        store: &Asker,
    ) -> Result<(u16, Value), Refusal> {
        let body = request.json()?;
        only(
            "body",
            &body,
            if verb == "add" {
                &["policy_id"]
            } else {
                &["policy_id", "state", "include", "is_safe"]
            },
        )?;
        let id = text(&body, "policy_id")?;
        let policy = self
            .policies
            .get(id)
            .ok_or((404, format!("Could not find policy={id}")))?
            .body
            .clone();
        let (mut updated, mut failed) = (0, Vec::new());
        for index in self.follow(name, store) {
            let follows = self.followed.contains_key(&index);
            if follows == (verb == "add") {
                let why = if follows {
                    "This index already has a policy, use the update policy API to update index policies"
                } else {
                    "This index is not being managed"
                };
                failed.push(json!({"index_name": index, "index_uuid": "-", "reason": why}));
            } else {
                self.detached.remove(&index);
                self.followed.insert(index, policy.clone());
                updated += 1;
            }
        }
        // `change_policy` passes over what follows none.
        if verb == "change_policy" {
            failed.clear();
        }
        Ok((
            200,
            json!({"updated_indices": updated, "failures": !failed.is_empty(), "failed_indices": failed}),
        ))
    }

    pub(super) fn policies(&self) -> Vec<(String, Value, u64)> {
        let one = |(name, p): (&String, &Policy)| (name.clone(), p.body.clone(), p.written);
        self.policies.iter().map(one).collect()
    }

    pub(super) fn detach(&mut self, index: &str) {
        self.followed.remove(index);
        self.detached.insert(index.to_owned());
    }
}

fn policy_answer(name: &str, policy: &Policy) -> Value {
    json!({"_id": name, "_version": policy.written, "_seq_no": policy.number, "_primary_term": 1, "policy": policy.body})
}

/// The documented schema.
fn check(body: &Value) -> Result<(), Refusal> {
    only("body", body, &["policy"])?;
    let policy = &body["policy"];
    only(
        "policy",
        policy,
        &[
            "description",
            "default_state",
            "states",
            "ism_template",
            "error_notification",
        ],
    )?;
    text(policy, "description")?;
    let states = policy["states"]
        .as_array()
        .filter(|s| !s.is_empty())
        .ok_or_else(|| bad("[states] must not be empty"))?;
    let names = states
        .iter()
        .map(|s| text(s, "name"))
        .collect::<Result<Vec<_>, _>>()?;
    if !names.contains(&text(policy, "default_state")?) {
        return Err(bad("[default_state] is no state"));
    }
    for state in states {
        only("state", state, &["name", "actions", "transitions"])?;
        for action in list(state, "actions")? {
            self::action(action)?;
        }
        for transition in list(state, "transitions")? {
            only("transition", transition, &["state_name", "conditions"])?;
            if !names.contains(&text(transition, "state_name")?) {
                return Err(bad("[state_name] is no state"));
            }
            if let Some(conditions) = transition.get("conditions") {
                only("conditions", conditions, &CONDITIONS)?;
                if conditions.as_object().is_none_or(|c| c.len() != 1) {
                    return Err(bad("a transition has one condition"));
                }
                units(conditions)?;
            }
        }
    }
    for template in list(policy, "ism_template")? {
        only("ism_template", template, &["index_patterns", "priority"])?;
        let patterns = list(template, "index_patterns")?;
        if patterns.is_empty()
            || !patterns.iter().all(Value::is_string)
            || !template["priority"].is_u64()
        {
            return Err(bad("[ism_template] has patterns and a priority"));
        }
    }
    Ok(())
}

fn action(action: &Value) -> Result<(), Refusal> {
    only("action", action, &STATES)?;
    let kinds = action
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, _)| !matches!(k.as_str(), "retry" | "timeout"));
    let kinds: Vec<_> = kinds.collect();
    let [(kind, settings)] = kinds[..] else {
        return Err(bad("an action is of one kind"));
    };
    match kind.as_str() {
        "rollover" => only(
            "rollover",
            settings,
            &[
                "min_size",
                "min_primary_shard_size",
                "min_doc_count",
                "min_index_age",
                "copy_alias",
                "prevent_empty_rollover",
            ],
        )?,
        "delete" => only("delete", settings, &[])?,
        // The others are not used.
        other => {
            return Err(bad(format!(
                "the stand-in does not know the action {other}"
            )));
        }
    }
    units(settings)?;
    if let Some(retry) = action.get("retry") {
        only("retry", retry, &["count", "backoff", "delay"])?;
        let backoff = retry["backoff"].as_str();
        if !retry["count"].is_u64()
            || !matches!(backoff, Some("exponential" | "constant" | "linear"))
        {
            return Err(bad("[retry] has a count and a backoff"));
        }
        units(&json!({"delay_age": retry["delay"]}))?;
    }
    Ok(())
}

/// Sizes and times have units.
fn units(of: &Value) -> Result<(), Refusal> {
    for (key, value) in of.as_object().into_iter().flatten() {
        let units: &[&str] = match key {
            k if k.ends_with("_age") => &["d", "h", "m", "s", "ms"],
            k if k.ends_with("_size") => &["b", "kb", "mb", "gb", "tb", "pb"],
            _ => continue,
        };
        let value = value.as_str().unwrap_or_default();
        let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
        if unit.len() == value.len() || !units.contains(&unit) {
            return Err(bad(format!("failed to parse [{value}] of [{key}]")));
        }
    }
    Ok(())
}

fn list<'a>(of: &'a Value, key: &str) -> Result<&'a [Value], Refusal> {
    let list = of[key]
        .as_array()
        .ok_or_else(|| bad(format!("[{key}] must be a list")))?;
    Ok(list)
}
