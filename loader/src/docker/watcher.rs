//! The thread that follows the engine: its events, and looks at whom they are about.

use super::{
    News,
    births::{Births, BirthsError, Change},
    book::{Book, Step},
    line::{Answer, Heard, Line},
};
use bollard::models::EventMessage;
use jiff::Timestamp;
use lease::{Labels, container_name};
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    signal::SigSet,
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};
use wire::Backoff;

/// Waits between tries to reach the engine.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often everything is looked at again although nothing seems to be missing: the engine drops
/// events of a subscriber that it thinks too slow, and says nothing of it.
const RESYNC: Duration = Duration::from_secs(600);
/// Which engine to follow, and where its containers are.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Its unix socket.
    pub socket: PathBuf,
    /// Where cgroup v2 is mounted.
    pub cgroup_root: PathBuf,
    /// Parents of containers' cgroups besides the default ones, as for `--cgroup-parent`. Those that
    /// containers name themselves are found out.
    pub parents: Vec<String>,
}

/// What keeps a watcher from starting.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Births cannot be seen.
    #[error(transparent)]
    Births(#[from] BirthsError),
    /// The kernel lacks something that every process may have.
    #[error("cannot start the thread that follows the container engine: {0}")]
    Start(#[from] io::Error),
}

/// Follows an engine for ever, whether it answers or not. It ends with this handle.
#[derive(Debug)]
pub struct Watcher {
    news: mpsc::Receiver<News>,
    wake: Arc<EventFd>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to follow. An engine that does not answer is no error but [`News::Away`].
    pub fn start(engine: Engine) -> Result<Self, WatchError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).map_err(io::Error::from)?);
        let mut births = Births::new(&engine.cgroup_root)?;
        for parent in &engine.parents {
            births.watch(parent)?;
        }
        let (tell, news) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let teller = Teller {
            tell,
            wake: Arc::clone(&wake),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                // Signals are the main thread's.
                let _ = SigSet::all().thread_block();
                let mut follower = Follower {
                    engine,
                    births,
                    teller,
                    book: Book::default(),
                    backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
                    away: false,
                };
                runtime.block_on(async {
                    tokio::select! {
                        () = follower.follow_for_ever() => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            news,
            wake,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What there is to hear, without waiting. The descriptor becomes readable when there is more.
    pub fn news(&self) -> impl Iterator<Item = News> + '_ {
        // Before the queue is read: what comes meanwhile wakes again. Empty is no error.
        let _ = self.wake.read();
        self.news.try_iter()
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Teller {
    tell: mpsc::Sender<News>,
    wake: Arc<EventFd>,
}

impl Teller {
    fn tell(&self, news: News) {
        // Nobody listens when the handle is being dropped.
        let _ = self.tell.send(news);
        let _ = self.wake.write(1);
    }
}

struct Follower {
    engine: Engine,
    births: Births,
    teller: Teller,
    book: Book,
    backoff: Backoff,
    /// The outage has been told.
    away: bool,
}

impl Follower {
    async fn follow_for_ever(&mut self) {
        loop {
            let Err(why) = self.follow().await else {
                continue;
            };
            if !std::mem::replace(&mut self.away, true) {
                let socket = self.engine.socket.display();
                self.teller.tell(News::Away(format!(
                    "cannot follow the container engine at {socket}: {why}; trying again"
                )));
            }
            sleep(self.backoff.wait(None)).await;
        }
    }

    /// Follows one connection to its end, or until it is time to look at everything again.
    async fn follow(&mut self) -> Result<(), String> {
        let mut line = Line::open(&self.engine).map_err(|e| e.to_string())?;
        let seen = line.look_at_all().await.map_err(|e| e.to_string())?;
        let steps = self.book.begin(seen);
        self.take(&mut line, steps);
        self.backoff.reset();
        self.away = false;
        // Those that are being started just now are told behind all that run.
        self.births.again().map_err(|e| e.to_string())?;
        self.births(&mut line)?;
        let fd = wait_for(&self.births).map_err(|e| format!("cannot wait for births: {e}"))?;
        let resync = Instant::now() + RESYNC;
        loop {
            tokio::select! {
                biased;
                heard = line.events.recv() => {
                    let steps = match heard.ok_or("it ended the stream of events")? {
                        Heard::Event(event) => self.hear(event.map_err(|e| e.to_string())?),
                        Heard::Until(at) => self.book.read_until(at),
                    };
                    self.take(&mut line, steps);
                }
                Some(looked) = line.looks.join_next() => {
                    let steps = match looked.map_err(|e| e.to_string())? {
                        Answer::Seen(id, seen) => self.book.looked(&id, seen, now()),
                        Answer::Attached { id, attempt, ends } => self.book.attached(&id, attempt, ends),
                    };
                    self.take(&mut line, steps);
                }
                ready = fd.readable() => {
                    ready.map_err(|e| e.to_string())?.clear_ready();
                    self.births(&mut line)?;
                }
                () = sleep_until(resync) => return Ok(()),
            }
        }
    }

    fn hear(&mut self, event: EventMessage) -> Vec<Step> {
        let (Some(action), Some(actor)) = (event.action, event.actor) else {
            return Vec::new();
        };
        let mut about = actor.attributes.unwrap_or_default();
        let (id, network) = match action.as_str() {
            "connect" | "disconnect" => (about.remove("container"), actor.id),
            _ => (actor.id, None),
        };
        let Some(id) = id else {
            return Vec::new();
        };
        let book = &mut self.book;
        match action.as_str() {
            "create" | "rename" => {
                let name = about.get("name").map(|n| container_name(n).to_owned());
                book.meet(&id, name.unwrap_or_default(), Labels::read(&about))
            }
            "start" => book.want(&id),
            "die" => book.died(&id, event.time_nano.unwrap_or_else(now)),
            "connect" => book.connected(&id, network.unwrap_or_default()),
            "disconnect" => book.disconnected(&id),
            _ => {
                book.forget(&id);
                Vec::new()
            }
        }
    }

    fn births(&mut self, line: &mut Line) -> Result<(), String> {
        for change in self.births.changes().map_err(|e| e.to_string())? {
            let steps = match change {
                Change::Appeared(birth) => self.book.appeared(birth),
                Change::Vanished(birth) => self.book.vanished(&birth),
            };
            self.take(line, steps);
        }
        Ok(())
    }

    fn take(&mut self, line: &mut Line, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Tell(news) => self.teller.tell(news),
                Step::Look(id) => line.look(id),
                Step::LookAtNetwork {
                    id,
                    network,
                    attempt,
                } => line.look_at_network(id, network, attempt),
                Step::Watch(parent) => {
                    // What is found comes with the other changes.
                    if let Err(e) = self.births.watch(&parent) {
                        tracing::warn!("{e}");
                    }
                }
            }
        }
    }
}

/// A second descriptor of the same queue, for the runtime to wait on.
fn wait_for(births: &Births) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = births.as_fd().try_clone_to_owned()?;
    // SAFETY: an owned descriptor is the same, and open, until it is dropped, which `AsyncFd` alone does.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Nanoseconds of wall time.
fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
