//! What the store holds: tables, their keys and rows.

use super::books::{Book, Books};
use redb::{
    Error, ReadTransaction, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    WriteTransaction,
};

/// Data stream, tier (what goes first when there is no room), and place in the order of arrival.
pub(super) type Key<'a> = (&'a str, u8, u64);
/// Boot, slot, verdict and number of the flows that a record stands for.
pub(super) type FlowsRow<'a> = (&'a str, u32, &'a str, u64);
/// When it was kept (ms since 1970), its id, its flows, and the record itself.
pub(super) type Row<'a> = (u64, &'a str, Option<FlowsRow<'a>>, &'a [u8]);
/// Tier that it had, the reason, and the row.
pub(super) type AsideRow<'a> = (u8, &'a str, Row<'a>);
/// Last batch of a sender, which of the 128 up to it are kept, and when it was seen last.
pub(super) type SenderRow = (u64, u128, u64);

/// Records that wait for delivery.
pub(super) const RECORDS: TableDefinition<Key<'static>, Row<'static>> =
    TableDefinition::new("records");
/// Ids of all records that are here.
pub(super) const IDS: TableDefinition<&str, ()> = TableDefinition::new("ids");
/// Flows that were ever kept, by boot, slot and verdict.
pub(super) const HELD: TableDefinition<(&str, u32, &str), u64> = TableDefinition::new("held");
/// When a boot was seen last, in places of the order of arrival.
pub(super) const BOOTS: TableDefinition<&str, u64> = TableDefinition::new("boots");
/// What is known of senders of batches.
pub(super) const SENDERS: TableDefinition<&str, SenderRow> = TableDefinition::new("senders");
/// Records that no receiver takes, by data stream and place.
pub(super) const ASIDE: TableDefinition<(&str, u64), AsideRow<'static>> =
    TableDefinition::new("aside");
/// What was thrown away and is not declared yet: a `Group` and its `Loss`, both as JSON.
pub(super) const LOST: TableDefinition<&str, &str> = TableDefinition::new("lost");
/// Sums by data stream.
pub(super) const BOOKS: TableDefinition<&str, [u64; Book::NUMBERS]> = TableDefinition::new("books");
/// Single numbers: [`FORMAT`] and [`NEXT`].
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Version of these tables.
pub(super) const FORMAT: &str = "format";
/// Place of the next record.
pub(super) const NEXT: &str = "next";
/// The version of this program's tables.
pub(super) const FORMAT_NOW: u64 = 1;

/// All tables, open in one transaction.
pub(super) struct Tables<'t> {
    pub(super) records: Table<'t, Key<'static>, Row<'static>>,
    pub(super) ids: Table<'t, &'static str, ()>,
    pub(super) held: Table<'t, (&'static str, u32, &'static str), u64>,
    pub(super) boots: Table<'t, &'static str, u64>,
    pub(super) senders: Table<'t, &'static str, SenderRow>,
    pub(super) aside: Table<'t, (&'static str, u64), AsideRow<'static>>,
    pub(super) lost: Table<'t, &'static str, &'static str>,
    pub(super) books: Table<'t, &'static str, [u64; Book::NUMBERS]>,
    pub(super) meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, Error> {
        Ok(Self {
            records: txn.open_table(RECORDS)?,
            ids: txn.open_table(IDS)?,
            held: txn.open_table(HELD)?,
            boots: txn.open_table(BOOTS)?,
            senders: txn.open_table(SENDERS)?,
            aside: txn.open_table(ASIDE)?,
            lost: txn.open_table(LOST)?,
            books: txn.open_table(BOOKS)?,
            meta: txn.open_table(META)?,
        })
    }

    /// Writes what has changed in the sums.
    pub(super) fn save(&mut self, before: &Books, now: &Books) -> Result<(), Error> {
        for (stream, book) in &now.streams {
            if before.streams.get(stream) != Some(book) {
                self.books.insert(stream.as_str(), book.numbers())?;
            }
        }
        if before.next != now.next {
            self.meta.insert(NEXT, now.next)?;
        }
        Ok(())
    }
}

/// The sums as they are in the store.
pub(super) fn load(txn: &ReadTransaction) -> Result<Books, Error> {
    use redb::ReadableTableMetadata as _;
    let mut books = Books::default();
    for entry in txn.open_table(BOOKS)?.iter()? {
        let (stream, numbers) = entry?;
        let book = Book::from(numbers.value());
        books.streams.insert(stream.value().to_owned(), book);
    }
    books.next = txn
        .open_table(META)?
        .get(NEXT)?
        .map_or(0, |next| next.value());
    books.undeclared = txn.open_table(LOST)?.len()?;
    Ok(books)
}

/// A view of the last commit.
pub(super) fn view(db: &redb::Database) -> Result<ReadTransaction, Error> {
    Ok(db.begin_read()?)
}
