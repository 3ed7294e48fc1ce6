//! The asking side: one small request over a unix socket.

use super::{ERROR, PATH};
use crate::spool::State;
use serde_json::Value;
use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long the bridge may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer is longer.
const ANSWER_MOST: u64 = 4 << 20;

/// Why a running bridge says nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no bridge listens on {}: start it, or give its --socket", .0.display())]
    NotRunning(PathBuf),
    /// The socket may not be used, or the answer did not come.
    #[error("cannot ask the bridge on {}: {source}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot read its spool.
    #[error("the bridge on {} cannot tell: {said}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What it says.
        said: String,
    },
    /// Something else listens there.
    #[error("what listens on {} is no otlp-bridge of this version: {why}", path.display())]
    Foreign {
        /// The socket.
        path: PathBuf,
        /// What is wrong with its answer.
        why: String,
    },
}

/// Asks the bridge that listens on a socket for its state.
pub fn ask(socket: &Path) -> Result<State, AskError> {
    let path = || socket.to_owned();
    let answer = exchange(socket).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(path()),
        _ => AskError::Socket {
            path: path(),
            source,
        },
    })?;
    let foreign = |why: &str| AskError::Foreign {
        path: path(),
        why: why.to_owned(),
    };
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| foreign("it does not speak HTTP"))?;
    if head.split_ascii_whitespace().nth(1) != Some("200") {
        return Err(foreign("it does not know the question"));
    }
    let told: Value = serde_json::from_str(body).map_err(|e| foreign(&e.to_string()))?;
    match told.get(ERROR).and_then(Value::as_str) {
        Some(said) => Err(AskError::Failed {
            path: path(),
            said: said.chars().filter(|c| !c.is_control()).take(500).collect(),
        }),
        None => serde_json::from_value(told).map_err(|e| foreign(&e.to_string())),
    }
}

fn exchange(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // 1.0: the answer ends with the connection, and comes in one piece.
    write!(stream, "GET {PATH} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_MOST).read_to_string(&mut answer)?;
    Ok(answer)
}
