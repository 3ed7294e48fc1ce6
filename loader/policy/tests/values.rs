//! The bounds of each value, and what the operators' guide shows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use policy::{Policy, render, summary};

/// Errors of a source, `line:column message`.
fn errors(source: &str) -> Vec<String> {
    let parsed = Policy::parse(source);
    assert_eq!(
        parsed.policy.is_some(),
        parsed.diagnostics.is_empty(),
        "{source}"
    );
    parsed
        .diagnostics
        .iter()
        .map(|d| format!("{}:{} {}", d.line, d.column, d.message))
        .collect()
}

#[test]
fn each_value_has_its_bounds() {
    for good in [
        "rules: [{dst: a, port: 1}, {dst: b, port: '65535'}, {dst: c, port: [1-2, 3]}]",
        "udp_idle: 1s",
        "udp_idle: 1h",
        "udp_idle: 1m 30s",
        "version: 1",
        "resolvers: []",
        "rules: []",
        "rules: [{dst: a, name: 443}]",
        "intercept: false\ninbound: deny",
    ] {
        assert_eq!(errors(good), [""; 0], "{good}");
    }
    for (bad, message) in [
        (
            "rules: [{dst: a, port: 0}]",
            "1:24 port `0` is out of range",
        ),
        (
            "rules: [{dst: a, port: 65536}]",
            "1:24 port `65536` is out of range",
        ),
        (
            "rules: [{dst: a, port: 0x50}]",
            "1:24 port `0x50` is not a number",
        ),
        (
            "rules: [{dst: a, port: +80}]",
            "1:24 port `+80` is not a number",
        ),
        (
            "rules: [{dst: a, port: 80.0}]",
            "1:24 port `80.0` is not a number",
        ),
        (
            "rules: [{dst: a, port: []}]",
            "1:24 `port` is an empty list",
        ),
        (
            "rules: [{dst: a, port: 99999999999999999999}]",
            "1:24 port `99999999999999999999` is out of range",
        ),
        ("udp_idle: 999ms", "1:11 `udp_idle` `999ms` is out of range"),
        ("udp_idle: 3601s", "1:11 `udp_idle` `3601s` is out of range"),
        ("udp_idle: 30", "1:11 `udp_idle` `30` is not a duration"),
        ("version: 2", "1:10 version `2` is not known"),
        ("version: 1.0", "1:10 version `1.0` is not known"),
        ("mode: Enforce", "1:7 `mode` is `Enforce`"),
        ("rules:", "1:1 `rules` has no value"),
        ("rules: {}", "1:8 `rules` is a map"),
        ("domains: [[a]]", "1:11 a domain is a list"),
        ("domains: ['']", "1:11 a domain is a single value"),
        ("rules: [{dst: }]", "1:10 `dst` has no value"),
        (
            "rules: [{dst: a, name: \"x\\u001b[31m\"}]",
            "1:24 `name` `x\\u{1b}[31m` has control characters",
        ),
        (
            "rules: [{dst: a, path_rules: [{methods: [GET]}]}]",
            "1:31 a path rule without `path`",
        ),
        (
            "resolvers: ['1.1.1.1:53']",
            "1:13 resolver `1.1.1.1:53` is unknown",
        ),
        (
            "resolvers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4, 1.1.1.5]",
            "1:1 5 resolvers",
        ),
        ("projects: {acme: {mode: audit}}", "1:19 unknown key `mode`"),
        (
            "agents: {/a: {mode: audit}}",
            "1:10 `/a` is not a key of `agents`",
        ),
        ("rules: [{dst: a, 1: 2}]", "1:18 unknown key `1`"),
        ("? [x]\n: 1", "1:3 a key that is not a word"),
        ("- a", "1:1 a policy is a list"),
        (
            "rules: *x",
            "1:8 the YAML cannot be read: while parsing node, found unknown anchor",
        ),
    ] {
        assert_eq!(errors(bad), [message], "{bad}");
    }
}

/// The fenced blocks of the guide: what stands behind the fence, and the text.
fn blocks(guide: &str) -> Vec<(&str, &str)> {
    let mut parts = guide.split("\n```");
    parts.next();
    let mut found = Vec::new();
    while let (Some(block), Some(_)) = (parts.next(), parts.next()) {
        found.push(block.split_once('\n').unwrap());
    }
    found
}

#[test]
fn the_guide_shows_what_is_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policy.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let blocks = blocks(&guide);
    for (i, (kind, text)) in blocks.iter().enumerate() {
        let diagnostics = match *kind {
            "yaml" | "yaml mistakes" => Policy::parse(text).diagnostics,
            _ => continue,
        };
        let text = render(&diagnostics, "egress.yaml", text, false);
        let text = format!("{text}{}", summary(&diagnostics));
        let expected = if *kind == "yaml" {
            "0 errors, 0 warnings"
        } else {
            blocks[i + 1].1
        };
        assert_eq!(text, expected);
    }
    assert!(
        blocks
            .iter()
            .filter(|(kind, _)| *kind == "yaml mistakes")
            .count()
            >= 2
    );
    assert!(blocks.iter().filter(|(kind, _)| *kind == "yaml").count() >= 10);
}
