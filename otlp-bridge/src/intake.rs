//! The entrances: a unix socket for the loader, OTLP over gRPC and HTTP for the collector's intake. A
//! request of logs is acknowledged when its records are on the disk, one of metrics when whoever gets them
//! has acknowledged them; until then the sender holds it.
//!
//! ```text
//! connection ─▶ read within bounds ─▶ wait for the leases ─▶ stamp ─▶ Keeper::keep ─▶ answer
//! ```

mod book;
mod clock;
mod counters;
mod door;
mod listen;
mod refused;
mod routes;
mod socket;
mod speech;

pub use clock::boot_id;
pub use counters::{Counters, Counts};

use crate::{
    incoming::Keeper,
    stamp::{Entrance, Limits},
};
use book::Book;
use door::{Door, House};
use lease::{BootId, BootIdError, Follower, Leases};
use listen::Hall;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use wire::{Client, Endpoint};

/// Why nothing comes in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The file system resists.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("another bridge listens on {}: stop it, or choose another socket", .0.display())]
    Busy(PathBuf),
    /// Something else is there.
    #[error("{} is not a socket and is left alone: choose another place", .0.display())]
    NotASocket(PathBuf),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel does not say which boot this is.
    #[error("cannot tell which boot this is: {0}")]
    Boot(BootIdError),
}

/// How much may be in hand at a time, at each of the two entrances. Together with the limits of the stamper
/// this bounds memory: an entrance takes at most `reading` × 2 `body_bytes` + `waiting_bytes` + `keeping` ×
/// [`Limits::output_bytes`], 1 MiB a connection, and some 100 × `json_bytes` while JSON is taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a request, uncompressed.
    pub body_bytes: usize,
    /// Bytes of a request in JSON. One at a time is taken apart.
    pub json_bytes: usize,
    /// Requests that are being read.
    pub reading: usize,
    /// Bytes of requests that were read and wait for leases or for the disk; not less than `body_bytes`.
    pub waiting_bytes: usize,
    /// Requests that are being stamped and kept.
    pub keeping: usize,
    /// Connections.
    pub connections: usize,
    /// How long reading a request may take, and waiting for a turn.
    pub read_time: Duration,
    /// How long a request waits for leases that are as new as its records.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            json_bytes: 1 << 20,
            reading: 8,
            waiting_bytes: 64 << 20,
            keeping: 8,
            connections: 64,
            read_time: Duration::from_secs(10),
            patience: Duration::from_secs(3),
        }
    }
}

/// Where to listen, and whom to believe.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The loader's socket.
    pub socket: PathBuf,
    /// The group of that socket, besides its owner; its members must be root all the same.
    pub group: Option<u32>,
    /// Where the collector connects to.
    pub listen: Vec<SocketAddr>,
    /// The lease file.
    pub leases: PathBuf,
    /// The boot that this is, see [`boot_id`].
    pub boot: BootId,
    /// Where metrics go ([`Endpoint::for_metrics`]); without it they are refused.
    pub metrics: Option<Endpoint>,
    /// Bounds of requests.
    pub limits: Limits,
    /// Bounds of everything at a time.
    pub bounds: Bounds,
}

/// What the rest of the program has to say on `GET /v1/status`. May block.
pub type Status = Arc<dyn Fn() -> serde_json::Map<String, serde_json::Value> + Send + Sync>;

/// Entrances that are open. Dropping it closes them in the middle of whatever is going on.
#[derive(Debug)]
pub struct Intake {
    addresses: Vec<SocketAddr>,
    counters: Arc<Counters>,
    book: Arc<Book>,
    stop: watch::Sender<bool>,
    accepting: JoinSet<()>,
    following: JoinSet<()>,
}

/// Opens the entrances. Must be called inside a tokio runtime.
pub async fn open<K: Keeper>(
    settings: Settings,
    keeper: Arc<K>,
    status: Status,
) -> Result<Intake, IntakeError> {
    let book = Arc::new(Book::new(Leases::new(settings.boot.clone())));
    let mut follower = Follower::new(&settings.leases, settings.boot);
    let mut bad = false;
    // Before the first request: its identity must not depend on luck.
    book::look(&book, &mut follower, &mut bad);
    let counters = Arc::new(Counters::default());
    let unix = listen::unix(&settings.socket, settings.group, Arc::clone(&counters))?;
    let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
    for address in &settings.listen {
        let (listener, address) = listen::tcp(*address).await?;
        listeners.push(listener);
        addresses.push(address);
    }
    let house = Arc::new(House {
        keeper,
        book: Arc::clone(&book),
        counters: Arc::clone(&counters),
        limits: settings.limits,
        bounds: settings.bounds,
        series: Mutex::default(),
        metrics: settings.metrics.as_ref().map(Client::new),
    });
    let (stop, stopped) = watch::channel(false);
    let hall = |router| Hall {
        router,
        room: Arc::new(Semaphore::new(settings.bounds.connections)),
        stop: stopped.clone(),
    };
    let mut accepting = JoinSet::new();
    let loader = Arc::new(Door::new(Arc::clone(&house), Entrance::Loader));
    let loader = hall(routes::loader(loader, status));
    accepting.spawn(unix.accept(loader));
    let collector = Arc::new(Door::new(house, Entrance::Collector));
    let collector = hall(routes::collector(collector));
    for listener in listeners {
        accepting.spawn(listener.accept(collector.clone()));
    }
    let mut following = JoinSet::new();
    following.spawn(book::follow(Arc::clone(&book), follower, bad));
    Ok(Intake {
        book,
        addresses,
        counters,
        stop,
        accepting,
        following,
    })
}

impl Intake {
    /// The addresses that the collector can connect to.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What has come in so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// How old the leases are that records are stamped by.
    #[must_use]
    pub fn leases_age(&self) -> Duration {
        self.book.age()
    }

    /// Takes no connection any more, and waits for the requests that are under way: each is answered, or
    /// given up after some seconds.
    pub async fn close(mut self) {
        self.stop.send_replace(true);
        while self.accepting.join_next().await.is_some() {}
        // Every connection holds a receiver.
        self.stop.closed().await;
        self.following.shutdown().await;
    }
}
