//! What goes beside the records: the loader's own metrics and log. Nothing of it holds records up, and
//! none of it is waited for longer than a moment.

use std::time::Duration;
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};
use wire::{Backoff, BatchId, Client, Endpoint, Outcome, Outlet, Payload, Source};

/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Both, and where they go.
pub(super) struct Side {
    pub(super) endpoint: Endpoint,
    /// The loader itself.
    pub(super) source: Source,
    /// The newest metrics; closed when there will be no newer ones.
    pub(super) metrics: watch::Receiver<Option<Payload>>,
    pub(super) log: Option<Outlet>,
    /// Name of the first request of the log, for a receiver that keeps each once.
    pub(super) name: Option<BatchId>,
}

impl Side {
    /// Works until nothing more will come: `over` is gone, and no newer metrics can be had.
    pub(super) async fn run(self, over: oneshot::Receiver<()>) {
        let (endpoint, source) = (self.endpoint, self.source);
        let log = async {
            if let Some(outlet) = self.log {
                let ended = async {
                    // Nobody ever sends: it is dropped.
                    let _ = over.await;
                };
                let client = Client::new(&endpoint);
                outlet.deliver(client, source, self.name, ended).await;
            }
        };
        tokio::join!(log, metrics(&endpoint, self.metrics));
    }
}

/// Sends the newest metrics whenever there are new ones. They are cumulative: those between are not missed.
async fn metrics(endpoint: &Endpoint, mut newest: watch::Receiver<Option<Payload>>) {
    let Some(receiver) = endpoint.for_metrics() else {
        return;
    };
    let client = Client::new(&receiver);
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    while newest.changed().await.is_ok() {
        loop {
            let Some(payload) = newest.borrow_and_update().clone() else {
                break;
            };
            match client.send(&payload).await {
                Outcome::Delivered => break backoff.reset(),
                Outcome::Partial { message, .. } => {
                    tracing::warn!("{} threw metrics away: {message}", endpoint.url());
                    break;
                }
                Outcome::Retry { after, .. } => sleep(backoff.wait(after)).await,
                Outcome::Refused(failure) => {
                    tracing::warn!("{} takes no metrics: {failure}", endpoint.url());
                    return;
                }
            }
        }
    }
}
