//! `run --otlp`: records of real flows, in a real collector.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail as the tests themselves do"
)]

use kernel_tests::{
    agent::PRELUDE,
    check::flows,
    collector::{Collector, GRPC, HTTP, Received},
    dns::{Resolver, address},
    net::{BLACK_HOLE, black_hole},
    run::{Bench, Outcome},
    server::Place,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::TcpStream,
    os::unix::net::UnixListener,
    time::Instant,
};

const POLICY: &str = "resolvers: [192.0.2.53]\nrules:\n\
    - { name: api, dst: api.example, proto: tcp, port: 443 }\n\
    - { name: too, dst: two.example, proto: tcp, port: 443 }\n\
    - { name: hole, dst: 198.51.100.200, proto: tcp, port: 80 }\n";

/// Something of every kind.
const PROGRAM: &str = "
ask('api.example'); tcp('203.0.113.9', 443, b'abc')
ask('two.example'); tcp('203.0.113.9', 443, b'defg')
assert udp(query('no.example'), wait=0) == 'EPERM'
assert tcp('198.51.100.7', 80) == 'EPERM'
assert udp(b'x', '2001:db8::2', 9, 0) == 'EPERM'
try: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except PermissionError: pass
s = socket.socket(); s.setsockopt(socket.IPPROTO_TCP, 7, 1)
assert s.connect_ex(('198.51.100.200', 80)) == errno.ETIMEDOUT
l = socket.create_server(('192.0.2.2', 9000)); step('up'); c, _ = l.accept(); c.recv(10); c.close()
";

/// Refusals, as many as wanted, in steps.
const REFUSED: &str = "
def refused(n):
    for i in range(n):
        with socket.socket() as s: assert s.connect_ex(('203.0.113.9', 80)) == errno.EPERM
";

/// Asserts that the collector has the records of a run, no others, as its JSON lines have them.
#[track_caller]
fn same(received: &[Received], out: &Outcome) {
    let by_id = |id: &Value| id.as_str().unwrap().to_owned();
    let there: BTreeMap<String, &Received> = received
        .iter()
        .map(|r| (by_id(&r.attributes["flow_id"]), r))
        .collect();
    assert_eq!(there.len(), received.len(), "ids repeat");
    assert_eq!(there.len(), out.records.len());
    for r in &out.records {
        let mut fields = r.as_object().unwrap().clone();
        let got = there[&by_id(&r["flow_id"])];
        let time = fields.remove("time").unwrap();
        assert_eq!(got.attributes, fields);
        assert_eq!(nanos(&got.record["timeUnixNano"]), time);
        let severity = match r["verdict"].as_str().unwrap() {
            "ALLOWED" => json!([9, "INFO"]),
            _ => json!([13, "WARN"]),
        };
        let said = &got.record["body"]["stringValue"];
        assert!(
            said.as_str()
                .unwrap()
                .starts_with(r["verdict"].as_str().unwrap()),
            "{said}"
        );
        assert_eq!(
            json!([got.record["severityNumber"], got.record["severityText"]]),
            severity
        );
        assert_eq!(got.record["eventName"], "clawker.egress.flow");
        assert_eq!(got.resource["service.name"], "clawker-egress");
    }
}

/// Nanoseconds since 1970 as the JSON lines tell the time.
fn nanos(text: &Value) -> Value {
    let n: i128 = text.as_str().unwrap().parse().unwrap();
    serde_json::to_value(jiff::Timestamp::from_nanosecond(n).unwrap()).unwrap()
}

/// A run of [`PRELUDE`] and a program that sends to a URL.
fn to(bench: &Bench, url: &str, policy: &str, args: &[&str], program: &str) -> Outcome {
    let args = [&["--otlp", url][..], args].concat();
    bench.agent_with(policy, &args, program)
}

#[test]
fn every_field_arrives_with_its_type_as_the_json_lines_have_it() {
    let bench = Bench::new();
    black_hole();
    assert_eq!(BLACK_HOLE, "198.51.100.200");
    let resolver = Resolver::start("192.0.2.53");
    for name in ["api.example", "two.example"] {
        resolver.set(name, vec![address("203.0.113.9", 300)]);
    }
    let _place = Place::open("203.0.113.9:443");
    let collector = Collector::start(&bench);
    let url = format!("http://{GRPC}");
    let args = ["--otlp", &url, "--agent", "reviewer", "--project", "acme/é"];
    let mut talk = bench.talk(POLICY, &args, PROGRAM);
    assert_eq!(talk.hear(), "up");
    let mut caller = TcpStream::connect("192.0.2.2:9000").unwrap();
    std::io::Write::write_all(&mut caller, b"hello").unwrap();
    talk.say("");
    let loader = talk.pid();
    let first = talk.end(&bench);
    assert_eq!(first.code, 0, "{}{}", first.stdout, first.stderr);
    let mut received = collector.wait_for(first.records.len());
    same(&received, &first);
    for r in &received {
        assert_eq!(r.resource["service.instance.id"], format!("run-{loader}"));
    }
    // What enforcing has none of: a verdict that is only marked, and folded flows.
    for args in [&["--mode", "audit"][..], &["--rate", "0"]] {
        let program = "for i in range(3): tcp('192.0.2.2', 81 + i)";
        let next = to(&bench, &url, POLICY, args, program);
        let before = received.len();
        let mut all = collector.wait_for(before + next.records.len());
        let new = all.split_off(before);
        same(&new, &next);
        received.extend(new);
    }
    let filled: BTreeSet<_> = received.iter().flat_map(|r| r.attributes.keys()).collect();
    // A run has no containers, no proxy and no bridge; events have a name that the collector copies.
    let elsewhere = [
        "container_id",
        "container_name",
        "proxy_ip",
        "proxy_port",
        "event_name",
        "truncated",
        "identity_as_of",
    ];
    let flows = ["flows", "every stream"];
    for f in wire::fields::ALL {
        let ours = f.records.split(", ").any(|of| flows.contains(&of));
        let wanted = ours && !elsewhere.contains(&f.name);
        assert_eq!(filled.contains(&f.name.to_owned()), wanted, "{}", f.name);
    }
}

#[test]
fn the_other_ways_to_a_collector_work_as_well() {
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let unix = format!("unix://{}", collector.socket.display());
    let mut before = 0;
    for url in [&format!("http://{HTTP}/v1/logs"), &unix] {
        let program = format!("{REFUSED}refused(20)");
        let out = to(&bench, url, POLICY, &[], &program);
        let mut all = collector.wait_for(before + 20);
        same(&all.split_off(before), &out);
        before += 20;
    }
}

#[test]
fn a_flood_arrives_whole() {
    let bench = Bench::new();
    let collector = Collector::start(&bench);
    let args = ["--rate", "100000000", "--ring-kib", "16384", "--quiet"];
    let program = format!("{REFUSED}refused(20_000)");
    let out = to(&bench, &format!("http://{GRPC}"), POLICY, &args, &program);
    assert_eq!(flows(&out.records), 20_000);
    same(&collector.wait_for(out.records.len()), &out);
}

#[test]
fn what_a_killed_collector_did_not_take_is_declared() {
    let bench = Bench::new();
    let mut collector = Collector::start(&bench);
    let url = format!("http://{GRPC}");
    let program = format!("{PRELUDE}{REFUSED}refused(5); step('five'); refused(7)");
    let mut agent = bench.converse(POLICY, &["--otlp", &url], &["python3", "-c", &program]);
    assert_eq!(agent.hear(), "five");
    collector.wait_for(5);
    collector.kill();
    agent.say("go");
    let out = agent.end(&bench);
    assert_eq!(out.code, 1, "{}", out.stderr);
    assert_eq!(out.records.len(), 12);
    for words in [
        format!("7 records were not delivered to {url} (or not confirmed): 7 DENIED"),
        " · 7 not delivered".to_owned(),
        format!("error: cannot deliver records to {url}: "),
        format!("waiting up to 10 s for 7 record(s) to be delivered to {url}"),
    ] {
        assert_eq!(
            out.stderr.matches(&words).count(),
            1,
            "{words:?} in {}",
            out.stderr
        );
    }
    assert_eq!(collector.received().len(), 5);
    bench.nothing_left(&[]);
}

#[test]
fn the_command_keeps_its_exit_code_and_its_pace_when_nobody_takes_records() {
    let bench = Bench::new();
    // Somebody listens and never answers.
    let path = bench.path("silent.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    let url = format!("unix://{}", path.display());
    let program = format!("{REFUSED}refused(3); sys.exit(7)");
    let code = format!("{PRELUDE}{program}");
    let began = Instant::now();
    let out = bench.run(Some(POLICY), &["--otlp", &url], &["python3", "-c", &code]);
    assert_eq!(out.code, 7, "{}", out.stderr);
    assert!(
        out.stderr.contains("3 records were not delivered"),
        "{}",
        out.stderr
    );
    assert!(began.elapsed().as_secs() < 30);
}

#[test]
fn mistakes_are_told_before_the_command_runs() {
    let bench = Bench::new();
    let token = bench.path("token");
    fs::write(&token, "s3cret\n").unwrap();
    let at_token = format!("authorization=@{}", token.display());
    let empty = bench.path("empty.pem");
    fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    for (args, says) in [
        (&["--otlp", "collector:4317"][..], "no scheme"),
        (&["--otlp", "http://collector"], "names no port"),
        (&["--otlp-header", "a=b"], "--otlp"),
        (
            &["--otlp", "http://c:1", "--otlp-header", "s3cret"],
            "NAME=VALUE",
        ),
        (
            &["--otlp", "http://c:1", "--otlp-header", "a=@/no/such/file"],
            "/no/such/file",
        ),
        (
            &["--otlp", "http://c:1", "--otlp-header", "te=s3cret"],
            "belongs to the protocol",
        ),
        (&["--otlp", "http://c:1", "--otlp-ca", empty], "https://"),
        (&["--otlp", "https://c:1", "--otlp-ca", empty], "empty.pem"),
        (
            &["--otlp", "https://c:1", "--otlp-cert", empty],
            "--otlp-key",
        ),
        (
            &["--otlp", "http:///", "--otlp-header", &at_token],
            "http://",
        ),
    ] {
        let out = bench.run(Some(POLICY), args, &["echo", "ran"]);
        assert_eq!(
            (out.code, out.stdout.as_str()),
            (2, ""),
            "{args:?}: {}",
            out.stderr
        );
        assert!(out.stderr.contains(says), "{says:?} in {}", out.stderr);
        assert!(!out.stderr.contains("s3cret"), "{}", out.stderr);
    }
    bench.nothing_left(&[]);
}
