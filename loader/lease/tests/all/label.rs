//! What Docker's labels and names become.

use lease::{AGENT_LABEL, Labels, MAX_TEXT, PROJECT_LABEL, Refused, TextError, container_name};
use std::collections::{BTreeMap, HashMap};

fn read(labels: &[(&str, &str)]) -> Labels {
    let pairs = labels
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let map: BTreeMap<String, String> = pairs.clone().collect();
    let other: HashMap<String, String> = pairs.collect();
    let found = Labels::read(&map);
    let also = Labels::read(&other);
    assert_eq!((&found.agent, &found.project), (&also.agent, &also.project));
    found
}

#[test]
fn values_are_taken_as_they_are() {
    for value in [
        "",
        "a",
        " a ",
        "A/b.c:d",
        "a=b,c",
        "\"quoted\"",
        "ünï ✓",
        "${HOME}",
        "null",
    ] {
        let found = read(&[
            (AGENT_LABEL, value),
            (PROJECT_LABEL, value),
            ("dev.clawker.agents", "x"),
            ("com.docker.compose.project", "y"),
        ]);
        assert!(found.is_agent);
        assert_eq!(found.agent.as_deref(), Some(value));
        assert_eq!(found.project.as_deref(), Some(value));
        assert_eq!(found.refused, []);
    }
}

#[test]
fn an_absent_label_is_an_absent_value() {
    assert_eq!(read(&[]), Labels::default());
    let found = read(&[(AGENT_LABEL, "a")]);
    assert_eq!((found.is_agent, found.project), (true, None));
    let found = read(&[(PROJECT_LABEL, "p")]);
    assert_eq!((found.is_agent, found.agent), (false, None));
}

#[test]
fn a_value_that_cannot_be_used_does_not_lift_the_firewall() {
    let long = "x".repeat(MAX_TEXT + 1);
    let found = read(&[(AGENT_LABEL, "a\u{1b}[2J"), (PROJECT_LABEL, &long)]);
    assert!(found.is_agent);
    assert_eq!((found.agent, found.project), (None, None));
    let (label, source) = (AGENT_LABEL, TextError::Control(1));
    assert_eq!(found.refused[0], Refused { label, source });
    let said = found.refused[1].to_string();
    assert!(
        said.starts_with("label dev.clawker.project is 1025 bytes long"),
        "{said}"
    );
}

#[test]
fn a_name_loses_one_slash() {
    for (docker, name) in [("/web", "web"), ("web", "web"), ("//web", "/web"), ("", "")] {
        assert_eq!(container_name(docker), name);
    }
}
