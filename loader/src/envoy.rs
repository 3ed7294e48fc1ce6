//! What Envoy says of its configuration, over the socket that its bootstrap opens for that. A unix socket: the
//! loader has no other.

use crate::export::runtime;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, Error as HttpError},
    rt::TokioExecutor,
};
use hyperlocal::UnixConnector;
use serde::Deserialize;
use std::{
    cell::Cell,
    error::Error,
    io,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How long Envoy may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one may that has not answered the last time: whoever asks has other things to do.
const SHORT: Duration = Duration::from_millis(100);
/// The longest answer that is read, bytes: the largest is a refused listener, told twice. It is Envoy's to say, and must
/// not fill the memory of whoever asks.
const LONGEST: usize = 32 << 20;

/// Why Envoy has said nothing.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyError {
    /// It is not there, or not yet.
    #[error("cannot ask Envoy at {}: {source}", socket.display())]
    Away {
        /// The socket.
        socket: PathBuf,
        /// What the request failed of.
        source: HttpError,
    },
    /// It broke off.
    #[error("Envoy at {} broke off: {source}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What reading failed of.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It takes too long.
    #[error("Envoy at {} does not answer", socket.display())]
    Slow {
        /// The socket.
        socket: PathBuf,
    },
    /// There is nothing to ask it with.
    #[error("cannot ask Envoy: {0}")]
    Runtime(io::Error),
    /// It is no Envoy of ours.
    #[error("what Envoy says of its configuration is not understood: {0}")]
    Unknown(&'static str),
}

/// Envoy, by its socket.
#[derive(Clone, Debug)]
pub struct Envoy {
    socket: PathBuf,
    /// It has not answered the last time.
    slow: Cell<bool>,
}

/// Of Envoy's listeners what is read; the rest is large.
#[derive(Deserialize)]
struct Dump {
    #[serde(default)]
    configs: Vec<Listener>,
}

#[derive(Deserialize)]
struct Listener {
    error_state: Option<ErrorState>,
}

#[derive(Deserialize)]
struct ErrorState {
    details: Option<String>,
}

/// What it works with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Versions of the listeners and of the clusters that it has taken last; empty before the first.
    pub versions: [String; 2],
    /// How often it has refused either.
    pub refused: u64,
    /// Listeners that it has taken and does not use yet.
    pub warming: u64,
}

impl State {
    /// Whether it works with a version of both.
    #[must_use]
    pub fn has(&self, version: &str) -> bool {
        self.warming == 0 && self.versions.iter().all(|v| v == version)
    }
}

impl Envoy {
    /// One that may be there.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            slow: Cell::new(false),
        }
    }

    /// Asks it what it works with.
    pub fn state(&self) -> Result<State, EnvoyError> {
        let said = self.get(
            "/stats?type=All&filter=%5E(listener_manager%5C.(lds%5C.(version_text%7Cupdate_rejected)%7Ctotal_listeners_warming)%7Ccluster_manager%5C.cds%5C.(version_text%7Cupdate_rejected))%24",
        )?;
        read_state(&String::from_utf8_lossy(&said))
    }

    /// Why it refused what it was given last; nothing if it does not say.
    pub fn complaint(&self) -> Result<Option<String>, EnvoyError> {
        let said = self.get("/config_dump?resource=dynamic_listeners")?;
        let told: Dump =
            serde_json::from_slice(&said).map_err(|_| EnvoyError::Unknown("its listeners"))?;
        let mut complaints = told.configs.into_iter().filter_map(|one| one.error_state);
        Ok(complaints.find_map(|state| state.details))
    }

    fn get(&self, path: &str) -> Result<Vec<u8>, EnvoyError> {
        let patience = if self.slow.get() { SHORT } else { PATIENCE };
        let socket = &self.socket;
        let asks = || -> io::Result<_> {
            let asked = async { tokio::time::timeout(patience, ask(socket, path)).await };
            Ok(runtime()?.block_on(asked))
        };
        // A thread of its own: the runtime's blocks SIGPIPE, which is the others' to have.
        let asked = thread::scope(|s| {
            thread::Builder::new()
                .spawn_scoped(s, asks)?
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        });
        let asked = asked.map_err(EnvoyError::Runtime)?;
        self.slow.set(asked.is_err());
        asked.unwrap_or_else(|_| {
            Err(EnvoyError::Slow {
                socket: self.socket.clone(),
            })
        })
    }
}

async fn ask(socket: &Path, path: &str) -> Result<Vec<u8>, EnvoyError> {
    let client: Client<_, Empty<&[u8]>> =
        Client::builder(TokioExecutor::new()).build(UnixConnector);
    let answer = client.get(hyperlocal::Uri::new(socket, path).into());
    let answer = answer.await.map_err(|source| EnvoyError::Away {
        socket: socket.to_owned(),
        source,
    })?;
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    let body = body.map_err(|source| EnvoyError::Broken {
        socket: socket.to_owned(),
        source,
    })?;
    Ok(body.to_bytes().into())
}

/// `name: value` lines; texts are quoted.
fn read_state(said: &str) -> Result<State, EnvoyError> {
    let value = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(n, _)| *n == name).map(|(_, v)| v.trim())
    };
    let number = |name| value(name).and_then(|v| v.parse::<u64>().ok());
    // Not there before the first.
    let text = |name| value(name).map_or(String::new(), |v| v.trim_matches('"').to_owned());
    let (Some(listeners), Some(clusters), Some(warming)) = (
        number("listener_manager.lds.update_rejected"),
        number("cluster_manager.cds.update_rejected"),
        number("listener_manager.total_listeners_warming"),
    ) else {
        return Err(EnvoyError::Unknown("its counters"));
    };
    Ok(State {
        versions: [
            text("listener_manager.lds.version_text"),
            text("cluster_manager.cds.version_text"),
        ],
        refused: listeners + clusters,
        warming,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_works_with_is_read() {
        let said = "cluster_manager.cds.version_text: \"7\"\nlistener_manager.lds.version_text: \"7\"\n\
                    cluster_manager.cds.update_rejected: 1\nlistener_manager.lds.update_rejected: 2\n\
                    listener_manager.total_listeners_warming: 0\n";
        let state = read_state(said).unwrap();
        assert_eq!(state.refused, 3);
        assert!(state.has("7") && !state.has("6"));
        assert!(
            !read_state(&said.replace("warming: 0", "warming: 1"))
                .unwrap()
                .has("7")
        );
        assert!(read_state("Not Found").is_err());
    }

    #[test]
    fn who_is_not_there_is_named() {
        let e = Envoy::at(Path::new("/nowhere/admin.sock"))
            .state()
            .unwrap_err();
        assert!(
            e.to_string()
                .starts_with("cannot ask Envoy at /nowhere/admin.sock"),
            "{e}"
        );
    }
}
