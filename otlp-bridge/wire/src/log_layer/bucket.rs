//! A budget of events.

use std::time::Instant;

/// Tokens that come back with time, up to a number.
#[derive(Debug)]
pub(super) struct Bucket {
    most: f64,
    per_second: f64,
    tokens: f64,
    since: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(most: u32, per_second: f64, now: Instant) -> Self {
        Self {
            most: most.into(),
            per_second,
            tokens: most.into(),
            since: now,
        }
    }

    /// Takes a token if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.most);
        let is_there = self.tokens >= 1.0;
        if is_there {
            self.tokens -= 1.0;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_its_share(
            most in 1u32..20,
            waits in prop::collection::vec(0u64..3000, 1..60),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(most, 2.0, start);
            let mut taken = 0.0;
            for wait in waits {
                now += Duration::from_millis(wait);
                taken += f64::from(u8::from(bucket.take(now)));
                let share = f64::from(most) + 2.0 * (now - start).as_secs_f64();
                prop_assert!(taken <= share + 1e-6);
            }
            // After a long rest it is full again, and no fuller.
            now += Duration::from_secs(60);
            let left = (0..most + 5).filter(|_| bucket.take(now)).count();
            prop_assert_eq!(left, most as usize);
        }
    }
}
