//! How long a loop sleeps between drains: short while flows come, longer while none do. A ring that is half
//! full ends the sleep.

use nix::poll::PollTimeout;
use std::time::Duration;

/// While flows come.
const BUSY: Duration = Duration::from_millis(5);

/// The pace of a loop.
pub(super) struct Pace {
    sleep: Duration,
    quiet: Duration,
}

impl Pace {
    /// One that slows down to this when nothing happens.
    pub(super) fn new(quiet: Duration) -> Self {
        Self { sleep: BUSY, quiet }
    }

    /// How long to sleep now. `busy`: there was something to drain.
    pub(super) fn next(&mut self, busy: bool) -> PollTimeout {
        self.sleep = if busy {
            BUSY
        } else {
            (self.sleep * 2).min(self.quiet)
        };
        PollTimeout::try_from(self.sleep).unwrap_or(PollTimeout::ZERO)
    }
}
