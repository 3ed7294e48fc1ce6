//! Policy files: any text is read or refused with messages that can be shown, and what is read compiles
//! to maps that say the same as the rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Policy, render, summary};

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else {
        return;
    };
    let parsed = Policy::parse(source);
    let text = render(&parsed.diagnostics, "policy.yaml", source, false);
    let shown = text.chars().all(|c| !c.is_control() || c == '\n');
    assert!(shown, "control characters in {text:?}");
    let _ = summary(&parsed.diagnostics);
    let Some(policy) = parsed.policy else {
        assert!(!parsed.diagnostics.is_empty(), "refused without a word");
        return;
    };
    for (agent, project) in [(None, None), (Some("a"), None), (Some("a"), Some("p"))] {
        let selected = policy.select(agent, project);
        if let Ok(compiled) = selected.compile(1) {
            assert_eq!(compiled.texts.len(), selected.rules().len());
        }
    }
});
