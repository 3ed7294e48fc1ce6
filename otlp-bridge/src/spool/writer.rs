//! The thread that writes: everything that waits goes into one transaction, so that many callers share
//! one sync of the disk.

use super::{
    Shared, SpoolError,
    again::Again,
    apply::{Apply, Keep, Settled, Within, millis},
    books::{Book, Tier, size},
    notice::Cause,
    shed,
};
use jiff::Timestamp;
use std::{
    sync::{
        PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};
use wire::stream;

/// How often age is looked at when nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// How long the bound stays lowered after the disk was full.
const SQUEEZED: Duration = Duration::from_secs(30);
/// What goes into one transaction, in records and bytes of them.
const RECORDS_MOST: usize = 16_384;
const BYTES_MOST: usize = 32 << 20;
/// The part of the bound that records set aside may take.
const ASIDE: u64 = 16;
/// The part of the bound that records of the agents' lane may take. What is over the bound goes by its tier,
/// whoever filled it, so agents must not be able to fill it.
const AGENTS: u64 = 4;
/// How much lower the bound is after the disk was full, as a part of what is there.
const SQUEEZE: u64 = 16;

/// Where a caller waits for what became of its request.
pub(super) type Answer = SyncSender<Result<(), SpoolError>>;

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Job {
    /// Keep these.
    Keep(Keep, Answer),
    /// These are delivered, or set aside.
    Settle(Vec<Settled>),
    /// Say when everything before is on the disk.
    Flush(Answer),
    /// Try again what was set aside.
    Again(Answer),
}

/// The thread's own state.
pub(super) struct Writer {
    shared: std::sync::Arc<Shared>,
    jobs: Receiver<Job>,
    /// Delivered, but not removed yet. Forgetting it would only mean that it is delivered again.
    settled: Vec<Settled>,
    /// A lower bound for a while, because the disk was full.
    squeeze: Option<(u64, Instant)>,
    aged: Instant,
    again: Again,
    /// It was said that the agents' lane has no room. Said once until half of its part is free.
    crowded: bool,
}

/// What goes into the next transaction.
#[derive(Default)]
struct Turn {
    keeps: Vec<Keep>,
    answers: Vec<Answer>,
    records: usize,
    bytes: usize,
    /// What records of the agents' lane in `keeps` take of the bound.
    agents: u64,
    flush: bool,
    again: bool,
}

impl Turn {
    fn add(&mut self, job: Job, settled: &mut Vec<Settled>) {
        match job {
            Job::Keep(keep, answer) => {
                self.count(&keep);
                self.agents += of_agents(&keep);
                self.keeps.push(keep);
                self.answers.push(answer);
            }
            Job::Settle(more) => settled.extend(more),
            Job::Flush(answer) => {
                self.flush = true;
                self.answers.push(answer);
            }
            Job::Again(answer) => {
                self.again = true;
                self.answers.push(answer);
            }
        }
    }

    fn count(&mut self, keep: &Keep) {
        self.records += keep.records.len();
        self.bytes += keep.records.iter().map(|r| r.bytes.len()).sum::<usize>();
    }

    fn full(&self) -> bool {
        self.records >= RECORDS_MOST || self.bytes >= BYTES_MOST
    }
}

/// What the records of the agents' lane among these take of the bound.
fn of_agents(keep: &Keep) -> u64 {
    let records = keep.records.iter();
    let agents = records.filter(|r| r.stream == stream::CLAUDE);
    agents.map(|r| size(&r.id, &r.bytes)).sum()
}

impl Writer {
    pub(super) fn new(shared: std::sync::Arc<Shared>, jobs: Receiver<Job>) -> Self {
        Self {
            shared,
            jobs,
            settled: Vec::new(),
            squeeze: None,
            aged: Instant::now(),
            again: Again::new(Instant::now()),
            crowded: false,
        }
    }

    /// Works until nobody can ask any more. An error is one that nothing but a person can mend.
    pub(super) fn run(mut self) -> Result<(), SpoolError> {
        loop {
            let mut turn = Turn::default();
            match self.jobs.recv_timeout(TICK) {
                Ok(job) => self.take(&mut turn, job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while !turn.full()
                && let Ok(job) = self.jobs.try_recv()
            {
                self.take(&mut turn, job);
            }
            self.turn(turn)?;
        }
        self.turn(Turn::default())
    }

    /// Takes a job into a transaction, or puts it off at once: then nothing of it was taken.
    fn take(&mut self, turn: &mut Turn, job: Job) {
        if let Job::Keep(keep, answer) = &job
            && !self.has_room(turn.agents, of_agents(keep))
        {
            // Whoever comes again and again must not keep the transaction from being written.
            turn.count(keep);
            let path = self.shared.store.path().to_owned();
            // Who has gone away does not want to know.
            let _ = answer.send(Err(SpoolError::AgentsFull(path)));
            return;
        }
        turn.add(job, &mut self.settled);
    }

    /// Whether the agents' lane may have so much more of the bound, besides what is `taken` already in this
    /// transaction. A request that is larger than the whole part is taken when nothing else is there: it
    /// could never be otherwise.
    fn has_room(&mut self, taken: u64, more: u64) -> bool {
        let books = self.shared.books();
        let book = books.streams.get(stream::CLAUDE);
        let held = taken + book.map_or(0, Book::total);
        drop(books);
        let part = self.within().bytes / AGENTS;
        if held < part / 2 {
            self.crowded = false;
        }
        let room = more == 0 || held == 0 || held + more <= part;
        if !room && !std::mem::replace(&mut self.crowded, true) {
            tracing::warn!(
                bytes = held,
                "records of the agents' lane take their part of the spool: more are put off until some are delivered"
            );
        }
        room
    }

    fn turn(&mut self, mut turn: Turn) -> Result<(), SpoolError> {
        self.relax();
        turn.again |= self.again.is_due(&self.shared.books(), Instant::now());
        if !self.due(&turn) {
            turn.answers.iter().for_each(|a| drop(a.send(Ok(()))));
            return Ok(());
        }
        let done = self.commit(&turn.keeps, turn.again);
        // First, so that whoever tries again finds the room that was made.
        let recovered = match &done {
            Err(e) => self.recover(e.clone()),
            Ok(()) => Ok(()),
        };
        for answer in turn.answers {
            // Who has gone away does not want to know.
            let _ = answer.send(done.clone());
        }
        recovered
    }

    /// Whether there is anything to write.
    fn due(&mut self, turn: &Turn) -> bool {
        if !turn.keeps.is_empty() || !self.settled.is_empty() || turn.flush || turn.again {
            return true;
        }
        if self.aged.elapsed() < TICK {
            return false;
        }
        self.aged = Instant::now();
        let (streams, over) = {
            let books = self.shared.books();
            let streams: Vec<String> = books.streams.keys().cloned().collect();
            (streams, books.undeclared > 0)
        };
        let oldest = self.oldest();
        over || self
            .shared
            .store
            .read(|t| shed::overdue(t, &streams, oldest))
            .unwrap_or(true)
    }

    fn oldest(&self) -> u64 {
        let age = u64::try_from(self.shared.bounds.age.as_millis()).unwrap_or(u64::MAX);
        millis(Timestamp::now()).saturating_sub(age)
    }

    fn within(&self) -> Within {
        let bound = self.shared.bounds.bytes;
        let all = &Tier::SHEDDABLE[..];
        let (bytes, cause, tiers) = match self.squeeze {
            // Denied flows and audit do not go for that: who sends new ones can wait with them.
            Some((lower, _)) if lower < bound => (lower, Cause::DiskFull, &all[..2]),
            _ => (bound, Cause::SpoolFull, all),
        };
        Within {
            bytes,
            cause,
            tiers,
            aside_bytes: bound / ASIDE,
            oldest: self.oldest(),
        }
    }

    fn commit(&mut self, keeps: &[Keep], again: bool) -> Result<(), SpoolError> {
        let (before, within) = (self.shared.books().clone(), self.within());
        let (handed, settled) = (&self.shared.handed, &self.settled);
        let written = self.shared.store.write(|tables| {
            let apply = Apply::new(tables, &before, handed, Timestamp::now());
            apply.run(&before, (keeps, again), settled, within)
        });
        // What a transaction passed over that did not come to be is there still.
        let (books, returned) = written.inspect_err(|_| self.shared.handed().rewind())?;
        let mut handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
        for s in self.settled.drain(..) {
            handed.settled(&s.stream, s.place);
        }
        for (stream, tier, place) in &returned {
            handed.back(stream, *tier, *place);
        }
        drop(handed);
        if again {
            self.again.tried(Instant::now());
        }
        if !returned.is_empty() {
            let records = returned.len();
            tracing::info!(records, "records that were set aside are tried again");
        }
        *self.shared.books() = books;
        self.shared.trouble(None);
        self.shared.changed.send_modify(|n| *n += 1);
        Ok(())
    }

    /// After a failure nothing of the transaction is there. The file is opened again, and when it was the
    /// room that was missing, some is made: the bound is lowered for a while, and what is over it goes.
    fn recover(&mut self, e: SpoolError) -> Result<(), SpoolError> {
        self.shared.trouble(Some(e.to_string()));
        if e.is_fatal() {
            return Err(e);
        }
        let full = matches!(e, SpoolError::DiskFull(_));
        if full {
            self.shared.store.free_reserve();
        }
        if let Err(e) = self.shared.store.reopen() {
            // Tried again with the next request.
            return if e.is_fatal() { Err(e) } else { Ok(()) };
        }
        if full {
            let there = self.shared.books().total();
            self.squeeze = Some((there - there / SQUEEZE, Instant::now() + SQUEEZED));
            if let Err(e) = self.commit(&[], false) {
                tracing::debug!("cannot make room: {e}");
                return self
                    .shared
                    .store
                    .reopen()
                    .or_else(|e| if e.is_fatal() { Err(e) } else { Ok(()) });
            }
        }
        Ok(())
    }

    /// When the disk has had time to get room, the bound is what it was.
    fn relax(&mut self) {
        if let Some((_, until)) = self.squeeze
            && until <= Instant::now()
        {
            self.squeeze = None;
            self.shared.store.fill_reserve();
        }
    }
}
