//! Speaking to a control socket without the program that is made for it.

use crate::{PATIENCE, eventually, run::Bench};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
};

/// A client that says what a test wants.
pub struct Client(BufReader<UnixStream>);

impl Bench {
    /// The control socket of a loader, once it is there.
    pub fn socket(&self, loader: u32) -> PathBuf {
        let path = self.control().join(format!("run-{loader}.sock"));
        eventually("the control socket", || path.exists().then_some(()));
        path
    }

    /// Connects to the control socket of a loader.
    pub fn client(&self, loader: u32) -> Client {
        let stream = UnixStream::connect(self.socket(loader)).expect("somebody listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Client(BufReader::new(stream))
    }

    /// A client that watches, and of which the data path knows already.
    pub fn watcher(&self, loader: u32) -> Client {
        let mut client = self.client(loader);
        client.say(b"{\"v\":1,\"watch\":{}}\n");
        while client.hear().is_some_and(|said| said.get("live").is_none()) {}
        client
    }
}

impl Client {
    /// Says something; it may be refused.
    pub fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.get_ref().write_all(bytes);
    }

    /// The next thing that is said; nothing at the end.
    pub fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Some(serde_json::from_str(&line).expect("one JSON object a line")),
            // Who said more than the server wanted to read is cut off.
            Ok(0) => None,
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(e) => panic!("{e}"),
        }
    }
}
