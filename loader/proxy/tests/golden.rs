//! What is rendered, compared whole with the files in `tests/golden`. After a wanted change run with
//! `UPDATE_GOLDEN=1` and read the difference.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use policy::Policy;
use proxy::{Agent, Fleet, Settings, coredns, envoy};
use std::{fs, path::Path};

fn compare(name: &str, file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
        .join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    assert_eq!(
        text,
        fs::read_to_string(&path).unwrap(),
        "{}",
        path.display()
    );
}

fn pretty(value: &serde_json::Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

fn render(name: &str, agents: &[&str], settings: &Settings) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let source = fs::read_to_string(golden.join(name).join("policy.yaml")).unwrap();
    let policy = Policy::parse(&source).policy.unwrap();
    let agents = agents.iter().map(|text| Agent::parse(text).unwrap());
    let fleet = Fleet::new(agents.collect()).unwrap();
    let rendered = envoy::render(&policy, &fleet, settings);
    compare(name, "bootstrap.json", &pretty(&rendered.bootstrap));
    compare(name, "listeners.json", &pretty(&rendered.listeners));
    compare(name, "clusters.json", &pretty(&rendered.clusters));
    compare_notes(name, &rendered);
    compare(
        name,
        "Corefile",
        &coredns::render(&policy, &fleet, settings),
    );
}

fn compare_notes(name: &str, rendered: &envoy::Rendered) {
    let notes: String = rendered
        .notes
        .iter()
        .map(|note| format!("{note}\n"))
        .collect();
    let names: Vec<String> = rendered.certificates.iter().cloned().collect();
    let notes = format!("{notes}certificates: {}\n", names.join(", "));
    compare(name, "notes.txt", &notes);
}

#[test]
fn what_cannot_be_had_is_told() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/limits/policy.yaml");
    let policy = Policy::parse(&fs::read_to_string(golden).unwrap())
        .policy
        .unwrap();
    let fleet = Fleet::new(vec![Agent::parse("reviewer@10.237.64.11").unwrap()]).unwrap();
    let settings = Settings {
        intercept: true,
        ..Settings::default()
    };
    let rendered = envoy::render(&policy, &fleet, &settings);
    compare_notes("limits", &rendered);
    // Nothing is half there: a port without a listener answers nobody.
    let ports = rendered.listeners["resources"].as_array().unwrap();
    assert!(ports.iter().all(|listener| listener["name"] == "port-443"));
}

#[test]
fn requests_in_the_clear() {
    let settings = Settings {
        collector_host: "192.0.2.20".to_owned(),
        ..Settings::default()
    };
    render(
        "plain",
        &["acme/reviewer@10.237.64.11,fd00::11#c0ffee"],
        &settings,
    );
}

#[test]
fn tls_is_intercepted() {
    let settings = Settings {
        intercept: true,
        listen: vec!["10.237.64.3".parse().unwrap(), "fd00::3".parse().unwrap()],
        resolvers: vec!["10.237.64.4:53".parse().unwrap()],
        ..Settings::default()
    };
    render("tls", &["reviewer@10.237.64.11"], &settings);
}
