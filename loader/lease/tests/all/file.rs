//! The file on a real disk: replaced at once, followed, and never half of it.

use crate::make::{at, book, boot_id, lease};
use lease::{BootId, FileError, Follower, FormatError, Leases, MAX_FILE, Publisher, load};
use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, fs::PermissionsExt as _, net::UnixListener},
    path::PathBuf,
    process::Command,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
};
use tempfile::TempDir;

/// A directory of its own, and a file in it.
fn place() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("leases.json");
    (dir, path)
}

/// A book of that many leases, which says the number in two more places.
fn book_of(number: u64) -> Leases {
    let mut book = book();
    for n in 0..number {
        let mut lease = lease(&format!("container {n}"), n);
        lease.agent = Some(format!("of {number}"));
        book.open(lease).unwrap();
    }
    book.complete_until(at(number));
    book
}

#[test]
fn what_is_published_is_what_is_read() {
    let (dir, path) = place();
    let mut publisher = Publisher::open(&path, None).unwrap();
    for number in [3, 0, 50] {
        publisher.publish(&book_of(number)).unwrap();
        assert_eq!(load(&path, &boot_id()).unwrap(), book_of(number));
    }
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [".leases.json.lock", "leases.json"]);
}

#[test]
fn one_group_may_read_it_and_nobody_else() {
    let (dir, path) = place();
    let about = fs::metadata(dir.path()).unwrap();
    // Only root may give a file to a group it is not in.
    let group = if about.uid() == 0 { 4242 } else { about.gid() };
    let mut publisher = Publisher::open(&path, Some(group)).unwrap();
    publisher.publish(&book()).unwrap();
    let about = fs::metadata(&path).unwrap();
    assert_eq!(
        (about.gid(), about.permissions().mode() & 0o7777),
        (group, 0o640)
    );
}

#[test]
fn only_one_publishes() {
    let (_dir, path) = place();
    let first = Publisher::open(&path, None).unwrap();
    let second = Publisher::open(&path, None).unwrap_err();
    assert!(
        matches!(&second, FileError::Busy(busy) if *busy == path),
        "{second}"
    );
    drop(first);
    Publisher::open(&path, None).unwrap();
}

#[test]
fn what_a_killed_writer_left_is_neither_read_nor_in_the_way() {
    let (dir, path) = place();
    let mut publisher = Publisher::open(&path, None).unwrap();
    publisher.publish(&book_of(1)).unwrap();
    let bytes = book_of(2).encode();
    fs::write(
        dir.path().join(".leases.json.new"),
        &bytes[..bytes.len() / 2],
    )
    .unwrap();
    assert_eq!(load(&path, &boot_id()).unwrap(), book_of(1));
    publisher.publish(&book_of(3)).unwrap();
    assert_eq!(load(&path, &boot_id()).unwrap(), book_of(3));
}

#[test]
fn a_file_that_cannot_be_replaced_stands() {
    let (dir, path) = place();
    fs::create_dir(&path).unwrap();
    let mut publisher = Publisher::open(&path, None).unwrap();
    let error = publisher.publish(&book()).unwrap_err();
    assert!(
        matches!(
            error,
            FileError::Io {
                what: "replace",
                ..
            }
        ),
        "{error}"
    );
    assert!(!dir.path().join(".leases.json.new").exists());
    let nowhere = dir.path().join("no such directory/leases.json");
    let error = Publisher::open(&nowhere, None).unwrap_err();
    assert!(
        matches!(
            error,
            FileError::Io {
                what: "open directory",
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        Publisher::open("/".as_ref(), None),
        Err(FileError::NotAFile(_))
    ));
}

#[test]
fn a_follower_sees_every_change_once() {
    let (_dir, path) = place();
    let mut publisher = Publisher::open(&path, None).unwrap();
    let mut follower = Follower::new(&path, boot_id());
    let missing = follower.poll().unwrap_err();
    assert!(
        matches!(missing, FileError::Io { what: "open", .. }),
        "{missing}"
    );
    assert!(follower.poll().unwrap().is_none(), "said once");
    // Same size, and as fast as it goes: neither size nor time tells them apart.
    for time in 1000..1200 {
        let mut book = book_of(1);
        book.complete_until(at(time));
        publisher.publish(&book).unwrap();
        assert_eq!(follower.poll().unwrap(), Some(book));
        assert_eq!(follower.poll().unwrap(), None);
    }
    fs::remove_file(&path).unwrap();
    assert!(follower.poll().is_err());
    publisher.publish(&book_of(1)).unwrap();
    assert_eq!(follower.poll().unwrap(), Some(book_of(1)));
}

#[test]
fn a_bad_file_is_said_once_and_a_good_one_follows() {
    let (_dir, path) = place();
    let mut follower = Follower::new(&path, boot_id());
    let mut bad = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = follower.poll().unwrap_err();
        assert!(follower.poll().unwrap().is_none());
        error
    };
    let json = |e: &FileError| {
        matches!(
            e,
            FileError::Format {
                source: FormatError::Json { .. },
                ..
            }
        )
    };
    assert!(json(&bad(b"")));
    assert!(json(&bad(b"{\"version\":1,")));
    let error = bad(b"{\"version\":7}");
    assert!(error.to_string().contains("it has version 7"), "{error}");
    let other = BootId::parse(&"f".repeat(32)).unwrap();
    let error = bad(&Leases::new(other.clone()).encode());
    assert!(
        matches!(&error, FileError::OtherBoot { found, .. } if *found == other),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    Publisher::open(&path, None)
        .unwrap()
        .publish(&book_of(2))
        .unwrap();
    assert_eq!(follower.poll().unwrap(), Some(book_of(2)));
}

#[test]
fn what_is_too_large_or_no_file_is_not_read() {
    let (dir, path) = place();
    // A hole: large, and takes no room.
    File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
    let error = load(&path, &boot_id()).unwrap_err();
    assert!(matches!(error, FileError::TooLarge(_)), "{error}");
    let error = load(dir.path(), &boot_id()).unwrap_err();
    assert!(matches!(error, FileError::NotAFile(_)), "{error}");
    // Whoever opens a pipe or a device carelessly waits for ever, or reads for ever.
    let pipe = dir.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    for path in [&pipe, &PathBuf::from("/dev/zero")] {
        let error = load(path, &boot_id()).unwrap_err();
        assert!(matches!(error, FileError::NotAFile(_)), "{error}");
    }
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert!(load(&socket, &boot_id()).is_err());
}

#[test]
fn every_read_sees_a_whole_file() {
    let (_dir, path) = place();
    let mut publisher = Publisher::open(&path, None).unwrap();
    publisher.publish(&book_of(0)).unwrap();
    let done = AtomicBool::new(false);
    let ready = Barrier::new(5);
    // Large and small in turn, so that half of one could not pass for the other.
    let sizes = (1..=100).map(|n| if n % 2 == 0 { n } else { n + 300 });
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (path, done, ready) = (&path, &done, &ready);
                scope.spawn(move || {
                    let mut follower = Follower::new(path, boot_id());
                    let mut reads = 0;
                    ready.wait();
                    while !done.load(Relaxed) {
                        let book = if reader % 2 == 0 {
                            Some(load(path, &boot_id()).unwrap())
                        } else {
                            follower.poll().unwrap()
                        };
                        if let Some(book) = book {
                            assert_eq!(book.as_of().0, book.iter().len() as u64);
                            let agent = format!("of {}", book.iter().len());
                            assert!(book.iter().all(|l| l.agent.as_ref() == Some(&agent)));
                            reads += 1;
                        }
                    }
                    reads
                })
            })
            .collect();
        ready.wait();
        for size in sizes {
            publisher.publish(&book_of(size)).unwrap();
        }
        done.store(true, Relaxed);
        for reader in readers {
            let reads = reader.join().unwrap();
            assert!(reads > 1, "{reads}");
        }
    });
}
