//! The thread: sends, in one request at a time, what has come together during the last one.

use super::{Settled, Side, Tally, complain, settled};
use crate::{record::Record, session::Debt};
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
use wire::{
    Backoff, Batch, BatchId, Client, Endpoint, Failure, Limits, LogRecord, Outcome, Payload, Source,
};

/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long metrics and log may take when the last record is through.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Something to send.
#[derive(Debug)]
pub(super) enum Parcel {
    /// A flow's record, and what is settled when it has arrived.
    Flow(Box<Record>, Debt),
    /// An audit record, and what is settled with it if it declares flows lost.
    Event(Box<LogRecord>, Option<Debt>),
}

impl Parcel {
    /// Number of the batch that it goes with.
    fn stream(&self) -> usize {
        match self {
            Self::Flow(..) => 0,
            Self::Event(..) => 1,
        }
    }
}

/// What one request carries.
#[derive(Default)]
struct Load {
    records: u64,
    tally: Tally,
    debts: Vec<Debt>,
}

/// What the thread works with.
pub(super) struct Worker {
    endpoint: Endpoint,
    queue: mpsc::Receiver<Parcel>,
    settled: Arc<Mutex<Settled>>,
    /// One a stream.
    batches: [Batch; 2],
    /// Name of the next request, for a receiver that keeps each once.
    name: Option<BatchId>,
    /// Something that the last request had no room for, or that belongs to another stream.
    held: Option<Parcel>,
    complained: bool,
}

impl Worker {
    pub(super) fn new(
        endpoint: Endpoint,
        sources: [Source; 2],
        name: Option<BatchId>,
        queue: mpsc::Receiver<Parcel>,
        settled: Arc<Mutex<Settled>>,
    ) -> Self {
        Self {
            endpoint,
            queue,
            settled,
            batches: sources.map(|source| Batch::new(&source, Limits::default())),
            name,
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
        while let Some((payload, load)) = self.gather().await {
            self.deliver(&client, &payload, load).await;
        }
    }

    /// Waits for something and takes what else there is of its stream, in order, as far as it fits into one
    /// request. Nothing when the queue is closed and empty.
    async fn gather(&mut self) -> Option<(Payload, Load)> {
        let first = match self.held.take() {
            Some(held) => held,
            None => self.queue.recv().await?,
        };
        let stream = first.stream();
        let mut load = Load::default();
        let mut next = Some(first);
        while let Some(parcel) = next.take() {
            if parcel.stream() != stream {
                self.held = Some(parcel);
                break;
            }
            let record = match &parcel {
                Parcel::Flow(r, _) => r.otlp(Timestamp::now()),
                Parcel::Event(record, _) => LogRecord::clone(record),
            };
            if self.batches[stream].push(record).is_some() {
                self.held = Some(parcel);
                break;
            }
            load.records += 1;
            match &parcel {
                Parcel::Flow(r, debt) => {
                    load.tally.add(Tally::of(r));
                    load.debts.push(*debt);
                }
                Parcel::Event(_, debt) => load.debts.extend(debt),
            }
            next = self.queue.try_recv().ok();
        }
        Some((self.batches[stream].take(), load))
    }

    /// Sends one request until it is settled.
    async fn deliver(&mut self, client: &Client, payload: &Payload, load: Load) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let name = self.name.clone();
        self.name = name.as_ref().map(BatchId::next);
        loop {
            let outcome = match &name {
                Some(name) => client.send_batch(payload, name).await,
                None => client.send(payload).await,
            };
            self.count(&outcome);
            match outcome {
                Outcome::Delivered => {
                    self.complained = false;
                    return self.settle(&load, 0);
                }
                Outcome::Partial { rejected, message } => {
                    self.complain(&format!("it threw away {rejected} of them ({message})"));
                    return self.settle(&load, rejected);
                }
                Outcome::Retry { after, failure } => {
                    self.complain(&failure.to_string());
                    sleep(backoff.wait(after)).await;
                }
                Outcome::Refused(failure) => return self.refuse(&load, &failure),
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

    fn settle(&self, load: &Load, rejected: u64) {
        let mut settled = settled(&self.settled);
        settled.confirmed.add(load.tally);
        settled.rejected += rejected;
        if self.name.is_some() {
            // Of a request that was taken in part nobody can say which flows are on record.
            let flows = if rejected == 0 {
                &mut settled.paid
            } else {
                &mut settled.refused
            };
            flows.add(&load.debts);
        }
    }

    fn refuse(&mut self, load: &Load, failure: &Failure) {
        self.complain(&failure.to_string());
        let mut settled = settled(&self.settled);
        settled.given_up += load.records;
        if self.name.is_some() {
            settled.refused.add(&load.debts);
        }
    }

    /// Says once what stands in the way.
    fn complain(&mut self, what: &str) {
        if !self.complained {
            self.complained = true;
            complain(&self.endpoint, what);
        }
    }
}

pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    // A receiver that goes away must not take the loader with it: `main` leaves SIGPIPE to its default.
    let mut pipe = SigSet::empty();
    pipe.add(Signal::SIGPIPE);
    pipe.thread_block()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
