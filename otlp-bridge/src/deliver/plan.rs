//! What to send next, and what an answer means. Pure: records and times in, decisions out.
//!
//! A data stream is *ailing* when as many requests as may be under way have failed one after the other, or
//! when nobody is there. Then one request at a time goes out, with growing rests, and nothing is blamed on
//! the records. Otherwise some requests arrive, and a request that keeps failing has something in it that
//! the receiver does not take: it is split, and again, until one record is alone.

use super::conflict::says_stored;
use crate::reason::{classed, reason};
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};
use wire::{Backoff, Failure, Outcome};

/// Rests of a data stream that ails, and of a request that keeps failing.
const FIRST_REST: Duration = Duration::from_millis(250);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// A request with as many strikes is split, or its only record set aside: two answers, or six requests
/// without one. A receiver that is killed again and again answers nothing, and that is not the records'
/// fault.
const STRIKES: u32 = 6;
const STRIKES_OF_AN_ANSWER: u32 = 3;
const STRIKES_OF_SILENCE: u32 = 1;

/// How much goes on at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Requests under way.
    pub(super) requests: usize,
    /// Requests in memory, those that rest included.
    pub(super) batches: usize,
}

/// A record, as far as its fate is concerned.
pub(super) trait Named {
    /// Its id.
    fn id(&self) -> &str;
}

/// Names a request under way.
pub(super) type Ticket = u64;

/// Records that go out together.
#[derive(Debug)]
struct Batch<R> {
    records: Vec<R>,
    /// What its failures weigh that may be its own.
    strikes: u32,
    /// Requests of the stream that had arrived when it began, or failed last.
    arrived: u64,
    rest: Backoff,
    not_before: Option<Instant>,
    /// Taken from somewhere in the queue, to see whether anything arrives at all.
    probe: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send the records of this ticket.
    Send(Ticket),
    /// Bring more records, the oldest ones, if there are any.
    More,
    /// Bring a single record from anywhere in the queue, if there is one.
    Probe,
    /// Nothing before this time, or an answer.
    Rest(Option<Instant>),
}

/// What an answer comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate<R> {
    /// The receiver has these.
    Delivered(Vec<R>),
    /// No receiver takes this one, and this is why.
    Aside(R, String),
    /// Put these back into the queue.
    Back(Vec<R>),
}

/// The requests of one data stream.
#[derive(Debug)]
pub(super) struct Plan<R> {
    limits: Limits,
    waiting: VecDeque<Batch<R>>,
    sent: HashMap<Ticket, Batch<R>>,
    next: Ticket,
    /// Requests that arrived.
    arrived: u64,
    /// Requests that failed since one arrived.
    failed: usize,
    ailing: bool,
    rest: Backoff,
    not_before: Option<Instant>,
    /// While it ails, every second try is a probe.
    probe_next: bool,
    trouble: Option<String>,
}

/// A request that did not arrive.
struct Failed {
    text: String,
    strikes: u32,
    after: Option<Duration>,
}

impl<R: Named> Plan<R> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            sent: HashMap::new(),
            next: 0,
            arrived: 0,
            failed: 0,
            ailing: false,
            rest: Backoff::new(FIRST_REST, LONGEST_REST),
            not_before: None,
            probe_next: false,
            trouble: None,
        }
    }

    /// `more`: there are records in the queue that are not here.
    pub(super) fn next(&mut self, now: Instant, more: bool) -> Next {
        let room = if self.ailing { 1 } else { self.limits.requests };
        if self.sent.len() >= room {
            return Next::Rest(None);
        }
        if let Some(t) = self.not_before.filter(|t| *t > now) {
            return Next::Rest(Some(t));
        }
        let probing = self.waiting.front().is_some_and(|b| b.probe);
        if self.ailing && self.probe_next && more && !probing {
            return Next::Probe;
        }
        let ready = |b: &Batch<R>| b.not_before.is_none_or(|t| t <= now);
        // What has failed before is not sent before others have had their turn.
        if let Some(at) = self.waiting.iter().position(ready) {
            return self.send(at);
        }
        let room = self.waiting.len() + self.sent.len() < self.limits.batches;
        if more && room && (!self.ailing || self.waiting.is_empty()) {
            return Next::More;
        }
        Next::Rest(self.waiting.iter().filter_map(|b| b.not_before).min())
    }

    fn send(&mut self, at: usize) -> Next {
        let Some(batch) = self.waiting.remove(at) else {
            return Next::Rest(None);
        };
        let ticket = self.next;
        self.next += 1;
        self.sent.insert(ticket, batch);
        Next::Send(ticket)
    }

    /// Records that were brought.
    pub(super) fn add(&mut self, records: Vec<R>) {
        let batch = self.batch(records);
        self.waiting.push_back(batch);
    }

    /// A record that was brought as a probe; nothing when there is none.
    pub(super) fn add_probe(&mut self, record: Option<R>) {
        match record {
            None => self.probe_next = false,
            Some(record) => {
                let mut batch = self.batch(vec![record]);
                batch.probe = true;
                self.waiting.push_front(batch);
            }
        }
    }

    fn batch(&self, records: Vec<R>) -> Batch<R> {
        Batch {
            records,
            strikes: 0,
            arrived: self.arrived,
            rest: Backoff::new(FIRST_REST, LONGEST_REST),
            not_before: None,
            probe: false,
        }
    }

    /// The records of a ticket.
    pub(super) fn records(&self, ticket: Ticket) -> &[R] {
        self.sent.get(&ticket).map_or(&[], |b| &b.records)
    }

    /// Why the last request did not arrive; nothing when it did.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// What became of a request.
    pub(super) fn answered(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
    ) -> Vec<Fate<R>> {
        let Some(batch) = self.sent.remove(&ticket) else {
            return Vec::new();
        };
        let (failure, after) = match outcome {
            Outcome::Delivered => {
                self.well();
                return vec![Fate::Delivered(batch.records)];
            }
            // It does not say which, so all of them are sent again, and told by their ids.
            Outcome::Partial { rejected, message } => {
                let failed = Failed {
                    text: classed(
                        format!("the receiver threw away {rejected} records"),
                        &message,
                    ),
                    strikes: STRIKES_OF_AN_ANSWER,
                    after: None,
                };
                return self.failed(batch, failed, now);
            }
            Outcome::Retry { failure, after } => (failure, after),
            Outcome::Refused(failure) => (failure, None),
        };
        let text = reason(&failure);
        match failure {
            Failure::Connect(_) => self.nobody_there(batch, text, after, now),
            Failure::Status { message, .. } => {
                let failed = Failed {
                    text,
                    strikes: STRIKES_OF_AN_ANSWER,
                    after,
                };
                self.refused(batch, &message, failed, now)
            }
            Failure::Timeout(_) | Failure::Broken(_) | Failure::Foreign(_) => {
                let failed = Failed {
                    text,
                    strikes: STRIKES_OF_SILENCE,
                    after,
                };
                self.failed(batch, failed, now)
            }
        }
    }

    /// Something arrived.
    fn well(&mut self) {
        self.arrived += 1;
        self.failed = 0;
        self.ailing = false;
        self.probe_next = false;
        self.not_before = None;
        self.rest.reset();
        self.trouble = None;
    }

    /// Nobody has seen the records: that says nothing about them.
    fn nobody_there(
        &mut self,
        batch: Batch<R>,
        text: String,
        after: Option<Duration>,
        now: Instant,
    ) -> Vec<Fate<R>> {
        self.trouble = Some(text);
        self.ailing = true;
        self.not_before = Some(now + self.rest.wait(after));
        self.waiting.push_front(batch);
        Vec::new()
    }

    /// The receiver says no. What it names as stored is delivered all the same.
    fn refused(
        &mut self,
        mut batch: Batch<R>,
        message: &str,
        failed: Failed,
        now: Instant,
    ) -> Vec<Fate<R>> {
        let stored = |r: &R| says_stored(message, r.id());
        let (stored, rest): (Vec<_>, Vec<_>) = batch.records.into_iter().partition(stored);
        batch.records = rest;
        if stored.is_empty() {
            return self.failed(batch, failed, now);
        }
        self.well();
        if !batch.records.is_empty() {
            self.waiting.push_back(batch);
        }
        vec![Fate::Delivered(stored)]
    }

    /// Counts a failure, and decides whose it is.
    fn failed(&mut self, mut batch: Batch<R>, failed: Failed, now: Instant) -> Vec<Fate<R>> {
        let Failed {
            text,
            strikes,
            after,
        } = failed;
        self.trouble = Some(text.clone());
        self.failed += 1;
        if self.ailing || self.failed >= self.limits.requests {
            self.ailing = true;
            self.not_before = Some(now + self.rest.wait(after));
            // After a probe one of the others, and the other way round.
            self.probe_next = !batch.probe;
        } else if let Some(after) = after {
            self.not_before = Some(now + after);
        }
        if batch.probe {
            return vec![Fate::Back(batch.records)];
        }
        let others = self.arrived > batch.arrived;
        let alone = batch.records.len() == 1;
        // The last thing that is said of a record needs more: something arrived before each failure.
        if others || !alone {
            batch.strikes += strikes;
        }
        if alone {
            batch.arrived = self.arrived;
        }
        if others && batch.strikes >= STRIKES {
            if alone {
                let aside = |record| Fate::Aside(record, text.clone());
                return batch.records.into_iter().map(aside).collect();
            }
            self.split(batch.records);
            return Vec::new();
        }
        batch.not_before = Some(now + batch.rest.wait(after));
        self.waiting.push_back(batch);
        Vec::new()
    }

    fn split(&mut self, mut records: Vec<R>) {
        let second = records.split_off(records.len() / 2);
        for half in [records, second] {
            let half = self.batch(half);
            self.waiting.push_back(half);
        }
    }
}

#[cfg(test)]
mod tests;
