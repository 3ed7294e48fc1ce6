//! The dictionary of metrics is consistent, and its page says the same.
//! `CLAWKER_WRITE_DOCS=1 cargo nextest run -p wire` writes the page's table anew.

#[path = "common/page.rs"]
mod page;

use std::collections::HashSet;
use wire::metrics::ALL_METRICS;

fn table() -> String {
    let mut text = "| metric | in Prometheus | kind | unit | labels | program | meaning |\n|---|---|---|---|---|---|---|\n".to_owned();
    for m in ALL_METRICS {
        let labels: Vec<_> = m.labels.iter().map(|l| format!("`{l}`")).collect();
        text += &format!(
            "| `{}` | `{}` | {} | `{}` | {} | {} | {} |\n",
            m.name,
            m.prometheus(),
            m.kind,
            m.unit,
            labels.join(", "),
            m.program,
            m.meaning.trim()
        );
    }
    text
}

#[test]
fn the_page_has_the_dictionary() {
    page::has(
        "docs/metrics.md",
        "<!-- metrics: made from otlp-bridge/wire/src/metrics/dictionary.rs -->\n",
        "<!-- /metrics -->\n",
        &table(),
    );
}

#[test]
fn names_are_unique_there_and_in_prometheus_and_no_label_breaks_a_query() {
    let mut seen = HashSet::new();
    for m in ALL_METRICS {
        assert!(seen.insert(m.name.to_owned()), "{}", m.name);
        assert!(seen.insert(m.prometheus()), "{}", m.name);
        assert!(m.name.starts_with("clawker."), "{}", m.name);
        assert!(!m.meaning.contains('|'), "{}", m.name);
        for label in m.labels {
            // Dashboards that read `"type":` in an answer take such a label for the end of the series.
            assert_ne!(*label, "type", "{}", m.name);
            assert!(label.chars().all(|c| c.is_ascii_lowercase()), "{}", m.name);
        }
        // What counts is in braces, what is measured has a unit.
        let counted = m.unit.starts_with('{') && m.unit.ends_with('}');
        assert!(counted || ["By", "s"].contains(&m.unit), "{}", m.name);
    }
}
