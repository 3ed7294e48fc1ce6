//! The engine's API, without a client library between: the tests' own word on what it says.

use serde_json::Value;
use std::{io, net::TcpStream, os::unix::net::UnixStream, path::Path};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body if it is JSON, or else its text.
    pub body: Value,
}

/// Asks a unix socket.
pub fn ask(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> io::Result<Answer> {
    speak(UnixStream::connect(socket)?, method, path, body)
}

/// Posts to an address.
pub fn post(address: &str, path: &str, body: &Value) -> io::Result<Answer> {
    speak(TcpStream::connect(address)?, "POST", path, Some(body))
}

/// HTTP/1.0: the answer has no chunks and ends with the connection.
fn speak(
    mut stream: impl io::Read + io::Write,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> io::Result<Answer> {
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .unwrap_or(0);
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    Ok(Answer { status, body })
}
