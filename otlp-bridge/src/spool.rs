//! The spool: the only durable store between the sources and the collector. What it has said yes to is on
//! the disk, and leaves it only when the receiver has it, or declared.

mod again;
mod apply;
mod books;
mod error;
mod handed;
mod notice;
mod shed;
mod state;
mod store;
mod tables;
mod writer;

pub use error::SpoolError;
pub use state::{State, StreamState};

use crate::incoming::{BatchId, Held, Incoming, Keeper};
use apply::{Keep, Settled};
use books::{Books, Tier};
use handed::Handed;
use redb::{Error, ReadableTable};
use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Sender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use store::Store;
use tables::{HELD, Key, RECORDS};
use tokio::sync::watch;
use writer::{Answer, Job, Writer};

/// Room that is set apart for throwing records away on a full disk.
const RESERVE: usize = 2 << 20;

/// How much the spool may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of records, with what each costs beside.
    pub bytes: u64,
    /// How old a record may become.
    pub age: Duration,
}

/// What the thread and its callers share.
struct Shared {
    store: Store,
    bounds: Bounds,
    /// As committed.
    books: Mutex<Books>,
    handed: Mutex<Handed>,
    trouble: Mutex<Option<String>>,
    /// Grows with every commit.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn books(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }

    fn handed(&self) -> MutexGuard<'_, Handed> {
        lock(&self.handed)
    }

    /// Notes what stands in the way of writing. Said when it begins and when it is over: every request
    /// that fails would be a flood.
    fn trouble(&self, now: Option<String>) {
        let mut trouble = lock(&self.trouble);
        match (&*trouble, &now) {
            (None, Some(text)) => tracing::error!("{text}"),
            (Some(_), None) => tracing::info!("the spool takes records again"),
            _ => {}
        }
        *trouble = now;
    }

    fn state(&self) -> Result<State, SpoolError> {
        let books = self.books().clone();
        let handed = self.handed();
        let streams = self.store.read(|txn| {
            let each = books.streams.iter();
            each.map(|(name, book)| StreamState::new(name, book, &handed, txn))
                .collect::<Result<_, Error>>()
        })?;
        Ok(State {
            bytes: books.total(),
            max_bytes: self.bounds.bytes,
            file_bytes: self.store.file_bytes(),
            undeclared: books.undeclared,
            trouble: lock(&self.trouble).clone(),
            streams,
        })
    }
}

/// The spool of a running bridge.
pub struct Spool {
    shared: Arc<Shared>,
    /// Callers wait for their answers, so there is never more in it than there are callers.
    jobs: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<Result<(), SpoolError>>>>,
}

/// A record that waits for delivery. It stays in the store until it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    tier: Tier,
    place: u64,
    /// Its id.
    pub id: String,
    /// `ResourceLogs` with this one record, encoded.
    pub bytes: Vec<u8>,
}

/// Which records to hand out.
#[derive(Clone, Copy, Debug)]
pub enum From {
    /// The oldest.
    Oldest,
    /// Somewhere in the queue: 0 its beginning, 1 its end.
    Part(f64),
}

impl Spool {
    /// Opens the spool of a directory, or makes it. `stopped` is called when the spool can go on no
    /// longer, with the reason.
    pub fn open(
        dir: &Path,
        bounds: Bounds,
        stopped: impl FnOnce(SpoolError) + Send + 'static,
    ) -> Result<Self, SpoolError> {
        let store = Store::open(dir, RESERVE)?;
        let shared = Arc::new(Shared::new(store, bounds)?);
        let (jobs, queue) = channel();
        let writer = Writer::new(Arc::clone(&shared), queue);
        let work = move || {
            let ended = writer.run();
            if let Err(e) = &ended {
                stopped(e.clone());
            }
            ended
        };
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(work);
        let thread = thread.map_err(|source| SpoolError::Directory {
            path: dir.to_owned(),
            source: Arc::new(source),
        })?;
        Ok(Self {
            shared,
            jobs: Mutex::new(Some(jobs)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What is in the spool of a bridge that is not running.
    pub fn look(dir: &Path) -> Result<State, SpoolError> {
        let bounds = Bounds {
            bytes: 0,
            age: Duration::MAX,
        };
        Shared::new(Store::open_existing(dir)?, bounds)?.state()
    }

    /// What is in it.
    pub fn state(&self) -> Result<State, SpoolError> {
        self.shared.state()
    }

    /// Tells when something has been kept or has left.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Data streams with records that are in nobody's hands.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        let handed = self.shared.handed();
        let idle = |name: &str| handed.get(name).map_or(0, |h| h.count() as u64);
        let books = self.shared.books();
        let streams = books.streams.iter();
        streams
            .filter(|(name, book)| book.pending() > idle(name))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Hands out records of a data stream in order of arrival: at most so many, and no more bytes unless
    /// it is the first. They are not handed out again unless they are given back, or after a restart.
    pub fn hand_out(
        &self,
        stream: &str,
        from: From,
        records: usize,
        bytes: usize,
    ) -> Result<Vec<Pending>, SpoolError> {
        let mut handed = self.shared.handed();
        let handed = handed.of(stream);
        let chosen = self.shared.store.read(|txn| {
            let table = txn.open_table(RECORDS)?;
            let from = match from {
                From::Oldest => 0,
                From::Part(part) => part_of(&table, stream, part)?,
            };
            let mut queues = Vec::new();
            for tier in (0..Tier::ALL as u8).map(Tier) {
                let first: Key<'_> = (stream, tier.0, handed.from(tier).max(from));
                let mut queue = table.range(first..=(stream, tier.0, u64::MAX))?;
                let next = queue.find(|e| !is_out(handed, e)).transpose()?;
                queues.extend(next.map(|n| (tier, queue, n)));
            }
            let (mut chosen, mut size) = (Vec::new(), 0);
            while let Some(at) = (0..queues.len()).min_by_key(|i| queues[*i].2.0.value().2) {
                let (tier, queue, entry) = &mut queues[at];
                let (place, (_, id, _, content)) = (entry.0.value().2, entry.1.value());
                size += content.len();
                if chosen.len() >= records || (size > bytes && !chosen.is_empty()) {
                    break;
                }
                chosen.push(Pending {
                    tier: *tier,
                    place,
                    id: id.to_owned(),
                    bytes: content.to_vec(),
                });
                match queue.find(|e| !is_out(handed, e)).transpose()? {
                    Some(next) => *entry = next,
                    None => drop(queues.swap_remove(at)),
                }
            }
            Ok(chosen)
        })?;
        for p in &chosen {
            handed.hand_out(p.place);
            if matches!(from, From::Oldest) {
                handed.passed(p.tier, p.place);
            }
        }
        Ok(chosen)
    }

    /// Takes back records that were handed out. They are handed out again.
    pub fn take_back(&self, stream: &str, records: &[Pending]) {
        let mut handed = self.shared.handed();
        for p in records {
            handed.back(stream, p.tier, p.place);
        }
    }

    /// The receiver has these: they leave the store, with the next commit.
    pub fn delivered(&self, stream: &str, records: &[Pending]) {
        self.settle(stream, records, None);
    }

    /// No receiver takes this one: it stays in the store, and is not handed out before
    /// [`Spool::try_again`]. It is announced.
    pub fn set_aside(&self, stream: &str, record: &Pending, text: &str) {
        self.settle(stream, std::slice::from_ref(record), Some(text));
    }

    /// Hands out again what was set aside, as if it had never been; answered when that is on the disk. The
    /// spool does so by itself a minute after its start, then after an hour and ever longer rests.
    pub fn try_again(&self) -> Result<(), SpoolError> {
        self.ask_and_wait(Job::Again)
    }

    fn settle(&self, stream: &str, records: &[Pending], aside: Option<&str>) {
        let settled = records.iter().map(|p| Settled {
            stream: stream.to_owned(),
            tier: p.tier,
            place: p.place,
            aside: aside.map(str::to_owned),
        });
        // When the spool is closed they stay, and are delivered again.
        let _ = self.ask(Job::Settle(settled.collect()));
    }

    /// Waits until everything that was said before is on the disk.
    pub fn flush(&self) -> Result<(), SpoolError> {
        self.ask_and_wait(Job::Flush)
    }

    /// Finishes what was asked for and closes the store.
    pub fn close(&self) -> Result<(), SpoolError> {
        drop(lock(&self.jobs).take());
        let thread = lock(&self.thread).take();
        let ended = thread.map_or(Ok(()), |t| t.join().unwrap_or(Err(SpoolError::Closed)));
        self.shared.store.close();
        ended
    }

    fn ask(&self, job: Job) -> Result<(), SpoolError> {
        let jobs = lock(&self.jobs).clone().ok_or(SpoolError::Closed)?;
        jobs.send(job).map_err(|_| SpoolError::Closed)
    }

    fn ask_and_wait(&self, job: impl FnOnce(Answer) -> Job) -> Result<(), SpoolError> {
        let (answer, answered) = sync_channel(1);
        self.ask(job(answer))?;
        answered.recv().unwrap_or(Err(SpoolError::Closed))
    }
}

impl Shared {
    fn new(store: Store, bounds: Bounds) -> Result<Self, SpoolError> {
        Ok(Self {
            books: Mutex::new(store.books()?),
            store,
            bounds,
            handed: Mutex::default(),
            trouble: Mutex::default(),
            changed: watch::Sender::new(0),
        })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Who wants to know how it ended calls it first.
        let _ = self.close();
    }
}

impl Keeper for Spool {
    type Error = SpoolError;

    fn keep(&self, batch: Option<&BatchId>, records: &[Incoming]) -> Result<(), SpoolError> {
        let keep = Keep {
            batch: batch.cloned(),
            records: records.to_vec(),
        };
        self.ask_and_wait(|answer| Job::Keep(keep, answer))
    }

    fn held(&self, boot: &str) -> Result<Vec<Held>, SpoolError> {
        self.shared.store.read(|txn| {
            let mut all = Vec::new();
            for entry in txn.open_table(HELD)?.range((boot, 0, "")..)? {
                let (key, flows) = entry?;
                let (of, slot, verdict) = key.value();
                if of != boot {
                    break;
                }
                all.push(Held {
                    slot,
                    verdict: verdict.to_owned(),
                    flows: flows.value(),
                });
            }
            Ok(all)
        })
    }
}

/// A place in the queue of a data stream: 0 its first, 1 its last.
fn part_of(
    table: &impl ReadableTable<Key<'static>, tables::Row<'static>>,
    stream: &str,
    part: f64,
) -> Result<u64, Error> {
    let (mut first, mut last) = (u64::MAX, 0);
    for tier in 0..Tier::ALL as u8 {
        let (from, to): (Key<'_>, Key<'_>) = ((stream, tier, 0), (stream, tier, u64::MAX));
        let mut queue = table.range(from..=to)?;
        for end in [queue.next(), queue.next_back()].into_iter().flatten() {
            let place = end?.0.value().2;
            (first, last) = (first.min(place), last.max(place));
        }
    }
    Ok(first.min(last) + (last.saturating_sub(first) as f64 * part) as u64)
}

type Entry<'a> = Result<
    (
        redb::AccessGuard<'a, Key<'static>>,
        redb::AccessGuard<'a, tables::Row<'static>>,
    ),
    redb::StorageError,
>;

/// An error is no record that is out: it comes through.
fn is_out(handed: &handed::Stream, entry: &Entry<'_>) -> bool {
    entry
        .as_ref()
        .is_ok_and(|(key, _)| handed.has(key.value().2))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in these is replaced as a whole, or changed in steps that leave it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
