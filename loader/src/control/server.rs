//! The thread that serves the socket. It shares nothing with the data path but the queues, and runs at a
//! lower priority: watching may lose lines, the rest of the loader may not.

use super::{
    ControlError, Desk, Gate, Rank, Status, Tap,
    desk::{self, Window},
    guest::{Counter, Guest},
    place, socket_path,
    tap::Door,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};
use std::{
    fs, io,
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Connections at a time.
const MAX_GUESTS: usize = 32;
/// Of these, how many members of the group leave to root.
const KEPT_FOR_ROOT: usize = 8;
/// Connections taken in one turn.
const ACCEPT_A_TURN: usize = 16;
/// How long the end of the instance waits for watchers to take the last lines.
const FAREWELL: Duration = Duration::from_millis(300);
/// How long to leave the socket alone when connections cannot be taken.
const RECOVERY: Duration = Duration::from_secs(1);
/// How much nicer than the data path.
const NICE: i32 = 10;

/// The served socket of an instance; dropping it says good-bye and removes it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    wake: Arc<EventFd>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts serving an instance in a directory that [`super::prepare`] found good. The calling process
    /// must not fork without exec from here on. Returns where to put flows in, and where to find orders.
    pub fn start(
        dir: &Path,
        gate: Gate,
        status: Status,
    ) -> Result<(Self, Tap, Desk), ControlError> {
        let listener = place::listen(dir, &status.instance, gate.group)?;
        let path = socket_path(dir, &status.instance);
        let (tap, door) = Tap::open().map_err(ControlError::Thread)?;
        let (desk, window) = desk::open().map_err(ControlError::Thread)?;
        let mut server = Self {
            path,
            wake: Arc::clone(&door.wake),
            over: Arc::default(),
            thread: None,
        };
        let room = Room {
            listener,
            gate,
            status,
            door,
            window,
            over: Arc::clone(&server.over),
            guests: Vec::new(),
            deaf_until: None,
        };
        let thread = thread::Builder::new()
            .name("control".to_owned())
            .stack_size(256 << 10)
            .spawn(move || room.serve())
            .map_err(ControlError::Thread)?;
        server.thread = Some(thread);
        Ok((server, tap, desk))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First, so that nobody comes in late. If it is gone already, so much the better.
        let _ = fs::remove_file(&self.path);
        self.over.store(true, Ordering::Release);
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has left its message on stderr; the flows are unaffected.
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Room {
    listener: UnixListener,
    gate: Gate,
    status: Status,
    door: Door,
    window: Window,
    over: Arc<AtomicBool>,
    guests: Vec<Guest>,
    deaf_until: Option<Instant>,
}

impl Room {
    fn serve(mut self) {
        lower_priority();
        while !self.over.load(Ordering::Acquire) {
            let timeout = self.timeout();
            if !self.turn(timeout) {
                return;
            }
        }
        self.say_goodbye();
    }

    /// Until the next deadline, if there is one.
    fn timeout(&self) -> PollTimeout {
        let deadlines = self.guests.iter().filter_map(Guest::deadline);
        match deadlines.chain(self.deaf_until).min() {
            Some(at) => until(at),
            None => PollTimeout::NONE,
        }
    }

    /// Waits and serves once. Returns whether there is any use in going on.
    fn turn(&mut self, timeout: PollTimeout) -> bool {
        let deaf = self.deaf_until.is_some_and(|t| Instant::now() < t);
        let hears = if deaf {
            PollFlags::empty()
        } else {
            PollFlags::POLLIN
        };
        let mut fds = vec![
            PollFd::new(self.door.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), hears),
        ];
        fds.extend(
            self.guests
                .iter()
                .map(|g| PollFd::new(g.as_fd(), g.interest())),
        );
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return true,
            Err(_) => return false,
        }
        let ready: Vec<PollFlags> = fds
            .iter()
            .map(|f| f.revents().unwrap_or(PollFlags::POLLERR))
            .collect();
        // Empty it; it says only that there is something.
        let _ = self.door.wake.read();
        let counter = Counter {
            door: &self.door,
            window: &self.window,
            status: &self.status,
        };
        let mut flags = ready[2..].iter();
        self.guests.retain_mut(|g| {
            let ready = flags.next().copied().unwrap_or(PollFlags::empty());
            g.turn(ready, counter).is_ok()
        });
        if !deaf {
            self.deaf_until = None;
            self.receive();
        }
        true
    }

    fn receive(&mut self) {
        for _ in 0..ACCEPT_A_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Out of descriptors or memory: the socket would be ready again at once.
                Err(_) => {
                    self.deaf_until = Some(Instant::now() + RECOVERY);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let mut guest = match self.gate.admit(&stream) {
            Err(e) => Guest::refused(stream, &e.to_string()),
            Ok(admitted) if self.guests.len() >= room_for(admitted.rank) => {
                Guest::refused(stream, "too many are connected already")
            }
            Ok(admitted) => Guest::new(stream, Some(admitted.actor)),
        };
        let counter = Counter {
            door: &self.door,
            window: &self.window,
            status: &self.status,
        };
        // A refusal is said at once and not waited for: it must not take a place.
        let stays = guest.turn(PollFlags::empty(), counter).is_ok();
        if stays && self.guests.len() < MAX_GUESTS {
            self.guests.push(guest);
        }
    }

    fn say_goodbye(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        loop {
            self.guests.iter_mut().for_each(Guest::farewell);
            self.guests.retain(|g| !g.is_served());
            if self.guests.is_empty() || Instant::now() >= deadline || !self.turn(until(deadline)) {
                return;
            }
        }
    }
}

/// How many may be there before one of this rank.
fn room_for(rank: Rank) -> usize {
    match rank {
        Rank::Root => MAX_GUESTS,
        Rank::Member => MAX_GUESTS - KEPT_FOR_ROOT,
    }
}

/// From now until then, at least a millisecond.
fn until(at: Instant) -> PollTimeout {
    let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}

/// The thread that calls gives way to the others.
fn lower_priority() {
    // SAFETY: a call without pointers; 0 is the calling thread. If it fails nothing is lost but manners.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

#[cfg(test)]
mod tests;
