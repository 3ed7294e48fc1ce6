//! Descriptions as Docker 20.10 gave them (API 1.41), one for each thing that there is to see.

use super::*;
use serde_json::{Value, json};

fn captured(name: &str) -> Value {
    let text = match name {
        "plain" => include_str!("../captured/plain.json"),
        "odd" => include_str!("../captured/odd.json"),
        "weak" => include_str!("../captured/weak.json"),
        "guest" => include_str!("../captured/guest.json"),
        "vol" => include_str!("../captured/vol.json"),
        "parent" => include_str!("../captured/parent.json"),
        "privileged" => include_str!("../captured/privileged.json"),
        _ => panic!("no {name}"),
    };
    serde_json::from_str(text).unwrap()
}

fn read_json(json: Value) -> Result<Described, Missing> {
    read(serde_json::from_value(json).unwrap())
}

fn described(name: &str) -> Described {
    read_json(captured(name)).unwrap()
}

/// `plain` with another host configuration.
fn with_host(changes: &[(&str, Value)]) -> Vec<Weakness> {
    let mut json = captured("plain");
    for (key, value) in changes {
        json["HostConfig"][*key] = value.clone();
    }
    read_json(json).unwrap().weaknesses
}

#[test]
fn a_plain_container_is_no_agent_and_has_no_weakness() {
    let got = described("plain");
    assert_eq!(
        got,
        Described {
            id: "4d5447ca1de35dbc7755806a43d8d14114298885d93396ab45c4d8ceae8404c0".to_owned(),
            name: "plain".to_owned(),
            labels: Labels::default(),
            parent: String::new(),
            addresses: vec!["172.17.0.2".parse().unwrap()],
            networks: vec!["172.17.0.0/16".parse().unwrap()],
            mounts: vec![],
            weaknesses: vec![],
            life: Some((29761, 1_795_343_450_764_822_211)),
            finished: None,
            failed: false,
        }
    );
}

#[test]
fn labels_are_raw_and_addresses_those_of_every_network() {
    let got = described("odd");
    assert!(got.labels.is_agent);
    assert_eq!(got.labels.agent.as_deref(), Some(" ümläut \"x\" "));
    assert_eq!(got.labels.project.as_deref(), Some(""));
    let wanted = ["172.18.0.2", "172.30.0.2", "fd00:30::2"];
    assert_eq!(
        got.addresses,
        wanted.map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    let wanted: [IpNet; 3] =
        ["172.18.0.0/16", "172.30.0.0/24", "fd00:30::/64"].map(|n| n.parse().unwrap());
    assert_eq!(got.networks, wanted);
}

#[test]
fn a_label_that_cannot_be_an_attribute_does_not_lift_the_firewall() {
    let got = described("vol");
    assert!(got.labels.is_agent);
    assert_eq!(got.labels.agent, None);
    assert_eq!(got.labels.refused.len(), 1);
    assert_eq!(got.labels.project.as_deref(), Some("p"));
}

#[test]
fn what_weakens_the_firewall_is_seen() {
    use Weakness::{Capability, HostNetwork, HostPid, Privileged, SharedNetwork};
    assert_eq!(
        described("weak").weaknesses,
        [HostNetwork, HostPid, Capability]
    );
    assert_eq!(described("guest").weaknesses, [SharedNetwork, Capability]);
    assert_eq!(
        described("vol").weaknesses,
        [Capability],
        "added by name, whatever is dropped"
    );
    assert_eq!(described("privileged").weaknesses, [Privileged]);
    assert_eq!(described("parent").weaknesses, []);
}

#[test]
fn capabilities_are_known_by_any_of_their_names() {
    let caps = |add: Value, drop: Value| {
        let found = with_host(&[("CapAdd", add), ("CapDrop", drop)]);
        found == [Weakness::Capability]
    };
    for name in DANGEROUS {
        assert!(caps(json!([name]), json!(null)), "{name}");
        assert!(
            caps(
                json!([format!("CAP_{name}").to_lowercase()]),
                json!(["ALL"])
            ),
            "{name}"
        );
    }
    assert!(caps(json!(["all"]), json!(["NET_ADMIN"])));
    assert!(!caps(json!(["CAP_ALL"]), json!(DANGEROUS)));
    assert!(!caps(json!(["NET_RAW", "SYS_TIME"]), json!(null)));
    assert!(!caps(json!([]), json!([])));
}

#[test]
fn mounts_have_their_sources_volumes_too() {
    let weak = described("weak").mounts;
    assert_eq!(weak, [PathBuf::from("/run/docker.sock")]);
    let vol = described("vol").mounts;
    assert_eq!(
        vol,
        [PathBuf::from("/var/lib/docker/volumes/sockvol/_data")]
    );
}

#[test]
fn only_what_runs_has_a_life() {
    assert_eq!(described("privileged").life, None, "it is only created");
    let mut restarting = captured("parent");
    restarting["State"]["Restarting"] = json!(true);
    restarting["State"]["Pid"] = json!(0);
    assert_eq!(read_json(restarting).unwrap().life, None);
    assert_eq!(described("parent").parent, "relative/x");
    let mut over = captured("parent");
    over["State"]["Running"] = json!(false);
    over["State"]["FinishedAt"] = json!("2026-11-22T10:30:53.000000007Z");
    let over = read_json(over).unwrap();
    assert_eq!(
        (over.life, over.finished),
        (None, Some(1_795_343_453_000_000_007))
    );
}

#[test]
fn a_description_without_what_matters_is_an_error_and_not_a_guess() {
    for key in ["Id", "Name", "Config", "State", "HostConfig"] {
        let mut json = captured("plain");
        json[key] = json!(null);
        assert_eq!(read_json(json), Err(Missing(key)));
    }
    let mut json = captured("plain");
    json["State"]["StartedAt"] = json!("yesterday");
    assert_eq!(read_json(json), Err(Missing("State.StartedAt")));
}
