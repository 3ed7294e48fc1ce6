use super::*;
use proptest::prelude::*;

fn tcp(host: &str, port: u16) -> Address {
    Address::Tcp {
        host: host.to_owned(),
        port,
    }
}

#[test]
fn the_four_forms_of_a_url() {
    let http = |path| Protocol::Http(PathAndQuery::from_static(path));
    for (url, protocol, address, tls, origin) in [
        (
            "http://collector:4317",
            Protocol::Grpc,
            tcp("collector", 4317),
            false,
            "http://collector:4317/",
        ),
        (
            "http://192.0.2.1:4317/",
            Protocol::Grpc,
            tcp("192.0.2.1", 4317),
            false,
            "http://192.0.2.1:4317/",
        ),
        (
            "https://[2001:db8::1]:443",
            Protocol::Grpc,
            tcp("2001:db8::1", 443),
            true,
            "https://[2001:db8::1]:443/",
        ),
        (
            "http://collector:4318/v1/logs",
            http("/v1/logs"),
            tcp("collector", 4318),
            false,
            "http://collector:4318/",
        ),
        (
            "https://c.example:443/otlp/v1/logs",
            http("/otlp/v1/logs"),
            tcp("c.example", 443),
            true,
            "https://c.example:443/",
        ),
        (
            "unix:///run/otel/otlp.sock",
            Protocol::Grpc,
            Address::Unix("/run/otel/otlp.sock".into()),
            false,
            "http://localhost/",
        ),
    ] {
        let parsed = parse(url).unwrap();
        assert_eq!(
            (parsed.protocol, parsed.address, parsed.tls),
            (protocol, address, tls),
            "{url}"
        );
        assert_eq!(parsed.origin.to_string(), origin);
    }
}

#[test]
fn everything_else_is_refused_with_the_forms_there_are() {
    for url in [
        "",
        "collector:4317",
        "grpc://collector:4317",
        "http://collector",
        "http://collector:0",
        "http://collector:99999",
        "http://:4317",
        "http://user:secret@collector:4317",
        "http://collector:4318/v1/logs?key=x",
        "http://collector:4318/v1/logs#x",
        "unix://run/otel.sock",
        "unix:///",
        "unix:/run/otel.sock",
        "http://collector:4317 ",
    ] {
        let e = Endpoint::new(url, &Options::default()).unwrap_err();
        let said = e.to_string();
        assert!(matches!(e, EndpointError::Url { .. }), "{url}: {said}");
        assert!(
            said.contains("unix:///PATH") && said.contains("/v1/logs"),
            "{said}"
        );
    }
}

#[test]
fn headers_of_the_protocol_and_impossible_values_are_refused_without_showing_values() {
    let one = |name: &str, value: &str| headers(&[(name.to_owned(), value.to_owned())]);
    assert_eq!(
        one("Authorization", "Bearer abc").unwrap()["authorization"],
        "Bearer abc"
    );
    assert!(one("authorization", "x").unwrap()["authorization"].is_sensitive());
    for name in [
        "content-type",
        "TE",
        "grpc-timeout",
        "x-bin",
        "host",
        "a b",
        "",
        "ä",
    ] {
        assert!(one(name, "x").is_err(), "{name}");
    }
    let said = one("authorization", "secret\n").unwrap_err().to_string();
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn certificates_are_for_https_and_must_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let with = |ca: &Path| Options {
        ca: Some(ca.to_owned()),
        ..Options::default()
    };
    for url in ["http://c:4317", "unix:///run/c.sock"] {
        let e = Endpoint::new(url, &with(&empty)).unwrap_err();
        assert!(matches!(e, EndpointError::Plain(_)), "{e}");
    }
    let e = Endpoint::new("https://c:4317", &with(&empty)).unwrap_err();
    assert!(matches!(e, EndpointError::Pem { .. }), "{e}");
    let e = Endpoint::new("https://c:4317", &with(Path::new("/no/such/file"))).unwrap_err();
    assert!(
        matches!(e, EndpointError::Read { .. }) && e.to_string().contains("/no/such/file"),
        "{e}"
    );
}

proptest! {
    #[test]
    fn no_url_makes_it_panic(url in "(http|https|unix)?(://)?[\\[\\]a-z0-9:./?#@ %-]{0,40}") {
        let _ = parse(&url);
    }
}
