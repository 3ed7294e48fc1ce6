//! What `policy explain` tells and `policy allow` prints, against what the programs do.

use kernel_tests::{
    agent::code,
    dns::{RESOLVER, Resolver, address},
    net,
    run::Bench,
    server::Place,
};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Output};

const POLICY: &str = "resolvers: [192.0.2.53]\nallow_builtin: [169.254.1.1]\nrules:\n\
    \x20 - { dst: api.example, name: api }\n\
    \x20 - { dst: .wide.example, proto: tcp, port: [443, \"8000-8010\"] }\n\
    \x20 - { dst: bad.wide.example, proto: any, action: deny, name: not this one }\n\
    \x20 - { dst: dev.example, private: true }\n\
    \x20 - { dst: 203.0.113.0/24, proto: udp, port: 53-999 }\n\
    \x20 - { dst: 203.0.113.9, proto: tcp, port: 853 }\n\
    \x20 - { dst: 198.51.100.0/24, proto: any }\n\
    \x20 - { dst: 198.51.100.7, proto: tcp, port: 22, action: deny }\n\
    \x20 - { dst: 169.254.0.0/16, proto: http }\n\
    \x20 - { dst: 127.0.0.0/8, proto: tcp, port: 7000 }\n\
    projects:\n  acme: { rules: [{ dst: 192.0.2.2, proto: tcp, port: 7001, name: of acme }] }\n\
    agents:\n  acme/reviewer: { rules: [{ dst: \"2001:db8::/32\", proto: tcp, port: 7001 }] }\n";

/// Name, address, protocol and port of what is asked and tried.
type To = (&'static str, &'static str, &'static str, u16);

/// Addresses first, while no name leads anywhere; then each name at an address of its own.
const TARGETS: [To; 32] = [
    ("", "203.0.113.9", "tcp", 443),
    ("", "203.0.113.9", "udp", 999),
    ("", "203.0.113.9", "udp", 1000),
    ("", "203.0.113.9", "udp", 53),
    ("", "203.0.113.9", "tcp", 53),
    ("", "203.0.113.9", "tcp", 853),
    ("", "203.0.113.9", "udp", 853),
    ("", "198.51.100.7", "tcp", 22),
    ("", "198.51.100.7", "udp", 22),
    ("", "198.51.100.7", "tcp", 1),
    ("", "192.0.2.53", "udp", 53),
    ("", "192.0.2.53", "tcp", 53),
    ("", "192.0.2.53", "udp", 54),
    ("", "169.254.1.1", "tcp", 80),
    ("", "169.254.1.1", "tcp", 81),
    ("", "169.254.169.254", "tcp", 80),
    ("", "127.0.0.1", "tcp", 7000),
    ("", "0.0.0.0", "tcp", 7000),
    ("", "::ffff:127.0.0.1", "tcp", 7000),
    ("", "127.0.0.1", "tcp", 7001),
    ("", "192.0.2.2", "tcp", 7001),
    ("", "2001:db8::2", "tcp", 7001),
    ("api.example", "10.9.0.1", "tcp", 443),
    ("api.example", "203.0.113.9", "tcp", 443),
    ("api.example", "203.0.113.9", "tcp", 80),
    ("api.example", "203.0.113.9", "udp", 443),
    ("a.wide.example", "203.0.113.10", "tcp", 8010),
    ("a.wide.example", "203.0.113.10", "tcp", 8011),
    ("bad.wide.example", "203.0.113.11", "tcp", 443),
    ("dev.example", "10.9.0.2", "tcp", 443),
    ("dev.example", "10.9.0.2", "tcp", 80),
    ("two.wide.example", "198.51.100.7", "tcp", 22),
];

/// Tries each destination in turn, asking for its name first, and says which one it is at.
const TRY: &str = r"
for arg in sys.argv[1:]:
    host, ip, proto, port = arg.split(' ')
    if host: step(host, ip); ask(host)
    if proto == 'tcp': tcp(ip, int(port))
    else: udp(query('api.example'), ip, int(port), 0)
";

fn explain(bench: &Bench, to: &To, args: &[&str]) -> Value {
    let (host, addr, proto, port) = *to;
    let bracketed = format!("[{addr}]");
    let place = if host.is_empty() {
        bracketed.as_str()
    } else {
        host
    };
    let mut command = bench.manager();
    command.args(["policy", "explain", "--json", "--proto", proto]);
    command
        .arg("--to")
        .arg(format!("{place}:{port}"))
        .arg(bench.path("policy.yaml"));
    if !host.is_empty() {
        command.args(["--addr", addr]);
    }
    let out = command.args(args).output().unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn explain_tells_what_the_programs_do() {
    for mode in ["enforce", "audit", "observe"] {
        for args in [&[][..], &["--project", "acme", "--agent", "reviewer"]] {
            agrees(mode, args);
        }
    }
}

fn agrees(mode: &str, args: &[&str]) {
    let bench = Bench::new();
    for addr in [
        "10.9.0.1",
        "10.9.0.2",
        "203.0.113.10",
        "203.0.113.11",
        "169.254.1.1",
        "169.254.169.254",
    ] {
        net::ip(&["addr", "add", &format!("{addr}/32"), "dev", "lo"]);
    }
    let resolver = Resolver::start(RESOLVER);
    let code = code(TRY);
    let named = |(host, addr, proto, port): &To| format!("{host} {addr} {proto} {port}");
    let targets: Vec<String> = TARGETS.iter().map(named).collect();
    let mut cmd = vec!["python3", "-c", &code];
    cmd.extend(targets.iter().map(String::as_str));
    let policy = format!("mode: {mode}\n{POLICY}");
    let mut talk = bench.converse(&policy, args, &cmd);
    while let Some((host, addr)) = talk.hear().split_once(' ') {
        resolver.set(host, vec![address(addr, 300)]);
        talk.say("go");
    }
    let out = talk.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let mut records = out.records.clone();
    for to in &TARGETS {
        let told = explain(&bench, to, args);
        let (host, addr, proto, port) = *to;
        let judged = policy::judged(addr.parse().unwrap()).to_string();
        let own = |r: &Value| {
            let host = if host.is_empty() {
                Value::Null
            } else {
                json!(host)
            };
            r["l4_proto"] == proto
                && r["dst_port"] == port
                && r["dst_host"] == host
                && same(&r["dst_ip"], &judged)
        };
        let at = records.iter().position(own);
        let at = at.unwrap_or_else(|| panic!("{mode} {to:?}: {records:#?}"));
        let record = records.remove(at);
        assert_eq!(
            record["verdict"], told["verdict"],
            "{mode} {to:?}\n{told:#}\n{record:#}"
        );
        assert_eq!(
            record["would_deny"], told["would_deny"],
            "{mode} {to:?}\n{record:#}"
        );
        if mode != "observe" {
            assert_eq!(record["reason"], told["reason"], "{mode} {to:?}\n{told:#}");
            assert_eq!(record["rule"], told["rule"], "{mode} {to:?}\n{told:#}");
        }
    }
}

fn same(recorded: &Value, judged: &str) -> bool {
    let recorded = recorded.as_str().and_then(|text| text.parse().ok());
    recorded
        .map(policy::judged)
        .map(|addr| addr.to_string())
        .as_deref()
        == Some(judged)
}

#[test]
fn a_denied_flow_is_allowed_by_the_rule_that_is_printed() {
    let bench = Bench::new();
    net::ip(&["addr", "add", "10.1.2.3/32", "dev", "lo"]);
    let _resolver =
        Resolver::naming(&[("api.example", "203.0.113.9"), ("dev.example", "10.1.2.3")]);
    let _places = ["203.0.113.9:443", "10.1.2.3:8443", "192.0.2.2:80"].map(Place::open);
    let program = "for n in ('api.example', 'dev.example'): udp(query(n), wait=1)\n\
         print(tcp('203.0.113.9', 443), tcp('10.1.2.3', 8443), tcp('192.0.2.2', 80), tcp('192.0.2.2', 81))";
    // Two look-ups are refused first, then what they lead to.
    let mut policy = "resolvers: [192.0.2.53]\nrules:\n  - {dst: never.example}\n".to_owned();
    let steps = [
        ("name", "ok EPERM EPERM EPERM\n"),
        ("default", "ok ok ok EPERM\n"),
    ];
    for (reason, after) in steps {
        let out = bench.agent(&policy, program);
        let denied = out.denied(&[("reason", json!(reason))]);
        for record in denied {
            // One thing stays denied, to see that nothing else was opened.
            if record["dst_port"] != json!(81) {
                policy.push_str(&allow(&bench, record));
            }
        }
        let out = bench.agent(&policy, program);
        assert_eq!(out.stdout, after, "{policy}\n{}", out.stderr);
    }
    assert!(
        policy.contains("{dst: dev.example, proto: tcp, port: 8443, private: true}"),
        "{policy}"
    );
}

/// What `policy allow` prints for a record.
fn allow(bench: &Bench, record: &Value) -> String {
    let from = bench.path("one.jsonl");
    fs::write(&from, record.to_string()).unwrap();
    let out = run_allow(bench, &from, record["flow_id"].as_str().unwrap());
    assert!(
        out.status.success(),
        "{record:#}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

fn run_allow(bench: &Bench, from: &Path, flow: &str) -> Output {
    let from = from.to_str().unwrap();
    bench.operate(&["policy", "allow", "--flow", flow, "--from", from])
}
