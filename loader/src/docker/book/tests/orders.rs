//! All the orders in which events and looks can come.

use super::{A, running, still};
use crate::docker::{
    News,
    book::{Book, Step},
    look::Seen,
};
use proptest::prelude::*;

/// One engine with one container, whose events wait in a queue and whose looks take their time.
#[derive(Default)]
struct World {
    now: i64,
    started: Option<i64>,
    finished: Option<i64>,
    /// Events that were not heard yet: a start, or an end.
    events: std::collections::VecDeque<Option<i64>>,
    asked: bool,
    /// Answer that is on its way.
    answer: Option<Seen>,
    book: Book,
    told: Vec<News>,
}

impl World {
    fn take(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Tell(news) => self.told.push(news),
                Step::Look(_) => self.asked = true,
                Step::LookAtNetwork { .. } | Step::Watch(_) => {}
            }
        }
    }

    fn act(&mut self, action: u8) {
        self.now += 1;
        match action {
            0 if self.started.is_none() => {
                self.started = Some(self.now);
                self.events.push_back(None);
            }
            1 if self.started.is_some() => {
                self.started = None;
                self.finished = Some(self.now);
                self.events.push_back(Some(self.now));
            }
            2 => {
                if let Some(event) = self.events.pop_front() {
                    let steps = match event {
                        None => self.book.want(A),
                        Some(at) => self.book.died(A, at),
                    };
                    self.take(steps);
                }
            }
            3 if self.asked && self.answer.is_none() => {
                self.answer = Some(self.started.map_or(still(self.finished), running));
            }
            4 => {
                if let Some(seen) = self.answer.take() {
                    self.asked = false;
                    let steps = self.book.looked(A, seen, self.now);
                    self.take(steps);
                }
            }
            5 => {
                let steps = self.book.changed(A);
                self.take(steps);
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn lives_are_told_once_in_order_and_the_last_word_is_true(actions in prop::collection::vec(0u8..6, 0..80)) {
        let mut world = World::default();
        for action in actions {
            world.act(action);
        }
        for _ in 0..100 {
            for action in [2, 3, 4] {
                world.act(action);
            }
        }
        let mut alive: Option<i64> = None;
        let mut last = 0;
        for news in &world.told {
            match news {
                News::Is(c) => {
                    prop_assert!(alive.is_none() && c.started > last, "{:?}", world.told);
                    alive = Some(c.started);
                    last = c.started;
                }
                News::Ended { at, .. } => {
                    prop_assert!(alive.take().is_some_and(|s| s < *at), "{:?}", world.told);
                    last = *at;
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert_eq!(alive, world.started);
    }
}
