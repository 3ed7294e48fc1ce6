//! What a book answers, case by case, and what it refuses.

use crate::make::{at, book, hold, ip, lease, lease_with_ip, reading};
use lease::{
    Answer, Lease, LeaseError, Leases, LeasesError, MAX_HOLDS, MAX_LEASES, MAX_TEXT, WallTime,
};
use std::time::Duration;

/// The container that an answer names, or which kind of nothing it is.
fn name(answer: Answer<'_>) -> &str {
    match answer {
        Answer::Held(lease) => &lease.container_id,
        Answer::Nobody => "nobody",
        Answer::Ambiguous => "ambiguous",
        Answer::Beyond => "beyond",
    }
}

#[test]
fn an_address_belongs_to_whoever_had_it_then() {
    let mut book = book();
    let address = ip("172.18.0.2");
    book.open(lease_with_ip("a", 10, "172.18.0.2")).unwrap();
    book.close("a", at(20)).unwrap();
    book.open(lease_with_ip("b", 30, "172.18.0.2")).unwrap();
    let asked = [
        (9, "nobody"),
        (10, "a"),
        (19, "a"),
        (20, "nobody"),
        (29, "nobody"),
        (30, "b"),
        (u64::MAX, "b"),
    ];
    for (time, expected) in asked {
        assert_eq!(name(book.by_ip(address, at(time))), expected, "{time}");
    }
    assert_eq!(name(book.by_ip(ip("172.18.0.3"), at(15))), "nobody");
}

#[test]
fn an_address_has_one_spelling() {
    let mut book = book();
    book.open(lease_with_ip("a", 0, "::ffff:10.0.0.1")).unwrap();
    book.open(lease("b", 0)).unwrap();
    book.set_ips("b", &[ip("::ffff:10.0.0.2")], at(0)).unwrap();
    for (text, expected) in [
        ("10.0.0.1", "a"),
        ("::ffff:10.0.0.1", "a"),
        ("10.0.0.2", "b"),
    ] {
        assert_eq!(name(book.by_ip(ip(text), at(1))), expected, "{text}");
    }
}

#[test]
fn a_restarted_container_has_another_lease() {
    let mut book = book();
    for (since, until, slot) in [(0, 10, 1), (20, 30, 2)] {
        let mut life = lease("a", since);
        (life.slot, life.cgroup_id) = (Some(slot), Some(77));
        book.open(life).unwrap();
        book.close("a", at(until)).unwrap();
    }
    let slot = |answer: Answer<'_>| answer.lease().and_then(|lease| lease.slot);
    for (time, expected) in [(5, Some(1)), (15, None), (25, Some(2)), (30, None)] {
        assert_eq!(slot(book.by_container("a", at(time))), expected, "{time}");
        assert_eq!(slot(book.by_cgroup(77, at(time))), expected, "{time}");
    }
    // A flow may end after its container; its slot is nobody else's.
    assert_eq!(book.by_slot(1).unwrap().until, Some(at(10)));
    assert_eq!(book.by_slot(3), None);
}

#[test]
fn networks_come_and_go_within_a_lease() {
    let mut book = book();
    let (one, two) = (ip("10.0.0.1"), ip("fd00::1"));
    book.open(lease("a", 5)).unwrap();
    book.set_ips("a", &[one], at(2)).unwrap();
    book.set_ips("a", &[one, two], at(10)).unwrap();
    book.set_ips("a", &[two], at(20)).unwrap();
    book.set_ips("a", &[one, two], at(30)).unwrap();
    let asked = [(4, false, false), (5, true, false), (10, true, true)];
    let later = [(20, false, true), (29, false, true), (30, true, true)];
    for (time, has_one, has_two) in asked.into_iter().chain(later) {
        let has = |ip| book.by_ip(ip, at(time)).lease().is_some();
        assert_eq!((has(one), has(two)), (has_one, has_two), "{time}");
    }
    assert_eq!(name(book.by_ip_through(one, at(12), at(40))), "nobody");
    assert_eq!(name(book.by_ip_through(two, at(40), at(12))), "a");
    book.close("a", at(35)).unwrap();
    assert_eq!(name(book.by_ip(one, at(35))), "nobody");
}

#[test]
fn who_shares_an_address_or_its_namespace_has_no_identity_by_it() {
    let mut book = book();
    let address = ip("10.0.0.1");
    let mut first = lease_with_ip("a", 0, "10.0.0.1");
    first.netns = Some(4_026_531_840);
    book.open(first).unwrap();
    book.open(lease_with_ip("b", 10, "10.0.0.1")).unwrap();
    book.close("b", at(20)).unwrap();
    // `docker run --network container:a`: no address of its own.
    book.open(lease("c", 30)).unwrap();
    book.set_netns("c", 4_026_531_840).unwrap();
    book.close("c", at(40)).unwrap();
    let asked = [
        (5, "a"),
        (10, "ambiguous"),
        (20, "a"),
        (30, "ambiguous"),
        (40, "a"),
    ];
    for (time, expected) in asked {
        assert_eq!(name(book.by_ip(address, at(time))), expected, "{time}");
    }
    assert_eq!(name(book.by_ip_through(address, at(20), at(29))), "a");
    assert_eq!(
        name(book.by_ip_through(address, at(20), at(50))),
        "ambiguous"
    );
    assert_eq!(name(book.by_container("c", at(30))), "c");
}

#[test]
fn a_sender_cannot_write_into_the_time_of_the_one_before() {
    let mut book = book();
    let address = ip("10.0.0.1");
    book.open(lease_with_ip("a", 0, "10.0.0.1")).unwrap();
    book.close("a", at(100)).unwrap();
    book.open(lease_with_ip("b", 200, "10.0.0.1")).unwrap();
    let claimed = |time| name(book.by_ip_through(address, at(time), at(300)));
    assert_eq!(claimed(50), "ambiguous");
    assert_eq!(claimed(150), "nobody");
    assert_eq!(claimed(250), "b");
    // A time to come says nothing against who is there now.
    assert_eq!(claimed(1_000_000), "b");
}

#[test]
fn a_wall_time_that_was_twice_needs_one_answer() {
    let mut book = book();
    let address = ip("10.0.0.1");
    let second = 1_000_000_000;
    book.observe(reading(0, 1000 * second));
    book.open(lease_with_ip("a", 0, "10.0.0.1")).unwrap();
    book.close("a", at(15 * second)).unwrap();
    book.open(lease_with_ip("b", 16 * second, "10.0.0.1"))
        .unwrap();
    // At 20 s the clock is set back by 10 s: it shows 1010 to 1020 twice.
    book.observe(reading(20 * second, 1020 * second));
    book.observe(reading(20 * second + 1, 1010 * second));
    let wall = |s: u64| name(book.by_ip(address, WallTime(s * second)));
    assert_eq!(wall(999), "beyond");
    assert_eq!(wall(1005), "a");
    assert_eq!(wall(1012), "ambiguous");
    assert_eq!(wall(1018), "b");
    assert_eq!(wall(1025), "b");
}

#[test]
fn what_ended_long_ago_is_forgotten_and_its_time_with_it() {
    let mut book = book();
    let address = ip("10.0.0.1");
    book.open(lease_with_ip("a", 0, "10.0.0.1")).unwrap();
    book.open(lease_with_ip("b", 5, "10.0.0.1")).unwrap();
    book.close("a", at(10)).unwrap();
    book.close("b", at(20)).unwrap();
    let horizon = Duration::from_nanos(100);
    assert_eq!(book.expire(at(110), horizon), []);
    let gone = book.expire(at(111), horizon);
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].container_id, "a");
    // Without the floor, "b" would now have been alone at 7.
    assert_eq!(name(book.by_ip(address, at(7))), "beyond");
    assert_eq!(name(book.by_ip(address, at(10))), "b");
    assert_eq!(name(book.by_container("b", at(9))), "beyond");
    assert_eq!((book.floor(), book.forgotten().expired), (at(10), 1));
}

#[test]
fn the_number_is_bounded_and_the_living_stay() {
    let mut book = book();
    for n in 0..MAX_LEASES as u64 {
        let evicted = book.open(lease(&format!("c{n}"), n)).unwrap();
        assert_eq!(evicted, None);
    }
    let one_more = || lease("one more", 9_000);
    let full = book.open(one_more()).unwrap_err();
    assert_eq!(full, LeasesError::Full("\"one more\"".to_owned()));
    book.close("c7", at(8_000)).unwrap();
    book.close("c5", at(7_000)).unwrap();
    let evicted = book.open(one_more()).unwrap().unwrap();
    assert_eq!(evicted.container_id, "c5");
    assert_eq!((book.floor(), book.forgotten().evicted), (at(7_000), 1));
    assert_eq!(book.iter().len(), MAX_LEASES);
    assert_eq!(name(book.by_container("c7", at(7_500))), "c7");
    assert_eq!(name(book.by_container("one more", at(9_000))), "one more");
}

#[test]
fn a_lease_remembers_so_many_addresses() {
    let mut book = book();
    let (one, two) = (ip("10.0.0.1"), ip("10.0.0.2"));
    book.open(lease("a", 0)).unwrap();
    for turn in 0..MAX_HOLDS as u64 {
        let now = if turn % 2 == 0 { one } else { two };
        book.set_ips("a", &[now], at(10 * turn)).unwrap();
    }
    assert_eq!(book.floor(), at(0));
    book.set_ips("a", &[one], at(10_000)).unwrap();
    assert_eq!(book.floor(), at(10), "the first hold is forgotten");
    assert_eq!(name(book.by_ip(one, at(5))), "beyond");
    assert_eq!(name(book.by_ip(two, at(10))), "a");
    let many: Vec<_> = (1..=MAX_HOLDS as u8 + 1)
        .map(|n| ip(&format!("10.1.0.{n}")))
        .collect();
    let before = book.clone();
    let refused = book.set_ips("a", &many, at(20_000)).unwrap_err();
    let source = LeaseError::TooManyHolds(MAX_HOLDS + 1);
    let container = "\"a\"".to_owned();
    assert_eq!(refused, LeasesError::Invalid { container, source });
    assert_eq!(book, before);
}

#[test]
fn an_end_before_the_beginning_ends_it_all_the_same() {
    let mut book = book();
    book.open(lease_with_ip("a", 10, "10.0.0.1")).unwrap();
    book.close("a", at(3)).unwrap();
    assert_eq!(name(book.by_ip(ip("10.0.0.1"), at(10))), "nobody");
    assert_eq!(name(book.by_container("a", at(10))), "nobody");
    book.open(lease("a", 11)).unwrap();
    assert_eq!(name(book.by_container("a", at(11))), "a");
}

#[test]
fn a_container_lives_once_at_a_time_and_only_the_living_change() {
    let mut book = book();
    let unknown = LeasesError::NotOpen("\"a\"".to_owned());
    assert_eq!(book.close("a", at(1)), Err(unknown.clone()));
    assert_eq!(book.rename("a", "b"), Err(unknown.clone()));
    assert_eq!(book.set_ips("a", &[], at(1)), Err(unknown.clone()));
    book.open(lease("a", 0)).unwrap();
    let twice = LeasesError::AlreadyOpen("\"a\"".to_owned());
    assert_eq!(book.open(lease("a", 5)), Err(twice));
    book.rename("a", "new name").unwrap();
    let renamed = book.by_container("a", at(0)).lease().unwrap();
    assert_eq!(renamed.name, "new name");
    book.close("a", at(9)).unwrap();
    assert_eq!(book.set_netns("a", 1), Err(unknown));
}

#[test]
fn a_slot_is_never_used_twice() {
    let mut book = book();
    let with_slot = |container| Lease {
        slot: Some(4),
        ..lease(container, 0)
    };
    book.open(with_slot("a")).unwrap();
    book.close("a", at(1)).unwrap();
    let container = "\"b\"".to_owned();
    let taken = LeasesError::SlotTaken { container, slot: 4 };
    assert_eq!(book.open(with_slot("b")), Err(taken));
}

/// What may not be in a lease, and the reason.
fn refusals() -> Vec<(&'static str, Lease)> {
    let plain = || lease("a", 10);
    let ended = |until| Lease {
        until: Some(at(until)),
        ..plain()
    };
    let holding = |lease: Lease, ips: &[_]| Lease {
        ips: ips.to_vec(),
        ..lease
    };
    let address = |text| holding(plain(), &[hold(text, 10, None)]);
    let agent = |text: &str| Lease {
        agent: Some(text.to_owned()),
        ..plain()
    };
    let (a, b) = ("10.0.0.1", "10.0.0.2");
    vec![
        ("its agent has a control character at byte 1", agent("a\nb")),
        (
            "its agent is 1025 bytes long, more than 1024",
            agent(&"x".repeat(MAX_TEXT + 1)),
        ),
        (
            "its project has a control character at byte 0",
            Lease {
                project: Some("\u{1b}[2J".to_owned()),
                ..plain()
            },
        ),
        (
            "its name has a control character at byte 0",
            Lease {
                name: "\u{7f}".to_owned(),
                ..plain()
            },
        ),
        (
            "its container id has 0 bytes instead of 1 to 128",
            lease("", 10),
        ),
        (
            "its container id has 129 bytes instead of 1 to 128",
            lease(&"c".repeat(129), 10),
        ),
        (
            "its slot is 0, which is nobody's",
            Lease {
                slot: Some(0),
                ..plain()
            },
        ),
        ("it ends before it begins", ended(9)),
        (
            "127.0.0.1 cannot be the address of one container",
            address("127.0.0.1"),
        ),
        (
            "0.0.0.0 cannot be the address of one container",
            address("0.0.0.0"),
        ),
        ("::1 cannot be the address of one container", address("::1")),
        (
            "fe80::1 cannot be the address of one container",
            address("fe80::1"),
        ),
        (
            "ff02::1 cannot be the address of one container",
            address("ff02::1"),
        ),
        (
            "255.255.255.255 cannot be the address of one container",
            address("255.255.255.255"),
        ),
        (
            "it holds 10.0.0.1 at a time that is not its own",
            holding(plain(), &[hold(a, 9, None)]),
        ),
        (
            "it holds 10.0.0.1 at a time that is not its own",
            holding(plain(), &[hold(a, 20, Some(20))]),
        ),
        (
            "it holds 10.0.0.1 at a time that is not its own",
            holding(ended(20), &[hold(a, 10, None)]),
        ),
        (
            "it holds 10.0.0.2 at a time that is not its own",
            holding(ended(20), &[hold(a, 10, Some(20)), hold(b, 10, Some(21))]),
        ),
        (
            "it holds 10.0.0.1 twice at a time",
            holding(
                plain(),
                &[hold(a, 20, None), hold(b, 20, None), hold(a, 10, Some(21))],
            ),
        ),
        (
            "it has 65 addresses, more than 64",
            holding(plain(), &vec![hold(a, 10, None); MAX_HOLDS + 1]),
        ),
    ]
}

#[test]
fn what_is_no_lease_is_refused_and_changes_nothing() {
    for (reason, lease) in refusals() {
        let mut book = book();
        let error = book.open(lease).expect_err(reason).to_string();
        assert!(error.ends_with(reason), "{error}\n{reason}");
        assert_eq!(book, crate::make::book());
    }
}

#[test]
fn a_file_with_such_a_lease_is_refused_too() {
    for (reason, lease) in refusals() {
        let text = String::from_utf8(book().encode()).unwrap();
        let line = serde_json::to_string(&lease).unwrap();
        let text = text.replace("[\n]", &format!("[\n{line}\n]"));
        let error = Leases::decode(text.as_bytes())
            .expect_err(reason)
            .to_string();
        assert!(error.ends_with(reason), "{error}\n{reason}");
    }
}
