//! What lasts: WebSocket over TLS, gRPC, and bodies of many bytes.

use super::protocols::{AGENT_AT, World};
use kernel_tests::check::fields;
use serde_json::json;
use stack_tests::{grpc::Grpc, http1};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

fn connect() -> (TcpStream, u16) {
    let stream = http1::connect(&format!("{AGENT_AT}:10443"));
    let port = stream.local_addr().unwrap().port();
    (stream, port)
}

#[test]
fn a_websocket_over_tls_is_opened_where_its_path_is_allowed() {
    let world = World::start();
    for (path, status) in [("/v1/ws", 101), ("/v2/ws", 403)] {
        let (stream, port) = connect();
        let mut tls = world.greet("api.example", "http/1.1", stream);
        let ask = format!(
            "GET {path} HTTP/1.1\r\nhost: api.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(http1::ask(&mut tls, &ask).0, status);
        if status == 101 {
            tls.write_all(b"ping").unwrap();
            let mut back = [0; 4];
            tls.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"ping");
        }
        drop(tls);
        let (verdict, kind) = if status == 101 {
            ("ALLOWED", "websocket")
        } else {
            ("DENIED", "https")
        };
        fields(
            &world.record(port),
            &json!({"verdict": verdict, "l7_proto": kind, "path": path, "response_code": status.to_string(), "rule": "api",
                    "sni": "api.example", "agent": "reviewer"}),
        );
    }
    assert_eq!(world.asked(), ["GET /v1/ws api.example"]);
}

#[test]
fn calls_of_grpc_pass_with_their_trailers_and_stay_open_as_long_as_they_last() {
    let world = World::start();
    let greeting = world.honest("api.example", &["h2"]);
    let call = |path: &str| {
        let (stream, port) = connect();
        (Grpc::over(&greeting, stream), port, path.to_owned())
    };
    let told = |port: u16, path: &str, wanted: serde_json::Value| {
        let record = world.record(port);
        fields(
            &record,
            &json!({"path": path, "method": "POST", "request_host": "api.example", "rule": "api"}),
        );
        fields(&record, &wanted);
    };
    // One message each way; a server that says no; and a call that no rule allows.
    for (path, status, wanted) in [
        (
            "/ok.Service/Echo",
            0,
            json!({"verdict": "ALLOWED", "l7_proto": "grpc", "response_code": "200", "grpc_status": "OK"}),
        ),
        (
            "/ok.Service/Status9",
            9,
            json!({"verdict": "ALLOWED", "l7_proto": "grpc", "grpc_status": "FailedPrecondition"}),
        ),
        (
            "/no.Service/Echo",
            7,
            json!({"verdict": "DENIED", "grpc_status": "PermissionDenied", "upstream_ip": null}),
        ),
    ] {
        let (mut grpc, port, path) = call(path);
        let mut call = grpc.call("api.example", &path);
        call.say(b"hello");
        call.end();
        assert_eq!(call.status(), Some(status), "{path}");
        drop(grpc);
        told(port, &path, wanted);
    }
    // Both ways, message by message, on a call that stays open.
    let (mut grpc, port, path) = call("/ok.Service/Echo");
    let mut both = grpc.call("api.example", &path);
    for n in 0..20u8 {
        both.say(&[n; 1000]);
        assert_eq!(both.hear(1000), [n; 1000]);
    }
    both.end();
    assert_eq!(both.status(), Some(0));
    drop(grpc);
    told(
        port,
        &path,
        json!({"verdict": "ALLOWED", "bytes_out": "20100", "bytes_in": "20100", "grpc_status": "OK"}),
    );
    // One way, from a server that ends never, until the client has enough.
    let (mut grpc, port, path) = call("/ok.Service/Open");
    let mut open = grpc.call("api.example", &path);
    open.say(b"subscribe");
    open.end();
    assert_eq!(open.hear(9), b"subscribe");
    open.cancel();
    drop(grpc);
    told(
        port,
        &path,
        json!({"verdict": "ALLOWED", "response_flags": "DR", "bytes_in": "14", "bytes_out": "14"}),
    );
}

/// Bytes of a large body.
const LARGE: usize = 100_000_000;

/// What curl says of a transfer: status, bytes that it got, and its port.
fn transfer(world: &World, url: &str, more: &[&str]) -> (String, String, u16) {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--max-time",
        "60",
        "--http2",
        "--output",
        "/dev/null",
    ]);
    curl.args(["--write-out", "%{http_code} %{size_download} %{local_port}"]);
    curl.arg("--cacert").arg(&world.ca).args(more);
    curl.args(["--connect-to", &format!("::{AGENT_AT}:10443"), url]);
    let out = curl.output().expect("curl is installed");
    let said = String::from_utf8(out.stdout).unwrap();
    let [code, size, port] = said.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{said}");
    };
    (code.to_owned(), size.to_owned(), port.parse().unwrap())
}

#[test]
fn large_bodies_pass_whole_and_are_counted_to_the_byte() {
    let world = World::start();
    let dir = kernel_tests::temporary();
    let file = dir.path().join("large");
    fs::File::create(&file)
        .unwrap()
        .set_len(LARGE as u64)
        .unwrap();
    let upload = ["--upload-file", file.to_str().unwrap()];
    let large = LARGE.to_string();
    // To a server of HTTP/2, and to one of HTTP/1.1.
    for host in ["api.example", "old.example"] {
        let url = |path: &str| format!("https://{host}/{path}");
        let (code, size, port) = transfer(&world, &url(&format!("v1/down/{LARGE}")), &[]);
        assert_eq!((code.as_str(), &size), ("200", &large));
        fields(
            &world.record(port),
            &json!({"verdict": "ALLOWED", "method": "GET", "bytes_in": large, "bytes_out": "0"}),
        );
        let (code, _, port) = transfer(&world, &url("v1/up"), &upload);
        assert_eq!(code, "200");
        let seen = format!("PUT /v1/up {host} {LARGE}");
        fields(
            &world.record(port),
            &json!({"verdict": "ALLOWED", "method": "PUT", "bytes_out": large, "bytes_in": seen.len().to_string()}),
        );
        // This curl forgets what was answered when its upload over HTTP/2 is cut short.
        let more = [&upload[..], &["--http1.1"]].concat();
        let (code, _, port) = transfer(&world, &url("v2/up"), &more);
        assert_eq!(code, "403");
        fields(
            &world.record(port),
            &json!({"verdict": "DENIED", "method": "PUT", "upstream_ip": null}),
        );
    }
    let asked = ["GET /v1/down/100000000", "PUT /v1/up"];
    let wanted =
        ["api.example", "old.example"].map(|host| asked.map(|one| format!("{one} {host}")));
    assert_eq!(world.asked(), wanted.as_flattened());
}
