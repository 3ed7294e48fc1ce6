//! Connections: accepted, bounded in number, and ended in good order.

use super::{Counters, IntakeError, socket};
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use nix::unistd::geteuid;
use std::{
    io::{self, Cursor},
    net::SocketAddr,
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

/// How every HTTP/2 connection begins.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long the beginning of a connection, and of a request, may take.
const BEGINNING: Duration = Duration::from_secs(10);
/// How long connections have to end when the program does.
const ENDING: Duration = Duration::from_secs(5);
/// Accepting fails when there are no descriptors: it is no use to try at once again.
const PAUSE: Duration = Duration::from_millis(100);
/// Requests at a time on a connection.
const STREAMS: u32 = 64;
/// Bytes of the headers of a request.
const HEADERS: u32 = 16 << 10;
/// Bytes on their way on a stream, and on a connection.
const WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Whether somebody is still there, on HTTP/2.
const PING: Duration = Duration::from_secs(30);

/// What connections of one socket share.
#[derive(Clone)]
pub(super) struct Hall {
    pub(super) router: Router,
    pub(super) room: Arc<Semaphore>,
    pub(super) stop: watch::Receiver<bool>,
}

/// Something to accept connections from.
pub(super) enum Listener {
    /// The loader's socket. Only root and our own user get in.
    Unix {
        listener: UnixListener,
        /// Its name goes when we go.
        _place: socket::Place,
        counters: Arc<Counters>,
    },
    /// A socket of the collector.
    Tcp(TcpListener),
}

impl Listener {
    /// Accepts connections until it is time to stop.
    pub(super) async fn accept(self, hall: Hall) {
        let mut stop = hall.stop.clone();
        let all = async {
            // Nobody closes it.
            while let Ok(permit) = Arc::clone(&hall.room).acquire_owned().await {
                if let Err(e) = self.one(&hall, permit).await {
                    debug!("cannot accept a connection: {e}");
                    sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = all => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    async fn one(&self, hall: &Hall, permit: OwnedSemaphorePermit) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (read, write) = stream.into_split();
                hall.open(permit, read, write);
            }
            Self::Unix {
                listener, counters, ..
            } => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                if uid == 0 || uid == geteuid().as_raw() {
                    let (read, write) = stream.into_split();
                    hall.open(permit, read, write);
                } else {
                    counters.change(|counts| counts.strangers += 1);
                    debug!("refused a connection of user {uid}");
                }
            }
        }
        Ok(())
    }
}

impl Hall {
    fn open<R, W>(&self, permit: OwnedSemaphorePermit, read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let hall = self.clone();
        tokio::spawn(async move {
            hall.serve(read, write).await;
            drop(permit);
        });
    }

    async fn serve<R, W>(mut self, mut read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(Ok(first)) = timeout(BEGINNING, beginning(&mut read)).await else {
            return;
        };
        let io = TokioIo::new(join(Cursor::new(first).chain(read), write));
        let builder = builder();
        let service = TowerToHyperService::new(self.router);
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(e) = ended {
                    debug!("a connection broke: {e}");
                }
                return;
            }
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        if timeout(ENDING, connection).await.is_err() {
            warn!("a request was given up unanswered: its sender has to send it again");
        }
    }
}

/// As much as it takes to tell HTTP/2 from HTTP/1: hyper would wait for that without end.
async fn beginning(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let left = (PREFACE.len() - first.len()) as u64;
        if read.take(left).read_buf(&mut first).await? == 0 {
            break;
        }
    }
    Ok(first)
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(BEGINNING)
        .max_buf_size(HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING)
        .keep_alive_timeout(BEGINNING);
    builder
}

/// Listens on the loader's socket.
pub(super) fn unix(
    path: &Path,
    group: Option<u32>,
    counters: Arc<Counters>,
) -> Result<Listener, IntakeError> {
    let (listener, place) = socket::bind(path, group)?;
    let listener = UnixListener::from_std(listener).map_err(|source| IntakeError::Io {
        what: "use socket",
        path: path.to_owned(),
        source,
    })?;
    Ok(Listener::Unix {
        listener,
        _place: place,
        counters,
    })
}

/// Listens on an address; which one that is if the port was left open.
pub(super) async fn tcp(address: SocketAddr) -> Result<(Listener, SocketAddr), IntakeError> {
    let failed = |source| IntakeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((Listener::Tcp(listener), address))
}
