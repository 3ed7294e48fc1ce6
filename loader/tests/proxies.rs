//! `policy render` and `ca` as they are typed, and the names in Envoy's records.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

const POLICY: &str = "rules: [{dst: api.example, proto: https}, {dst: '*.example', proto: http}]\n";

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ebpf-manager"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn room() -> tempfile::TempDir {
    let dir = tempfile::TempDir::with_prefix("clawker-test-").unwrap();
    fs::write(dir.path().join("egress.yaml"), POLICY).unwrap();
    dir
}

const RENDER: [&str; 5] = ["policy", "render", "egress.yaml", "--agent", "a@192.0.2.1"];

#[test]
fn both_are_written_and_point_at_each_other() {
    let dir = room();
    assert!(
        run(dir.path(), &["ca", "init", "--dir", "ca"])
            .status
            .success()
    );
    let more = ["--ca", "ca", "--envoy", "out", "--coredns", "Corefile"];
    let out = dir.path().join("out");
    let rendered = || {
        let done = run(dir.path(), &[&RENDER[..], &more].concat());
        assert!(done.status.success(), "{done:?}");
        fs::read(out.join("certificates/api.example.pem")).unwrap()
    };
    // What is there is kept, but where it is of another month, or half.
    let first = rendered();
    assert_eq!(rendered(), first);
    fs::write(out.join("certificates/issued"), "2026-01").unwrap();
    let second = rendered();
    assert_ne!(second, first);
    fs::remove_file(out.join("certificates/api.example.key")).unwrap();
    assert_ne!(rendered(), second);
    let read = |file: &Path| serde_json::from_slice::<Value>(&fs::read(file).unwrap()).unwrap();
    let bootstrap = read(&out.join("bootstrap.json"));
    for (kind, file) in [
        ("lds_config", "listeners.json"),
        ("cds_config", "clusters.json"),
    ] {
        let path = &bootstrap["dynamic_resources"][kind]["path_config_source"]["path"];
        assert_eq!(
            fs::canonicalize(path.as_str().unwrap()).unwrap(),
            fs::canonicalize(out.join(file)).unwrap()
        );
    }
    let listeners = read(&out.join("listeners.json"));
    let chains = listeners["resources"].as_array().unwrap().iter();
    let mut chains = chains.flat_map(|one| one["filter_chains"].as_array().unwrap());
    let tls = chains
        .find(|one| one["transport_socket"].is_object())
        .unwrap();
    let files =
        &tls["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"][0];
    let key = Path::new(files["private_key"]["filename"].as_str().unwrap());
    assert_eq!(
        fs::metadata(key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let chain =
        fs::read_to_string(files["certificate_chain"]["filename"].as_str().unwrap()).unwrap();
    let exported = run(dir.path(), &["ca", "export", "--dir", "ca"]).stdout;
    assert!(chain.ends_with(std::str::from_utf8(&exported).unwrap()));
    assert!(
        fs::read_to_string(dir.path().join("Corefile"))
            .unwrap()
            .contains("api.example.:53")
    );
    // Nothing unfinished is left, and the authority's key is nowhere else.
    let certificate = |one: fs::DirEntry| one.file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(out.join("certificates"))
        .unwrap()
        .map(|one| certificate(one.unwrap()))
        .collect();
    names.sort();
    assert_eq!(names, ["api.example.key", "api.example.pem", "issued"]);
}

#[test]
fn without_an_authority_tls_is_told_to_be_missing() {
    let dir = room();
    let out = run(dir.path(), &[&RENDER[..], &["--envoy", "-"]].concat());
    let told = String::from_utf8(out.stderr).unwrap();
    assert!(
        told.contains("egress.yaml: line 1: rules[0]: TLS is not answered"),
        "{told}"
    );
    let printed: Value = serde_json::from_slice(&out.stdout).unwrap();
    let listeners = printed["listeners"]["resources"].as_array().unwrap();
    let names: Vec<&str> = listeners
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["port-80"]);
}

#[test]
fn mistakes_are_told_and_write_nothing() {
    let dir = room();
    for (more, code, what) in [
        (
            &["--envoy", "-", "--coredns", "-"][..],
            2,
            "only one of them",
        ),
        (
            &["--agent", "b@192.0.2.1", "--envoy", "out"],
            2,
            "192.0.2.1 is the address of a and of b",
        ),
        (&["--agent", "b", "--envoy", "out"], 2, "has no address"),
        (
            &["--ca", "nowhere", "--envoy", "out"],
            1,
            "ebpf-manager ca init",
        ),
        (
            &["--collector", "4320", "--envoy", "out"],
            2,
            "collector:4320",
        ),
        (&[], 2, "--envoy"),
    ] {
        let out = run(dir.path(), &[&RENDER[..], more].concat());
        let told = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(code), "{more:?}: {told}");
        assert!(told.contains(what), "{more:?}: {told}");
        assert!(!dir.path().join("out").exists(), "{more:?}");
    }
}

/// What Envoy logs has the names that every other record has.
#[test]
fn the_access_log_speaks_the_dictionary() {
    for (name, _) in proxy::ATTRIBUTES {
        let known = wire::fields::ALL.iter().any(|entry| entry.name == name);
        assert!(known, "{name}");
    }
    let logged = |entry: &&wire::fields::Entry| entry.records == "Envoy";
    for entry in wire::fields::ALL.iter().filter(logged) {
        let there = proxy::ATTRIBUTES
            .iter()
            .any(|(name, _)| *name == entry.name);
        assert!(there, "{} is in no record", entry.name);
    }
}
