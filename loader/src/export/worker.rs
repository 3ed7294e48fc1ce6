//! The thread: sends, in one request at a time, what has come together during the last one.

use super::{Settled, Side, Tally, complain, settled};
use crate::record::Record;
use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};
use wire::{Backoff, Batch, Client, Endpoint, Limits, LogRecord, Outcome, Payload, Source};

/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long metrics and log may take when the last record is through.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the thread works with.
pub(super) struct Worker {
    endpoint: Endpoint,
    queue: mpsc::Receiver<Record>,
    settled: Arc<Mutex<Settled>>,
    batch: Batch,
    /// A record that the last request had no room for.
    held: Option<(LogRecord, Tally)>,
    complained: bool,
}

impl Worker {
    pub(super) fn new(
        endpoint: Endpoint,
        source: &Source,
        queue: mpsc::Receiver<Record>,
        settled: Arc<Mutex<Settled>>,
    ) -> Self {
        Self {
            endpoint,
            queue,
            settled,
            batch: Batch::new(source, Limits::default()),
            held: None,
            complained: false,
        }
    }

    /// Works until the queue is closed and empty, or for as long after its closing as `limit` says.
    pub(super) fn run(mut self, limit: oneshot::Receiver<Duration>, side: Side) {
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(e) => return complain(&self.endpoint, &e.to_string()),
        };
        runtime.block_on(async {
            let over = async {
                if let Ok(limit) = limit.await {
                    sleep(limit).await;
                }
            };
            let (working, over_with_it) = oneshot::channel();
            let side = tokio::spawn(side.run(over_with_it));
            let all = async {
                self.deliver_all().await;
                drop(working);
                // What is not through by then is not sent: records are what counts.
                let _ = timeout(LAST_WORDS, side).await;
            };
            tokio::select! {
                () = all => {}
                () = over => {}
            }
        });
        // A look-up of a name may still be under way.
        runtime.shutdown_background();
    }

    async fn deliver_all(&mut self) {
        let client = Client::new(&self.endpoint);
        while let Some(tally) = self.gather().await {
            let payload = self.batch.take();
            self.deliver(&client, &payload, tally).await;
        }
    }

    /// Waits for a record and takes what else is there, as far as it fits into one request. Nothing when
    /// the queue is closed and empty.
    async fn gather(&mut self) -> Option<Tally> {
        let mut sum = Tally::default();
        let mut next = match self.held.take() {
            Some(held) => Some(held),
            None => Some(prepare(&self.queue.recv().await?)),
        };
        while let Some((record, tally)) = next.take() {
            match self.batch.push(record) {
                None => {
                    sum.add(tally);
                    next = self.queue.try_recv().ok().map(|r| prepare(&r));
                }
                Some(back) => self.held = Some((back, tally)),
            }
        }
        Some(sum)
    }

    /// Sends one request until it is settled.
    async fn deliver(&mut self, client: &Client, payload: &Payload, tally: Tally) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            let outcome = client.send(payload).await;
            self.count(&outcome);
            match outcome {
                Outcome::Delivered => return self.settle(tally, 0),
                Outcome::Partial { rejected, message } => {
                    self.complain(&format!("it threw away {rejected} of them ({message})"));
                    return self.settle(tally, rejected);
                }
                Outcome::Retry { after, failure } => {
                    self.complain(&failure.to_string());
                    sleep(backoff.wait(after)).await;
                }
                Outcome::Refused(failure) => {
                    settled(&self.settled).refused += payload.records;
                    return self.complain(&failure.to_string());
                }
            }
        }
    }

    fn count(&self, outcome: &Outcome) {
        let at = match outcome {
            Outcome::Delivered => 0,
            Outcome::Partial { .. } => 1,
            Outcome::Retry { .. } => 2,
            Outcome::Refused(_) => 3,
        };
        settled(&self.settled).batches[at] += 1;
    }

    fn settle(&self, tally: Tally, rejected: u64) {
        let mut settled = settled(&self.settled);
        settled.confirmed.add(tally);
        settled.rejected += rejected;
    }

    /// Says once what stands in the way.
    fn complain(&mut self, what: &str) {
        if !self.complained {
            self.complained = true;
            complain(&self.endpoint, what);
        }
    }
}

fn prepare(r: &Record) -> (LogRecord, Tally) {
    (r.otlp(Timestamp::now()), Tally::of(r))
}

pub(super) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    // A receiver that goes away must not take the loader with it: `main` leaves SIGPIPE to its default.
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    pipe.thread_block()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
