//! Records to an OTLP receiver, by a thread of its own behind a bounded queue: whoever reads the rings
//! never waits for the network. What finds no room, or is not known to have arrived in the end, is told.
//!
//! A receiver that keeps records (the bridge) is told the name of each request, so that it takes one that
//! comes twice only once, and its word is what makes a record a kept one. When it is slow or away, nothing
//! is handed over once the queue is full: the rings fill up, and the kernel folds.

mod settlement;
mod side;
mod undelivered;
mod worker;

use crate::{
    record::{Record, VERDICTS},
    session::Debt,
    telemetry,
};
use settlement::Flows;
pub use settlement::Settlement;
use side::Side;
use std::{
    collections::VecDeque,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc},
    thread,
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};
pub use undelivered::Undelivered;
use wire::{BatchId, Endpoint, LogRecord, Outlet, Payload, Snapshot, Source, stream};
pub(crate) use worker::runtime;
use worker::{Parcel, Worker};

/// Records that may wait for their turn; some 20 MB.
const QUEUE: usize = 1 << 15;
/// Records that may wait for a receiver that keeps them: what does not fit stays in the kernel.
const QUEUE_KEPT: usize = 1 << 13;
/// Places that flows leave to audit records.
const FOR_EVENTS: usize = 64;
/// Audit records that wait for a place.
const EVENTS: usize = 4096;
/// A wait that is longer than this is explained.
const EXPLAINED_AFTER: Duration = Duration::from_secs(2);
/// The thread ends itself at its deadline; this is for the case that it does not.
const GRACE: Duration = Duration::from_secs(1);

/// Records by verdict, and the flows that they stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    records: [u64; 3],
    flows: [u64; 3],
}

impl Tally {
    /// Of one record.
    fn of(r: &Record) -> Self {
        let mut one = Self::default();
        let at = VERDICTS.iter().position(|v| *v == r.verdict).unwrap_or(1);
        one.records[at] = 1;
        one.flows[at] = r.count.unwrap_or(1);
        one
    }

    fn add(&mut self, other: Self) {
        for i in 0..VERDICTS.len() {
            self.records[i] += other.records[i];
            self.flows[i] += other.flows[i];
        }
    }

    fn less(self, other: Self) -> Self {
        let minus = |a: [u64; 3], b: [u64; 3]| std::array::from_fn(|i| a[i].saturating_sub(b[i]));
        Self {
            records: minus(self.records, other.records),
            flows: minus(self.flows, other.flows),
        }
    }
}

/// What the thread has got rid of.
#[derive(Debug, Default)]
struct Settled {
    /// Records of requests that the receiver has confirmed.
    confirmed: Tally,
    /// Records among those that the receiver says it has thrown away.
    rejected: u64,
    /// Records of requests that the receiver will not take.
    given_up: u64,
    /// Answers: delivered, partial, retry, refused.
    batches: [u64; 4],
    /// Flows by slot and verdict that a receiver has confirmed since this was last asked for.
    paid: Flows,
    /// The same for those that it will not take.
    refused: Flows,
}

/// How it goes, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Records that wait.
    pub queued: u64,
    /// Records that may wait.
    pub room: u64,
    /// Answers to requests: delivered, partial, retry, refused.
    pub batches: [u64; 4],
    /// Records that will not arrive any more: no room, or not taken.
    pub given_up: u64,
}

/// The way to a receiver.
pub struct Export {
    endpoint: Endpoint,
    /// Who we are to a receiver that keeps records.
    sender: Option<BatchId>,
    /// Audit records for which there was no place yet.
    events: VecDeque<(LogRecord, Option<Debt>)>,
    /// Audit records that were lost because there were too many.
    untold: u64,
    /// Everything that should arrive.
    offered: Tally,
    settled: Arc<Mutex<Settled>>,
    /// Records that found no room.
    crowded: u64,
    /// What the loader says about itself, to be sent too.
    pub log: Option<Outlet>,
    running: Option<Running>,
}

/// What the thread is reached by.
struct Running {
    queue: mpsc::Sender<Parcel>,
    metrics: watch::Sender<Option<Payload>>,
    /// Tells it how long it may still take.
    end: oneshot::Sender<Duration>,
    /// Disconnected when it has ended, however it did.
    ended: std_mpsc::Receiver<()>,
}

fn settled(of: &Mutex<Settled>) -> MutexGuard<'_, Settled> {
    // Two additions cannot be left half-way.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Export {
    /// A way that nothing goes yet.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            sender: None,
            events: VecDeque::new(),
            untold: 0,
            offered: Tally::default(),
            settled: Arc::default(),
            crowded: 0,
            log: None,
            running: None,
        }
    }

    /// A way to a receiver that keeps records. `sender` names this process among all that ever send there.
    #[must_use]
    pub fn keeping(endpoint: Endpoint, sender: BatchId) -> Self {
        Self {
            sender: Some(sender),
            ..Self::new(endpoint)
        }
    }

    /// Whether the receiver keeps records, and its word counts.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.sender.is_some()
    }

    /// The bridge that records go to: a receiver that keeps them, on a socket of this machine. It can be
    /// asked what it holds.
    #[must_use]
    pub fn bridge(&self) -> Option<Endpoint> {
        let local = self.endpoint.url().starts_with("unix:");
        (self.keeps() && local).then(|| self.endpoint.clone())
    }

    /// Starts the thread; not before the command was started, which is done by a process with one thread.
    /// `instance` tells several loaders of this machine apart.
    pub fn start(&mut self, instance: &str) {
        let (queue, parcels) = mpsc::channel(if self.keeps() { QUEUE_KEPT } else { QUEUE });
        let (end, limit) = oneshot::channel();
        let (alive, ended) = std_mpsc::channel();
        let source = |stream| {
            let version = env!("CARGO_PKG_VERSION");
            Source::new(stream, "ebpf-manager", version, instance)
        };
        let (metrics, newest) = watch::channel(None);
        let side = Side {
            endpoint: self.endpoint.clone(),
            source: telemetry::source(instance),
            metrics: newest,
            log: self.log.take(),
            // Another sender than that of the records: each counts for itself.
            name: self.sender.as_ref().map(|name| BatchId {
                sender: format!("{}-log", name.sender),
                number: 1,
            }),
        };
        let worker = Worker::new(
            self.endpoint.clone(),
            [source(stream::EGRESS), source(stream::OVERSEER)],
            self.sender.clone(),
            parcels,
            Arc::clone(&self.settled),
        );
        let started = thread::Builder::new()
            .name("otlp".to_owned())
            .spawn(move || {
                worker.run(limit, side);
                drop(alive);
            });
        match started {
            Ok(_) => {
                self.running = Some(Running {
                    queue,
                    metrics,
                    end,
                    ended,
                });
            }
            Err(e) => complain(&self.endpoint, &format!("no thread for it: {e}")),
        }
    }

    /// Whether another flow can be handed over without losing it. Always, where losses are only counted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let places = |r: &Running| r.queue.capacity() > FOR_EVENTS;
        !self.keeps() || self.running.as_ref().is_some_and(places)
    }

    /// Hands over a record, or loses it if there is no room. Never waits.
    pub fn offer(&mut self, record: &Record, debt: Debt) {
        self.offered.add(Tally::of(record));
        if let Some(running) = &self.running {
            // What did not get in is missing from the confirmed ones in the end.
            let parcel = Parcel::Flow(Box::new(record.clone()), debt);
            let full = running.queue.try_send(parcel).is_err();
            self.crowded += u64::from(full);
        }
    }

    /// Hands over newer metrics in place of those that were not sent yet.
    pub fn metrics(&self, snapshot: Snapshot) {
        if let Some(running) = &self.running {
            running.metrics.send_replace(Some(snapshot.payload()));
        }
    }

    /// How it goes.
    #[must_use]
    pub fn state(&self) -> State {
        let settled = settled(&self.settled);
        let most = if self.keeps() { QUEUE_KEPT } else { QUEUE };
        let queue = self.running.as_ref().map(|r| &r.queue);
        let left = queue.map_or(most, mpsc::Sender::capacity);
        State {
            queued: (most - left) as u64,
            room: most as u64,
            batches: settled.batches,
            given_up: settled.rejected + settled.given_up + self.crowded + self.untold,
        }
    }

    /// Hands over an audit record. Where there is no room it waits for some.
    pub fn tell(&mut self, event: LogRecord) {
        self.queue(event, None);
    }

    /// The same for one that declares flows lost: these are settled like those of records.
    pub fn declare(&mut self, event: LogRecord, debt: Debt) {
        self.queue(event, Some(debt));
    }

    fn queue(&mut self, event: LogRecord, debt: Option<Debt>) {
        self.events.push_back((event, debt));
        self.flush_events();
        if self.events.len() > EVENTS {
            // Nobody else knows what a declaration says.
            let plain = self.events.iter().position(|(_, debt)| debt.is_none());
            let lost = self.events.remove(plain.unwrap_or(0));
            let debts = lost.and_then(|(_, debt)| debt);
            if self.keeps() {
                settled(&self.settled).refused.add(debts.as_slice());
            }
            if self.untold == 0 {
                complain(
                    &self.endpoint,
                    "too many audit records wait, the oldest are lost",
                );
            }
            self.untold += 1;
        }
    }

    fn flush_events(&mut self) {
        let Some(running) = &self.running else {
            return;
        };
        while !self.events.is_empty() {
            let Ok(place) = running.queue.try_reserve() else {
                return;
            };
            if let Some((event, debt)) = self.events.pop_front() {
                place.send(Parcel::Event(Box::new(event), debt));
            }
        }
    }

    /// What has become of flows since this was last asked.
    pub fn settled(&mut self) -> Settlement {
        self.flush_events();
        let mut settled = settled(&self.settled);
        Settlement {
            paid: settled.paid.take(),
            refused: settled.refused.take(),
        }
    }

    /// Gives what is left in the queue this long to arrive, ends the thread, and says what is missing.
    pub fn finish(&mut self, limit: Duration) -> Undelivered {
        self.flush_events();
        if let Some(Running {
            queue,
            metrics,
            end,
            ended,
        }) = self.running.take()
        {
            drop((queue, metrics));
            // If it has ended by itself, there is nobody to tell.
            let _ = end.send(limit);
            let first = limit.min(EXPLAINED_AFTER);
            if ended.recv_timeout(first) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                if limit > EXPLAINED_AFTER {
                    anstream::eprintln!(
                        "waiting up to {} s for {} record(s) to be delivered to {}",
                        limit.as_secs(),
                        self.undelivered().records(),
                        self.endpoint.url()
                    );
                }
                let _ = ended.recv_timeout(limit.saturating_sub(first) + GRACE);
            }
        }
        self.undelivered()
    }

    fn undelivered(&self) -> Undelivered {
        let settled = settled(&self.settled);
        Undelivered {
            url: self.endpoint.url().to_owned(),
            missing: self.offered.less(settled.confirmed),
            rejected: settled.rejected,
        }
    }
}

fn complain(endpoint: &Endpoint, what: &str) {
    tracing::warn!("cannot deliver records to {}: {what}", endpoint.url());
    // Not `eprintln`, which would end the thread if nobody reads it any more.
    let _ = writeln!(
        anstream::stderr(),
        "error: cannot deliver records to {}: {what}; the rest goes on",
        endpoint.url()
    );
}

#[cfg(test)]
mod tests;
