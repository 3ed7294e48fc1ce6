//! Looks that are under way, and what is not known before they are over.

use super::{Book, Step};
use crate::docker::News;

/// A look that is under way.
#[derive(Debug, Default)]
pub(super) struct Looking {
    /// Something happened since it began: look again.
    pub(super) again: bool,
    /// It may see that somebody has other addresses than are told: up to when events had been read as it was asked
    /// for, so that whatever it is about came later.
    pub(super) holds: Option<u64>,
    /// The same of the look behind it.
    pub(super) next_holds: Option<u64>,
    /// A life ended since it began: what it sees of a life from before that is over.
    pub(super) ended: Option<i64>,
    /// An end was heard that seems to be from before the life that is known. It is believed if nothing
    /// runs.
    pub(super) doubtful: bool,
    /// The cgroup of one that was only born has gone: either it could not be started, or it ran for so
    /// short a time that nobody saw it, and the event of its end is on its way.
    pub(super) unborn: bool,
}

impl Book {
    /// It was started, or something about it has changed.
    pub(in crate::docker) fn want(&mut self, id: &str) -> Vec<Step> {
        self.ask(id, Some(self.read))
    }

    /// Asks for a look; `holds` as in [`Looking`].
    pub(super) fn ask(&mut self, id: &str, holds: Option<u64>) -> Vec<Step> {
        if let Some(looking) = self.looking.get_mut(id) {
            looking.again = true;
            looking.next_holds = looking.next_holds.or(holds);
            return Vec::new();
        }
        let looking = Looking {
            holds,
            ..Looking::default()
        };
        self.looking.insert(id.to_owned(), looking);
        vec![Step::Look(id.to_owned())]
    }

    /// Every event up to `at` has been heard (boot clock, nanoseconds). What looks have still to tell of is held back.
    pub(in crate::docker) fn read_until(&mut self, at: u64) -> Vec<Step> {
        self.read = self.read.max(at);
        let looks = self.looking.values();
        let looks = looks.flat_map(|l| l.holds.into_iter().chain(l.next_holds));
        let attaching = self.attaching.iter().map(|(_, held)| *held);
        let until = looks.chain(attaching).fold(self.read, u64::min);
        vec![Step::Tell(News::Until(until))]
    }
}
