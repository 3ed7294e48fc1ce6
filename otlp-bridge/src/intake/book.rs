//! The leases as the loader last published them, for everybody who stamps.

use super::clock;
use lease::{BootTime, Follower, Leases, Observation};
use std::{
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};
use tokio::{sync::watch, task::spawn_blocking, time};
use tracing::{info, warn};

/// How often the file is looked at.
const PERIOD: Duration = Duration::from_millis(500);

/// The leases, and a bell that rings when there are newer ones.
#[derive(Debug)]
pub(super) struct Book {
    leases: RwLock<Leases>,
    as_of: watch::Sender<BootTime>,
}

impl Book {
    pub(super) fn new(leases: Leases) -> Self {
        Self {
            as_of: watch::Sender::new(leases.as_of()),
            leases: RwLock::new(leases),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Leases> {
        // Whoever writes replaces the whole or observes a clock: neither leaves anything half-way.
        self.leases.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago it was complete.
    pub(super) fn age(&self) -> Duration {
        let now = clock::reading().after;
        Duration::from_nanos(now.0.saturating_sub(self.read().as_of().0))
    }

    fn change<T>(&self, with: impl FnOnce(&mut Leases) -> T) -> T {
        with(&mut self.leases.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the leases both clocks, as they must be told before anything is looked up.
    pub(super) fn observe(&self, reading: lease::Reading) {
        if let Observation::Step(by) = self.change(|leases| leases.observe(reading)) {
            let seconds = Duration::from_nanos(by.unsigned_abs()).as_secs_f64();
            let which = if by < 0 { "back" } else { "forward" };
            warn!(
                "the wall clock was set {which} by {seconds:.3} s: records from around then may have no identity"
            );
        }
    }

    fn replace(&self, newer: Leases) {
        let as_of = newer.as_of();
        self.change(|leases| *leases = newer);
        self.as_of.send_replace(as_of);
    }

    /// Waits until the leases are complete up to a moment. Not longer than `patience`, and not at all when
    /// they have not been renewed for so long: then nobody writes them.
    pub(super) async fn complete(&self, at: BootTime, patience: Duration) {
        let mut bell = self.as_of.subscribe();
        let expected = *bell.borrow() + patience;
        let now = clock::reading().after;
        let left = Duration::from_nanos(expected.0.saturating_sub(now.0)).min(patience);
        // Either way what is there is used; the stamp says how old it is.
        let _ = time::timeout(left, bell.wait_for(|as_of| *as_of >= at)).await;
    }
}

/// Looks at the file once.
pub(super) fn look(book: &Book, follower: &mut Follower, bad: &mut bool) {
    match follower.poll() {
        Ok(None) => {}
        Ok(Some(mut newer)) => {
            if std::mem::take(bad) {
                info!(
                    "the leases can be read again: {} of them",
                    newer.iter().len()
                );
            }
            // Whoever waits for it looks something up at once.
            newer.observe(clock::reading());
            book.replace(newer);
        }
        Err(e) => {
            *bad = true;
            warn!("{e}; the leases from before stay in use");
        }
    }
    book.observe(clock::reading());
}

/// Follows the file for ever.
pub(super) async fn follow(book: std::sync::Arc<Book>, mut follower: Follower, mut bad: bool) {
    let mut ticks = time::interval(PERIOD);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shared = std::sync::Arc::clone(&book);
        let looked = spawn_blocking(move || {
            look(&shared, &mut follower, &mut bad);
            (follower, bad)
        });
        match looked.await {
            Ok(after) => (follower, bad) = after,
            // The program is ending.
            Err(_) => return,
        }
    }
}
