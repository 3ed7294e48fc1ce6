//! Points in time, on the two clocks that things are told in.

use crate::text::shown;
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Add, time::Duration};

/// Nanoseconds since the machine started, suspend included (`CLOCK_BOOTTIME`). Nobody can set this
/// clock, so an order in it is the order of what happened. It means nothing in another boot.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The moment that much earlier; the start of the machine where there is none.
    #[must_use]
    pub fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }
}

impl Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970 (UTC) as a clock on the wall showed them (`CLOCK_REALTIME`): what log lines,
/// OTLP records and Docker events carry. The clock may have been set in between, so a wall time can
/// stand for no moment, or for several: [`Clock`](crate::Clock) tells which.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(pub u64);

/// The time of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// On the boot clock: one moment.
    Boot(BootTime),
    /// On the wall clock: every moment at which it showed that.
    Wall(WallTime),
}

impl From<BootTime> for At {
    fn from(time: BootTime) -> Self {
        Self::Boot(time)
    }
}

impl From<WallTime> for At {
    fn from(time: WallTime) -> Self {
        Self::Wall(time)
    }
}

/// What tells one start of the machine from every other (`/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(String);

/// A text that is no boot id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is no boot id: 32 hexadecimal digits are", shown(.0))]
pub struct BootIdError(String);

impl BootId {
    /// Reads what the kernel shows, with or without dashes and the end of the line.
    pub fn parse(text: &str) -> Result<Self, BootIdError> {
        let digits: String = text
            .trim_end()
            .chars()
            .filter(|c| *c != '-')
            .take(33)
            .collect();
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if digits.len() == 32 && digits.chars().all(hex) {
            Ok(Self(digits))
        } else {
            Err(BootIdError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for BootId {
    type Error = BootIdError;

    fn try_from(text: String) -> Result<Self, BootIdError> {
        Self::parse(&text)
    }
}

impl From<BootId> for String {
    fn from(id: BootId) -> Self {
        id.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_read_as_the_kernel_shows_it() {
        let shown = "eebd02f1-3e54-4baa-bec4-034a8ed03622\n";
        let plain = "eebd02f13e544baabec4034a8ed03622";
        assert_eq!(BootId::parse(shown), BootId::parse(plain));
        assert_eq!(BootId::parse(shown).map(String::from), Ok(plain.to_owned()));
    }

    #[test]
    fn what_is_no_boot_id_is_refused_and_shown_harmless() {
        for text in [
            "",
            "-",
            "b007",
            &"a".repeat(33),
            &"A".repeat(32),
            &"é".repeat(32),
        ] {
            assert!(BootId::parse(text).is_err(), "{text}");
        }
        let error = BootId::parse(&"\u{1b}".repeat(1000))
            .unwrap_err()
            .to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 1000, "{error}");
    }
}
