//! Up to when the leases are complete.

use super::*;
use crate::{
    docker::Container,
    fleet::roll::{Member, Stage},
};

const SECOND: u64 = 1_000_000_000;

fn book() -> Book {
    let (mut book, trouble) = Book::open(None, None).unwrap();
    assert!(trouble.is_none());
    book.is_listed(true);
    book
}

/// Ticks, whatever time it is.
fn as_of(book: &mut Book, held: Option<u64>) -> u64 {
    book.changed = true;
    book.tick(held).unwrap();
    book.leases.as_of().0
}

fn bystander(addresses: &[&str]) -> Member {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Member {
        container: Container {
            id: "a".repeat(64),
            is_agent: false,
            addresses,
            ..Container::unknown()
        },
        stage: Stage::Bystander,
        index: None,
        slot: None,
        newborn: false,
        held_since: Some(now().0 - 10 * SECOND),
    }
}

#[test]
fn leases_are_complete_as_far_as_the_engine_has_been_heard() {
    let mut book = book();
    assert_eq!(as_of(&mut book, None), 0, "nothing was heard");
    book.is_read(5);
    assert_eq!(as_of(&mut book, None), 5);
    book.is_read(9);
    assert_eq!(as_of(&mut book, Some(7)), 7, "somebody is being started");
    assert_eq!(as_of(&mut book, None), 9);
    book.is_read(8);
    book.is_listed(false);
    book.is_read(12);
    assert_eq!(as_of(&mut book, None), 9, "the engine is away");
    book.is_listed(true);
    assert_eq!(as_of(&mut book, None), 12);
}

/// Whoever gets it next may send from then on.
#[test]
fn an_address_that_went_is_nobodys_from_the_last_moment_that_is_known() {
    let mut book = book();
    book.begin(&bystander(&["10.0.0.2", "10.0.1.2"]), None)
        .unwrap();
    let read = now().0 - SECOND;
    book.is_read(read);
    let before = now();
    book.renew(&bystander(&["10.0.0.2", "10.0.2.2"])).unwrap();
    let lease = book.leases.iter().next().unwrap();
    let hold = |ip: &str| {
        let ip: IpAddr = ip.parse().unwrap();
        lease.ips.iter().find(|hold| hold.ip == ip).unwrap()
    };
    assert_eq!(hold("10.0.0.2").until, None);
    assert_eq!(hold("10.0.1.2").until, Some(BootTime(read)));
    assert!(hold("10.0.2.2").since >= before);
}
