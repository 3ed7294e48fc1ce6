//! The client, in a process of its own: it is what runs under the firewall.

use crate::at;
use kernel_tests::peer;
use stack_tests::greeting::{Greeting, Tls};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Instant,
};

/// What makes this program the client.
pub(crate) const WORD: &str = "client";
/// Requests of each kind.
const REQUESTS: usize = 2000;
/// Bytes of the download.
const BYTES: usize = 300_000_000;
/// Values that it prints, in order.
pub(crate) const VALUES: [&str; 5] = [
    "a request on a new connection, p50, µs",
    "the same, p99, µs",
    "a request on a kept connection, p50, µs",
    "the same, p99, µs",
    "a download, MB/s",
];

/// A connection, over TLS where the server has a name.
enum Link {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Link {
    fn to(server: SocketAddr, name: Option<&str>) -> Self {
        let stream = TcpStream::connect(server).expect("somebody listens");
        stream.set_nodelay(true).expect("a socket");
        let Some(name) = name else {
            return Self::Plain(stream);
        };
        let greeting = Greeting {
            name: Some(name),
            ech: None,
            alpn: &["http/1.1"],
            ca: None,
        };
        Self::Tls(Box::new(greeting.over(stream).expect("a greeting")))
    }

    /// So that no port waits for its end.
    fn reset(self) {
        peer::reset(match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => tls.sock,
        });
    }

    fn ask(&mut self, name: Option<&str>, target: &str, body: Option<usize>) {
        match self {
            Self::Plain(stream) => ask(stream, name, target, body),
            Self::Tls(tls) => ask(tls, name, target, body),
        }
    }
}

/// Sends a request for a target, and hears its answer, of so many bytes of body where that is known.
fn ask(stream: &mut (impl Read + Write), name: Option<&str>, target: &str, body: Option<usize>) {
    let host = name.unwrap_or("203.0.113.9");
    let text = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("it is open");
    stream.flush().expect("it is open");
    let mut bytes = vec![0; 1 << 18];
    let mut head = Vec::new();
    let start = loop {
        let n = stream.read(&mut bytes).expect("an answer");
        assert_ne!(n, 0, "the connection was closed");
        head.extend_from_slice(&bytes[..n]);
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    assert!(
        head.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    // An answer of one line comes in one piece with its head.
    let mut left = body.unwrap_or(0).saturating_sub(head.len() - start);
    while left > 0 {
        let n = stream.read(&mut bytes).expect("an answer");
        assert_ne!(n, 0, "the connection was closed");
        left -= n;
    }
}

fn quantiles(mut all: Vec<f64>) {
    all.sort_by(f64::total_cmp);
    println!("{}\n{}", at(&all, 0.5), at(&all, 0.99));
}

fn timed(mut what: impl FnMut()) -> f64 {
    let began = Instant::now();
    what();
    began.elapsed().as_secs_f64() * 1e6
}

/// Prints [`VALUES`], a line each. The server's address is looked up once.
pub(crate) fn run(to: &str, name: Option<&str>) {
    let mut found = to.to_socket_addrs().expect("it can be looked up");
    let to = found.next().expect("an address");
    let one = |_| {
        let mut link = None;
        let took = timed(|| link.insert(Link::to(to, name)).ask(name, "/v1/x", None));
        link.expect("it was connected").reset();
        took
    };
    quantiles((0..REQUESTS).map(one).collect());
    let mut kept = Link::to(to, name);
    quantiles(
        (0..REQUESTS)
            .map(|_| timed(|| kept.ask(name, "/v1/x", None)))
            .collect(),
    );
    let took = timed(|| kept.ask(name, &format!("/v1/down/{BYTES}"), Some(BYTES)));
    println!("{}", BYTES as f64 / took);
}
