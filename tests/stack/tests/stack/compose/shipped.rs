//! What the files say.

use serde_json::Value;
use stack_tests::{collector, compose::Installation, images::repository};
use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt as _, process::Command};
use tempfile::TempDir;

const GIB: u64 = 1 << 30;

fn place() -> TempDir {
    kernel_tests::temporary()
}

/// What compose makes of the shipped file.
fn resolved() -> Value {
    let dir = place();
    Installation::with_words(dir.path()).resolved()
}

fn services(all: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let services = all["services"].as_object().expect("services");
    services
        .iter()
        .map(|(name, service)| (name.as_str(), service))
}

fn words(list: &Value) -> BTreeSet<&str> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(Value::as_str).collect()
}

#[test]
fn every_image_has_a_version_and_ours_is_that_of_the_programs() {
    for (name, service) in services(&resolved()) {
        let image = service["image"].as_str().expect("an image");
        let (path, tag) = image
            .rsplit_once(':')
            .unwrap_or_else(|| panic!("{name}: {image}"));
        let number = tag.trim_start_matches('v');
        let parts: Vec<_> = number.split('.').map(str::parse::<u32>).collect();
        assert!(
            parts.len() == 3 && parts.iter().all(Result::is_ok),
            "{name}: {image} is not pinned"
        );
        if path.starts_with("clawker/") {
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{name}");
            let file = service["build"]["dockerfile"]
                .as_str()
                .expect("a Dockerfile");
            assert!(repository().join(file).exists(), "{name}: {file}");
        }
    }
}

#[test]
fn the_collector_is_told_what_it_is_told_in_the_tests() {
    let all = resolved();
    let told = words(&all["services"]["collector"]["command"]);
    let files: Vec<String> = collector::files()
        .iter()
        .map(|file| {
            let name = file.file_name().expect("a file").to_string_lossy();
            format!("--config=/etc/clawker/collector/{name}")
        })
        .collect();
    let wanted = files.iter().map(String::as_str).chain(collector::FLAGS);
    assert_eq!(told, wanted.collect());
}

#[test]
fn nothing_is_published_but_on_the_loopback_of_the_host() {
    let mut published = Vec::new();
    for (name, service) in services(&resolved()) {
        for port in service["ports"].as_array().unwrap_or(&Vec::new()) {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name}: {port}");
            published.push((name.to_owned(), port["target"].clone()));
        }
    }
    assert_eq!(published, [("dashboards".to_owned(), 5601.into())]);
}

#[test]
fn every_service_has_limits_a_health_check_and_logs_that_end() {
    let all = resolved();
    let mut sum = 0;
    for (name, service) in services(&all) {
        let limit = service["mem_limit"]
            .as_str()
            .and_then(|l| l.parse::<u64>().ok());
        sum += limit.unwrap_or_else(|| panic!("{name} has no memory limit"));
        assert!(
            service["pids_limit"].is_u64(),
            "{name} has no limit of processes"
        );
        assert!(
            service["logging"]["options"]["max-size"].is_string(),
            "{name}: logs are not rotated"
        );
        // What ends by itself is judged by its exit code.
        let once = service["restart"] == "no";
        let check = &service["healthcheck"]["test"];
        assert!(
            once || check.as_array().is_some_and(|c| c.len() > 1),
            "{name} has no health check"
        );
    }
    assert!(
        sum <= 6 * GIB,
        "{} GiB leave nothing of a laptop's 8",
        sum / GIB
    );
}

#[test]
fn only_the_loader_is_powerful() {
    for (name, service) in services(&resolved()) {
        assert!(service["privileged"] != true, "{name}");
        assert_eq!(words(&service["cap_drop"]), ["ALL"].into(), "{name}");
        assert!(
            words(&service["security_opt"]).contains("no-new-privileges:true"),
            "{name}"
        );
        let none = Vec::new();
        let sources = service["volumes"].as_array().unwrap_or(&none).iter();
        let engine = sources
            .filter_map(|v| v["source"].as_str())
            .any(|s| s.contains("docker.sock"));
        let loader = name == "loader";
        assert_eq!(engine, loader, "{name}: the engine's socket");
        assert_eq!(
            !words(&service["cap_add"]).is_empty(),
            loader,
            "{name}: capabilities"
        );
        for namespace in ["pid", "cgroup", "network_mode"] {
            assert_eq!(service[namespace] == "host", loader, "{name}: {namespace}");
        }
    }
}

#[test]
fn agents_share_a_network_with_the_collector_and_the_proxies_alone() {
    let all = resolved();
    let mut with_agents = Vec::new();
    for (name, service) in services(&all) {
        if service["networks"].get("clawker-agents").is_some() {
            with_agents.push(name);
        }
    }
    assert_eq!(with_agents, ["collector", "coredns", "demo", "envoy"]);
    for name in ["clawker-stack", "clawker-proxies"] {
        assert_eq!(all["networks"][name]["internal"], true, "{name}");
    }
    // Envoy speaks to agents, and may reach the collector's entrance for it and no other part.
    let of = |service: &str| -> Vec<&str> {
        let networks = all["services"][service]["networks"].as_object();
        networks
            .expect("networks")
            .keys()
            .map(String::as_str)
            .collect()
    };
    assert_eq!(of("envoy"), ["clawker-agents", "clawker-proxies"]);
    assert_eq!(of("coredns"), ["clawker-agents"]);
    // They are no way from one network to another.
    for name in ["collector", "coredns", "envoy"] {
        let forward = &all["services"][name]["sysctls"]["net.ipv4.ip_forward"];
        assert_eq!(forward, "0", "{name}");
    }
}

#[test]
fn a_secret_is_given_to_whom_it_is_for() {
    let dir = place();
    let files = Installation::with_words(dir.path());
    let all = files.resolved();
    let secrets = files.environment();
    assert_eq!(secrets.len(), 5, "{secrets:?}");
    for (secret, value) in secrets {
        let holders: Vec<_> = services(&all)
            .filter(|(_, service)| service.to_string().contains(&value))
            .map(|(name, _)| name)
            .collect();
        let wanted: &[&str] = match secret.as_str() {
            "OPENSEARCH_INITIAL_ADMIN_PASSWORD" => &["provision"],
            "CLAWKER_COLLECTOR_PASSWORD" => &["collector"],
            "CLAWKER_DASHBOARDS_PASSWORD" | "CLAWKER_DASHBOARDS_COOKIE_KEY" => &["dashboards"],
            "CLAWKER_DATASOURCE_MASTERKEY" => &["opensearch"],
            other => panic!("nobody knows {other}"),
        };
        assert_eq!(holders, wanted, "{secret}");
    }
}

#[test]
fn secrets_are_private_and_stay_until_they_are_rotated() {
    let dir = place();
    let files = Installation::new(dir.path());
    let before = files.environment();
    assert!(before.values().all(|v| v.len() == 32), "not random enough");
    assert_eq!(
        before.values().collect::<BTreeSet<_>>().len(),
        before.len(),
        "used twice"
    );
    let secrets = dir.path().join("secrets");
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!(mode(&secrets), 0o700);
    assert_eq!(mode(&dir.path().join(".env")), 0o600);
    for file in fs::read_dir(&secrets).expect("a directory") {
        let path = file.expect("an entry").path();
        let public = path.extension().is_some_and(|e| e == "pem");
        assert_eq!(
            mode(&path),
            if public { 0o644 } else { 0o600 },
            "{}",
            path.display()
        );
    }

    let content = || -> Vec<_> {
        let mut files: Vec<_> = fs::read_dir(&secrets)
            .expect("it")
            .map(|f| f.expect("it").path())
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|f| (fs::read(&f).expect("it"), f))
            .collect()
    };
    let kept = content();
    let said = files.secrets(&[]);
    assert_eq!(
        (files.environment(), content()),
        (before.clone(), kept),
        "{said}"
    );

    fs::write(dir.path().join(".env"), {
        let text = fs::read_to_string(dir.path().join(".env")).expect("it");
        format!("CLAWKER_AGENTS_SUBNET=10.1.2.0/24\n{text}")
    })
    .expect("it is ours");
    let said = said + &files.secrets(&["--rotate"]);
    let after = files.environment();
    assert_eq!(
        after["CLAWKER_AGENTS_SUBNET"], "10.1.2.0/24",
        "a line of the user's"
    );
    for (name, old) in &before {
        // What is stored encrypted with it could not be read any more.
        let stays = name == "CLAWKER_DATASOURCE_MASTERKEY";
        assert_eq!(*old == after[name], stays, "{name}");
        assert!(
            !said.contains(old) && !said.contains(&after[name]),
            "{name} was printed"
        );
    }
    let verify = |name: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-purpose", "sslclient", "-CAfile"]);
        let out = openssl
            .args([secrets.join("ca.pem"), secrets.join(name)])
            .output();
        out.expect("openssl starts").status.success()
    };
    assert!(verify("opensearch.pem") && verify("admin.pem"));
}

#[test]
fn the_shipped_policy_is_right_and_knows_the_addresses_of_the_stack() {
    let policy = repository().join("stack/policy.yaml");
    let mut loader = Command::new(kernel_tests::run::binary());
    let out = loader.args(["policy", "check"]).arg(&policy).output();
    let out = out.expect("the program starts");
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );

    let all = resolved();
    let collector = &all["services"]["collector"]["networks"]["clawker-agents"];
    let aliases = words(&collector["aliases"]);
    let text = fs::read_to_string(&policy).expect("it is there");
    let loader = words(&all["services"]["loader"]["command"]);
    for name in ["clawker-stack", "clawker-front", "clawker-proxies"] {
        let network = &all["networks"][name]["ipam"]["config"][0]["subnet"];
        let closed = format!("--own-network={}", network.as_str().expect("text"));
        assert!(loader.contains(closed.as_str()), "{name}: {loader:?}");
    }
    let address = collector["ipv4_address"].as_str().expect("text");
    for destination in [&address].into_iter().chain(&aliases) {
        assert!(
            text.contains(&format!("dst: {destination}\n")),
            "{destination}"
        );
    }
}

#[test]
fn the_loader_leads_to_the_proxies_where_they_are() {
    let all = resolved();
    let told = words(&all["services"]["loader"]["command"]);
    let at = |service: &str, network: &str| {
        let address = &all["services"][service]["networks"][network]["ipv4_address"];
        address.as_str().expect("an address").to_owned()
    };
    for wanted in [
        format!("--proxy={}", at("envoy", "clawker-agents")),
        format!("--dns={}", at("coredns", "clawker-agents")),
        format!("--collector={}:4320", at("collector", "clawker-proxies")),
    ] {
        assert!(told.contains(wanted.as_str()), "{wanted}: {told:?}");
    }
    let listens = &all["services"]["collector"]["environment"]["CLAWKER_PROXIES_ADDRESS"];
    assert_eq!(*listens, at("collector", "clawker-proxies"));
    // What the health checks ask is what the loader writes.
    let check = |service: &str| all["services"][service]["healthcheck"]["test"].to_string();
    let port = proxy::READY_PORT;
    assert!(check("envoy").contains(&format!("/dev/tcp/127.0.0.1/{port} ")));
    assert!(check("coredns").contains(&format!("\"{}\"", proxy::READY_NAME)));
}

#[test]
fn the_proxies_are_the_versions_that_the_tests_ask() {
    let all = resolved();
    let read = |path: &str| fs::read_to_string(repository().join(path)).expect("it is there");
    let envoy = all["services"]["envoy"]["image"]
        .as_str()
        .expect("an image");
    let version = envoy.rsplit_once(":v").expect("a version").1;
    assert!(read("scripts/envoy.sh").contains(&format!("\nreadonly VERSION={version}\n")));
    let file = read("packaging/Dockerfile.coredns");
    let version = file.split("coredns/coredns:").nth(1).expect("an image");
    let version = version.split(' ').next().expect("a version");
    let wanted = format!("require github.com/coredns/coredns v{version}\n");
    assert!(read("tests/coredns/go.mod").contains(&wanted), "{version}");
}
