//! Names: which one the agent looked up, connected for, greeted and asked.

use super::{FOREIGN, POLICY, SECOND, SHARED, World, ask_over, ask_plainly, get, led, led_by};
use kernel_tests::check::fields;
use serde_json::json;
use stack_tests::{greeting::Greeting, http2::Http2, inside::Inside};

/// A client that believes everybody, and so goes on where an honest one stops.
fn careless(name: Option<&str>) -> Greeting<'_> {
    Greeting {
        name,
        ech: None,
        alpn: &["http/1.1"],
        ca: None,
    }
}

#[test]
fn evasion_25_dns_over_https_at_an_address_that_an_allowed_name_has_too() {
    let mut w = World::start(POLICY);
    let query = "POST /dns-query HTTP/1.1\r\nhost: HOST\r\ncontent-type: application/dns-message\r\ncontent-length: 4\r\n\r\nABCD";
    // A resolver that no rule names, by its own name; and one behind a name that is allowed.
    for (host, reason, rule, l7) in [
        ("dns.example", "default", json!(null), "https"),
        ("api.example", "rule", json!("api"), "https"),
    ] {
        let stream = w.inside.dial("api.example", 443);
        let tried = ask_over(&careless(Some(host)), stream, &query.replace("HOST", host));
        assert_eq!(tried.status, 403, "{tried:?}");
        w.expect(
            &tried,
            led("api", "api.example", 443),
            json!([{"verdict": "DENIED", "reason": reason, "rule": rule, "l7_proto": l7, "request_host": host, "sni": host,
                    "method": "POST", "path": "/dns-query", "response_code": "403"}]),
        );
    }
    assert_eq!(w.inside.look("dns.example"), "EPERM");
    // Its other entrances are no requests, and nobody's.
    let other = "(tcp('203.0.113.9', 853), udp(query('x.example'), '203.0.113.9', 853), udp(b'doq', '203.0.113.9', 443))";
    assert_eq!(w.inside.value(other), "('EPERM', 'EPERM', 'EPERM')");
    let out = w.end([&[], &[]]);
    fields(
        out.only_denied(&[("reason", json!("name"))]),
        &json!({"qname": "dns.example"}),
    );
    assert_eq!(
        out.denied(&[("reason", json!("resolver")), ("dst_port", json!(853))])
            .len(),
        2
    );
    out.only_denied(&[("reason", json!("default")), ("dst_port", json!(443))]);
}

#[test]
fn evasion_33_an_address_shared_by_an_allowed_and_a_denied_name() {
    let mut w = World::start(POLICY);
    let flow = led("packages", "a.pkg.example", 443);
    for (name, status, verdict, rule) in [
        ("a.pkg.example", 200, "ALLOWED", "packages"),
        ("evil.pkg.example", 403, "DENIED", "never"),
    ] {
        let stream = w.inside.dial("a.pkg.example", 443);
        let tried = ask_over(&careless(Some(name)), stream, &get("/x", name));
        assert_eq!(tried.status, status, "{tried:?}");
        w.expect(
            &tried,
            flow.clone(),
            json!([{"verdict": verdict, "rule": rule, "reason": "rule", "request_host": name, "sni": name}]),
        );
    }
    // The same in the clear, where one connection asks for both.
    let stream = w.inside.dial("web.example", 80);
    let tried = ask_plainly(stream.try_clone().unwrap(), &get("/x", "web.example"));
    assert_eq!(tried.status, 200, "{tried:?}");
    let tried = ask_plainly(stream, &get("/x", "evil.pkg.example"));
    assert_eq!(tried.status, 403, "{tried:?}");
    w.expect(
        &tried,
        led_by("web", &["a.pkg.example", "web.example"], 80),
        json!([{"verdict": "ALLOWED", "rule": "web", "request_host": "web.example"},
               {"verdict": "DENIED", "rule": "never", "request_host": "evil.pkg.example"}]),
    );
    let out = w.end([&["GET /x a.pkg.example"], &["GET /x web.example"]]);
    assert!(out.denied(&[]).is_empty(), "{:#?}", out.records);
}

#[test]
fn evasion_33_a_name_that_one_agent_may_ask_and_another_may_not() {
    let policy = format!(
        "{POLICY}agents:\n  writer: {{ rules: [{{ name: never here, dst: web.example, proto: any, action: deny }}, \
         {{ name: gate too, dst: api.example, proto: http }}] }}\n"
    );
    let mut w = World::of(&policy, "acme/reviewer@192.0.2.1 acme/writer@192.0.2.2");
    let other = w.bench.beside();
    let args = ["--proxy", SECOND, "--agent", "writer", "--project", "acme"];
    let mut writer = Inside::start(&other, &policy, &args);
    let first = ask_plainly(w.inside.dial("web.example", 80), &get("/", "web.example"));
    let second = ask_plainly(writer.dial("api.example", 80), &get("/", "web.example"));
    assert_eq!((first.status, second.status), (200, 403), "{second:?}");
    w.expect(
        &first,
        led("web", "web.example", 80),
        json!([{"verdict": "ALLOWED", "rule": "web", "agent": "reviewer"}]),
    );
    let told = super::records_of(&w.collector, second.port, 1);
    fields(
        &json!(told[0].attributes),
        &json!({"verdict": "DENIED", "rule": "never here", "agent": "writer", "src_ip": SECOND}),
    );
    let out = writer.end(&other);
    fields(
        out.only(&[("src_port", json!(second.port)), ("dst_port", json!(80))]),
        &json!({"verdict": "ALLOWED", "rule": "gate too", "agent": "writer", "proxy_ip": SECOND}),
    );
    w.end([&[], &["GET / web.example"]]);
}

#[test]
fn evasion_34_a_direct_address_another_connect_to_and_a_hosts_file() {
    let mut w = World::start(POLICY);
    // Nobody has looked it up: there is no way, not even to the proxy.
    assert_eq!(w.inside.connect(SHARED, 443).unwrap_err(), "EPERM");
    let address = w.inside.look("web.example");
    // `curl --connect-to`: the address of an allowed name, and the request for another.
    let stream = w.inside.connect(&address, 80).unwrap();
    let tried = ask_plainly(stream, &get("/", "foreign.example"));
    assert_eq!(tried.status, 403, "{tried:?}");
    w.expect(
        &tried,
        led("web", "web.example", 80),
        json!([{"verdict": "DENIED", "reason": "default", "request_host": "foreign.example"}]),
    );
    // The address itself as host.
    let stream = w.inside.connect(&address, 80).unwrap();
    let tried = ask_plainly(stream, &get("/", SHARED));
    assert_eq!(tried.status, 403, "{tried:?}");
    w.expect(
        &tried,
        led("web", "web.example", 80),
        json!([{"verdict": "DENIED", "reason": "default", "request_host": SHARED}]),
    );
    // `/etc/hosts`: an allowed name at an address of the agent's own choice.
    assert_eq!(w.inside.connect(FOREIGN, 80).unwrap_err(), "EPERM");
    let out = w.end([&[], &[]]);
    for (dst, port) in [(SHARED, 443), (FOREIGN, 80)] {
        fields(
            out.only_denied(&[("dst_ip", json!(dst)), ("dst_port", json!(port))]),
            &json!({"reason": "default", "proxy_ip": null, "dst_host": null}),
        );
    }
}

/// An address that a rule opens leads to Envoy, and Envoy to where the name leads, whatever the agent's file says.
#[test]
fn evasion_34_a_hosts_file_that_points_at_an_open_address() {
    let policy = format!("{POLICY}  - {{ name: foreign, dst: {FOREIGN}, proto: http }}\n");
    let mut w = World::start(&policy);
    let stream = w.inside.connect(FOREIGN, 80).unwrap();
    let tried = ask_plainly(stream, &get("/", "web.example"));
    assert_eq!(tried.status, 200, "{tried:?}");
    let mut flow = led("foreign", "", 80);
    (flow["dst_ip"], flow["dst_host"]) = (json!(FOREIGN), json!(null));
    w.expect(
        &tried,
        flow,
        json!([{"verdict": "ALLOWED", "rule": "web", "request_host": "web.example", "upstream_ip": SHARED}]),
    );
    w.end([&[], &["GET / web.example"]]);
}

#[test]
fn evasion_35_a_server_name_that_is_not_the_host() {
    let mut w = World::start(POLICY);
    let denied = |sni: &str, host: &str, path: &str| {
        json!([{"verdict": "DENIED", "reason": "proxy", "sni": sni, "request_host": host, "path": path, "method": "GET",
                "response_code": "403", "upstream_ip": null}])
    };
    let (api, package) = ("api.example", "a.pkg.example");
    // Both are allowed by themselves; one is denied; one is in no rule.
    assert_eq!([api, package].map(|name| w.inside.look(name)), [SHARED; 2]);
    let flow = led_by("api", &[package, api], 443);
    for (sni, host) in [(api, package), (package, api), (api, "evil.pkg.example")] {
        let stream = w.inside.dial(sni, 443);
        let tried = w.https(stream, sni, &get("/v1/x", host));
        assert_eq!(tried.status, 403, "{sni} {host}: {tried:?}");
        w.expect(&tried, flow.clone(), denied(sni, host, "/v1/x"));
        // A host that is another one's in absolute form, and in HTTP/2.
        let stream = w.inside.dial(sni, 443);
        let tried = w.https(stream, sni, &get(&format!("https://{host}/v1/x"), sni));
        assert_eq!(tried.status, 403, "{sni} {host}: {tried:?}");
        w.expect(&tried, flow.clone(), denied(sni, host, "/v1/x"));
        let stream = w.inside.dial(sni, 443);
        let port = stream.local_addr().unwrap().port();
        let request = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", host),
            (":path", "/v1/x"),
        ];
        let answer = Http2::start(w.greet(sni, "h2", stream)).ask(&request, None);
        assert_eq!(answer.status(), 403, "{answer:?}");
        w.tried
            .push((port, flow.clone(), denied(sni, host, "/v1/x")));
    }
    w.end([&[], &[]]);
}

#[test]
fn evasion_ech_a_hidden_server_name_reaches_nobody() {
    let mut w = World::start(POLICY);
    // A cover that is allowed: the hidden name is never read, and an honest client ends when the server cannot.
    let stream = w.inside.dial("a.pkg.example", 443);
    let hidden = Greeting {
        ech: Some("a.pkg.example"),
        alpn: &["http/1.1"],
        ca: Some(&w.ca),
        ..careless(Some("foreign.example"))
    };
    let port = stream.local_addr().unwrap().port();
    let said = hidden.over(stream).unwrap_err();
    assert!(said.contains("EncryptedClientHello"), "{said}");
    w.tried.push((
        port,
        led("packages", "a.pkg.example", 443),
        json!([{"verdict": "DENIED", "reason": "proxy", "sni": "a.pkg.example", "dst_port": "443"}]),
    ));
    // A cover that no rule allows.
    let stream = w.inside.dial("a.pkg.example", 443);
    let hidden = Greeting {
        ech: Some("foreign.example"),
        ..hidden
    };
    let port = stream.local_addr().unwrap().port();
    let said = hidden.over(stream).unwrap_err();
    assert!(said.contains("certificate"), "{said}");
    w.tried.push((
        port,
        led("packages", "a.pkg.example", 443),
        json!([{"verdict": "DENIED", "reason": "proxy", "sni": "foreign.example", "dst_port": "443"}]),
    ));
    w.end([&[], &[]]);
}

#[test]
fn evasion_sni_a_client_that_believes_no_certificate_for_another_name() {
    let mut w = World::start(POLICY);
    let stream = w.inside.dial("a.pkg.example", 443);
    let tried = w.https(stream, "foreign.example", &get("/", "foreign.example"));
    assert_eq!(tried.status, 0, "{tried:?}");
    w.expect(
        &tried,
        led("packages", "a.pkg.example", 443),
        json!([{"verdict": "DENIED", "reason": "proxy", "sni": "foreign.example", "dst_port": "443", "path": null}]),
    );
    w.end([&[], &[]]);
}

#[test]
fn evasion_sni_a_handshake_without_a_server_name_is_denied() {
    let mut w = World::start(POLICY);
    for host in ["a.pkg.example", "api.example"] {
        let stream = w.inside.dial("a.pkg.example", 443);
        let tried = ask_over(&careless(None), stream, &get("/v1/x", host));
        assert_eq!(tried.status, 403, "{tried:?}");
        w.expect(
            &tried,
            led("packages", "a.pkg.example", 443),
            json!([{"verdict": "DENIED", "reason": "proxy", "sni": null, "request_host": host, "path": "/v1/x"}]),
        );
    }
    w.end([&[], &[]]);
}
