//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double from a first one up to a longest one, each of them drawn at random between half of
/// that and the whole, so that senders which failed together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Between `first` and `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first.min(longest),
        }
    }

    /// The wait before the next try. `asked`: what the receiver asked for, which is waited for at least.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        self.wait_at(asked, fastrand::f64())
    }

    /// The same, with the random number, 0 to 1, from outside.
    fn wait_at(&mut self, asked: Option<Duration>, random: f64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        let drawn = whole.mul_f64(0.5 + random / 2.0);
        asked.unwrap_or_default().max(drawn)
    }

    /// After a success: the next failure is a first one.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again_after_a_success() {
        let mut b = Backoff::new(MS(100), MS(500));
        let whole: Vec<_> = (0..5).map(|_| b.wait_at(None, 1.0)).collect();
        assert_eq!(whole, [MS(100), MS(200), MS(400), MS(500), MS(500)]);
        b.reset();
        assert_eq!(b.wait_at(None, 0.0), MS(50));
    }

    #[test]
    fn what_the_receiver_asks_for_is_waited_for() {
        let mut b = Backoff::new(MS(100), MS(500));
        assert_eq!(b.wait_at(Some(MS(3000)), 1.0), MS(3000));
        assert_eq!(b.wait_at(Some(MS(1)), 1.0), MS(200));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_over_the_longest_nor_under_half_of_the_first(
            first in 1u64..10_000, more in 0u64..100_000, tries in 1usize..40, random in 0.0f64..=1.0,
        ) {
            let longest = first + more;
            let mut b = Backoff::new(MS(first), MS(longest));
            let mut before = Duration::ZERO;
            for _ in 0..tries {
                let wait = b.wait_at(None, random);
                prop_assert!(wait <= MS(longest) && wait >= MS(first) / 2 && wait >= before);
                before = wait;
            }
        }

        #[test]
        fn drawn_waits_keep_the_same_bounds(first in 1u64..1000) {
            let mut b = Backoff::new(MS(first), MS(first));
            let wait = b.wait(None);
            prop_assert!(wait >= MS(first) / 2 && wait <= MS(first));
        }
    }
}
