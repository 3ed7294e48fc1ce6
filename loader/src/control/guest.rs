//! One connection: a request, then an answer or a stream of them. Never waits, and holds a bounded
//! amount of memory whatever the other end does.

use super::{
    desk::Window,
    protocol::{self, MAX_REQUEST, Request, RequestError, Status},
    tap::{Door, Letters},
};
use crate::{actor::Actor, bypass::Order};
use nix::{
    errno::Errno,
    poll::PollFlags,
    sys::socket::{MsgFlags, recv, send},
};
use std::{
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::mpsc::{Receiver, TryRecvError},
    time::{Duration, Instant},
};

/// How long a connection may stay without having asked for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Requests answered on one connection.
const MAX_REQUESTS: u32 = 64;
/// What is taken from the queue at once; one more line may come on top.
const CHUNK: usize = 64 << 10;
/// Chunks written in one turn, so that a fast reader does not keep the others waiting.
const CHUNKS_A_TURN: usize = 16;

/// A connection that was let in, or one that is being told why it was not.
pub(super) struct Guest {
    stream: UnixStream,
    /// Whose it is; nobody's who was refused.
    actor: Option<Actor>,
    input: Vec<u8>,
    input_over: bool,
    output: Vec<u8>,
    written: usize,
    state: State,
    requests: u32,
    since: Instant,
}

enum State {
    /// Has not asked for a stream.
    Asking,
    /// Gets one.
    Watching(Letters),
    /// Has given an order.
    Waiting(Receiver<String>),
    /// Goes when the output is written.
    Leaving,
}

/// What a connection is served with.
#[derive(Clone, Copy)]
pub(super) struct Counter<'a> {
    pub(super) door: &'a Door,
    pub(super) window: &'a Window,
    pub(super) status: &'a Status,
}

/// The connection is over.
pub(super) struct Gone;

impl Guest {
    pub(super) fn new(stream: UnixStream, actor: Option<Actor>) -> Self {
        Self {
            stream,
            actor,
            input: Vec::new(),
            input_over: false,
            output: Vec::new(),
            written: 0,
            state: State::Asking,
            requests: 0,
            since: Instant::now(),
        }
    }

    /// Somebody who is told why he cannot stay.
    pub(super) fn refused(stream: UnixStream, why: &str) -> Self {
        let mut guest = Self::new(stream, None);
        guest.refuse(why);
        guest
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        // Who does not take the answers need not ask for more of them.
        let busy = matches!(self.state, State::Waiting(_));
        if !self.input_over && !busy && self.output.is_empty() {
            flags |= PollFlags::POLLIN;
        }
        if !self.output.is_empty() {
            flags |= PollFlags::POLLOUT;
        }
        flags
    }

    /// When its patience ends; a watcher may stay.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Watching(_) => None,
            State::Asking | State::Waiting(_) | State::Leaving => Some(self.since + PATIENCE),
        }
    }

    /// Whether everything it is to get has been written.
    pub(super) fn is_served(&self) -> bool {
        self.output.is_empty()
    }

    /// One turn: reads what came, writes what there is and what fits.
    pub(super) fn turn(&mut self, ready: PollFlags, counter: Counter<'_>) -> Result<(), Gone> {
        self.hear_back();
        if self.deadline().is_some_and(|d| Instant::now() >= d) {
            return Err(Gone);
        }
        if ready.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
            return Err(Gone);
        }
        if ready.contains(PollFlags::POLLIN) {
            self.read()?;
            self.requests(counter);
        }
        self.write()
    }

    /// Writes what is left to say, and then the last line.
    pub(super) fn farewell(&mut self) {
        self.fill();
        if matches!(self.state, State::Watching(_)) && self.output.len() < CHUNK {
            self.output.extend_from_slice(protocol::END.as_bytes());
            self.leave();
        }
    }

    fn refuse(&mut self, why: &str) {
        self.output
            .extend_from_slice(protocol::error(why).as_bytes());
        self.leave();
        self.input = Vec::new();
        self.input_over = true;
    }

    /// From now on it has a while to take what is left for it.
    fn leave(&mut self) {
        self.state = State::Leaving;
        self.since = Instant::now();
    }

    fn read(&mut self) -> Result<(), Gone> {
        let mut chunk = [0; MAX_REQUEST];
        match recv(self.stream.as_raw_fd(), &mut chunk, MsgFlags::empty()) {
            // It may still read: `nc` and `socat` close their half when their input ends.
            Ok(0) => self.input_over = true,
            Ok(n) => self.input.extend_from_slice(&chunk[..n]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(_) => return Err(Gone),
        }
        Ok(())
    }

    /// Takes the answer to an order, or gives up waiting for it.
    fn hear_back(&mut self) {
        let State::Waiting(from) = &self.state else {
            return;
        };
        match from.try_recv() {
            Ok(line) => {
                self.output.extend_from_slice(line.as_bytes());
                self.leave();
            }
            Err(TryRecvError::Empty) if self.since.elapsed() < PATIENCE => {}
            Err(_) => self.refuse(&RequestError::Unanswered.to_string()),
        }
    }

    fn requests(&mut self, counter: Counter<'_>) {
        while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            if matches!(self.state, State::Watching(_)) {
                return self.refuse(&RequestError::Watching.to_string());
            }
            match Request::parse(&line[..end]) {
                Ok(Request::Order(order)) => return self.order(order, counter),
                Ok(request) => self.answer(&request, counter),
                Err(e) => return self.refuse(&e.to_string()),
            }
        }
        match self.state {
            State::Watching(_) if !self.input.is_empty() => {
                self.refuse(&RequestError::Watching.to_string());
            }
            State::Asking if self.input.len() > MAX_REQUEST => {
                self.refuse(&RequestError::TooLong.to_string());
            }
            State::Asking if self.input_over => self.leave(),
            _ => {}
        }
    }

    /// Passes an order on. It is the last thing that is asked for on this connection.
    fn order(&mut self, order: Order, counter: Counter<'_>) {
        let wake = &counter.door.wake;
        let asked = self.actor.clone();
        let asked = asked.and_then(|actor| counter.window.ask(order, actor, wake));
        match asked {
            Some(from) => {
                self.state = State::Waiting(from);
                self.since = Instant::now();
            }
            None => self.refuse(&RequestError::Busy.to_string()),
        }
    }

    fn answer(&mut self, request: &Request, counter: Counter<'_>) {
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return self.refuse(&RequestError::TooMany.to_string());
        }
        self.output
            .extend_from_slice(protocol::status(counter.status).as_bytes());
        if let Request::Watch(watch) = request {
            self.state = State::Watching(counter.door.join(watch.live));
        }
    }

    /// Takes lines from the queue until there is a chunk.
    fn fill(&mut self) {
        let State::Watching(letters) = &self.state else {
            return;
        };
        while self.output.len() < CHUNK {
            match letters.next() {
                Some(line) => self.output.extend_from_slice(line.as_bytes()),
                None => break,
            }
        }
        // What did not fit came after what did.
        if self.output.len() < CHUNK {
            let lost = letters.lost();
            if lost > 0 {
                self.output
                    .extend_from_slice(protocol::lost(lost).as_bytes());
            }
        }
    }

    fn write(&mut self) -> Result<(), Gone> {
        for _ in 0..CHUNKS_A_TURN {
            if self.output.is_empty() {
                self.fill();
            }
            if self.output.is_empty() {
                let leaves = matches!(self.state, State::Leaving);
                return if leaves { Err(Gone) } else { Ok(()) };
            }
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            match send(self.stream.as_raw_fd(), &self.output[self.written..], flags) {
                Ok(n) => self.written += n,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(_) => return Err(Gone),
            }
            if self.written == self.output.len() {
                self.written = 0;
                self.output.clear();
                // A snapshot of live flows makes it big.
                self.output.shrink_to(2 * CHUNK);
            }
        }
        self.fill();
        Ok(())
    }
}

impl AsFd for Guest {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
