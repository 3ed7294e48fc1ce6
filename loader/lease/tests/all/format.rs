//! The bytes: one golden file, and everything that is not one.

use crate::make::{BOOT, at, book, hold, lease, lease_with_ip, reading};
use lease::{FormatError, Lease, Leases, MAX_FILE, MAX_HOLDS, MAX_LEASES, MAX_TEXT, VERSION};
use proptest::prelude::*;
use std::{path::Path, time::Duration};

/// A book with something of everything.
fn rich() -> Leases {
    let second = 1_000_000_000;
    let mut book = book();
    book.observe(reading(10 * second, 1_766_000_000 * second));
    book.open(lease_with_ip("forgotten", second, "172.18.0.9"))
        .unwrap();
    book.close("forgotten", at(2 * second)).unwrap();
    let first = Lease {
        agent: Some("rené \"the\" agent \\ 1".to_owned()),
        project: Some(String::new()),
        name: "clawker.web.rené".to_owned(),
        slot: Some(1),
        cgroup_id: Some(u64::MAX),
        netns: Some(4_026_532_201),
        ips: vec![hold("172.18.0.2", 11 * second, None)],
        ..lease(&"0123456789abcdef".repeat(4), 11 * second)
    };
    let id = first.container_id.clone();
    book.open(first).unwrap();
    book.set_ips(
        &id,
        &["172.18.0.2", "fd00:18::2"].map(crate::make::ip),
        at(12 * second),
    )
    .unwrap();
    book.set_ips(&id, &["fd00:18::2"].map(crate::make::ip), at(13 * second))
        .unwrap();
    let neighbour = Lease {
        agent: None,
        ..lease_with_ip("neighbour without labels", 13 * second, "172.18.0.3")
    };
    book.open(neighbour).unwrap();
    book.close(&id, at(14 * second)).unwrap();
    assert_eq!(
        book.expire(at(20 * second), Duration::from_secs(10)).len(),
        1
    );
    book.observe(reading(20 * second, 1_766_000_000 * second));
    book.complete_until(at(20 * second));
    book
}

#[test]
fn the_file_looks_like_this() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/leases.json");
    let bytes = rich().encode();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &bytes).unwrap();
    }
    let expected = std::fs::read(&golden).unwrap();
    assert_eq!(
        String::from_utf8(bytes),
        String::from_utf8(expected.clone())
    );
    assert_eq!(Leases::decode(&expected), Ok(rich()));
    let value: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    assert_eq!(value["version"], VERSION);
    assert_eq!(value["boot"], BOOT);
}

#[test]
fn a_piece_of_a_file_is_no_file() {
    let bytes = rich().encode();
    let whole = bytes.len() - 1;
    assert_eq!(bytes[whole], b'\n');
    for end in 0..whole {
        assert!(
            Leases::decode(&bytes[..end]).is_err(),
            "{end} bytes of {whole}"
        );
    }
    let twice = [&bytes[..], &bytes[..]].concat();
    assert!(Leases::decode(&twice).is_err());
}

#[test]
fn what_is_wrong_is_said_in_one_harmless_line() {
    let good = String::from_utf8(rich().encode()).unwrap();
    let line = good
        .lines()
        .find(|line| line.contains("neighbour"))
        .unwrap();
    let cases = [
        ("", String::new(), "EOF while parsing"),
        ("", "[]".to_owned(), "invalid length 0, expected struct"),
        ("", "{}".to_owned(), "missing field `version`"),
        (
            "",
            r#"{"version":2,"more":[]}"#.to_owned(),
            "it has version 2",
        ),
        ("", r#"{"version":1}"#.to_owned(), "missing field `boot`"),
        ("", r#"{"version":"1"}"#.to_owned(), "invalid type: string"),
        (
            "",
            format!("{{\"version\":1,\"deep\":{}", "[".repeat(100_000)),
            "EOF while parsing a list",
        ),
        (
            "\"version\":1",
            "\"version\":1,\"version\":1".to_owned(),
            "duplicate field",
        ),
        (BOOT, "b007".to_owned(), "is no boot id"),
        (
            "\"floor\":",
            "\"flour\":".to_owned(),
            "unknown field `flour`",
        ),
        (
            "\"floor\":",
            "\"floor\":-".to_owned(),
            "invalid value: integer",
        ),
        (
            "\"slot\":1,",
            "\"slot\":4294967296,".to_owned(),
            "invalid value: integer",
        ),
        (
            "172.18.0.3",
            "172.18.0.300".to_owned(),
            "invalid IP address syntax",
        ),
        (
            "\"netns\":",
            "\"\u{9b}\\u001b[2J\":".to_owned(),
            r"unknown field `\u{9b}\u{1b}[2J`",
        ),
        (line, format!("{line},\n{line}"), "it has an open one"),
    ];
    for (from, to, expected) in cases {
        let text = if from.is_empty() {
            to
        } else {
            good.replacen(from, &to, 1)
        };
        let error = Leases::decode(text.as_bytes())
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
        assert!(
            !error.chars().any(char::is_control) && error.len() < 400,
            "{error:?}"
        );
    }
}

#[test]
fn one_slot_cannot_be_two_peoples() {
    let good = String::from_utf8(rich().encode()).unwrap();
    let line = r#"{"container_id":"c","name":"c","slot":1,"since":1,"until":2,"ips":[]}"#;
    let text = good.replace("\n]}", &format!(",\n{line}\n]}}"));
    let error = Leases::decode(text.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot take the lease of container \"c\": slot 1 has been another's"
    );
}

/// Every text at its longest and worst, every list full.
fn fattest(n: usize) -> Lease {
    let long = || "\"".repeat(MAX_TEXT);
    let begin = u64::MAX - 2 * MAX_HOLDS as u64;
    let mut fat = lease(&format!("{n:\\>128}"), begin);
    (fat.agent, fat.project, fat.name) = (Some(long()), Some(long()), long());
    (fat.slot, fat.until) = (Some(u32::MAX - n as u32), Some(at(u64::MAX)));
    (fat.cgroup_id, fat.netns) = (Some(u64::MAX), Some(u64::MAX));
    fat.ips = (0..MAX_HOLDS as u64)
        .map(|i| {
            let since = begin + 2 * i;
            let address = "2001:db82:2222:2222:2222:2222:2222:2222";
            hold(address, since, Some(since + 1))
        })
        .collect();
    fat
}

#[test]
fn a_full_book_fits_into_a_file() {
    let mut book = book();
    book.open(fattest(0)).unwrap();
    let one = book.encode().len();
    book.open(fattest(1)).unwrap();
    let lease = book.encode().len() - one;
    // What is left is for the head; its clock may have 64 spans of less than 100 bytes.
    let room = MAX_FILE as usize - lease * MAX_LEASES;
    assert!(room > 1_000_000, "{room}");
    assert_eq!(Leases::decode(&book.encode()).as_ref(), Ok(&book));
}

#[test]
fn more_leases_than_there_is_room_for_are_refused() {
    let good = String::from_utf8(book().encode()).unwrap();
    let line = |n| format!(r#"{{"container_id":"{n}","name":"","since":1,"ips":[]}}"#);
    let lines: Vec<String> = (0..=MAX_LEASES).map(line).collect();
    let text = |lines: &[String]| good.replace("[\n]", &format!("[{}]", lines.join(",")));
    assert!(Leases::decode(text(&lines[1..]).as_bytes()).is_ok());
    let error = Leases::decode(text(&lines).as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "there are {} leases, and room for {MAX_LEASES}",
            MAX_LEASES + 1
        )
    );
    assert!(matches!(error, FormatError::Leases(_)));
}

/// What decodes must be a book that could have been written.
fn holds_up(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(book) = Leases::decode(bytes) {
        prop_assert_eq!(&Leases::decode(&book.encode()), &Ok(book));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_bring_the_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        holds_up(&bytes)?;
    }

    #[test]
    fn nor_does_a_damaged_file(
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..4usize, prop_oneof![
                any::<u8>().prop_map(|byte| vec![byte]),
                "[0-9]{1,20}".prop_map(String::into_bytes),
                r#"["{}:,\[\]\\u]{1,4}"#.prop_map(String::into_bytes),
                r#""(since|until|slot|ips|agent|leases)":"#.prop_map(String::into_bytes),
            ]),
            0..4,
        ),
    ) {
        let mut bytes = rich().encode();
        for (place, removed, inserted) in damage {
            let from = place.index(bytes.len());
            let to = (from + removed).min(bytes.len());
            bytes.splice(from..to, inserted);
        }
        holds_up(&bytes)?;
    }
}
