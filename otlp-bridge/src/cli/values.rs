//! Sizes, ages, groups and headers as people write them.

use nix::unistd::Group;
use std::{fs, time::Duration};

/// `512M`, `20G`, `1000`: bytes, in powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let units = [("k", 10), ("m", 20), ("g", 30), ("t", 40)];
    let lower = text.to_ascii_lowercase();
    let found = units
        .iter()
        .find_map(|(unit, shift)| lower.strip_suffix(unit).map(|n| (n, *shift)));
    let (number, shift) = found.unwrap_or((&lower, 0));
    let n: Option<u64> = number.parse().ok();
    n.and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| *n >= 1 << 20)
        .ok_or_else(|| "write a size of at least 1M, like 512M or 20G".to_owned())
}

/// `40s`, `5m`, `12h`, `7d`.
pub(super) fn age(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let found = units
        .iter()
        .find_map(|(unit, seconds)| text.strip_suffix(unit).map(|n| (n, *seconds)));
    found
        .and_then(|(n, seconds)| n.parse::<u64>().ok()?.checked_mul(seconds))
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| "write a number and a unit, like 40s, 5m, 12h or 7d".to_owned())
}

/// The number of a group, given by name or number.
pub(super) fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err("there is no such group on this machine".to_owned()),
        Err(e) => Err(format!("cannot look it up: {e}")),
    }
}

/// `NAME=VALUE`, or `NAME=@FILE`.
pub(super) fn header(given: &str) -> Result<(String, String), String> {
    let Some((name, value)) = given.split_once('=') else {
        return Err("write NAME=VALUE, or NAME=@FILE to take the value from a file".to_owned());
    };
    let value = match value.strip_prefix('@') {
        None => value.to_owned(),
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("1M"), Ok(1 << 20));
        assert_eq!(size("20g"), Ok(20 << 30));
        assert_eq!(size("2097152"), Ok(2 << 20));
        for wrong in ["", "M", "-1G", "1.5G", "1023k", "99999999999T", "1 G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ages_have_a_unit() {
        assert_eq!(age("40s"), Ok(Duration::from_secs(40)));
        assert_eq!(age("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "d", "7", "0s", "-1h", "99999999999999999d", "ß"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_may_come_from_a_file() {
        let pair = |k: &str, v: &str| Ok((k.to_owned(), v.to_owned()));
        assert_eq!(header("k=v=w"), pair("k", "v=w"));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret\n").unwrap();
        let given = format!("authorization=@{}", file.path().display());
        assert_eq!(header(&given), pair("authorization", "secret"));
        assert!(header("k").is_err());
        assert!(
            header("k=@/nowhere/at/all")
                .unwrap_err()
                .contains("/nowhere")
        );
    }
}
