//! Ids of records that are no flows. They are made of the record, so that one which is sent again, because
//! the answer to the first request was lost, gets the id it had.

use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use uuid::Builder;

/// What tells contents apart.
pub(super) type Print = [u8; 32];

/// The print of parts of any lengths.
pub(super) fn print(parts: &[&[u8]]) -> Print {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Gives ids to the records of one request.
#[derive(Default)]
pub(super) struct Ids {
    seen: HashMap<Print, u64>,
}

impl Ids {
    /// The id of a record: a UUID of version 7 whose time is the record's, and whose other bits are a hash
    /// of everything that is in it. `parts`: that, of any lengths. Equal records of one request are told
    /// apart by their order.
    pub(super) fn id(&mut self, time_nanos: u64, parts: &[&[u8]]) -> String {
        let content = print(parts);
        let time = time_nanos.to_le_bytes();
        let before = self.seen.entry(print(&[&time, &content])).or_default();
        let bits = print(&[&time, &content, &before.to_le_bytes()]);
        *before += 1;
        let mut random = [0; 10];
        random.copy_from_slice(&bits[..10]);
        let id = Builder::from_unix_timestamp_millis(time_nanos / 1_000_000, &random);
        id.into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::{Uuid, Version};

    #[test]
    fn a_record_that_comes_again_has_the_same_id() {
        let of = |time, parts: &[&[u8]]| Ids::default().id(time, parts);
        let id = of(5_000_000, &[b"a", b"bc"]);
        assert_eq!(id, of(5_000_000, &[b"a", b"bc"]));
        assert_ne!(id, of(5_000_001, &[b"a", b"bc"]));
        assert_ne!(id, of(5_000_000, &[b"ab", b"c"]));
        let uuid: Uuid = id.parse().unwrap();
        assert_eq!(uuid.get_version(), Some(Version::SortRand));
        assert_eq!(uuid.get_timestamp().unwrap().to_unix(), (0, 5_000_000));
    }

    #[test]
    fn equal_records_of_a_request_have_different_ids() {
        let mut first = Ids::default();
        let mut again = Ids::default();
        let ids: Vec<_> = (0..3).map(|_| first.id(1, &[b"same"])).collect();
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[1], ids[2]);
        let same: Vec<_> = (0..3).map(|_| again.id(1, &[b"same"])).collect();
        assert_eq!(ids, same);
    }
}
