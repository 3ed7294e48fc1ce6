//! Numbers for people.

use std::time::Duration;

/// Bytes in decimal units with two figures: `1.2 kB`. Nothing at all is a dash.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if n == 0 {
        return "-".to_owned();
    }
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if value < 9.95 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

/// A duration in the unit that fits: `182 ms`, `2.4 s`, `3 min`, `5 h`, `2 d`.
#[must_use]
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64();
    match d.as_secs() {
        0 => format!("{} ms", d.as_millis()),
        1..=9 => format!("{s:.1} s"),
        10..=119 => format!("{s:.0} s"),
        120..=7199 => format!("{} min", d.as_secs() / 60),
        7200..=172_799 => format!("{} h", d.as_secs() / 3600),
        secs => format!("{} d", secs / 86_400),
    }
}

/// A count with blanks between thousands: `48 211`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_two_figures() {
        for (n, s) in [
            (0, "-"),
            (1, "1 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1234, "1.2 kB"),
            (12_345, "12 kB"),
            (999_499, "999 kB"),
            (999_999, "1.0 MB"),
            (5_368_709_120, "5.4 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(n), s, "{n}");
        }
    }

    #[test]
    fn durations_fit_their_unit() {
        for (ms, s) in [
            (0, "0 ms"),
            (182, "182 ms"),
            (2_400, "2.4 s"),
            (59_000, "59 s"),
            (180_000, "3 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), s, "{ms}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1804), "1 804");
        assert_eq!(count(1_234_567), "1 234 567");
    }
}
