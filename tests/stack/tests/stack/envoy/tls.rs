//! Requests over TLS, read in between.

use super::{AGENT, names, policy, send, settings};
use kernel_tests::{eventually, run::Bench};
use proxy::Settings;
use stack_tests::envoy::{Envoy, authority, render};
use std::{
    fs,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
};

/// A TLS server of openssl that tells what it was asked; it ends with the test.
struct Server(std::process::Child);

impl Server {
    fn start(dir: &Path, at: &str, name: &str) -> Self {
        let issued = ebpf_manager::ca::Authority::load(&dir.join("upstream-ca"))
            .unwrap()
            .issue(name, &jiff::Zoned::now())
            .unwrap();
        let (chain, key) = (dir.join(format!("{at}.pem")), dir.join(format!("{at}.key")));
        fs::write(&chain, issued.chain).unwrap();
        fs::write(&key, issued.key).unwrap();
        let child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "openssl",
                "s_server",
                "-quiet",
                "-www",
                "-accept",
                at,
                "-cert",
            ])
            .arg(chain)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the TLS server", || TcpStream::connect(at).ok());
        Self(child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const TLS: &str = "
rules:
  - { dst: tls.example, proto: https, name: by path, path_rules: [{ path: /v1/, methods: [GET] }] }
  - { dst: '*.wild.example', proto: https, name: wild }
  - { dst: wrong.example, proto: https }
  - { dst: unchecked.example, proto: https, insecure_skip_tls_verify: true }
";

/// Status of a request by curl, which connects to the listener whatever the name; 000 without an answer.
fn curl(dir: &Path, url: &str, more: &[&str]) -> String {
    let out = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "20",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_version} %{http_code}",
        ])
        .arg("--cacert")
        .arg(dir.join("ca/ca.pem"))
        .args(["--connect-to", "::192.0.2.1:10443", url])
        .args(more)
        .output()
        .expect("curl is installed");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn tls_is_read_and_the_name_must_be_the_one_that_was_greeted() {
    let bench = Bench::new();
    let _names = names();
    let dir = bench.path("envoy");
    fs::create_dir(&dir).unwrap();
    authority(&dir.join("upstream-ca"));
    let _servers = [
        Server::start(&dir, "203.0.113.9:443", "tls.example"),
        Server::start(&dir, "198.51.100.7:443", "*.wild.example"),
    ];
    let settings = Settings {
        intercept: true,
        upstream_ca: dir.join("upstream-ca/ca.pem").display().to_string(),
        ..settings(&dir)
    };
    render(
        &policy(TLS),
        &[&format!("acme/reviewer@{AGENT}")],
        &settings,
    );
    let _envoy = Envoy::start(&dir, &["192.0.2.1:10443"]);
    for (url, more, expected) in [
        ("https://tls.example/v1/x", &[][..], "2 200"),
        ("https://tls.example/v1/x", &["--http1.1"], "1.1 200"),
        ("https://tls.example/v1/x?q", &["--request", "PUT"], "2 403"),
        ("https://tls.example/v2", &[], "2 403"),
        ("https://tls.example/v1/../v2", &["--path-as-is"], "2 403"),
        ("https://tls.example/v1/..%2fv2", &["--path-as-is"], "2 400"),
        // Another host than the handshake named, allowed by itself or not.
        (
            "https://tls.example/v1/x",
            &["--header", "host: x.wild.example"],
            "2 403",
        ),
        (
            "https://x.wild.example/",
            &["--header", "host: tls.example"],
            "2 403",
        ),
        ("https://x.wild.example/", &[], "2 200"),
        (
            "https://x.wild.example/",
            &["--http1.1", "--header", "host: x.wild.example:443"],
            "1.1 200",
        ),
        (
            "https://x.wild.example/",
            &["--header", "host: y.wild.example"],
            "2 403",
        ),
        (
            "https://x.wild.example/",
            &["--header", "host: y.wild.example", "--http1.1"],
            "1.1 403",
        ),
        // Without a name in the handshake.
        (
            "https://203.0.113.9/v1/x",
            &["--insecure", "--header", "host: tls.example"],
            "2 403",
        ),
        (
            "https://203.0.113.9/",
            &["--insecure", "--header", "host: x.wild.example"],
            "2 403",
        ),
        // A name that nobody has a certificate for.
        ("https://other.example/", &[], "0 000"),
        // The server's certificate is not for this name.
        ("https://wrong.example/", &[], "2 503"),
        ("https://unchecked.example/", &[], "2 200"),
    ] {
        assert_eq!(curl(&dir, url, more), expected, "{url} {more:?}");
    }
    // In the clear there is nobody: the rules are for https.
    let (status, body) = send(
        "192.0.2.1:10443",
        "GET /v1/x HTTP/1.1\r\nhost: tls.example\r\n\r\n",
    );
    assert_eq!((status, body.as_str()), (0, ""));
}
