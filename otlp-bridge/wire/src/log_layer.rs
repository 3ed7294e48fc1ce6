//! What a program says about itself, as records of `clawker-cp`: a layer of `tracing-subscriber` that
//! takes events of its own crates, and an outlet that somebody sends from.
//!
//! * Taken are warnings, errors, and events of any level with the target [`SECURITY`]. Events of foreign
//!   crates are not: those of the transport would be caused by sending and so never end, and nobody here
//!   knows what secrets they name.
//! * Nothing here waits. What is said too often ([`Volume`]), or finds the queue full, is counted, and
//!   the next record says how many there were. Security has a budget and a part of the queue of its own,
//!   so that nobody can drown it by causing other warnings.
//! * What is said while [`muted`] is not taken: whoever keeps or sends these records works under it.

mod bucket;
mod outlet;
mod text;

use crate::{
    fields::{AGENT, CONTAINER_ID, CONTAINER_NAME, LEVEL, PROJECT, SUPPRESSED, TARGET},
    record::{LogRecord, RecordBuilder, Severity},
};
use bucket::Bucket;
use jiff::Timestamp;
pub use outlet::{Outlet, Unsent};
use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};
use text::Said;
use tokio::sync::mpsc;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::{Layer, filter::filter_fn, layer::Context, registry::LookupSpan};

/// Target of events that a security operator must see, whatever their level.
pub const SECURITY: &str = "clawker::security";
/// Event name of these records.
pub const EVENT: &str = "clawker.cp.log";

/// How much may be said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Volume {
    /// Events at once.
    pub burst: u32,
    /// Events a second in the long run.
    pub per_second: f64,
    /// Records that may wait to be sent. The last quarter is for security alone.
    pub queue: usize,
}

impl Default for Volume {
    fn default() -> Self {
        Self {
            burst: 50,
            per_second: 1.0,
            queue: 512,
        }
    }
}

thread_local! {
    static MUTED: Cell<bool> = const { Cell::new(false) };
}

/// Runs something whose events are not taken on this thread: what keeps or sends records.
pub fn muted<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MUTED.set(self.0);
        }
    }
    let _restore = Restore(MUTED.replace(true));
    f()
}

/// What was not said.
#[derive(Debug, Default)]
struct Suppressed {
    /// Since the last record.
    unsaid: AtomicU64,
    all: AtomicU64,
}

impl Suppressed {
    fn add(&self, n: u64) {
        self.unsaid.fetch_add(n, Ordering::Relaxed);
        self.all.fetch_add(n, Ordering::Relaxed);
    }
}

/// Takes events and never waits.
struct Ear {
    queue: mpsc::Sender<LogRecord>,
    suppressed: Arc<Suppressed>,
    /// For security and for the rest.
    buckets: [Mutex<Bucket>; 2],
    reserve: usize,
}

/// A layer that takes the events of the crates with these names, and where they come out.
pub fn layer<S>(crates: &'static [&'static str], volume: Volume) -> (impl Layer<S>, Outlet)
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    let (queue, records) = mpsc::channel(volume.queue.max(4));
    let suppressed = Arc::<Suppressed>::default();
    let bucket = || Mutex::new(Bucket::new(volume.burst, volume.per_second, Instant::now()));
    let ear = Ear {
        reserve: queue.max_capacity() / 4,
        queue,
        suppressed: Arc::clone(&suppressed),
        buckets: [bucket(), bucket()],
    };
    let wanted = filter_fn(move |meta| is_wanted(crates, meta));
    (ear.with_filter(wanted), Outlet::new(records, suppressed))
}

fn is_security(target: &str) -> bool {
    target.strip_prefix(SECURITY).is_some_and(is_end)
}

/// What follows the name of a crate or module in the path of something in it.
fn is_end(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with("::")
}

fn is_wanted(crates: &[&str], meta: &Metadata<'_>) -> bool {
    let ours = |name: &&str| meta.target().strip_prefix(*name).is_some_and(is_end);
    meta.is_event()
        && (is_security(meta.target()) || *meta.level() <= Level::WARN && crates.iter().any(ours))
}

fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        _ => Severity::Info,
    }
}

impl Ear {
    /// A place in the queue, if this event may have one.
    fn place(&self, security: bool) -> Option<mpsc::Permit<'_, LogRecord>> {
        if !security && self.queue.capacity() <= self.reserve {
            return None;
        }
        // A bucket is whole between any two statements.
        let bucket = self.buckets[usize::from(security)].lock();
        let may = bucket
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        if may {
            self.queue.try_reserve().ok()
        } else {
            None
        }
    }
}

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if MUTED.get() {
            return;
        }
        let meta = event.metadata();
        match self.place(is_security(meta.target())) {
            Some(place) => {
                let unsaid = self.suppressed.unsaid.swap(0, Ordering::Relaxed);
                place.send(record(event, unsaid));
            }
            None => self.suppressed.add(1),
        }
    }
}

fn record(event: &Event<'_>, unsaid: u64) -> LogRecord {
    let meta = event.metadata();
    let mut said = Said::default();
    event.record(&mut said);
    let now = Timestamp::now();
    let mut builder = RecordBuilder::new(EVENT, now, now, severity(*meta.level()), said.sentence())
        .with(LEVEL, meta.level().as_str().to_ascii_lowercase())
        .with(TARGET, meta.target())
        .maybe(SUPPRESSED, (unsaid > 0).then_some(unsaid));
    for field in [AGENT, PROJECT, CONTAINER_ID, CONTAINER_NAME] {
        builder = builder.maybe(field, said.take(field.name));
    }
    builder.build()
}

#[cfg(test)]
mod tests;
