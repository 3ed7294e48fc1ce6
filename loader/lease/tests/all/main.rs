//! Tests of the room as its users see it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod book;
mod clock;
mod file;
mod format;
mod label;
mod make;
mod oracle;
