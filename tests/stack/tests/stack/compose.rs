//! compose.yaml and the secrets it needs: what can be said of them without an engine, and the whole stack
//! in one.

mod proxied;
mod shipped;
mod up;

use serde_json::{Value, json};

/// Records of an agent.
fn of(agent: &str) -> Value {
    json!({"term": {"attributes.agent": agent}})
}
