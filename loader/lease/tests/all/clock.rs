//! Wall times against a world in which somebody sets the clock.

use crate::make::{at, book, lease_with_ip, reading};
use lease::{
    Answer, BootTime, Clock, ClockError, FormatError, Leases, MAX_SPANS, Observation, Reading,
    TOLERANCE_NS, WallTime,
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
/// What the wall shows when the machine starts, if nobody sets the clock.
const START: u64 = 1_000_000 * SECOND;

/// Second by second: how far the clock is set at its first quarter, and whether it is read at its
/// beginning.
#[derive(Clone, Debug)]
struct World(Vec<(Option<i64>, bool)>);

impl World {
    fn wall(&self, boot: u64) -> u64 {
        let steps = self.0.iter().enumerate();
        let done = steps.filter(|(n, _)| *n as u64 * SECOND + SECOND / 4 <= boot);
        let moved: i64 = done.filter_map(|(_, (step, _))| *step).sum();
        (START + boot).saturating_add_signed(moved)
    }

    /// Readings as they would be made, and the time of the last.
    fn readings(&self) -> Vec<Reading> {
        let mut readings = Vec::new();
        let mut unread = false;
        for (n, (step, read)) in self.0.iter().enumerate() {
            // Not two steps without a reading between them.
            if n == 0 || *read || (unread && step.is_some()) {
                let boot = n as u64 * SECOND;
                let after = boot + (boot / 7) % TOLERANCE_NS;
                readings.push(Reading {
                    before: at(boot),
                    wall: WallTime(self.wall((boot + after) / 2)),
                    after: at(after),
                });
                unread = false;
            }
            unread |= step.is_some();
        }
        readings
    }
}

fn world() -> impl Strategy<Value = World> {
    let step = prop_oneof![
        Just(1i64),
        Just(-1),
        Just(5),
        Just(-5),
        Just(7200),
        Just(-30)
    ];
    let step = prop::option::weighted(0.15, step.prop_map(|s| s * SECOND as i64));
    prop::collection::vec((step, any::<bool>()), 2..60).prop_map(World)
}

fn near(a: BootTime, b: u64) -> bool {
    a.0.abs_diff(b) <= 2 * TOLERANCE_NS
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The moment itself is always among those that a wall time may stand for.
    #[test]
    fn no_moment_is_lost(world in world()) {
        let mut clock = Clock::default();
        let readings = world.readings();
        for reading in &readings {
            prop_assert_ne!(clock.observe(*reading), Observation::Unusable);
        }
        let last = readings.last().unwrap().before.0;
        prop_assert_eq!(clock.observed(), readings.last().unwrap().after);
        for boot in (0..last).step_by(SECOND as usize / 2) {
            let wall = WallTime(world.wall(boot));
            let found: Vec<_> = clock.boot_times(wall).collect();
            // The very first moment may fall before the first reading by its own inexactness.
            prop_assert!(boot == 0 || found.iter().any(|b| near(*b, boot)), "{boot} {found:?}");
        }
    }

    /// Who sets the clock all the time loses times, and makes none stand for a wrong moment.
    #[test]
    fn what_is_given_up_stands_for_nothing(
        steps in prop::collection::vec((-40..40i64).prop_filter("a step", |n| *n != 0), 64..160),
    ) {
        let steps = steps.iter().map(|step| (Some(step * SECOND as i64), true));
        let world = World(steps.collect());
        let mut clock = Clock::default();
        let readings = world.readings();
        for reading in &readings {
            clock.observe(*reading);
        }
        let last = readings.last().unwrap().before.0;
        for boot in (SECOND / 2..last).step_by(SECOND as usize) {
            let wall = WallTime(world.wall(boot));
            let found: Vec<_> = clock.boot_times(wall).collect();
            let right = found.iter().any(|b| near(*b, boot));
            prop_assert!(found.is_empty() || right, "{boot} {found:?}");
        }
    }

    /// An address goes from one to the next; its record's wall time names the right one or none.
    #[test]
    fn setting_the_clock_names_nobody_wrong(
        world in world(),
        lives in prop::collection::vec((0..5u64, 1..10u64), 1..8),
    ) {
        let mut book = book();
        let readings = world.readings();
        for reading in &readings {
            book.observe(*reading);
        }
        let address = "10.0.0.1";
        let mut now = 0;
        for (n, (gap, length)) in lives.iter().enumerate() {
            now += gap;
            let name = n.to_string();
            book.open(lease_with_ip(&name, now * SECOND, address)).unwrap();
            now += length;
            book.close(&name, at(now * SECOND)).unwrap();
        }
        let address = address.parse().unwrap();
        let last = readings.last().unwrap().before.0;
        for boot in (SECOND / 2..last).step_by(SECOND as usize) {
            let truth = book.by_ip(address, at(boot));
            let found = book.by_ip(address, WallTime(world.wall(boot)));
            prop_assert!(found == truth || found == Answer::Ambiguous, "{boot} {found:?} {truth:?}");
        }
    }
}

#[test]
fn an_untouched_clock_is_exact_for_ever() {
    let mut clock = Clock::default();
    for boot in (5..100).map(|s| s * SECOND) {
        assert_eq!(
            clock.observe(reading(boot, START + boot)),
            Observation::Steady
        );
    }
    let times = |wall| clock.boot_times(WallTime(wall)).collect::<Vec<_>>();
    assert_eq!(times(START + 50 * SECOND + 3), [at(50 * SECOND + 3)]);
    assert_eq!(times(START + 1_000_000 * SECOND), [at(1_000_000 * SECOND)]);
    assert_eq!(times(START + 4 * SECOND), [], "before the first reading");
    assert_eq!(times(0), []);
}

#[test]
fn a_step_is_seen_and_measured() {
    let mut clock = Clock::default();
    clock.observe(reading(0, START));
    let late = START + SECOND + TOLERANCE_NS;
    assert_eq!(clock.observe(reading(SECOND, late)), Observation::Steady);
    let step = clock.observe(reading(2 * SECOND, START + 2 * SECOND + 1 + TOLERANCE_NS));
    assert_eq!(step, Observation::Step(TOLERANCE_NS as i64 + 1));
    let step = clock.observe(reading(3 * SECOND, START));
    assert_eq!(
        step,
        Observation::Step(-(3 * SECOND as i64 + 1 + TOLERANCE_NS as i64))
    );
}

#[test]
fn a_reading_that_says_nothing_is_not_used() {
    let mut clock = Clock::default();
    let slow = Reading {
        after: at(TOLERANCE_NS + 1),
        ..reading(0, START)
    };
    let backwards = Reading {
        after: at(9),
        ..reading(10, START)
    };
    for bad in [slow, backwards, reading(0, u64::MAX)] {
        assert_eq!(clock.observe(bad), Observation::Unusable);
    }
    assert_eq!(clock, Clock::default());
    clock.observe(reading(10, START));
    assert_eq!(clock.observe(reading(9, START)), Observation::Unusable);
}

#[test]
fn the_oldest_times_are_given_up_when_the_clock_is_set_too_often() {
    let steps = (0..2 * MAX_SPANS as i64).map(|n| (Some((3 + n % 2) * SECOND as i64), true));
    let world = World(steps.collect());
    let mut clock = Clock::default();
    for reading in world.readings() {
        clock.observe(reading);
    }
    let known = |n: &u64| {
        let wall = WallTime(world.wall(n * SECOND + SECOND / 2));
        clock.boot_times(wall).next().is_some()
    };
    let last = 2 * MAX_SPANS as u64 - 1;
    let kept = last - MAX_SPANS as u64;
    let (old, new) = (0..kept, kept..last);
    assert!(!old.clone().any(|n| known(&n)), "{old:?}");
    assert!(new.clone().all(|n| known(&n)), "{new:?}");
}

/// A book whose clock is this piece of a file.
fn with_clock(clock: &str) -> Result<Leases, FormatError> {
    let text = String::from_utf8(book().encode()).unwrap();
    let plain = r#"{"observed":0,"spans":[]}"#;
    assert!(text.contains(plain), "{text}");
    Leases::decode(text.replace(plain, clock).as_bytes())
}

#[test]
fn a_clock_that_no_readings_make_is_refused() {
    let cases = [
        (r#"[{"from":0,"offset":1}]"#, "9", None),
        (
            r#"[{"from":0,"to":5,"offset":1},{"from":3,"offset":2}]"#,
            "9",
            None,
        ),
        (
            r#"[{"from":0,"to":5,"offset":1}]"#,
            "9",
            Some(ClockError::End(0)),
        ),
        (
            r#"[{"from":0,"offset":1},{"from":3,"offset":2}]"#,
            "9",
            Some(ClockError::End(0)),
        ),
        (
            r#"[{"from":6,"to":5,"offset":1},{"from":6,"offset":2}]"#,
            "9",
            Some(ClockError::End(0)),
        ),
        (
            r#"[{"from":4,"to":5,"offset":1},{"from":6,"offset":2}]"#,
            "9",
            Some(ClockError::Order(1)),
        ),
        (
            r#"[{"from":4,"to":5,"offset":1},{"from":3,"offset":2}]"#,
            "9",
            Some(ClockError::Order(1)),
        ),
        (
            r#"[{"from":7,"offset":1}]"#,
            "6",
            Some(ClockError::Observed),
        ),
        (
            r#"[],"lost":{"from":2,"to":1}"#,
            "0",
            Some(ClockError::Lost),
        ),
    ];
    for (spans, observed, expected) in cases {
        let read = with_clock(&format!(r#"{{"observed":{observed},"spans":{spans}}}"#));
        assert_eq!(read.err(), expected.map(FormatError::Clock), "{spans}");
    }
    let span = r#"{"from":0,"to":0,"offset":1},"#.repeat(MAX_SPANS);
    let read = with_clock(&format!(
        r#"{{"observed":0,"spans":[{span}{{"from":0,"offset":1}}]}}"#
    ));
    assert_eq!(
        read.err(),
        Some(FormatError::Clock(ClockError::TooMany(MAX_SPANS + 1)))
    );
}
