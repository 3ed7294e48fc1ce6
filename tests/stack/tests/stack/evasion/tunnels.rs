//! Other protocols, inside what a request is allowed to be.

use super::{POLICY, SHARED, World, ask_plainly, get, led, led_by};
use kernel_tests::{check::fields, eventually};
use serde_json::json;
use stack_tests::{greeting::Greeting, grpc::Grpc, http1, http2::Http2};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

fn port(stream: &TcpStream) -> u16 {
    stream.local_addr().unwrap().port()
}

#[test]
fn evasion_38_a_tunnel_by_connect_through_an_allowed_host() {
    let mut w = World::start(POLICY);
    // In the clear: to another host, to the allowed one, and to one that is named in absolute form.
    for (line, status) in [
        ("CONNECT foreign.example:443 HTTP/1.1", 403),
        ("CONNECT web.example:80 HTTP/1.1", 403),
        ("CONNECT web.example:22 HTTP/1.1", 403),
    ] {
        let host = line.split(' ').nth(1).unwrap();
        let stream = w.inside.dial("web.example", 80);
        let tried = ask_plainly(stream, &format!("{line}\r\nhost: {host}\r\n\r\n"));
        assert_eq!(tried.status, status, "{line}: {tried:?}");
        w.expect(
            &tried,
            led("web", "web.example", 80),
            json!([{"verdict": "DENIED", "reason": "protocol", "method": "CONNECT", "request_host": host}]),
        );
    }
    let stream = w.inside.dial("web.example", 80);
    let tried = ask_plainly(stream, &get("http://foreign.example/", "web.example"));
    assert_eq!(tried.status, 403, "{tried:?}");
    w.expect(
        &tried,
        led("web", "web.example", 80),
        json!([{"verdict": "DENIED", "reason": "default", "method": "GET", "request_host": "foreign.example"}]),
    );
    w.end([&[], &[]]);
}

#[test]
fn evasion_38_a_tunnel_by_connect_in_http2() {
    let mut w = World::start(POLICY);
    let api = "api.example";
    let extended = |protocol, path| {
        let method = (":method", "CONNECT");
        let rest = [(":scheme", "https"), (":path", path), (":authority", api)];
        [&[method, (":protocol", protocol)][..], &rest].concat()
    };
    let plain = |authority| vec![(":method", "CONNECT"), (":authority", authority)];
    let refused = |host| json!([{"verdict": "DENIED", "reason": "protocol", "method": "CONNECT", "request_host": host}]);
    // What Envoy takes for no message ends the connection.
    let broken = json!([{"verdict": "DENIED", "reason": "proxy", "response_code": "0", "response_flags": "DPE"}]);
    for (fields, status, expected) in [
        (
            plain("foreign.example:443"),
            403,
            refused("foreign.example:443"),
        ),
        (plain("api.example:443"), 403, refused("api.example:443")),
        // WebSocket's way through HTTP/2 (RFC 8441), and UDP's (RFC 9298).
        (extended("websocket", "/v1/x"), 0, broken.clone()),
        (
            extended("connect-udp", "/v1/masque/udp/198.51.100.7/443/"),
            0,
            broken,
        ),
    ] {
        let stream = w.inside.dial(api, 443);
        let own = port(&stream);
        let answer = Http2::start(w.greet(api, "h2", stream)).ask(&fields, None);
        assert_eq!(answer.status(), status, "{fields:?}: {answer:?}");
        w.tried.push((own, led("api", api, 443), expected));
    }
    w.end([&[], &[]]);
}

#[test]
fn evasion_38_socks_is_no_request() {
    let mut w = World::start(POLICY);
    // As it is, which is no line yet; and with an end of one.
    for (hello, envoy) in [
        ("\x05\x01\x00", json!([])),
        (
            "\x04\x01\x01\u{bb}\x01\x01\x01\x01\x00\r\n\r\n",
            json!([{"verdict": "DENIED", "reason": "proxy", "response_code": "400"}]),
        ),
    ] {
        let mut stream = w.inside.dial("web.example", 80);
        stream.write_all(hello.as_bytes()).unwrap();
        if !hello.ends_with('\n') {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let own = port(&stream);
        let (status, _) = http1::answer(&mut stream);
        assert!([0, 400].contains(&status), "{status}");
        w.tried.push((own, led("web", "web.example", 80), envoy));
    }
    w.end([&[], &[]]);
}

#[test]
fn evasion_39_ssh_and_raw_tcp_to_a_host_whose_requests_are_allowed() {
    let mut w = World::start(POLICY);
    // On the port of TLS, in the clear.
    let mut stream = w.inside.dial("a.pkg.example", 443);
    let own = port(&stream);
    let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    drop(stream);
    w.tried.push((
        own,
        led("packages", "a.pkg.example", 443),
        json!([{"verdict": "DENIED", "reason": "protocol", "dst_port": "443", "sni": null}]),
    ));
    // Inside TLS, and on the port for requests in the clear.
    let stream = w.inside.dial("a.pkg.example", 443);
    let tried = w.https(stream, "a.pkg.example", "SSH-2.0-OpenSSH_9.6\r\n");
    assert_eq!(tried.status, 400, "{tried:?}");
    w.expect(
        &tried,
        led("packages", "a.pkg.example", 443),
        json!([{"verdict": "DENIED", "reason": "proxy"}]),
    );
    // TLS on the port for requests in the clear, which could hide anything.
    let stream = w.inside.dial("web.example", 80);
    let own = port(&stream);
    let greeting = Greeting {
        name: Some("web.example"),
        ech: None,
        alpn: &[],
        ca: None,
    };
    assert!(greeting.over(stream).is_err());
    w.tried.push((
        own,
        led_by("web", &["a.pkg.example", "web.example"], 80),
        json!([{"verdict": "DENIED", "reason": "protocol", "dst_port": "80", "sni": "web.example"}]),
    ));
    assert_eq!(w.inside.connect(SHARED, 22).unwrap_err(), "EPERM");
    let out = w.end([&[], &[]]);
    fields(
        out.only_denied(&[("dst_port", json!(22))]),
        &json!({"reason": "default", "proxy_ip": null}),
    );
}

#[test]
fn evasion_40_a_websocket_that_carries_a_file_out_shows_its_bytes() {
    const FILE: usize = 300_000;
    let mut w = World::start(POLICY);
    let stream = w.inside.dial("api.example", 443);
    let own = port(&stream);
    let mut tls = w.greet("api.example", "http/1.1", stream);
    let upgrade = "GET /v1/ws HTTP/1.1\r\nhost: api.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!(http1::ask(&mut tls, upgrade).0, 101);
    let mut back = vec![0; 1000];
    for _ in 0..FILE / back.len() {
        tls.write_all(&back).unwrap();
        tls.read_exact(&mut back).unwrap();
    }
    // While it goes on, its flow shows what has left.
    let live = eventually("the bytes of the live flow", || {
        let live = w.bench.dump(&["--flows"]);
        let one = live.into_iter().find(|f| f["src_port"] == own)?;
        (one["bytes_out"].as_u64()? > FILE as u64).then_some(one)
    });
    assert_eq!(live["verdict"], "ALLOWED");
    tls.conn.send_close_notify();
    tls.flush().unwrap();
    drop(tls);
    w.tried.push((
        own,
        led("api", "api.example", 443),
        json!([{"verdict": "ALLOWED", "l7_proto": "websocket", "path": "/v1/ws", "response_code": "101",
                "bytes_out": FILE.to_string(), "bytes_in": FILE.to_string()}]),
    ));
    let out = w.end([&["GET /v1/ws api.example"], &[]]);
    let flow = out.only(&[("src_port", json!(own))]);
    assert!(flow["bytes_out"].as_u64() > Some(FILE as u64), "{flow}");
}

#[test]
fn evasion_40_a_stream_of_grpc_that_carries_a_file_out_shows_its_bytes() {
    const MESSAGES: usize = 300;
    let mut w = World::start(POLICY);
    let stream = w.inside.dial("api.example", 443);
    let own = port(&stream);
    let mut grpc = Grpc::over(&w.honest("api.example", &["h2"]), stream);
    let mut call = grpc.call("api.example", "/svc.Store/Put");
    for _ in 0..MESSAGES {
        call.say(&[7; 995]);
        assert_eq!(call.hear(995), [7; 995]);
    }
    call.end();
    assert_eq!(call.status(), Some(0));
    drop(grpc);
    let bytes = (MESSAGES * 1000).to_string();
    w.tried.push((
        own,
        led("api", "api.example", 443),
        json!([{"verdict": "ALLOWED", "l7_proto": "grpc", "path": "/svc.Store/Put", "grpc_status": "OK", "bytes_out": bytes,
                "bytes_in": bytes}]),
    ));
    let out = w.end([&["POST /svc.Store/Put api.example"], &[]]);
    let flow = out.only(&[("src_port", json!(own))]);
    assert!(
        flow["bytes_out"].as_u64() > Some(MESSAGES as u64 * 1000),
        "{flow}"
    );
}
