//! Up to when the leases are complete.

use super::*;

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
