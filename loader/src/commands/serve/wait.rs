//! Waiting: for news, for signals, for a ring that fills up, for time to pass.

use super::{super::pace::Pace, CommandError};
use crate::{docker::Watcher, kernel::Rings};
use nix::{
    poll::{PollFd, PollFlags, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use std::{
    os::fd::{AsFd as _, BorrowedFd},
    time::Duration,
};

/// The longest sleep while nothing happens.
const QUIET: Duration = Duration::from_millis(100);

/// What a wait ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Time to drain.
    Tick,
    /// The policy file is to be read again.
    Reload,
    /// It is time to go.
    End,
}

/// What is waited for.
pub(super) struct Wait {
    signals: SignalFd,
    pace: Pace,
}

impl Wait {
    /// Starts listening for signals; threads that are started later do not get them.
    pub(super) fn new() -> Result<Self, CommandError> {
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let mask: SigSet = signals.into_iter().collect();
        mask.thread_block().map_err(CommandError::Wait)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).map_err(CommandError::Wait)?;
        Ok(Self {
            signals,
            pace: Pace::new(QUIET),
        })
    }

    /// Sleeps until something happens or it is time to drain again.
    pub(super) fn wait(
        &mut self,
        busy: bool,
        rings: &Rings,
        watcher: &Watcher,
        orders: Option<BorrowedFd<'_>>,
    ) -> Result<Event, CommandError> {
        let timeout = self.pace.next(busy);
        let [a, b] = rings.wake_fds();
        let all = [self.signals.as_fd(), watcher.as_fd(), a, b];
        let all = all.into_iter().chain(orders);
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(CommandError::Wait(e)),
        }
        let mut event = Event::Tick;
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == Signal::SIGHUP as u32 {
                event = Event::Reload;
            } else {
                return Ok(Event::End);
            }
        }
        Ok(event)
    }
}
