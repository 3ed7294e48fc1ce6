//! Where own records come out.

use super::Suppressed;
use crate::{
    backoff::Backoff,
    batch::{Batch, Limits},
    batch_id::BatchId,
    client::Client,
    outcome::Outcome,
    record::LogRecord,
    stream::Source,
};
use std::{
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{sync::mpsc, time::sleep};

/// Records that are taken at once.
const MOST: usize = 100;
/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The records of a [layer](super::layer), in the order in which they were said.
#[derive(Debug)]
pub struct Outlet {
    records: mpsc::Receiver<LogRecord>,
    suppressed: Arc<Suppressed>,
}

/// Reads how many own records were not sent, for metrics.
#[derive(Clone, Debug)]
pub struct Unsent(Arc<Suppressed>);

impl Unsent {
    /// How many, since the beginning.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.all.load(Ordering::Relaxed)
    }
}

impl Outlet {
    pub(super) fn new(records: mpsc::Receiver<LogRecord>, suppressed: Arc<Suppressed>) -> Self {
        Self {
            records,
            suppressed,
        }
    }

    /// A reader of how many records were not sent.
    #[must_use]
    pub fn unsent(&self) -> Unsent {
        Unsent(Arc::clone(&self.suppressed))
    }

    /// Waits for records and takes those that are there, at most a hundred; none when the outlet is closed
    /// and empty. For whoever keeps them otherwise than by [`Outlet::deliver`]; what it cannot keep goes
    /// to [`Outlet::lost`].
    pub async fn gather(&mut self) -> Vec<LogRecord> {
        let mut all = Vec::new();
        self.records.recv_many(&mut all, MOST).await;
        all
    }

    /// Takes nothing more; what is there already can be gathered.
    pub fn close(&mut self) {
        self.records.close();
    }

    /// Counts records that were gathered and could not be kept.
    pub fn lost(&self, records: u64) {
        self.suppressed.add(records);
    }

    /// Sends what is said, each request until the receiver has taken or refused it. When `until` is over
    /// nothing more is taken, and this ends with the last request. `name`: of the first request, where the
    /// receiver keeps each once.
    pub async fn deliver(
        mut self,
        client: Client,
        source: Source,
        mut name: Option<BatchId>,
        until: impl Future<Output = ()>,
    ) {
        let mut until = pin!(until);
        let mut open = true;
        loop {
            let records = tokio::select! {
                records = self.gather() => records,
                () = &mut until, if open => {
                    open = false;
                    self.close();
                    continue;
                }
            };
            if records.is_empty() {
                return;
            }
            self.send(&client, &source, name.as_ref(), records).await;
            name = name.as_ref().map(BatchId::next);
        }
    }

    async fn send(
        &self,
        client: &Client,
        source: &Source,
        name: Option<&BatchId>,
        records: Vec<LogRecord>,
    ) {
        let limits = Limits {
            records: MOST,
            ..Limits::default()
        };
        let mut batch = Batch::new(source, limits);
        for record in records {
            // A hundred cut lines are far below the bound in bytes.
            if batch.push(record).is_some() {
                self.lost(1);
            }
        }
        let payload = batch.take();
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let outcome = match name {
                Some(name) => client.send_batch(&payload, name).await,
                None => client.send(&payload).await,
            };
            match outcome {
                Outcome::Delivered => return,
                Outcome::Partial { rejected, .. } => return self.lost(rejected),
                Outcome::Refused(_) => return self.lost(payload.records),
                Outcome::Retry { after, .. } => sleep(backoff.wait(after)).await,
            }
        }
    }
}
