//! Where a collector sends what it has taken: it keeps every request in memory, answers when it has, and
//! can be slow or away.

use kernel_tests::collector::{Received, records_of};
use serde_json::Value;
use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// Where it listens, in the test's own network namespace.
pub const AT: &str = "192.0.2.1:4399";

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// At once.
    Well,
    /// After a while.
    Slow,
    /// Not at all: connections are closed.
    Away,
}

/// A receiver of OTLP/HTTP in JSON.
pub struct Sink {
    requests: Arc<Mutex<Vec<Value>>>,
    mood: Arc<Mutex<Mood>>,
}

impl Sink {
    /// Starts it. It ends with the test.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind(AT).expect("nobody else listens there");
        let sink = Self {
            requests: Arc::default(),
            mood: Arc::new(Mutex::new(Mood::Well)),
        };
        let (requests, mood) = (Arc::clone(&sink.requests), Arc::clone(&sink.mood));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, mood) = (Arc::clone(&requests), Arc::clone(&mood));
                // A connection that breaks is the collector's, which was killed.
                thread::spawn(move || drop(serve(&stream, &requests, &mood)));
            }
        });
        sink
    }

    /// From now on.
    pub fn be(&self, mood: Mood) {
        *self.mood.lock().expect("no thread has panicked") = mood;
    }

    /// Every record so far, copies included.
    #[must_use]
    pub fn records(&self) -> Vec<Received> {
        let requests = self.requests.lock().expect("no thread has panicked");
        requests.iter().flat_map(records_of).collect()
    }
}

fn serve(stream: &TcpStream, requests: &Mutex<Vec<Value>>, mood: &Mutex<Mood>) -> io::Result<()> {
    let mut from = BufReader::new(stream);
    let mut to = stream;
    loop {
        let Some(body) = request(&mut from)? else {
            return Ok(());
        };
        let now = *mood.lock().expect("no thread has panicked");
        match now {
            Mood::Away => return Ok(()),
            Mood::Slow => dawdle(),
            Mood::Well => {}
        }
        let body = serde_json::from_slice(&body)?;
        requests.lock().expect("no thread has panicked").push(body);
        to.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        )?;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an answer that is late is what is modelled, there is nothing to wait for"
)]
fn dawdle() {
    thread::sleep(Duration::from_millis(300));
}

/// The body of the next request; none when there is no other.
fn request(from: &mut BufReader<&TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(Some(body))
}
