//! Both clocks of the machine, and which boot they belong to.

use super::IntakeError;
use crate::stamp::Reception;
use lease::{BootId, BootTime, Reading, TOLERANCE_NS, WallTime};
use nix::time::{ClockId, clock_gettime};
use std::{fs, path::Path};

/// A reading that was interrupted is repeated this often.
const TRIES: usize = 5;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn nanos(clock: ClockId) -> u64 {
    // Every kernel that this runs on has both clocks.
    let time = clock_gettime(clock).map_or(0, |t| t.tv_sec() * 1_000_000_000 + t.tv_nsec());
    u64::try_from(time).unwrap_or(0)
}

/// Both clocks, read close together.
pub(super) fn reading() -> Reading {
    let read = || Reading {
        before: BootTime(nanos(ClockId::CLOCK_BOOTTIME)),
        wall: WallTime(nanos(ClockId::CLOCK_REALTIME)),
        after: BootTime(nanos(ClockId::CLOCK_BOOTTIME)),
    };
    let close = |r: &Reading| r.after.0.saturating_sub(r.before.0) <= TOLERANCE_NS;
    let mut last = read();
    for _ in 1..TRIES {
        if close(&last) {
            break;
        }
        last = read();
    }
    last
}

/// A reading as the time at which something came in.
pub(super) fn reception(reading: Reading) -> Reception {
    Reception {
        boot: reading.after,
        wall: reading.wall,
    }
}

/// The boot that this machine is in.
pub fn boot_id() -> Result<BootId, IntakeError> {
    let text = fs::read_to_string(BOOT_ID).map_err(|source| IntakeError::Io {
        what: "read",
        path: Path::new(BOOT_ID).to_owned(),
        source,
    })?;
    BootId::parse(&text).map_err(IntakeError::Boot)
}
