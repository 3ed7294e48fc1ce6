//! The edges of the maps, and input meant to do harm.

use abi::{MAX_POLICY_ENTRIES, SET_RULES};
use policy::{CompileError, MAX_COVERING, Policy, render};
use proptest::test_runner::Config as ProptestConfig;
use std::fmt::Write;

fn messages(source: &str) -> Vec<String> {
    Policy::parse(source)
        .diagnostics
        .into_iter()
        .map(|d| d.message)
        .collect()
}

/// A rule with this many ports that are not beside each other.
fn many_ports(dst: &str, first: usize, count: usize) -> String {
    let ports: Vec<String> = (0..count).map(|i| (first + 2 * i).to_string()).collect();
    format!("{{dst: {dst}, proto: tcp, port: [{}]}}", ports.join(", "))
}

#[test]
fn rules_beyond_a_set_are_chained_in_order() {
    let source = format!("rules: [{}]", many_ports("a.example", 1, 20));
    let policy = Policy::parse(&source).policy.unwrap();
    let compiled = policy.select(None, None).compile(9).unwrap();
    let [(_, first)] = compiled.names.as_slice() else {
        panic!("one name")
    };
    let counts: Vec<u32> = compiled.chain.iter().map(|(_, set)| set.count).collect();
    assert_eq!(
        (first.count as usize, first.next, counts),
        (SET_RULES, 1, vec![8, 4])
    );
    let links: Vec<(u32, u32)> = compiled
        .chain
        .iter()
        .map(|(key, set)| (key.set, set.next))
        .collect();
    assert_eq!(links, [(1, 2), (2, 0)]);
    let ports: Vec<u16> = std::iter::once(first)
        .chain(compiled.chain.iter().map(|(_, set)| set))
        .flat_map(|set| &set.rules[..set.count as usize])
        .map(|rule| rule.lo)
        .collect();
    assert_eq!(ports, (0..20).map(|i| 1 + 2 * i).collect::<Vec<u16>>());
}

#[test]
fn a_destination_holds_128_port_rules_and_no_more() {
    let fits = format!("rules: [{}]", many_ports("10.0.0.1", 1, MAX_COVERING));
    assert_eq!(messages(&fits), [""; 0]);
    let compiled = Policy::parse(&fits)
        .policy
        .unwrap()
        .select(None, None)
        .compile(1)
        .unwrap();
    assert_eq!(compiled.chain.len(), MAX_COVERING / SET_RULES - 1);
    let full = format!("rules: [{}]", many_ports("10.0.0.1", 1, MAX_COVERING + 1));
    assert_eq!(
        messages(&full),
        ["129 port rules cover 10.0.0.1/32, at most 128 fit"]
    );
}

#[test]
fn what_covers_a_destination_from_outside_counts_too() {
    let broad = many_ports("10.0.0.0/8", 1, 100);
    let narrow = many_ports("10.0.0.1", 2, 29);
    let source = format!("rules: [{broad}]\nagents: {{p/a: {{rules: [{narrow}]}}}}");
    let expected = "129 port rules cover 10.0.0.1/32, at most 128 fit, for the agent p/a";
    assert_eq!(messages(&source), [expected]);
    // The same rules for destinations apart from each other fit.
    assert_eq!(messages(&source.replace("10.0.0.1,", "11.0.0.1,")), [""; 0]);
    // So do a plain agent's in a project's only when they are apart.
    let apart =
        format!("projects: {{p: {{rules: [{broad}]}}}}\nagents: {{a: {{rules: [{narrow}]}}}}");
    assert_eq!(messages(&apart), [expected]);
}

#[test]
fn more_entries_than_a_map_holds_are_refused_with_both_numbers() {
    let mut source = String::from("domains:\n");
    for i in 0..=MAX_POLICY_ENTRIES {
        writeln!(source, "- n{i:x}.example").unwrap();
    }
    let expected = "the policy needs 262145 rules, at most 262144 fit";
    assert_eq!(messages(&source), [expected]);
    let small = Policy::observe();
    assert!(small.select(None, None).compile(1).is_ok());
    let error = CompileError::Entries {
        what: "rules",
        count: 262_145,
    };
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_hundred_thousand_rules_are_a_policy() {
    let mut source = String::from("rules:\n");
    for i in 0..50_000u32 {
        let [_, a, b, c] = i.to_be_bytes();
        writeln!(source, "- {{dst: 203.{a}.{b}.{c}, proto: any}}").unwrap();
        writeln!(source, "- {{dst: \"*.h{}.d{}.example\"}}", i, i % 100).unwrap();
    }
    let policy = Policy::parse(&source).policy.unwrap();
    let compiled = policy.select(None, None).compile(1).unwrap();
    assert_eq!(
        (compiled.addrs.len(), compiled.names.len()),
        (50_008, 50_000)
    );
    assert_eq!(compiled.texts.len(), 100_000);
}

/// Parsing ends, and what it says can be printed.
fn survives(source: &str) {
    let parsed = Policy::parse(source);
    let text = render(&parsed.diagnostics, "p.yaml", source, false);
    assert!(
        text.chars().all(|c| !c.is_control() || c == '\n'),
        "{text:?}"
    );
    assert!(parsed.diagnostics.len() <= 2002);
}

#[test]
fn harmful_input_is_answered() {
    let aliases = vec!["*a"; 10_000].join(", ");
    for source in [
        "[".repeat(100_000),
        "{a: ".repeat(50_000),
        "- ".repeat(100_000),
        format!("rules: [{}]", "{".repeat(200)),
        format!("a: &a [x]\nb: [{aliases}]"),
        "rules: \0".to_owned(),
        "\u{feff}rules: []".to_owned(),
        "a: \"\\uD800\"".to_owned(),
        "mode: \u{202e}ecrofne".to_owned(),
        "\u{1b}]0;x\u{7}: y".to_owned(),
        "\t- a".to_owned(),
        "%YAML 9.9\n---\n".to_owned(),
        format!("mode: {}", "x".repeat(1 << 20)),
        format!("mode: {}", "ü\u{301}".repeat(1 << 16)),
        format!("rules: [{}]", vec!["1"; 100_000].join(", ")),
        format!(
            "rules: [{}]",
            vec!["{dst: 0.0.0.0/0, proto: any}"; 20_000].join(", ")
        ),
        format!("rules: [{}]", vec!["{x: 1}"; 100_000].join(", ")),
        format!("domains: [{}]", "a.".repeat(1 << 16)),
        format!("domains: [{}]", "é".repeat(1 << 16)),
        format!(
            "rules: [{{dst: a, path_rules: [{{path: \"~{}\"}}]}}]",
            "(a*)*".repeat(800)
        ),
        format!(
            "rules: [{{dst: a, path_rules: [{{path: \"~{}\"}}]}}]",
            "(".repeat(4000)
        ),
    ] {
        survives(&source);
    }
}

#[test]
fn cutting_a_file_anywhere_is_survived() {
    let path = format!("{}/tests/golden/mistakes.yaml", env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(path).unwrap();
    for end in 0..source.len() {
        survives(&source[..end]);
    }
}

proptest::proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(source in "[\\PC\n\t ]{0,200}") {
        survives(&source);
    }

    #[test]
    fn any_small_yaml_is_survived(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "rules", "dst", "port", ": ", "- ", "[", "]", "{", "}", ", ", "\n", "  ", "a.example",
            "10.0.0.0/8", "443", "&a ", "*a", "!!str ", "\"", "'", "|\n", "~", "agents", "tests", "ü",
            "path_rules", "? ", "#", "mode", "null", "---\n", "allow",
        ]), 0..60)) {
        survives(&parts.concat());
    }
}
