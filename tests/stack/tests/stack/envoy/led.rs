//! Agents that the kernel leads to Envoy: one policy, both of its enforcers.

use super::{AGENT, names, plain::upstream, policy, settings};
use kernel_tests::{check::fields, collector::Collector, eventually, run::Bench};
use serde_json::{Value, json};
use stack_tests::envoy::{Envoy, render};

/// What `run` and Envoy are both told.
const POLICY: &str = "version: 1
resolvers: [192.0.2.53]
rules:
  - name: api, read only
    dst: api.example
    proto: http
    path_rules: [{ path: /repos/acme/, methods: [GET] }]
";

/// Asks as any program does: looks a name up, connects to what it got, and speaks HTTP.
const REQUESTS: &str = "
def request(method, path, host='api.example'):
    ip = socket.inet_ntoa(ask('api.example')[-4:])
    with dial(ip, 80) as s:
        peer, own = s.getpeername(), s.getsockname()[1]
        s.sendall(f'{method} {path} HTTP/1.1\\r\\nhost: {host}\\r\\nconnection: close\\r\\n\\r\\n'.encode())
        got = b''
        while b := s.recv(4096): got += b
    say(got.split()[1].decode(), *peer, own)
request('GET', '/repos/acme/x'); request('POST', '/repos/acme/x'); request('GET', '/repos/other'); request('GET', '/repos/acme/x', 'other.example')
hear()
";

#[test]
fn path_rules_hold_for_whoever_connects_as_ever_and_the_records_join() {
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let _names = names();
    upstream("203.0.113.9:80");
    let dir = bench.path("envoy");
    let agent = format!("acme/reviewer@{AGENT}");
    render(&policy(POLICY), &[&agent], &settings(&dir));
    let _envoy = Envoy::start(&dir, &["192.0.2.1:10080"]);
    let mut agent = bench.talk(
        POLICY,
        &["--proxy", AGENT, "--agent", "reviewer", "--project", "acme"],
        REQUESTS,
    );
    let said: Vec<Vec<String>> = (0..4)
        .map(|_| agent.hear().split(' ').map(str::to_owned).collect())
        .collect();
    let answers: Vec<_> = said.iter().map(|s| s[..3].join(" ")).collect();
    let answer = |code: u16| format!("{code} 203.0.113.9 80");
    assert_eq!(
        answers,
        [answer(200), answer(403), answer(403), answer(403)]
    );
    agent.say("go");
    let out = agent.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let flows: Vec<&Value> = out.records.iter().filter(|r| r["dst_port"] == 80).collect();
    assert_eq!(flows.len(), 4, "{:#?}", out.records);
    let requests = eventually("Envoy's record of each request", || {
        let records = collector.stream("clawker-envoy");
        let own = |r: &kernel_tests::collector::Received| r.attributes.contains_key("path");
        let records: Vec<_> = records.into_iter().filter(own).collect();
        (records.len() == 4).then_some(records)
    });
    for (s, wanted) in said.iter().zip(["ALLOWED", "DENIED", "DENIED", "DENIED"]) {
        let port: u16 = s[3].parse().unwrap();
        let flow = flows.iter().find(|f| f["src_port"] == port).unwrap();
        fields(
            flow,
            &json!({"verdict": "ALLOWED", "reason": "rule", "rule": "api, read only", "dst_ip": "203.0.113.9", "dst_port": 80,
                "dst_host": "api.example", "src_ip": AGENT, "proxy_ip": AGENT, "proxy_port": 10080, "agent": "reviewer"}),
        );
        let same = |key: &str| flow[key].to_string().replace('"', "");
        let request = requests.iter().find(|r| {
            r.attributes["src_ip"] == same("src_ip") && r.attributes["src_port"] == same("src_port")
        });
        assert_eq!(
            request.unwrap().attributes["verdict"],
            wanted,
            "{request:?}"
        );
    }
}
