//! Envoy killed, started again, and told nonsense, while an agent works; and policies that change under load.

use super::{AGENT, policy, settings};
use ebpf_manager::proxy_files::put;
use kernel_tests::{check::fields, dns::Resolver, eventually, run::Bench};
use proxy::Settings;
use serde_json::json;
use stack_tests::{
    envoy::{Envoy, authority, render, render_by},
    greeting::Greeting,
    http1,
    inside::Inside,
    origin::Origin,
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    thread,
};

const LISTENERS: [&str; 1] = ["192.0.2.1:10080"];

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

fn port(stream: &TcpStream) -> u16 {
    stream.local_addr().unwrap().port()
}

/// One host for Envoy, and one port that the kernel decides about alone.
const POLICY: &str = "version: 1
resolvers: [192.0.2.53]
rules:
  - { name: web, dst: web.example, proto: http, path_rules: [{ path: /v1/ }] }
  - { name: plain, dst: 203.0.113.9, proto: tcp, port: 8080 }
";

#[test]
fn what_needs_envoy_fails_closed_without_it_and_what_does_not_goes_on() {
    let bench = Bench::new();
    let _names = Resolver::naming(&[("web.example", "203.0.113.9")]);
    let (web, plain) = (
        Origin::plain("203.0.113.9:80"),
        Origin::plain("203.0.113.9:8080"),
    );
    let dir = bench.path("envoy");
    render(
        &policy(POLICY),
        &[&format!("acme/reviewer@{AGENT}")],
        &settings(&dir),
    );
    let mut envoy = Envoy::start(&dir, &LISTENERS);
    let mut inside = Inside::start(&bench, POLICY, &["--proxy", AGENT]);
    let (ok, no) = (get("web.example", "/v1/x"), get("web.example", "/v2/x"));
    let direct = get("-", "/direct");
    let mut led = inside.dial("web.example", 80);
    let mut past = inside.connect("203.0.113.9", 8080).unwrap();
    let cut = port(&led);
    assert_eq!(http1::ask(&mut led, &ok).0, 200);
    assert_eq!(http1::ask(&mut past, &direct).0, 200);
    envoy.kill();
    // What went through it has ended, and nothing goes around it.
    assert_eq!(http1::ask(&mut led, &ok).0, 0);
    drop(led);
    assert_eq!(
        inside.connect("203.0.113.9", 80).unwrap_err(),
        "ECONNREFUSED"
    );
    assert_eq!(http1::ask(&mut past, &direct).0, 200);
    let mut more = inside.connect("203.0.113.9", 8080).unwrap();
    assert_eq!(http1::ask(&mut more, &direct).0, 200);
    envoy.restart(&LISTENERS);
    let ask = |inside: &mut Inside, text: &str| {
        let mut stream = inside.connect("203.0.113.9", 80).unwrap();
        http1::ask(&mut stream, text).0
    };
    assert_eq!((ask(&mut inside, &ok), ask(&mut inside, &no)), (200, 403));
    // What it cannot use changes nothing while it runs.
    let listeners = dir.join("listeners.json");
    let whole = fs::read_to_string(&listeners).unwrap();
    for (broken, said) in [
        (
            whole.replace("normalize_path", "normalise_path"),
            "normalise_path",
        ),
        (whole[..whole.len() / 2].to_owned(), "listeners.json"),
    ] {
        let before = envoy.said().len();
        put(&listeners, 0o644, broken.as_bytes()).unwrap();
        eventually("its refusal", || {
            envoy.said()[before..].contains(said).then_some(())
        });
        assert_eq!((ask(&mut inside, &ok), ask(&mut inside, &no)), (200, 403));
    }
    // Nor does a start with it open anything.
    envoy.kill();
    envoy.restart(&[]);
    assert_eq!(
        inside.connect("203.0.113.9", 80).unwrap_err(),
        "ECONNREFUSED"
    );
    put(&listeners, 0o644, whole.as_bytes()).unwrap();
    eventually("the files to be taken up", || {
        TcpStream::connect(LISTENERS[0]).ok()
    });
    assert_eq!((ask(&mut inside, &ok), ask(&mut inside, &no)), (200, 403));
    drop((past, more));
    let out = inside.end(&bench);
    fields(
        out.only(&[("src_port", json!(cut)), ("dst_port", json!(80))]),
        &json!({"verdict": "ALLOWED", "rule": "web", "proxy_ip": AGENT, "proxy_port": 10080}),
    );
    let refused = out.matching(&[("close_reason", json!("refused"))]);
    assert_eq!(refused.len(), 2, "{:#?}", out.records);
    for record in refused {
        fields(
            record,
            &json!({"verdict": "ALLOWED", "rule": "web", "dst_ip": "203.0.113.9", "dst_port": 80, "dst_host": "web.example",
                    "proxy_ip": AGENT, "proxy_port": 10080, "bytes_out": 0}),
        );
    }
    assert!(
        web.asked()
            .iter()
            .all(|line| line == "GET /v1/x web.example")
    );
    assert_eq!(plain.asked().len(), 3);
}

/// Two policies that differ in everything but one host that both allow and one that both deny.
fn either(n: usize) -> String {
    let mut text = String::from("rules:\n");
    for proto in ["http", "https"] {
        text += &format!(
            "  - {{ dst: both.example, proto: {proto}, path_rules: [{{ path: /v1/ }}] }}\n"
        );
        text += &format!("  - {{ dst: '*.own{n}.example', proto: {proto} }}\n");
        text += &format!(
            "  - {{ dst: never.example, proto: {proto}, path_rules: [{{ path: /own{n}/ }}] }}\n"
        );
    }
    text
}

/// A connection to Envoy, with or without TLS.
trait Io: Read + Write {}
impl<T: Read + Write> Io for T {}

struct Load<'a> {
    ca: &'a Path,
    stop: AtomicBool,
    passed: AtomicUsize,
}

impl Load<'_> {
    fn connect(&self, tls: bool, name: &str) -> Box<dyn Io> {
        let at = if tls { 10_443 } else { 10_080 };
        let stream = http1::connect(&format!("{AGENT}:{at}"));
        let greeting = Greeting {
            name: Some(name),
            ech: None,
            alpn: &["http/1.1"],
            ca: Some(self.ca),
        };
        if tls {
            Box::new(greeting.over(stream).expect("a handshake"))
        } else {
            Box::new(stream)
        }
    }

    /// Asks until it is told to stop, on new connections or on one that is kept for as long as Envoy keeps it.
    fn ask(&self, tls: bool, kept: bool) {
        let mut stream = None;
        while !self.stop.load(Relaxed) {
            let mut io = stream
                .take()
                .unwrap_or_else(|| self.connect(tls, "both.example"));
            // The policies name the other host for paths that are not asked for; over TLS it is another handshake.
            let other = if tls && kept {
                ("both.example", "200")
            } else {
                ("never.example", "403")
            };
            for (host, status) in [("both.example", "200"), other] {
                if tls && host == "never.example" {
                    io = self.connect(tls, host);
                }
                io.write_all(get(host, "/v1/x").as_bytes()).unwrap();
                let answer = http1::heard(&mut io);
                assert_eq!(
                    answer.split(' ').nth(1),
                    Some(status),
                    "{host}, TLS {tls}, kept {kept}: {answer}"
                );
                self.passed.fetch_add(1, Relaxed);
                if answer.contains("connection: close") {
                    io = self.connect(tls, "both.example");
                }
            }
            stream = kept.then_some(io);
        }
    }
}

#[test]
fn policies_that_change_under_load_neither_open_nor_close_what_they_agree_on() {
    let bench = Bench::new();
    let _names = Resolver::naming(&[
        ("both.example", "203.0.113.9"),
        ("never.example", "203.0.113.9"),
    ]);
    let (dir, theirs) = (bench.path("envoy"), bench.path("servers"));
    let servers = authority(&theirs);
    let origins = [
        Origin::plain("203.0.113.9:80"),
        Origin::tls(
            "203.0.113.9:443",
            &servers,
            &["both.example", "never.example"],
        ),
    ];
    let settings = Settings {
        intercept: true,
        upstream_ca: theirs.join("ca.pem").display().to_string(),
        ..settings(&dir)
    };
    let ours = authority(&dir.join("ca"));
    let agent = format!("acme/reviewer@{AGENT}");
    let write = |n| render_by(&policy(&either(n)), &[&agent], &settings, Some(&ours));
    write(0);
    let envoy = Envoy::start(&dir, &["192.0.2.1:10080", "192.0.2.1:10443"]);
    let load = Load {
        ca: &dir.join("ca/ca.pem"),
        stop: AtomicBool::new(false),
        passed: AtomicUsize::new(0),
    };
    thread::scope(|scope| {
        for (tls, kept) in [(false, false), (false, true), (true, false), (true, true)] {
            let load = &load;
            scope.spawn(move || load.ask(tls, kept));
        }
        for n in 1..=30 {
            let before = load.passed.load(Relaxed);
            write(n % 2);
            // Its name leads nowhere, but is no longer denied.
            let own = get(&format!("x.own{}.example", n % 2), "/");
            eventually("the policy to be in force", || {
                let (status, _) = http1::ask(&mut http1::connect(LISTENERS[0]), &own);
                (status == 503).then_some(())
            });
            eventually("requests under it", || {
                (load.passed.load(Relaxed) > before + 40).then_some(())
            });
        }
        load.stop.store(true, Relaxed);
    });
    assert!(load.passed.load(Relaxed) > 1200);
    for origin in origins {
        let asked = origin.asked();
        assert!(
            asked.iter().all(|line| line == "GET /v1/x both.example"),
            "{asked:?}"
        );
    }
    assert!(!envoy.said().contains("rejected"), "{}", envoy.said());
}
