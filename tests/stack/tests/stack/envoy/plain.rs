//! Requests in the clear.

use super::{AGENT, NOBODY, names, policy, send, settings};
use ebpf_manager::proxy_files::put;
use kernel_tests::{
    PATIENCE,
    collector::{Collector, Received},
    eventually,
    run::Bench,
};
use policy::{Action, Policy, Question, Request};
use serde_json::json;
use stack_tests::{
    envoy::{Envoy, render},
    http1::{answer, ask, connect},
};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

/// Answers every request with its first line, and what wants a WebSocket with its own bytes.
pub(super) fn upstream(at: &str) {
    let listener = TcpListener::bind(at).unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let head = head(&mut stream);
            if head.to_ascii_lowercase().contains("upgrade: websocket") {
                echo(stream);
                continue;
            }
            let line = head.lines().next().unwrap_or_default();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{line}",
                line.len()
            );
            // Whoever asked may be gone.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

/// Switches protocols, then sends back what comes.
fn echo(mut stream: TcpStream) {
    let answer =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n";
    let _ = stream.write_all(answer.as_bytes());
    let mut bytes = [0; 1024];
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        let _ = stream.write_all(&bytes[..n]);
    }
}

fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut one = [0];
    while !bytes.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut one), Ok(1)) {
        bytes.push(one[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn get(method: &str, target: &str, host: &str) -> (u16, String) {
    let text = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    send("192.0.2.1:10080", &text)
}

const PLAIN: &str = "
rules:
  - name: api, read only
    dst: api.example
    proto: http
    path_rules:
      - { path: /repos/acme/, methods: [GET, HEAD] }
      - { path: '~/users/[a-z]+/?' }
      - { path: /repos/, action: deny }
  - { dst: '*.pkg.example', proto: http, name: packages }
  - { dst: evil.pkg.example, proto: any, action: deny, name: not this one }
  - { dst: rebound.example, proto: http, name: rebound }
  - { dst: inside.example, proto: http, private: true, name: inside }
  - { dst: meta.example, proto: http, private: true, name: meta }
";

/// Method, target and host as sent, and the host and path that the policy is asked about. `-`: it must not
/// get through, whatever the policy says of it.
const ROWS: &str = r"
GET /repos/acme/x api.example api.example /repos/acme/x
HEAD /repos/acme/x api.example api.example /repos/acme/x
POST /repos/acme/x api.example api.example /repos/acme/x
get /repos/acme/x api.example -
GET /repos/acme api.example api.example /repos/acme
GET /repos/acmex/ api.example api.example /repos/acmex/
GET /repos/Acme/x api.example api.example /repos/Acme/x
GET /repos/acme/../evil api.example api.example /repos/evil
GET /evil/../repos/acme/x api.example api.example /repos/acme/x
GET /repos/acme/%2e%2e/evil api.example api.example /repos/evil
GET /repos/acme/%2E%2E/evil api.example api.example /repos/evil
GET //repos//acme//x api.example api.example /repos/acme/x
GET /repos/acme/./x api.example api.example /repos/acme/x
GET /repos/acme/.%2e/evil api.example api.example /repos/evil
GET /repos/acme/%252e%252e/evil api.example api.example /repos/acme/%252e%252e/evil
GET /repos/acme/..%2fevil api.example -
GET /repos/acme/..%5cevil api.example -
GET /repos%2Facme/x api.example -
GET /repos/acme\..\..\evil api.example api.example /evil
GET /users/bob api.example api.example /users/bob
DELETE /users/bob/ api.example api.example /users/bob/
GET /users/bob/keys api.example api.example /users/bob/keys
GET /users/bob?token=secret api.example api.example /users/bob
GET /evil?/repos/acme/secret api.example api.example /evil
GET /repos/acme/x API.Example:80 api.example /repos/acme/x
GET /repos/acme/x api.example:22 -
GET /repos/acme/x api.example. -
GET /repos/acme/x other.example other.example /repos/acme/x
GET http://api.example/repos/acme/x other.example api.example /repos/acme/x
GET http://api.example@other.example/repos/acme/x api.example -
GET http://other.example/repos/acme/x api.example other.example /repos/acme/x
OPTIONS * a.pkg.example -
CONNECT a.pkg.example:80 a.pkg.example:80 -
GET /x a.pkg.example a.pkg.example /x
GET /x b.a.pkg.example b.a.pkg.example /x
GET /x evil.pkg.example evil.pkg.example /x
GET /x pkg.example pkg.example /x
GET /x evil.pkg.example:80@a.pkg.example -
GET /x inside.example inside.example /x
GET /x rebound.example -
GET /x meta.example -
";

fn says(policy: &Policy, host: &str, method: &str, path: &str) -> (Action, String) {
    let request = Request::new(method, path).unwrap();
    let hosts = [host];
    let question = Question {
        hosts: &hosts,
        addr: None,
        proto: 6,
        port: 80,
        resolver: false,
    };
    let told = policy.explain(Some("reviewer"), Some("acme"), &question, Some(&request));
    (told.action(), told.decided_by().to_owned())
}

#[test]
fn requests_are_decided_as_the_policy_says() {
    let bench = Bench::new();
    let _names = names();
    upstream("0.0.0.0:80");
    let collector = Collector::start(&bench);
    let dir = bench.path("envoy");
    let policy = policy(PLAIN);
    let agent = format!("acme/reviewer@{AGENT}#c0ffee");
    render(&policy, &[&agent], &settings(&dir));
    let _envoy = Envoy::start(&dir, &["192.0.2.1:10080"]);
    for line in ROWS.trim().lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let [method, target, host, ref judged @ ..] = parts[..] else {
            panic!("{line}");
        };
        let (status, body) = get(method, target, host);
        let row = format!("{method} {target} of {host}: {status} {body}");
        let [name, path] = judged[..] else {
            assert!(status >= 400, "{row}");
            continue;
        };
        let (action, by) = says(&policy, name, method, path);
        match action {
            Action::Allow => {
                assert_eq!(status, 200, "{row}");
                // The server sees the path that was judged.
                let seen = body.split(' ').nth(1).unwrap_or_default();
                let seen = seen.split('?').next().unwrap_or_default();
                assert!(method == "HEAD" || seen == path, "{row}");
            }
            Action::Deny => {
                assert_eq!(status, 403, "{row}");
                let why = if by == "default" { "no rule" } else { &by };
                assert!(body.contains(why), "{row}");
            }
        }
    }
    smuggled();
    let _ = send(
        &format!("{NOBODY}:10080"),
        "GET / HTTP/1.1\r\nhost: api.example\r\n\r\n",
    );
    logged(&collector);
}

/// Two readings of one message must not be possible: at most one answer, and none from upstream.
fn smuggled() {
    let hosts = "host: api.example\r\nhost: other.example";
    let (status, body) = send(
        "192.0.2.1:10080",
        &format!("GET /users/bob HTTP/1.1\r\n{hosts}\r\n\r\n"),
    );
    assert!(status >= 400, "two hosts: {status} {body}");
    let second = "GET /repos/evil HTTP/1.1\r\nhost: api.example\r\n\r\n";
    for framing in [
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ncontent-length: 60",
        "transfer-encoding: chunked, identity",
        "transfer-encoding : chunked",
        "content-length: +4",
    ] {
        let text = format!(
            "POST /users/bob HTTP/1.1\r\nhost: api.example\r\n{framing}\r\n\r\n0\r\n\r\n{second}"
        );
        let (status, body) = send("192.0.2.1:10080", &text);
        assert!(status == 0 || status >= 400, "{framing}: {status} {body}");
        assert!(!body.contains("GET /repos/evil"), "{framing}: {body}");
    }
}

#[track_caller]
fn record(records: &[Received], wanted: &[(&str, &str)]) {
    let fits = |one: &&Received| {
        let has = |(key, value): &(&str, &str)| one.attributes.get(*key) == Some(&json!(value));
        wanted.iter().all(has)
    };
    let all: Vec<_> = records.iter().map(|one| &one.attributes).collect();
    assert!(
        records.iter().any(|one| fits(&one)),
        "{wanted:?} in {all:#?}"
    );
}

fn logged(collector: &Collector) {
    let records = eventually("the record of the last connection", || {
        let records = collector.stream("clawker-envoy");
        let last = records.iter().any(|one| one.attributes["src_ip"] == NOBODY);
        (last && records.len() >= ROWS.trim().lines().count()).then_some(records)
    });
    let common = [
        ("agent", "reviewer"),
        ("project", "acme"),
        ("container_id", "c0ffee"),
        ("src_ip", AGENT),
        ("dst_port", "80"),
        ("l4_proto", "tcp"),
    ];
    let with = |own: &[(&'static str, &'static str)]| [&common, own].concat();
    record(
        &records,
        &with(&[
            ("verdict", "ALLOWED"),
            ("rule", "api, read only"),
            ("reason", "rule"),
            ("l7_proto", "http"),
            ("method", "GET"),
            ("path", "/users/bob"),
            ("request_host", "api.example"),
            ("response_code", "200"),
            ("upstream_ip", "203.0.113.9"),
        ]),
    );
    record(
        &records,
        &with(&[
            ("verdict", "DENIED"),
            ("rule", "api, read only"),
            ("method", "POST"),
            ("response_code", "403"),
        ]),
    );
    record(
        &records,
        &with(&[
            ("verdict", "DENIED"),
            ("reason", "default"),
            ("request_host", "other.example"),
        ]),
    );
    // Refused before and after their route.
    record(
        &records,
        &with(&[
            ("verdict", "DENIED"),
            ("reason", "proxy"),
            ("response_code", "400"),
        ]),
    );
    record(
        &records,
        &with(&[
            ("verdict", "DENIED"),
            ("reason", "proxy"),
            ("request_host", "rebound.example"),
        ]),
    );
    record(
        &records,
        &with(&[
            ("verdict", "DENIED"),
            ("reason", "proxy"),
            ("request_host", "meta.example"),
        ]),
    );
    record(
        &records,
        &[
            ("verdict", "DENIED"),
            ("reason", "not_enrolled"),
            ("src_ip", NOBODY),
            ("dst_port", "80"),
        ],
    );
    for one in &records {
        let text = format!("{:?} {}", one.attributes, one.record);
        assert!(!text.contains("secret"), "{text}");
    }
}

/// Status of a request for a WebSocket, and whether bytes go through it.
fn websocket(target: &str, host: &str) -> (u16, bool) {
    let mut stream = TcpStream::connect("192.0.2.1:10080").unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = format!(
        "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).unwrap();
    let answer = head(&mut stream);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    if status != Some(101) {
        return (status.unwrap_or(0), false);
    }
    stream.write_all(b"ping").unwrap();
    let mut back = [0; 4];
    let echoed = stream.read_exact(&mut back).is_ok() && &back == b"ping";
    (101, echoed)
}

#[test]
fn a_websocket_is_opened_where_its_path_is_allowed() {
    let bench = Bench::new();
    let _names = names();
    upstream("0.0.0.0:80");
    let dir = bench.path("envoy");
    render(&policy(PLAIN), &[&format!("a@{AGENT}")], &settings(&dir));
    let _envoy = Envoy::start(&dir, &["192.0.2.1:10080"]);
    assert_eq!(websocket("/users/bob", "api.example"), (101, true));
    assert_eq!(websocket("/repos/x", "api.example"), (403, false));
    assert_eq!(websocket("/", "other.example"), (403, false));
}

/// Files that are replaced take the place of what holds, without a start; what Envoy cannot use leaves it.
#[test]
fn a_policy_that_is_rendered_again_holds_at_once() {
    let bench = Bench::new();
    let _names = names();
    upstream("0.0.0.0:80");
    let dir = bench.path("envoy");
    let agent = format!("a@{AGENT}");
    let (agents, settings) = ([agent.as_str()], settings(&dir));
    let allow = "rules: [{dst: api.example, proto: http}, {dst: a.pkg.example, proto: http}]";
    let deny =
        "rules: [{dst: api.example, proto: http}, {dst: a.pkg.example, proto: any, action: deny}]";
    render(&policy(allow), &agents, &settings);
    let envoy = Envoy::start(&dir, &["192.0.2.1:10080"]);
    assert_eq!(get("GET", "/", "a.pkg.example").0, 200);
    let request = "GET / HTTP/1.1\r\nhost: a.pkg.example\r\n\r\n";
    let mut kept = [(); 2].map(|()| connect("192.0.2.1:10080"));
    for stream in &mut kept {
        assert_eq!(ask(stream, request).0, 200);
    }
    render(&policy(deny), &agents, &settings);
    eventually("the denial", || {
        (get("GET", "/", "a.pkg.example").0 == 403).then_some(())
    });
    assert_eq!(get("GET", "/", "api.example").0, 200);
    // A connection of before ends, whether it is used or not.
    let [mut goes_on, mut waits] = kept;
    eventually("its end", || {
        (ask(&mut goes_on, request).0 == 0).then_some(())
    });
    assert_eq!(answer(&mut waits).0, 0);
    // Two virtual hosts for one name.
    let listeners = dir.join("listeners.json");
    let whole = std::fs::read_to_string(&listeners).unwrap();
    let broken = whole.replace("a.pkg.example", "api.example");
    put(&listeners, 0o644, broken.as_bytes()).unwrap();
    eventually("the refusal of the file", || {
        envoy
            .said()
            .contains("Only unique values for domains")
            .then_some(())
    });
    assert_eq!(get("GET", "/", "a.pkg.example").0, 403);
    assert_eq!(get("GET", "/", "api.example").0, 200);
}
