//! What operators want of a running instance: carried out by the loop that owns its pins, a little in each
//! turn.

use crate::{
    bypass::{Running, journal},
    control::{Desk, Tap},
    kernel::{KernelError, Pins},
    sink::Sink,
};
use std::{
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How often to look for what was done without us.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The operators' side of an instance.
#[derive(Debug)]
pub struct Operators {
    /// Without a control socket nobody can ask; the end of a bypass is recorded all the same.
    desk: Option<Desk>,
    running: Running,
    journal: PathBuf,
    look_at: Instant,
}

impl Operators {
    /// Of an instance that this process serves from now on. What was done to it before is recorded with
    /// the first [`Operators::turn`].
    #[must_use]
    pub fn new(instance: &str, control_dir: &Path) -> Self {
        Self {
            desk: None,
            running: Running::new(instance),
            journal: journal::path(control_dir, instance),
            look_at: Instant::now(),
        }
    }

    /// Of an instance that has just been made: what a namesake left is not its own.
    #[must_use]
    pub fn of_new(instance: &str, control_dir: &Path) -> Self {
        journal::set_aside(&journal::path(control_dir, instance));
        Self::new(instance, control_dir)
    }

    /// From now on somebody can ask.
    pub fn open(&mut self, desk: Desk) {
        self.desk = Some(desk);
    }

    /// What becomes readable when somebody asks for something.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.desk.as_ref().map(|d| d.as_fd())
    }

    /// Looks at every slot again for bypasses that run. To be called once at the start, before the first
    /// [`Operators::turn`], where pins were taken over.
    pub fn adopt(&mut self, pins: &Pins) -> Result<(), KernelError> {
        self.running.look(pins)
    }

    /// Carries out what was asked for since the last call, and records what has ended. Cheap when there is
    /// nothing to do.
    pub fn turn(&mut self, pins: &Pins, sink: &mut Sink, tap: &mut Tap) -> Result<(), KernelError> {
        let mut changed = self.orders(pins, sink);
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            changed |= self.take_over(pins, sink)?;
            for change in self.running.expire(pins)? {
                sink.bypass(&change);
                changed = true;
            }
        }
        if changed {
            tap.bypasses(&self.running.lifted());
        }
        Ok(())
    }

    fn orders(&mut self, pins: &Pins, sink: &mut Sink) -> bool {
        let mut changed = false;
        while let Some(asked) = self.desk.as_ref().and_then(Desk::next) {
            let (order, actor) = (&asked.order, &asked.actor);
            let outcome = self.running.order(pins, order, actor, |change| {
                sink.bypass(change);
                changed = true;
            });
            asked.answer(outcome.as_ref());
        }
        changed
    }

    /// Records what was done without a loader.
    fn take_over(&mut self, pins: &Pins, sink: &mut Sink) -> Result<bool, KernelError> {
        if !self.journal.exists() {
            return Ok(false);
        }
        let taken = {
            let _held = pins.hold()?;
            journal::take(&self.journal)
        };
        match taken {
            Ok((changes, broken)) => {
                for change in &changes {
                    sink.bypass(change);
                }
                if broken > 0 {
                    anstream::eprintln!(
                        "error: {broken} lines of {} were no records",
                        self.journal.display()
                    );
                }
            }
            // It stays where it is, for whoever reads it; told once.
            Err(e) => {
                anstream::eprintln!(
                    "error: cannot take over {}: {e}; it stays there",
                    self.journal.display()
                );
                self.journal = PathBuf::new();
            }
        }
        self.running.look(pins)?;
        Ok(true)
    }

    /// The slot of this row is over; so is its bypass, if there was one.
    pub fn left(&mut self, index: u32, sink: &mut Sink) {
        if let Some(change) = self.running.over(index) {
            sink.bypass(&change);
        }
    }

    /// The instance is over.
    pub fn close(&mut self, pins: &Pins, sink: &mut Sink) {
        // What cannot be taken over stays in its file.
        let _ = self.take_over(pins, sink);
        for change in self.running.all_over() {
            sink.bypass(&change);
        }
    }
}
