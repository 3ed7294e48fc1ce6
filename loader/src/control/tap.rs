//! Between the data path and its watchers: a bounded queue for each, filled without ever waiting.

use super::protocol;
use crate::{bypass::Lifted, record::Record};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel},
    },
    time::{Duration, Instant},
};

/// Most lines that wait for one watcher.
const QUEUE_LINES: usize = 4096;
/// Most bytes that wait for one watcher.
const QUEUE_BYTES: usize = 2 << 20;
/// Most bytes of one snapshot of live flows.
const LIVE_BYTES: usize = 1 << 20;
/// Most live flows of one snapshot.
pub const LIVE_MOST: usize = 1000;
/// So many lines are not kept waiting until the rings are empty, which can take long.
const WAKE_AT: usize = 256;
/// How often live flows are told.
const LIVE_EVERY: Duration = Duration::from_millis(900);

/// The end of the data path: what is put in here goes to whoever watches, and nowhere if nobody does.
#[derive(Debug, Default)]
pub struct Tap {
    newcomers: Option<Receiver<Queue>>,
    queues: Vec<Queue>,
    wake: Option<Arc<EventFd>>,
    /// Lines put in since the last wake-up.
    fresh: usize,
    live_at: Option<Instant>,
    /// What was last said of bypasses; newcomers are told it too.
    bypasses: Option<Arc<str>>,
}

/// The data path's end of one watcher's queue.
#[derive(Debug)]
struct Queue {
    to: SyncSender<Arc<str>>,
    shared: Arc<Shared>,
    live: bool,
}

/// What both ends of a queue know.
#[derive(Debug, Default)]
struct Shared {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The watcher's end of a queue.
#[derive(Debug)]
pub(super) struct Letters {
    from: Receiver<Arc<str>>,
    shared: Arc<Shared>,
}

/// Where watchers join.
#[derive(Debug)]
pub(super) struct Door {
    newcomers: Sender<Queue>,
    /// Readable when queues were filled.
    pub(super) wake: Arc<EventFd>,
}

impl Tap {
    /// A tap, and the door through which watchers come.
    pub(super) fn open() -> io::Result<(Self, Door)> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let wake = Arc::new(EventFd::from_flags(flags)?);
        let (newcomers, from) = channel();
        let tap = Self {
            newcomers: Some(from),
            wake: Some(Arc::clone(&wake)),
            ..Self::default()
        };
        Ok((tap, Door { newcomers, wake }))
    }

    /// Lets in who came since the last call.
    pub fn admit(&mut self) {
        if let Some(newcomers) = &self.newcomers {
            for queue in newcomers.try_iter() {
                if let Some(line) = &self.bypasses {
                    queue.offer(line);
                    self.fresh += 1;
                }
                self.queues.push(queue);
            }
        }
    }

    /// Tells of a flow that ended.
    pub fn ended(&mut self, r: &Record) {
        if self.queues.is_empty() {
            return;
        }
        let Some(line) = protocol::ended(r) else {
            return;
        };
        let line: Arc<str> = line.into();
        self.queues.retain(|q| q.put(&line));
        self.fresh += 1;
        if self.fresh >= WAKE_AT {
            self.flush();
        }
    }

    /// Whether somebody wants to know what lives, and it is time to say so.
    pub fn wants_live(&mut self) -> bool {
        self.admit();
        self.queues.retain(Queue::is_held);
        self.queues.iter().any(|q| q.live)
            && self.live_at.is_none_or(|at| at.elapsed() >= LIVE_EVERY)
    }

    /// Tells what lives: `total` flows, the first of which are `flows`.
    pub fn live(&mut self, total: usize, flows: impl Iterator<Item = Record>) {
        self.live_at = Some(Instant::now());
        let line: Arc<str> = protocol::live(total, flows, LIVE_BYTES).into();
        for q in self.queues.iter().filter(|q| q.live) {
            q.offer(&line);
        }
        self.fresh += 1;
    }

    /// Tells which bypasses run, whoever watches now and whoever comes later.
    pub fn bypasses(&mut self, all: &[Lifted]) {
        let line: Arc<str> = protocol::bypasses(all).into();
        for q in &self.queues {
            q.offer(&line);
        }
        self.fresh += 1;
        self.bypasses = (!all.is_empty()).then_some(line);
        self.flush();
    }

    /// Wakes who passes it on, if there is anything.
    pub fn flush(&mut self) {
        if let (1.., Some(wake)) = (self.fresh, &self.wake) {
            self.fresh = 0;
            // It fails only when it is awake already: the counter is full.
            let _ = wake.write(1);
        }
    }
}

impl Queue {
    /// Whether there is still somebody at the other end.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// Puts a record in, or counts it as lost. Returns whether there is still a watcher.
    fn put(&self, line: &Arc<str>) -> bool {
        let held = self.is_held();
        if held && !self.fits(line, QUEUE_BYTES) {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        held
    }

    /// Puts a snapshot in where there is room to spare. The next one tells all that this one did.
    fn offer(&self, line: &Arc<str>) {
        self.fits(line, QUEUE_BYTES / 4 * 3);
    }

    fn fits(&self, line: &Arc<str>, room: usize) -> bool {
        // Counted before it is sent, because the other end may take it before we are back.
        let before = self.shared.bytes.fetch_add(line.len(), Ordering::Relaxed);
        let sent = before + line.len() <= room
            && !matches!(
                self.to.try_send(Arc::clone(line)),
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_))
            );
        if !sent {
            self.shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
        }
        sent
    }
}

impl Door {
    /// A watcher comes in. Its letters begin with the next record.
    pub(super) fn join(&self, live: bool) -> Letters {
        let (to, from) = sync_channel(QUEUE_LINES);
        let shared = Arc::<Shared>::default();
        let queue = Queue {
            to,
            shared: Arc::clone(&shared),
            live,
        };
        // If the tap is gone there will be no letters, which the watcher finds out by itself.
        let _ = self.newcomers.send(queue);
        Letters { from, shared }
    }
}

impl Letters {
    /// The next line, if there is one.
    pub(super) fn next(&self) -> Option<Arc<str>> {
        match self.from.try_recv() {
            Ok(line) => {
                self.shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
                Some(line)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// Records that did not fit since the last call.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::line::tests::record;

    fn woken(door: &Door) -> bool {
        door.wake.read().is_ok()
    }

    #[test]
    fn without_a_watcher_nothing_happens() {
        let (mut tap, door) = Tap::open().unwrap();
        tap.ended(&record());
        tap.flush();
        assert!(!woken(&door) && !tap.wants_live());
        let mut unconnected = Tap::default();
        unconnected.admit();
        unconnected.ended(&record());
        unconnected.flush();
        assert!(!unconnected.wants_live());
    }

    #[test]
    fn each_watcher_gets_what_comes_after_it_did() {
        let (mut tap, door) = Tap::open().unwrap();
        let first = door.join(true);
        tap.admit();
        tap.ended(&record());
        let second = door.join(false);
        tap.admit();
        tap.ended(&record());
        tap.flush();
        assert!(woken(&door) && !woken(&door));
        for _ in 0..WAKE_AT {
            tap.ended(&record());
        }
        assert!(woken(&door), "not only at the end of a long drain");
        let count = |l: &Letters| std::iter::from_fn(|| l.next()).count();
        assert_eq!((count(&first), count(&second)), (WAKE_AT + 2, WAKE_AT + 1));
        assert!(tap.wants_live());
        tap.live(5, std::iter::once(record()));
        assert!(!tap.wants_live(), "it was just told");
        assert_eq!((count(&first), count(&second)), (1, 0));
        drop(first);
        tap.live_at = None;
        assert!(!tap.wants_live(), "the other one does not ask for it");
    }

    #[test]
    fn what_does_not_fit_is_counted_to_the_last_record() {
        let (mut tap, door) = Tap::open().unwrap();
        let letters = door.join(false);
        tap.admit();
        let told = 3 * QUEUE_LINES as u64;
        let mut got = 0;
        for i in 0..told {
            tap.ended(&record());
            if i % 3 == 0 {
                got += u64::from(letters.next().is_some());
            }
        }
        got += std::iter::from_fn(|| letters.next()).count() as u64;
        let lost = letters.lost();
        assert!(lost > 0);
        assert_eq!((got + lost, letters.lost()), (told, 0));
        assert_eq!(letters.shared.bytes.load(Ordering::Relaxed), 0);
        tap.ended(&record());
        assert!(letters.next().is_some(), "it goes on");
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_too() {
        let (mut tap, door) = Tap::open().unwrap();
        let letters = door.join(true);
        tap.admit();
        let big = Record {
            dst_hosts: vec!["x".repeat(255); 40],
            ..record()
        };
        for _ in 0..QUEUE_LINES {
            tap.ended(&big);
            tap.live(1, std::iter::once(big.clone()));
        }
        assert!(letters.shared.bytes.load(Ordering::Relaxed) <= QUEUE_BYTES);
        let ended = std::iter::from_fn(|| letters.next()).filter(|l| l.starts_with("{\"ended\""));
        let ended = ended.count() as u64;
        assert_eq!(ended + letters.lost(), QUEUE_LINES as u64);
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let (mut tap, door) = Tap::open().unwrap();
        drop(door.join(false));
        tap.admit();
        tap.ended(&record());
        assert!(tap.queues.is_empty());
    }
}
