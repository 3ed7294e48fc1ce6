//! The tasks: bring records from the spool, send them, and do what the plan makes of the answers.

use super::plan::{Fate, Limits, Named, Next, Plan, Ticket};
use crate::spool::{From, Pending, Spool, SpoolError};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{sleep, sleep_until},
};
use wire::{Client, Endpoint, Outcome, Payload};

/// Requests of a data stream that are under way at once, and in memory.
const LIMITS: Limits = Limits {
    requests: 8,
    batches: 64,
};
/// What goes into one request.
const RECORDS_MOST: usize = 200;
const BYTES_MOST: usize = 2 << 20;
/// How long to wait when the spool cannot be read.
const SPOOL_REST: Duration = Duration::from_secs(1);

impl Named for Pending {
    fn id(&self) -> &str {
        &self.id
    }
}

/// What stands in the way of each data stream.
#[derive(Clone, Debug, Default)]
pub struct Deliveries(Arc<Mutex<BTreeMap<String, String>>>);

impl Deliveries {
    /// Why records of a data stream do not arrive; nothing when they do.
    #[must_use]
    pub fn trouble(&self, stream: &str) -> Option<String> {
        self.map(|all| all.get(stream).cloned())
    }

    fn map<T>(&self, f: impl FnOnce(&mut BTreeMap<String, String>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, stream: &str, trouble: Option<&str>) {
        let before = self.map(|all| match trouble {
            Some(text) => all.insert(stream.to_owned(), text.to_owned()),
            None => all.remove(stream),
        });
        // Once when it begins and once when it is over: every failure would be a flood.
        match (before, trouble) {
            (None, Some(text)) => tracing::warn!(stream, "records do not arrive: {text}"),
            (Some(_), None) => tracing::info!(stream, "records arrive again"),
            _ => {}
        }
    }
}

/// Delivers everything that is in the spool and comes into it, until it is dropped. What is under way
/// then is sent again after the next start.
pub async fn start(spool: Arc<Spool>, endpoint: Endpoint, deliveries: Deliveries) {
    let mut changes = spool.changes();
    let mut workers = JoinSet::new();
    let mut known = HashSet::new();
    loop {
        for stream in spool.waiting() {
            if known.insert(stream.clone()) {
                let worker = Worker {
                    stream,
                    spool: Arc::clone(&spool),
                    // A connection of its own: where one hangs, the others go on.
                    client: Client::new(&endpoint),
                    plan: Plan::new(LIMITS),
                    deliveries: deliveries.clone(),
                    changes: spool.changes(),
                    more: true,
                };
                workers.spawn(worker.run());
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

struct Worker {
    stream: String,
    spool: Arc<Spool>,
    client: Client,
    plan: Plan<Pending>,
    deliveries: Deliveries,
    changes: watch::Receiver<u64>,
    /// There may be records that were not brought yet.
    more: bool,
}

impl Worker {
    async fn run(mut self) {
        let mut sent = JoinSet::new();
        loop {
            match self.plan.next(Instant::now(), self.more) {
                Next::Send(ticket) => {
                    let records = self.plan.records(ticket);
                    let payload = Payload::of_encoded(records.iter().map(|r| r.bytes.as_slice()));
                    let client = self.client.clone();
                    sent.spawn(async move { (ticket, client.send(&payload).await) });
                }
                Next::More => self.bring(From::Oldest).await,
                Next::Probe => self.bring(From::Part(fastrand::f64())).await,
                Next::Rest(until) => {
                    if !self.rest(until, &mut sent).await {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for an answer, for records, or for a time. False when the spool is gone.
    async fn rest(
        &mut self,
        until: Option<Instant>,
        sent: &mut JoinSet<(Ticket, Outcome)>,
    ) -> bool {
        let over = async {
            match until {
                Some(until) => sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(answer) = sent.join_next() => {
                if let Ok((ticket, outcome)) = answer {
                    self.answered(ticket, outcome);
                }
            }
            changed = self.changes.changed(), if !self.more => match changed {
                Ok(()) => self.more = true,
                Err(_) => return false,
            },
            () = over => {}
        }
        true
    }

    async fn bring(&mut self, from: From) {
        let records = match from {
            From::Oldest => RECORDS_MOST,
            From::Part(_) => 1,
        };
        // Before looking: what comes after the look is a change.
        self.changes.mark_unchanged();
        let (spool, stream) = (Arc::clone(&self.spool), self.stream.clone());
        let brought =
            spawn_blocking(move || spool.hand_out(&stream, from, records, BYTES_MOST)).await;
        let brought = brought.unwrap_or(Err(SpoolError::Closed));
        let brought = match brought {
            Ok(brought) => brought,
            Err(e) => {
                self.deliveries.set(&self.stream, Some(&e.to_string()));
                sleep(SPOOL_REST).await;
                return;
            }
        };
        match from {
            From::Oldest if brought.is_empty() => self.more = false,
            From::Oldest => self.plan.add(brought),
            From::Part(_) => self.plan.add_probe(brought.into_iter().next()),
        }
    }

    fn answered(&mut self, ticket: Ticket, outcome: Outcome) {
        for fate in self.plan.answered(ticket, outcome, Instant::now()) {
            match fate {
                Fate::Delivered(records) => self.spool.delivered(&self.stream, &records),
                Fate::Aside(record, text) => {
                    let (stream, id) = (&self.stream, &record.id);
                    tracing::error!(stream, id, "set aside, no receiver takes it: {text}");
                    self.spool.set_aside(stream, &record, &text);
                }
                Fate::Back(records) => self.spool.take_back(&self.stream, &records),
            }
        }
        self.deliveries.set(&self.stream, self.plan.trouble());
    }
}
