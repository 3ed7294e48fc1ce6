//! A client of HTTP/1.1 that sends what it is told.

use kernel_tests::PATIENCE;
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// Connects to somebody who listens.
#[must_use]
#[track_caller]
pub fn connect(to: &str) -> TcpStream {
    let stream = TcpStream::connect(to).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Status and body of the answer to what is sent as it is; 0 where the connection is closed.
pub fn ask(io: &mut (impl Read + Write), text: &str) -> (u16, String) {
    // Whoever refuses may have closed before all of it was sent.
    let _ = io.write_all(text.as_bytes()).and_then(|()| io.flush());
    answer(io)
}

/// Status and body of the next answer; 0 where the connection is closed.
pub fn answer(io: &mut impl Read) -> (u16, String) {
    let answer = heard(io);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

/// The next answer as it comes; empty where the connection is closed.
pub fn heard(io: &mut impl Read) -> String {
    let mut answer = String::new();
    let mut bytes = [0; 4096];
    // Until the whole answer is there; a connection that is closed or reset is an answer, too.
    while let Ok(n @ 1..) = io.read(&mut bytes) {
        answer.push_str(&String::from_utf8_lossy(&bytes[..n]));
        if whole(&answer) {
            break;
        }
    }
    answer
}

/// Whether an answer has all of its body.
fn whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return false;
    };
    if head.starts_with("HTTP/1.1 101 ") {
        return true;
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.is_some_and(|length| length.parse() == Ok(body.len()))
}
