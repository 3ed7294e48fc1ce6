//! HTTP/2 as no library would send it, over TLS and in the clear.

use super::protocols::{AGENT_AT, World};
use stack_tests::{
    http1,
    http2::{Answer, Http2},
};
use std::thread;

/// Fields that differ from those of an ordinary request, `!` for one that is left out, and the target that the server
/// sees; `-`: nothing gets through. `|` parts fields, `↵` is an end of line.
const ROWS: &str = r"
 /v1/x
:path=/v1/../v2 -
:path=/v1/%2e%2e/v2 -
:path=/v1/.%2E/v2 -
:path=/v1/..%2fv2 -
:path=/v1%2Fx -
:path=/v1/..%5cv2 -
:path=/v1/..\v2 -
:path=/v1/%252e%252e/v2 /v1/%252e%252e/v2
:path=//v1//x /v1/x
:path=/v2/../v1/x /v1/x
:path=/V1/x -
:path=/v1/x#/../../v2 -
:path=/v2#/v1/ -
:path=/v2?/v1/ -
:path=/v1/x?/../../v2 /v1/x?/../../v2
:path=https://HOST/v1/x -
:path=https://other.example/v1/x -
:path=http://HOST/v1/x -
:path=* -
:method=OPTIONS|:path=* -
:path= -
:path=v1/x -
:path=?/v1/x -
:path=/v1/x·y -
:path=/v1/x·HTTP/1.1↵host:·other.example↵↵GET·/v2 -
:path=! -
:path=/v1/x|:path=/v2 -
:path=/v2|:path=/v1/x -
:method=GET|:method=POST -
:method=! -
:method=get -
:method=GE·T -
:method=GET·/v2·HTTP/1.1↵x:·y -
:scheme=! -
:scheme=ftp /v1/x
:authority=HOST|:authority=other.example -
:authority=other.example|:authority=HOST -
:authority=other.example -
:authority=other.example|host=HOST -
:authority=HOST|host=other.example /v1/x
:authority=!|host=HOST /v1/x
:authority=!|host=other.example -
:authority=!|host=HOST|host=other.example -
:authority=! -
:authority= -
:authority=HOST:PORT /v1/x
:authority=HOST:22 -
:authority=HOST. -
:authority=HOST@other.example -
:authority=other.example@HOST -
:authority=HOST,other.example -
:authority=HOST/v2 -
:status=200 -
:unknown=1 -
x=y|:path=/v1/x -
connection=close -
keep-alive=5 -
transfer-encoding=chunked -
te=gzip -
upgrade=websocket -
X-Upper=1 -
x·y=1 -
x:y=1 -
x=a↵transfer-encoding:·chunked -
x=a↵↵GET·/v2·HTTP/1.1 -
";

/// Ends of bodies: a length, and as many bytes as there are.
const BODIES: [(&str, usize); 7] = [
    ("5", 10),
    ("10", 5),
    ("0", 5),
    ("+5", 5),
    ("5, 5", 5),
    ("0x5", 5),
    ("-1", 5),
];

fn visible(text: &str, host: &str, port: u16) -> String {
    let text = text.replace('·', " ").replace('↵', "\r\n");
    text.replace("HOST", host)
        .replace("PORT", &port.to_string())
}

/// The fields of a row in the place of the ordinary ones; a field that comes first behind others stays there.
fn fields(row: &str, ordinary: &[(&str, String); 4], port: u16) -> Vec<(String, String)> {
    let host = ordinary[2].1.as_str();
    let own: Vec<(String, String)> = row
        .split('|')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let at = part[1..].find('=').unwrap() + 1;
            let of = |text: &str| visible(text, host, port);
            (of(&part[..at]), of(&part[at + 1..]))
        })
        .collect();
    let mut all: Vec<(String, String)> = ordinary
        .iter()
        .filter(|(name, _)| !own.iter().any(|(other, _)| other == name))
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    all.extend(own);
    // Pseudo headers stand in front, but where a row wants one behind.
    if !row.starts_with("x=y|:") {
        all.sort_by_key(|(name, _)| !name.starts_with(':'));
    }
    all.retain(|(_, value)| value != "!");
    all
}

/// The target of what a server was asked, without its query.
fn path(line: &str) -> &str {
    line.split(['?', ' ']).nth(1).unwrap()
}

/// Every row over a connection of its own to a listener.
fn rows(world: &World, host: &str, port: u16, tls: bool) {
    let scheme = if tls { "https" } else { "http" };
    let ordinary = [
        (":method", "GET".to_owned()),
        (":scheme", scheme.to_owned()),
        (":authority", host.to_owned()),
        (":path", "/v1/x".to_owned()),
    ];
    let ask = |fields: &[(String, String)], body: Option<&[u8]>| -> Answer {
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let stream = http1::connect(&format!("{AGENT_AT}:{}", port + 10_000));
        if tls {
            Http2::start(world.greet(host, "h2", stream)).ask(&fields, body)
        } else {
            Http2::start(stream).ask(&fields, body)
        }
    };
    let refused = &|row: &str, body: Option<&[u8]>| {
        let fields = fields(row, &ordinary, port);
        let answer = ask(&fields, body);
        assert!(
            answer.status() == 0 || answer.status() >= 400,
            "{fields:?}: {answer:?}"
        );
    };
    let passed = &|row: &str, body: Option<&[u8]>| {
        let fields = fields(row, &ordinary, port);
        let answer = ask(&fields, body);
        assert_eq!(answer.status(), 200, "{fields:?}: {answer:?}");
    };
    let mut wanted = Vec::new();
    // All at once: Envoy takes a second to end a connection that it gives up.
    thread::scope(|scope| {
        for row in ROWS.trim_matches('\n').lines() {
            let (own, target) = row.rsplit_once(' ').unwrap();
            if target == "-" {
                scope.spawn(move || refused(own, None));
            } else {
                scope.spawn(move || passed(own, None));
                wanted.push(target.split('?').next().unwrap());
            }
        }
        for (length, body) in BODIES {
            let row = format!("content-length={length}|:method=POST");
            scope.spawn(move || refused(&row, Some(&vec![b'G'; body])));
        }
        scope.spawn(|| passed(":method=POST|content-length=5", Some(b"hello")));
    });
    let seen = world.asked();
    // A request whose body turns out false may have begun.
    let begun = |line: &&String| !line.starts_with("POST ");
    let mut paths: Vec<_> = seen.iter().filter(begun).map(|line| path(line)).collect();
    paths.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(paths, wanted);
    let ours = |line: &String| line.contains(&format!(" {host}")) && path(line).starts_with("/v1/");
    assert!(seen.iter().all(ours), "{seen:#?}");
}

#[test]
fn http2_over_tls_is_judged_as_it_is_passed_on() {
    let world = World::start();
    rows(&world, "api.example", 443, true);
}

/// The server speaks HTTP/1.1: what HTTP/2 frames by itself must not become its framing.
#[test]
fn http2_over_tls_to_a_server_of_http1_smuggles_nothing() {
    let world = World::start();
    rows(&world, "old.example", 443, true);
}

#[test]
fn http2_in_the_clear_by_prior_knowledge_is_judged_as_it_is_passed_on() {
    let world = World::start();
    rows(&world, "web.example", 80, false);
}
