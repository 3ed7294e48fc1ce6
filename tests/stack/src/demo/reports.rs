//! What Claude Code reports of an agent, as far as the prompt gate lets it through.

use super::{Dice, Document, INFO, LENGTH, Said, Whose, document};
use serde_json::{Value, json};
use wire::stream;

/// Ten prompts, each with its requests and tools.
pub(super) fn claude(whose: Whose, dice: &mut Dice) -> Vec<Document> {
    let mut all = Vec::new();
    for number in 0..10 {
        let before = LENGTH / 10 * number + 200;
        let mut say = |event: &str, later: i64, attributes: Value| {
            let said = Said {
                stream: stream::CLAUDE,
                event,
                before: before - later,
                severity: INFO,
                body: format!("claude_code.{event}"),
                attributes,
            };
            all.push(document(said, Some(whose)));
        };
        say(
            "user_prompt",
            0,
            json!({"prompt_length": 20 + dice.below(400), "prompt_id": format!("p{number}"), "src_ip": whose.address()}),
        );
        for request in 0..3 {
            let model = *dice.of(&["claude-sonnet-4-5", "claude-haiku-4-5"]);
            say(
                "api_request",
                5 + request,
                json!({
                    "model": model, "cost_usd": f64::from(u32::try_from(1 + dice.below(900)).expect("small")) / 1e4,
                    "input_tokens": 10 + dice.below(900), "output_tokens": 50 + dice.below(3_000),
                    "cache_read_tokens": dice.below(90_000), "cache_creation_tokens": dice.below(9_000),
                    "duration_ms": 800 + dice.below(20_000), "query_source": "main",
                }),
            );
        }
        for call in 0..3 {
            let tool = *dice.of(&["Bash", "Edit", "Read", "WebFetch"]);
            say(
                "tool_decision",
                30 + call,
                json!({"tool_name": tool, "decision": "accept", "source": "config"}),
            );
            say(
                "tool_result",
                40 + call,
                json!({"tool_name": tool, "success": dice.below(5) > 0, "duration_ms": dice.below(4_000)}),
            );
        }
        say(
            "api_error",
            60,
            json!({"model": "claude-sonnet-4-5", "status_code": 529, "attempt": 1, "duration_ms": 100}),
        );
    }
    all
}
