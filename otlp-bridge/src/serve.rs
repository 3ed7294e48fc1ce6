//! `serve`: the parts put together, from the first record to SIGTERM.

use crate::{
    cli::{EntranceArgs, ServeArgs, ToArgs},
    deliver::{self, Deliveries},
    entrance::{self, EntranceError},
    spool::{Bounds, Spool, SpoolError},
    status,
};
use std::{io, sync::Arc};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
};
use wire::{Endpoint, EndpointError, Options};

/// Why the bridge does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// See [`SpoolError`].
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// See [`EndpointError`].
    #[error("--to: {0}")]
    To(#[from] EndpointError),
    /// See [`EntranceError`].
    #[error(transparent)]
    Entrance(#[from] EntranceError),
    /// An entrance that has ended by itself.
    #[error("the entrance on {0} has ended: {1}")]
    Ended(String, io::Error),
    /// Threads or signals cannot be had.
    #[error("cannot start the bridge's threads: {0}")]
    Runtime(io::Error),
}

/// Runs until a signal, or until it cannot go on.
pub fn serve(args: &ServeArgs) -> Result<(), ServeError> {
    let endpoint = endpoint(&args.to)?;
    let bounds = Bounds {
        bytes: args.spool.max_bytes,
        age: args.spool.max_age,
    };
    let (stopped, stop) = oneshot::channel();
    let say = |e| drop(stopped.send(e));
    let spool = Arc::new(Spool::open(&args.spool.spool, bounds, say)?);
    tracing::info!(
        spool = %args.spool.spool.display(), to = endpoint.url(), "the bridge is running"
    );
    let runtime = Runtime::new().map_err(ServeError::Runtime)?;
    let ended = runtime.block_on(run(Arc::clone(&spool), endpoint, &args.entrances, stop));
    // What is under way at the entrances gets no answer, so its senders have it still.
    runtime.shutdown_background();
    let closed = spool.close();
    tracing::info!("the bridge has stopped");
    ended.and(closed.map_err(ServeError::Spool))
}

fn endpoint(to: &ToArgs) -> Result<Endpoint, EndpointError> {
    let options = Options {
        headers: to.header.clone(),
        ca: to.ca.clone(),
        identity: to.cert.clone().zip(to.key.clone()),
        timeout: to.timeout,
        ..Options::default()
    };
    Endpoint::new(&to.to, &options)
}

async fn run(
    spool: Arc<Spool>,
    endpoint: Endpoint,
    args: &EntranceArgs,
    stop: oneshot::Receiver<SpoolError>,
) -> Result<(), ServeError> {
    let term = |kind| signal(kind).map_err(ServeError::Runtime);
    let (mut terminate, mut interrupt) = (
        term(SignalKind::terminate())?,
        term(SignalKind::interrupt())?,
    );
    let deliveries = Deliveries::default();
    let mut entrances = entrances(args, &spool, &deliveries)?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Ok(e) = stop => Err(e.into()),
        () = deliver::start(spool, endpoint, deliveries) => Ok(()),
        Some(ended) = entrances.join_next() => match ended {
            Ok(ended) => ended,
            Err(e) => Err(ServeError::Runtime(io::Error::other(e))),
        },
    }
}

/// Opens every entrance. They hand what they take to the spool, as its `Keeper`.
fn entrances(
    args: &EntranceArgs,
    spool: &Arc<Spool>,
    deliveries: &Deliveries,
) -> Result<JoinSet<Result<(), ServeError>>, ServeError> {
    let mut entrances = JoinSet::new();
    let listener = entrance::listen(&args.socket)?;
    let router = status::router(Arc::clone(spool), deliveries.clone());
    let name = args.socket.display().to_string();
    entrances.spawn(async move {
        let ended = entrance::serve(listener, router).await;
        ended.map_err(|e| ServeError::Ended(name, e))
    });
    Ok(entrances)
}
