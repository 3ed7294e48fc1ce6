//! Lease files: any bytes are read or refused in words that can be shown, and what is read is a book that
//! can be asked and written again.
#![no_main]

use lease::{BootTime, Leases, WallTime};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let book = match Leases::decode(data) {
        Ok(book) => book,
        Err(e) => {
            let said = e.to_string();
            assert!(!said.chars().any(char::is_control), "{said:?}");
            assert!(said.len() < 4096, "{} bytes of error", said.len());
            return;
        }
    };
    let again = Leases::decode(&book.encode());
    assert_eq!(again.as_ref(), Ok(&book), "written and read again");
    let moments = [0, 1, book.as_of().0, book.floor().0, u64::MAX];
    for lease in book.iter() {
        if let Some(slot) = lease.slot {
            assert_eq!(book.by_slot(slot), Some(lease));
        }
        for hold in &lease.ips {
            for moment in moments.into_iter().chain([hold.since.0]) {
                let (boot, wall) = (BootTime(moment), WallTime(moment));
                for answer in [
                    book.by_ip(hold.ip, boot),
                    book.by_ip(hold.ip, wall),
                    book.by_ip_through(hold.ip, wall, boot),
                ] {
                    // Nobody is named who never had the address.
                    let named = answer.lease();
                    assert!(named.is_none_or(|l| l.ips.iter().any(|h| h.ip == hold.ip)));
                }
            }
        }
    }
});
