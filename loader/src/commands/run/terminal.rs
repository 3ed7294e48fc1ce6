//! Waiting: for the command, for signals, for a ring that fills up, for time to pass.

use super::{super::pace::Pace, CommandError};
use crate::{contain::Child, kernel::Rings};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitStatus, waitpid},
    },
};
use std::{
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

/// The longest sleep while nothing happens.
const QUIET: Duration = Duration::from_millis(50);

/// What a wait ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Time to drain.
    Tick,
    /// The command has ended with this exit code.
    Exited(u8),
    /// Somebody is tired of waiting; only once the command has ended.
    Interrupted,
}

/// What is waited for.
pub(super) struct Watch {
    signals: SignalFd,
    child: Option<Child>,
    pace: Pace,
    second: Instant,
}

/// Signals that are the command's business. From the keyboard they reach it by themselves; sent to us
/// they are passed on.
fn for_the_command() -> SigSet {
    [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

impl Watch {
    /// Starts listening for signals.
    pub(super) fn new() -> Result<Self, CommandError> {
        let mask = for_the_command();
        mask.thread_block().map_err(CommandError::Wait)?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&mask, flags).map_err(CommandError::Wait)?;
        Ok(Self {
            signals,
            child: None,
            pace: Pace::new(QUIET),
            second: Instant::now(),
        })
    }

    /// From now on the end of this process is of interest too.
    pub(super) fn child(&mut self, child: Child) {
        self.child = Some(child);
    }

    /// Whether a second has passed since this last said so.
    pub(super) fn second_passed(&mut self) -> bool {
        let passed = self.second.elapsed() >= Duration::from_secs(1);
        if passed {
            self.second = Instant::now();
        }
        passed
    }

    /// Sleeps until something happens or it is time to drain again. `orders`: what else to wake up for.
    pub(super) fn wait(
        &mut self,
        busy: bool,
        rings: &Rings,
        orders: Option<BorrowedFd<'_>>,
    ) -> Result<Event, CommandError> {
        let timeout = self.pace.next(busy);
        let [a, b] = rings.wake_fds();
        let watched = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![watched(self.signals.as_fd()), watched(a), watched(b)];
        if let Some(child) = &self.child {
            fds.push(watched(child.pidfd.as_fd()));
        }
        let child_at = self.child.is_some().then_some(fds.len() - 1);
        fds.extend(orders.map(watched));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(CommandError::Wait(e)),
        }
        let ready = |i: usize| fds.get(i).and_then(PollFd::any).unwrap_or(false);
        let (signalled, exited) = (ready(0), child_at.is_some_and(ready));
        if signalled && self.pass_on() {
            return Ok(Event::Interrupted);
        }
        if exited { self.reap() } else { Ok(Event::Tick) }
    }

    /// Passes signals on. Returns whether one came when there was no command left to get it.
    fn pass_on(&mut self) -> bool {
        let mut interrupted = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let Some(child) = &self.child else {
                interrupted = true;
                continue;
            };
            // The terminal sends to the whole foreground group, the command included.
            if info.ssi_code != libc::SI_KERNEL
                && let Ok(signal) = Signal::try_from(info.ssi_signo as i32)
            {
                // It may have ended just now; then its exit is the next event.
                let _ = kill(child.pid, signal);
            }
        }
        interrupted
    }

    fn reap(&mut self) -> Result<Event, CommandError> {
        let Some(child) = self.child.take() else {
            return Ok(Event::Tick);
        };
        match waitpid(child.pid, None).map_err(CommandError::Wait)? {
            WaitStatus::Exited(_, code) => Ok(Event::Exited(code as u8)),
            // As shells report it.
            WaitStatus::Signaled(_, signal, _) => Ok(Event::Exited((128 + signal as i32) as u8)),
            _ => {
                self.child = Some(child);
                Ok(Event::Tick)
            }
        }
    }
}

/// Waits without anything to wait for but time; for polling what has no descriptor.
pub(super) fn pause(d: Duration) {
    // An early end by a signal only makes the next look come sooner.
    let _ = poll(
        &mut [],
        PollTimeout::try_from(d).unwrap_or(PollTimeout::ZERO),
    );
}
