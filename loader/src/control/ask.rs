//! Giving an order to a loader, and waiting for its answer.

use super::{Message, Request, place};
use crate::bypass::Done;
use nix::errno::Errno;
use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long to wait for an answer: longer than the loader lets itself be waited for.
const PATIENCE: Duration = Duration::from_secs(7);
/// Longest answer.
const MAX_ANSWER: u64 = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens.
    #[error("nobody listens on its control socket")]
    Absent,
    /// Its socket is for others.
    #[error("its control socket is for root and another group")]
    Denied,
    /// Somebody else's.
    #[error("its control socket is not served by root")]
    Foreign,
    /// The answer does not come.
    #[error("its loader does not answer: {0}")]
    Mute(io::Error),
    /// The loader will not.
    #[error("{0}")]
    Refused(String),
}

/// Gives an order to the loader of an instance.
pub fn ask(dir: &Path, instance: &str, request: &Request) -> Result<Done, AskError> {
    let stream = match place::connect_to(&place::socket_path(dir, instance)) {
        Ok(stream) => stream,
        Err(Errno::EACCES | Errno::EPERM) => return Err(AskError::Denied),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Err(AskError::Absent),
        Err(e) => return Err(AskError::Mute(e.into())),
    };
    if !place::is_connected_to_root(&stream) {
        return Err(AskError::Foreign);
    }
    converse(stream, request)
}

fn converse(mut stream: UnixStream, request: &Request) -> Result<Done, AskError> {
    let ready = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)));
    ready.map_err(AskError::Mute)?;
    // Who is refused cannot send, but can read why.
    let _ = stream.write_all(request.line().as_bytes());
    let mut line = String::new();
    let read = BufReader::new((&stream).take(MAX_ANSWER)).read_line(&mut line);
    read.map_err(AskError::Mute)?;
    match Message::parse(line.trim_end()) {
        Ok(Message::Done(done)) => Ok(done),
        Ok(Message::Error(why)) => Err(AskError::Refused(why)),
        _ => Err(AskError::Mute(io::ErrorKind::UnexpectedEof.into())),
    }
}
