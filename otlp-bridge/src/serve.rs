//! `serve`: the parts put together, from the first record to SIGTERM.

use crate::{
    cli::{EntranceArgs, ServeArgs, ToArgs},
    deliver::{self, Deliveries},
    intake::{self, Intake, IntakeError, Settings, Status},
    spool::{Bounds, Spool, SpoolError},
    stamp::Limits,
    status, telemetry,
};
use serde_json::{Map, Value};
use std::{fs, io, sync::Arc};
use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    task::{JoinSet, spawn_blocking},
};
use wire::{Endpoint, EndpointError, Options, Outlet};

/// Why the bridge does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// See [`SpoolError`].
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// See [`EndpointError`].
    #[error("--to: {0}")]
    To(#[from] EndpointError),
    /// See [`EndpointError`].
    #[error("--metrics-to: {0}")]
    MetricsTo(EndpointError),
    /// See [`IntakeError`].
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// Threads or signals cannot be had.
    #[error("cannot start the bridge's threads: {0}")]
    Runtime(io::Error),
}

/// Runs until a signal, or until it cannot go on. `log` is what the bridge says about itself.
pub fn serve(args: &ServeArgs, log: Outlet) -> Result<(), ServeError> {
    let endpoint = endpoint(&args.to, &args.to.to)?;
    let metrics = metrics(&args.to, &endpoint)?;
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
    let parts = Parts {
        spool: Arc::clone(&spool),
        deliveries: Deliveries::default(),
        endpoint,
        metrics,
        log,
    };
    let ended = runtime.block_on(parts.run(&args.entrances, stop));
    // What is under way at the entrances gets no answer, so its senders have it still.
    runtime.shutdown_background();
    let closed = spool.close();
    tracing::info!("the bridge has stopped");
    ended.and(closed.map_err(ServeError::Spool))
}

fn endpoint(to: &ToArgs, url: &str) -> Result<Endpoint, EndpointError> {
    let options = Options {
        headers: to.header.clone(),
        ca: to.ca.clone(),
        identity: to.cert.clone().zip(to.key.clone()),
        timeout: to.timeout,
        ..Options::default()
    };
    Endpoint::new(url, &options)
}

/// Where metrics go; nothing when the URL for records does not tell.
fn metrics(to: &ToArgs, records: &Endpoint) -> Result<Option<Endpoint>, ServeError> {
    match &to.metrics_to {
        None => Ok(records.for_metrics()),
        // A path given for metrics is meant; without one gRPC has one of its own for each.
        Some(url) => endpoint(to, &url.replace("/v1/metrics", "/v1/logs"))
            .map(|e| e.for_metrics())
            .map_err(ServeError::MetricsTo),
    }
}

/// What runs side by side.
struct Parts {
    spool: Arc<Spool>,
    deliveries: Deliveries,
    endpoint: Endpoint,
    metrics: Option<Endpoint>,
    log: Outlet,
}

impl Parts {
    async fn run(
        self,
        args: &EntranceArgs,
        stop: oneshot::Receiver<SpoolError>,
    ) -> Result<(), ServeError> {
        let term = |kind| signal(kind).map_err(ServeError::Runtime);
        let (mut terminate, mut interrupt) = (
            term(SignalKind::terminate())?,
            term(SignalKind::interrupt())?,
        );
        let hangup = term(SignalKind::hangup())?;
        let intake = Arc::new(self.open(args).await?);
        let mut own = JoinSet::new();
        own.spawn(try_again(Arc::clone(&self.spool), hangup));
        let unsent = self.log.unsent();
        own.spawn(telemetry::log(self.log, Arc::clone(&self.spool)));
        if let Some(to) = self.metrics {
            let (spool, intake) = (Arc::clone(&self.spool), Arc::clone(&intake));
            own.spawn(telemetry::metrics(spool, intake, unsent, to));
        }
        let ended = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            Ok(e) = stop => Err(e.into()),
            () = deliver::start(self.spool, self.endpoint, self.deliveries) => Ok(()),
        };
        own.shutdown().await;
        if let Some(intake) = Arc::into_inner(intake) {
            intake.close().await;
        }
        ended
    }

    /// Opens the entrances. They hand what they take to the spool, as its `Keeper`.
    async fn open(&self, args: &EntranceArgs) -> Result<Intake, IntakeError> {
        if let Some(dir) = args.socket.parent() {
            fs::create_dir_all(dir).map_err(|source| IntakeError::Io {
                what: "create directory",
                path: dir.to_owned(),
                source,
            })?;
        }
        let settings = Settings {
            socket: args.socket.clone(),
            group: args.socket_group,
            listen: args.listen.clone(),
            leases: args.leases.clone(),
            boot: intake::boot_id()?,
            metrics: self.metrics.clone(),
            limits: Limits::default(),
            bounds: intake::Bounds::default(),
        };
        intake::open(settings, Arc::clone(&self.spool), self.status()).await
    }

    fn status(&self) -> Status {
        let (spool, deliveries) = (Arc::clone(&self.spool), self.deliveries.clone());
        Arc::new(move || match status::state(&spool, &deliveries) {
            Ok(state) => match serde_json::to_value(state) {
                Ok(Value::Object(told)) => told,
                _ => Map::new(),
            },
            Err(e) => Map::from_iter([(status::ERROR.to_owned(), e.to_string().into())]),
        })
    }
}

/// Tries what was set aside whenever somebody asks for it.
async fn try_again(spool: Arc<Spool>, mut asked: Signal) {
    while asked.recv().await.is_some() {
        let spool = Arc::clone(&spool);
        // What stands in the way of writing is told by the spool.
        let _ = spawn_blocking(move || spool.try_again()).await;
    }
}
