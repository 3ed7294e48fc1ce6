//! What is known of one slot that is read.

use super::{Debt, Flows, UNSEEN, at, reckon::Reckoning};
use crate::{accounting, record::Context, sink::Kept};
use abi::{SlotMetrics, VERDICTS};

/// One slot that is read.
pub(super) struct Tenant {
    pub(super) context: Context,
    /// Row of the books; none of a slot of a set of programs before this one.
    pub(super) index: Option<u32>,
    /// Flows of records that could not be kept, by verdict; whoever could not has said so.
    unkept: Flows,
    /// Flows that were taken out of the kernel.
    pub(super) taken: Flows,
    /// Flows that were handed out, in records or as lost, and of which the receiver has said nothing yet.
    pub(super) open: u64,
    /// What could not be kept has been declared for the last time.
    ended: bool,
    /// What is found out about the loader before.
    pub(super) reckoning: Option<Reckoning>,
}

impl Tenant {
    pub(super) fn new(context: Context, index: Option<u32>) -> Self {
        Self {
            context,
            index,
            unkept: [0; VERDICTS],
            taken: [0; VERDICTS],
            open: 0,
            ended: false,
            reckoning: None,
        }
    }

    /// Notes what has become of a record.
    pub(super) fn note(&mut self, kept: Kept, verdict: u8, flows: u64) {
        match kept {
            Kept::Yes => {}
            Kept::Later => self.open += flows,
            Kept::No => self.lose(verdict, flows),
        }
    }

    fn lose(&mut self, verdict: u8, flows: u64) {
        if verdict != UNSEEN {
            self.unkept[at(verdict)] += flows;
        }
    }

    /// The receiver has confirmed it.
    pub(super) fn paid(&mut self, debt: Debt) {
        self.open = self.open.saturating_sub(debt.flows);
    }

    /// The receiver will not take it.
    pub(super) fn refused(&mut self, debt: Debt) {
        self.paid(debt);
        self.lose(debt.verdict, debt.flows);
    }

    /// Flows that have ended and are neither recorded nor given up, by verdict.
    pub(super) fn owed(&self, books: Option<&SlotMetrics>) -> Flows {
        let unrecorded = books.map_or([0; VERDICTS], accounting::unrecorded);
        std::array::from_fn(|v| unrecorded[v].saturating_sub(self.unkept[v]))
    }

    /// See [`super::Session::last_words`].
    pub(super) fn last_words(&mut self) -> Option<Flows> {
        let first = !std::mem::replace(&mut self.ended, true);
        first.then(|| std::mem::take(&mut self.unkept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record::Owner, session::context};
    use zerocopy::FromZeros as _;

    fn books(ended: u64, recorded: u64) -> SlotMetrics {
        SlotMetrics {
            ended: [ended, 0, 0],
            recorded: [recorded, 0, 0],
            ..SlotMetrics::new_zeroed()
        }
    }

    fn debt(verdict: u8, flows: u64) -> Debt {
        Debt {
            slot: 1,
            verdict,
            flows,
        }
    }

    #[test]
    fn what_is_declared_lost_is_owed_until_the_receiver_has_it() {
        let mut one = Tenant::new(context(Owner::default()), Some(1));
        let owed = |of: &Tenant, recorded| of.owed(Some(&books(5, recorded)))[0];
        one.note(Kept::Later, 0, 5);
        one.paid(debt(0, 3));
        one.refused(debt(0, 2));
        assert_eq!((one.open, owed(&one, 3)), (0, 0), "two are given up");
        assert_eq!(one.last_words(), Some([2, 0, 0]));
        one.note(Kept::Later, 0, 2);
        assert_eq!((one.open, owed(&one, 3)), (2, 2), "and are declared");
        one.paid(debt(0, 2));
        assert_eq!((one.open, owed(&one, 5)), (0, 0));
        assert_eq!(one.last_words(), None);
    }

    #[test]
    fn a_declaration_that_is_refused_is_not_made_for_ever() {
        let mut one = Tenant::new(context(Owner::default()), Some(1));
        one.note(Kept::No, 0, 2);
        assert_eq!(one.last_words(), Some([2, 0, 0]));
        one.note(Kept::Later, 0, 2);
        one.note(Kept::Later, UNSEEN, 4);
        assert_eq!(one.open, 6);
        one.refused(debt(0, 2));
        one.refused(debt(UNSEEN, 4));
        assert_eq!(one.open, 0);
        assert_eq!(one.owed(Some(&books(2, 0))), [0; VERDICTS]);
        assert_eq!(one.last_words(), None);
    }
}
