//! The client, in a process of its own: it is what runs under the firewall.

use crate::at;
use kernel_tests::peer;
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
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

fn connect(to: &str) -> TcpStream {
    let stream = TcpStream::connect(to).expect("somebody listens");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// Sends a request for a target, and hears its answer, of so many bytes of body where that is known.
fn ask(stream: &mut TcpStream, target: &str, body: Option<usize>) {
    let text = format!("GET {target} HTTP/1.1\r\nhost: 203.0.113.9\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("it is open");
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

/// Prints [`VALUES`], a line each.
pub(crate) fn run(to: &str) {
    let one = |_| {
        let mut stream = None;
        let took = timed(|| ask(stream.insert(connect(to)), "/v1/x", None));
        // So that no port waits for its end.
        peer::reset(stream.expect("it was connected"));
        took
    };
    quantiles((0..REQUESTS).map(one).collect());
    let mut kept = connect(to);
    quantiles(
        (0..REQUESTS)
            .map(|_| timed(|| ask(&mut kept, "/v1/x", None)))
            .collect(),
    );
    let took = timed(|| ask(&mut kept, &format!("/v1/down/{BYTES}"), Some(BYTES)));
    println!("{}", BYTES as f64 / took);
}
