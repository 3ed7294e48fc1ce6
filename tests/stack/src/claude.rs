//! What Claude Code sends, event by event, with every switch on that adds content.

use crate::send::{attributes, logs, now, value};
use serde_json::{Map, Value, json};

/// A word that is in every content, and nowhere else.
pub const MARK: &str = "Zq7xHidden";

/// Prose with the mark in it, as people and models write it.
#[must_use]
pub fn prose(of: &str) -> String {
    format!("my {of} says: {MARK}, and don't tell anybody!\n")
}

/// An event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Without the prefix `claude_code.`.
    pub name: &'static str,
    /// Attributes that say how it went, as they are sent.
    pub structure: Value,
    /// The same, as they are stored.
    pub stored: Value,
    /// Names of attributes with text of people or models.
    pub content: &'static [&'static str],
}

/// `structure`: what is sent; `differs`: what of it is stored otherwise, under which name and value.
fn event(
    name: &'static str,
    structure: Value,
    differs: &[(&str, &str, Value)],
    content: &'static [&'static str],
) -> Event {
    let mut stored: Map<String, Value> = structure.as_object().expect("an object").clone();
    for (sent, name, value) in differs {
        stored.remove(*sent).expect("it is sent");
        stored.insert((*name).to_owned(), value.clone());
    }
    Event {
        name,
        structure,
        stored: Value::Object(stored),
        content,
    }
}

/// Every event that the documentation knows.
#[must_use]
pub fn events() -> Vec<Event> {
    let tool = json!({"tool_name": "Bash", "tool_use_id": "toolu_01AbC", "success": "true", "duration_ms": 1834,
        "decision_type": "accept", "decision_source": "user_permanent", "error_type": "ShellError",
        "tool_input_size_bytes": 211, "tool_result_size_bytes": 4096, "mcp_server_scope": "project"});
    let request = json!({"model": "claude-opus-4-5-20251101", "cost_usd": 0.0371, "cost_usd_micros": 37100, "duration_ms": 5120,
        "input_tokens": 1204, "output_tokens": 355, "cache_read_tokens": 18_000, "cache_creation_tokens": 900,
        "request_id": "req_011CUabc", "speed": "normal", "effort": "high", "query_source": "repl_main_thread"});
    let failed = json!({"model": "claude-sonnet-4@20250514", "status_code": 529, "attempt": 3, "duration_ms": "210"});
    let body = json!({"body_length": 61440, "body_truncated": true, "model": "us.anthropic.claude-opus-4-v1:0"});
    let yes = json!(true);
    vec![
        event(
            "user_prompt",
            json!({"prompt_length": "53", "command_name": "compact", "command_source": "builtin"}),
            &[("prompt_length", "prompt_length", json!(53))],
            &["prompt"],
        ),
        event(
            "assistant_response",
            json!({"response_length": 812, "model": "claude-opus-4-5[1m]",
            "request_id": "req_011CUabd", "query_source": "repl_main_thread"}),
            &[],
            &["response"],
        ),
        event(
            "tool_result",
            tool,
            &[("success", "success", yes.clone())],
            &[
                "tool_parameters",
                "tool_input",
                "error",
                "bash_command",
                "full_command",
                "file_path",
            ],
        ),
        event(
            "tool_decision",
            json!({"tool_name": "mcp__github__create_issue", "decision": "reject", "source": "hook",
            "tool_source": "mcp"}),
            &[],
            &["tool_parameters"],
        ),
        event("api_request", request, &[], &[]),
        event(
            "api_error",
            failed,
            &[("duration_ms", "duration_ms", json!(210))],
            &["error"],
        ),
        event(
            "api_retries_exhausted",
            json!({"model": "claude-haiku-4-5", "total_attempts": 11,
            "total_retry_duration_ms": 60_500, "status_code": 503}),
            &[],
            &["error"],
        ),
        event(
            "api_refusal",
            json!({"attempt": 1, "has_category": true, "has_explanation": false, "category": "cyber",
            "server_fallback_hop": 0}),
            &[],
            &["explanation"],
        ),
        event("api_request_body", body.clone(), &[], &["body", "body_ref"]),
        event("api_response_body", body, &[], &["body", "body_ref"]),
        event(
            "permission_mode_changed",
            json!({"from_mode": "default", "to_mode": "bypassPermissions", "trigger": "shift_tab"}),
            &[],
            &[],
        ),
        event(
            "auth",
            json!({"action": "login", "success": "false", "status_code": "401", "auth_method": "oauth"}),
            &[
                ("success", "success", json!(false)),
                ("status_code", "status_code", json!(401)),
            ],
            &[],
        ),
        event(
            "internal_error",
            json!({"error_name": "TypeError", "error_code": "ERR_INVALID_ARG"}),
            &[],
            &["message", "stack"],
        ),
        event(
            "mcp_server_connection",
            json!({"status": "failed", "transport_type": "stdio", "server_scope": "user",
            "duration_ms": 30}),
            &[],
            &["error", "server_name"],
        ),
        event(
            "plugin_installed",
            json!({"plugin.name": "formatter", "marketplace.name": "official", "trigger": "cli"}),
            &[
                ("plugin.name", "plugin_name", json!("formatter")),
                ("marketplace.name", "marketplace_name", json!("official")),
            ],
            &[],
        ),
        event(
            "plugin_loaded",
            json!({"plugin.name": "formatter"}),
            &[("plugin.name", "plugin_name", json!("formatter"))],
            &[],
        ),
        event(
            "skill_activated",
            json!({"skill.name": "pdf", "invocation_trigger": "model"}),
            &[("skill.name", "skill_name", json!("pdf"))],
            &[],
        ),
        event(
            "at_mention",
            json!({"mention_type": "file", "success": true}),
            &[],
            &["path"],
        ),
        event(
            "hook_registered",
            json!({"hook_event": "PreToolUse", "num_hooks": 2}),
            &[],
            &["hook_definitions", "hook_matcher"],
        ),
        event(
            "hook_execution_start",
            json!({"hook_event": "PreToolUse", "num_hooks": 2}),
            &[],
            &["hook_matcher", "hook_name"],
        ),
        event(
            "hook_execution_complete",
            json!({"hook_event": "PreToolUse", "num_hooks": 2, "num_success": 1, "num_blocking": 1,
            "num_non_blocking_error": 0, "num_cancelled": 0, "total_duration_ms": 12}),
            &[],
            &["hook_name"],
        ),
        event(
            "compaction",
            json!({"trigger": "auto", "success": true, "duration_ms": 9000, "pre_tokens": 150_000, "post_tokens": 12_000}),
            &[],
            &["error", "summary"],
        ),
        event(
            "subagent_completed",
            json!({"agent_type": "Explore", "agent.source": "built-in", "total_tokens": 5000,
            "total_tool_uses": 7, "duration_ms": 61_000}),
            &[("agent.source", "subagent_source", json!("built-in"))],
            &["description"],
        ),
        event(
            "feedback_survey",
            json!({"trigger": "timer"}),
            &[],
            &["response"],
        ),
        event(
            "retention_sweep",
            json!({"success": true, "duration_ms": 4}),
            &[],
            &[],
        ),
    ]
}

/// What every event has besides: how it is sent, and what is stored of it.
fn standard(number: usize) -> (Value, Value) {
    let sent = json!({"session.id": "7f1f3d0e-0c55-4c5f-9d5e-0a6f5a1b2c3d", "app.version": "2.1.248", "app.entrypoint": "cli",
        "terminal.type": "xterm-256color", "prompt.id": "3e5b9a52-7f0a-4c86-8b3b-7f2f0d1e6a10", "event.sequence": number,
        "agent.name": "general-purpose"});
    let stored = json!({"session_id": "7f1f3d0e-0c55-4c5f-9d5e-0a6f5a1b2c3d", "app_version": "2.1.248", "app_entrypoint": "cli",
        "terminal_type": "xterm-256color", "prompt_id": "3e5b9a52-7f0a-4c86-8b3b-7f2f0d1e6a10", "event_sequence": number,
        "subagent_name": "general-purpose"});
    (sent, stored)
}

impl Event {
    /// Its attributes in a record: what every event has, what this one has, and its content.
    #[must_use]
    pub fn sent(&self, number: usize) -> Vec<Value> {
        let (standard, _) = standard(number);
        let mut all = attributes(&standard);
        all.extend(attributes(&self.structure));
        all.extend(attributes(&json!({"event.name": self.name, "event.timestamp": "2026-11-22T12:00:00.000Z",
            "user.email": format!("{MARK}@example.com"), "user.id": MARK, "user.account_uuid": MARK, "organization.id": MARK,
            "workspace.host_paths": [format!("/home/{MARK}/work")]})));
        for content in self.content {
            all.push(json!({"key": content, "value": value(&json!(prose(content)))}));
        }
        all
    }

    /// A record of it, as Claude Code sends it.
    #[must_use]
    pub fn record(&self, number: usize) -> Value {
        json!({"timeUnixNano": now().to_string(), "observedTimeUnixNano": now().to_string(),
            "body": {"stringValue": format!("claude_code.{}", self.name)}, "attributes": self.sent(number)})
    }

    /// What must be in its document under `attributes`.
    #[must_use]
    pub fn expected(&self, number: usize) -> Map<String, Value> {
        let (_, mut stored) = standard(number);
        let stored = stored.as_object_mut().expect("an object");
        stored.extend(self.stored.as_object().expect("an object").clone());
        stored.insert("event_name".to_owned(), json!(self.name));
        std::mem::take(stored)
    }
}

/// A request with every event once, as one session sends them.
#[must_use]
pub fn session() -> Value {
    let records: Vec<_> = events()
        .iter()
        .enumerate()
        .map(|(n, e)| e.record(n))
        .collect();
    logs(
        &json!({"service.name": "claude-code", "service.version": "2.1.248", "host.arch": "amd64", "os.type": "linux",
        "agent": "somebody else", "project": "another"}),
        &records,
    )
}
