//! Orders on their way from the thread of the socket to the loop that owns the pins, and their answers
//! back. Neither side waits for the other.

use super::protocol;
use crate::{
    actor::Actor,
    bypass::{BypassError, Done, Order},
};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::{Duration, Instant},
};

/// Orders that wait.
const MOST: usize = 16;
/// After this long an order is not carried out any more: whoever gave it has been told that nobody
/// answers, and may have found another way. Shorter than the patience of a connection.
const STALE: Duration = Duration::from_secs(4);

/// Where the loop finds orders. Readable when there may be one.
#[derive(Debug)]
pub struct Desk {
    orders: Receiver<Asked>,
    bell: Arc<EventFd>,
}

/// Where the thread of the socket hands orders in.
#[derive(Debug)]
pub(super) struct Window {
    orders: SyncSender<Asked>,
    bell: Arc<EventFd>,
}

/// An order, and who waits for its answer.
#[derive(Debug)]
pub struct Asked {
    /// What is to be done.
    pub order: Order,
    /// By whose order.
    pub actor: Actor,
    since: Instant,
    answer: Sender<String>,
    wake: Arc<EventFd>,
}

/// The two ends of the way.
pub(super) fn open() -> io::Result<(Desk, Window)> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let bell = Arc::new(EventFd::from_flags(flags)?);
    let (to, orders) = sync_channel(MOST);
    let window = Window {
        orders: to,
        bell: Arc::clone(&bell),
    };
    Ok((Desk { orders, bell }, window))
}

impl Desk {
    /// The next order that somebody still waits for.
    #[must_use]
    pub fn next(&self) -> Option<Asked> {
        // Emptied first: what comes later rings again.
        let _ = self.bell.read();
        self.orders.try_iter().find(|a| a.since.elapsed() < STALE)
    }
}

impl AsFd for Desk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Window {
    /// Hands an order in; nothing if there is no room. The answer comes through what is returned, and
    /// `wake` is written to when it is there.
    pub(super) fn ask(
        &self,
        order: Order,
        actor: Actor,
        wake: &Arc<EventFd>,
    ) -> Option<Receiver<String>> {
        let (answer, from) = channel();
        let asked = Asked {
            order,
            actor,
            since: Instant::now(),
            answer,
            wake: Arc::clone(wake),
        };
        self.orders.try_send(asked).ok()?;
        // It fails only when it rings already.
        let _ = self.bell.write(1);
        Some(from)
    }
}

impl Asked {
    /// Says what came of it.
    pub fn answer(self, outcome: Result<&Done, &BypassError>) {
        let line = match outcome {
            Ok(done) => protocol::done(done),
            Err(e) => protocol::error(&e.to_string()),
        };
        // Whoever asked may be gone.
        let _ = self.answer.send(line);
        let _ = self.wake.write(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bypass::Restore;

    fn ask(window: &Window, wake: &Arc<EventFd>) -> Option<Receiver<String>> {
        let order = Order::Restore(Restore {
            agent: None,
            project: None,
            reason: None,
        });
        window.ask(order, Actor::me().unwrap(), wake)
    }

    #[test]
    fn an_order_is_answered_and_both_sides_are_woken() {
        let (desk, window) = open().unwrap();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        let heard = ask(&window, &wake).unwrap();
        let asked = desk.next().unwrap();
        assert!(wake.read().is_err() && heard.try_recv().is_err());
        asked.answer(Ok(&Done::default()));
        assert!(wake.read().is_ok());
        assert!(heard.recv().unwrap().contains("\"done\""));
        assert!(desk.next().is_none() && desk.bell.read().is_err());
    }

    #[test]
    fn orders_that_nobody_takes_fill_up_and_grow_old() {
        let (desk, window) = open().unwrap();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap());
        let waiting: Vec<_> = std::iter::from_fn(|| ask(&window, &wake))
            .take(100)
            .collect();
        assert_eq!(waiting.len(), MOST);
        let mut old = desk.orders.recv().unwrap();
        old.since = Instant::now().checked_sub(STALE).unwrap();
        while desk.next().is_some() {}
        window.orders.try_send(old).unwrap();
        assert!(desk.next().is_none(), "nobody waits for it any more");
    }
}
