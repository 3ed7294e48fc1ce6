use super::*;
use crate::record::FOLDED;
use proptest::prelude::*;

/// A flow with every field set.
fn whole() -> Record {
    serde_json::from_value(serde_json::json!({
        "time": "2026-01-31T08:00:00.5Z", "agent": "Reviewer", "project": "acme", "container_id": "3f2a", "container_name": "web",
        "verdict": "DENIED", "direction": "egress",
        "src_ip": "192.0.2.1", "src_port": 40000, "dst_ip": "10.1.2.3", "dst_port": 22,
        "l4_proto": "tcp", "dst_host": "api.GitHub.com", "dst_hosts": ["one.example.com", "two.example.com"],
        "qname": "refused.example", "l7_proto": "unknown",
        "bytes_in": 1_000_000, "bytes_out": 24, "packets_in": 7, "packets_out": 5,
        "duration_ms": 2500, "start_time": "2026-01-31T07:59:58Z",
        "reason": "rule", "rule": "github \"api\"", "close_reason": "fin", "pid": 42, "comm": "git",
        "rtt_us": 1500, "retransmits": 2, "flow_id": "b007-7-d9", "count": 3,
        "first_time": "2026-01-31T07:59:59Z", "would_deny": true,
    }))
    .unwrap()
}

/// A flow with nothing that may be absent.
fn bare() -> Record {
    serde_json::from_value(serde_json::json!({
        "time": "2026-01-31T08:00:00Z", "verdict": "ALLOWED", "direction": "ingress", "l4_proto": "any",
        "l7_proto": "unknown", "bytes_in": 0, "bytes_out": 0, "packets_in": 0, "packets_out": 0,
        "duration_ms": 0, "start_time": "2026-01-31T08:00:00Z", "reason": FOLDED,
    }))
    .unwrap()
}

fn holds(filter: &str, r: &Record) -> bool {
    Filter::parse(filter)
        .unwrap_or_else(|e| panic!("{e}"))
        .matches(r)
}

#[test]
fn every_term_must_hold() {
    for filter in [
        "",
        "  ",
        "verdict=DENIED dst~github port=22 comm=git bytes>1M",
        "agent=reviewer project=ACME proto=tcp proto=6 host~.example.com",
        r#"rule="github \"api\"" reason=rule duration>2s !verdict=ALLOWED"#,
        "dst=10.0.0.0/8 dst=10.1.2.3 dst!=10.2.0.0/16 dst=api.github.com dst=TWO.example.com dst~1.2",
        "src=192.0.2.1 src~192 src!=198.51.100.0/24 sport=40000 dst=::ffff:10.1.2.3",
        "bytes=1000024 in=1M out<25 out>=24 out<=24 in>976KiB in<0.9765625GiB packets=12 packets<1k",
        "duration=2500ms duration<=2.5s duration_ms=2500 duration_ms<1m duration>0.000001h",
        "rtt=1.5ms rtt_us=1500 rtt>1499us retransmits>1 close=fin direction=egress would_deny=true",
        "time>2026-01-31T08:00:00Z time<2026-01-31T10:00:00+01:00 first_time=2026-01-31T07:59:59Z",
        "flow_id=b007-7-d9 count>2 pid=42 qname~refused host=refused.example l7_proto=unknown",
        "port = 22 comm\t~ GI PORT=22",
    ] {
        assert!(holds(filter, &whole()), "{filter}");
    }
    for filter in [
        "verdict=ALLOWED",
        "verdict=DENIED port=23",
        "!verdict=DENIED",
        "!port!=23",
        "dst=10.2.0.0/16",
        "dst=github.com",
        "dst~refused",
        "bytes>1000024",
        "bytes<1000024",
        "comm=gi",
        "duration>2500ms",
        "would_deny=false",
        "dst=::/0",
    ] {
        assert!(!holds(filter, &whole()), "{filter}");
    }
}

#[test]
fn what_is_absent_is_the_empty_text_and_compares_with_no_number() {
    for filter in [
        r#"agent="" rule="" dst_host="" dst="" host="" close="" comm="""#,
        "port!=22 !port=22 !port>0 !port<70000 pid!=1 !rtt>0ms count!=1",
        "dst!=10.0.0.0/8 !dst~github src!=::/0 agent!=x !first_time>2000-01-01T00:00:00Z",
        "would_deny=no reason=folded",
    ] {
        assert!(holds(filter, &bare()), "{filter}");
    }
    for filter in [
        r#"agent!="""#,
        "port=0",
        "port>=0",
        "rtt<=1h",
        "dst~1",
        "dst=0.0.0.0/0",
    ] {
        assert!(!holds(filter, &bare()), "{filter}");
    }
    assert!(!holds(r#"dst="""#, &whole()) && !holds(r#"agent="""#, &whole()));
}

#[test]
fn mistakes_have_a_place_and_say_what_would_do() {
    for (filter, wrong, says) in [
        (
            "verdict=DENIED colour=red",
            "colour",
            "there is no field `colour`",
        ),
        ("port", "port", "an operator is missing behind `port`"),
        ("port=22 and comm=git", "and", "joined by AND"),
        ("port=22 && comm=git", "&", "joined by AND"),
        ("port=", "", "a value is missing"),
        ("=22", "=", "begins with the name of a field"),
        ("port=22 github", "github", "an operator is missing"),
        ("rule=\"a b", "\"a b", "closing quote"),
        ("rule=\"a\"b", "b", "a blank is missing"),
        (
            "verdict=DENYED",
            "DENYED",
            "one of ALLOWED, DENIED, BYPASSED",
        ),
        ("reason=weather", "weather", "one of rule, default"),
        (
            "comm>git",
            "git",
            "`>` does not compare texts: use one of = != ~",
        ),
        ("dst>10.0.0.1", "10.0.0.1", "does not compare addresses"),
        ("port~2", "2", "`~` does not compare numbers"),
        ("would_deny>no", "no", "does not compare true and false"),
        ("would_deny=maybe", "maybe", "is not true or false"),
        ("dst=10.0.0", "10.0.0", "an address such as"),
        ("dst=10.0.0.0/33", "10.0.0.0/33", "an address such as"),
        ("src=host", "host", "an address such as"),
        ("bytes>1X", "1X", "is not a size"),
        ("bytes>99999999T", "99999999T", "is not a size"),
        ("port=1.", "1.", "is not a number"),
        ("port=22B", "22B", "is not a number"),
        ("duration>2", "2", "with its unit"),
        ("time>yesterday", "yesterday", "2026-01-31T08:00:00Z"),
        ("käse=1", "käse", "there is no field `käse`"),
        ("comm=ok -x", "-", "begins with the name of a field"),
        (
            "port=\u{1b}[2J",
            "\u{1b}[2J",
            "`\\u{1b}[2J` is not a number",
        ),
    ] {
        let e = Filter::parse(filter).unwrap_err();
        assert_eq!(&filter[e.at.clone()], wrong, "{filter}: {e}");
        assert!(e.to_string().contains(says), "{filter}: {e}");
        assert!(e.to_string().contains("fields: dst src host port"), "{e}");
    }
}

#[test]
fn the_place_is_marked_below_the_expression() {
    let e = Filter::parse("comm=\"gé\u{7}t\" prot=22 dst~x").unwrap_err();
    let shown = e.to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "there is no field `prot`");
    assert_eq!(lines[1], "  comm=\"gé\\u{7}t\" prot=22 dst~x");
    assert_eq!(
        lines[2].find('^'),
        lines[1]
            .char_indices()
            .position(|(i, _)| lines[1][i..].starts_with("prot"))
    );
    assert_eq!(lines[2].trim(), "^^^^");
    assert_eq!(e.column(), 12);
}

#[test]
fn long_expressions_are_refused_and_shown_in_part() {
    let many = vec!["port=1"; MAX_TERMS].join(" ");
    assert!(Filter::parse(&many).is_ok());
    let e = Filter::parse(&format!("{many} port=2")).unwrap_err();
    assert_eq!(e.problem, Problem::TooMany);
    let long = format!("comm={}", "ü".repeat(MAX_LENGTH));
    let e = Filter::parse(&long).unwrap_err();
    assert_eq!(e.problem, Problem::TooLong);
    let e = Filter::parse(&format!(
        "comm={} oops=1 comm={}",
        "x".repeat(1000),
        "y".repeat(1000)
    ))
    .unwrap_err();
    assert!(
        e.to_string()
            .lines()
            .all(|l| l.starts_with("fields") || l.len() < 200),
        "{e}"
    );
}

#[test]
fn every_field_of_a_record_can_be_asked_for() {
    let json = serde_json::to_value(whole()).unwrap();
    let names: Vec<_> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut known: Vec<_> = FIELDS
        .iter()
        .filter(|f| f.in_record)
        .map(|f| f.name)
        .collect();
    known.sort_unstable();
    assert_eq!(known, names);
    let mut all: Vec<_> = FIELDS.iter().map(|f| f.name).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), FIELDS.len(), "a name stands for one field");
}

/// Expressions that are nearly right, for what random text does not reach.
fn nearly() -> impl Strategy<Value = String> {
    let name = prop::sample::select(FIELDS.iter().map(|f| f.name).collect::<Vec<_>>());
    let operator =
        prop::sample::select(vec!["=", "!=", "~", ">", "<", ">=", "<=", "==", "", " = "]);
    let value = prop_oneof![
        "[0-9.]{0,24}[a-zA-Zµ]{0,3}",
        "[0-9a-f:./]{0,20}",
        "\"[^\"]{0,9}\"?\\\\?",
        ".{0,12}",
        Just("DENIED".to_owned()),
        Just("2026-01-31T08:00:00Z".to_owned()),
    ];
    let term = (
        prop::sample::select(vec!["", "!", "!!"]),
        name,
        operator,
        value,
    )
        .prop_map(|(not, name, operator, value)| format!("{not}{name}{operator}{value}"));
    prop::collection::vec(term, 0..5).prop_map(|terms| terms.join(" "))
}

proptest! {
    #[test]
    fn no_text_brings_it_down(text in prop_oneof![".*", nearly()]) {
        match Filter::parse(&text) {
            Ok(filter) => {
                // What it says of itself means the same.
                let again = Filter::parse(filter.text()).unwrap();
                prop_assert_eq!(again.matches(&whole()), filter.matches(&whole()));
            }
            Err(e) => {
                prop_assert!(text.get(e.at.clone()).is_some(), "{:?} of {text:?}", e.at);
                prop_assert!(e.column() <= text.chars().count());
                let escape = char::from(27);
                prop_assert!(!e.to_string().contains(escape));
            }
        }
    }

    #[test]
    fn a_negation_is_the_opposite(text in nearly()) {
        if let Ok(filter) = Filter::parse(&text) && filter.terms.len() == 1 && !text.starts_with('!') {
            let not = Filter::parse(&format!("!{text}")).unwrap();
            for r in [whole(), bare()] {
                prop_assert_ne!(not.matches(&r), filter.matches(&r));
            }
        }
    }

    #[test]
    fn terms_are_a_conjunction(a in nearly(), b in nearly()) {
        if let (Ok(x), Ok(y)) = (Filter::parse(&a), Filter::parse(&b)) {
            let both = Filter::parse(&format!("{a} {b}")).unwrap();
            for r in [whole(), bare()] {
                prop_assert_eq!(both.matches(&r), x.matches(&r) && y.matches(&r));
            }
        }
    }

    #[test]
    fn numbers_compare_as_numbers(n in any::<u64>(), other in any::<u64>()) {
        let r = Record { bytes_in: n, bytes_out: 0, ..bare() };
        for (operator, expected) in [("=", n == other), ("!=", n != other), (">", n > other),
            ("<", n < other), (">=", n >= other), ("<=", n <= other)] {
            let filter = format!("in{operator}{other}");
            prop_assert_eq!(holds(&filter, &r), expected);
        }
    }

    #[test]
    fn any_text_can_be_quoted(text in "\\PC{0,30}") {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        let r = Record { rule: Some(text), ..bare() };
        let filter = format!("rule=\"{quoted}\"");
        prop_assert!(holds(&filter, &r));
    }
}

#[test]
fn the_documentation_knows_every_field_and_its_examples_are_right() {
    let page = include_str!("../../../docs/watch.md");
    for f in &FIELDS {
        assert!(page.contains(&format!("`{}`", f.name)), "{}", f.name);
    }
    let examples = page
        .split("```filter\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert!(examples.lines().count() > 5);
    for example in examples.lines() {
        assert!(
            Filter::parse(example).is_ok_and(|f| !f.is_empty()),
            "{example}"
        );
    }
}
