//! A disk without room, and one that takes nothing.

use crate::support::{all, bounds, declared, eventually, find, flow, ids};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use otlp_bridge::{
    incoming::{Incoming, Keeper as _},
    spool::{Spool, SpoolError},
};
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};
use wire::stream::{EGRESS, OVERSEER};

const DISK: usize = 12 << 20;
/// Records of a batch.
const STEP: u64 = 200;

/// A small file system in a mount namespace of the test's own, gone with the test's thread.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (none, all) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
        unshare(CloneFlags::CLONE_NEWNS)
            .expect("these tests mount a file system, which needs root");
        mount(none, "/", none, all, none).unwrap();
        let size = format!("size={DISK}");
        mount(
            Some("none"),
            dir.path(),
            Some("tmpfs"),
            MsFlags::empty(),
            Some(size.as_str()),
        )
        .unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_only(&self, yes: bool) {
        let flags = if yes {
            MsFlags::MS_RDONLY
        } else {
            MsFlags::empty()
        };
        let none = None::<&str>;
        // The kernel refuses while a file is open for writing.
        mount(none, self.path(), none, flags | MsFlags::MS_REMOUNT, none).unwrap();
    }

    /// Takes all the room that is left.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::options();
        let mut file = file.create(true).append(true).open(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // So that its directory can go, too.
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
    }
}

fn spool(disk: &Disk) -> Spool {
    let dir = disk.path().join("spool");
    Spool::open(&dir, bounds(1 << 30), |e| {
        panic!("the spool has stopped: {e}")
    })
    .unwrap()
}

fn batch(verdict: &str, from: u64) -> Vec<Incoming> {
    (from..from + STEP).map(|n| flow(1, verdict, n)).collect()
}

#[test]
fn a_full_disk_refuses_then_makes_room_and_keeps_what_it_said_yes_to() {
    let disk = Disk::new();
    let spool = spool(&disk);
    let mut kept = Vec::new();
    let mut keep = |verdict: &str, from: u64| {
        let batch = batch(verdict, from);
        let done = spool.keep(None, &batch);
        if done.is_ok() {
            kept.extend(batch.into_iter().map(|r| r.id));
        }
        done
    };
    let mut n = 0;
    while keep("ALLOWED", n).is_ok() {
        n += STEP;
        assert!(n < 200_000, "the disk is never full");
    }
    let e = keep("ALLOWED", n);
    assert!(
        e.is_ok() || matches!(e, Err(SpoolError::DiskFull(_))),
        "{e:?}"
    );
    // The sender tries again. Denied flows find room: allowed ones make it.
    for n in (0..2000).step_by(STEP as usize) {
        eventually("room for denied flows", || keep("DENIED", n).ok());
    }
    spool.close().unwrap();
    let spool = Spool::open(&disk.path().join("spool"), bounds(1 << 30), |e| {
        panic!("{e}")
    })
    .unwrap();
    let state = find(&spool, EGRESS);
    assert_eq!(state.kept, kept.len() as u64);
    let waiting = ids(&all(&spool, EGRESS));
    let lost = declared(&all(&spool, OVERSEER), EGRESS);
    assert_eq!(state.shed, lost.0);
    assert!(state.shed > 0);
    assert_eq!(kept.len() as u64, waiting.len() as u64 + state.shed);
    // All denied ones are there.
    assert_eq!(waiting.iter().filter(|id| id.contains("-d")).count(), 2000);
}

#[test]
fn when_somebody_else_has_filled_the_disk_the_spool_goes_on_when_there_is_room_again() {
    let disk = Disk::new();
    let spool = spool(&disk);
    spool.keep(None, &batch("DENIED", 0)).unwrap();
    let ballast = disk.fill();
    // What fits into the room that the file has already is kept; then nothing is.
    let mut n = STEP;
    let mut refused = 0;
    while refused < 3 {
        match spool.keep(None, &batch("DENIED", n)) {
            Ok(()) => n += 100,
            Err(e) => {
                assert!(!e.is_fatal(), "{e}");
                refused += 1;
            }
        }
        assert!(n < 200_000, "the disk is never full");
    }
    fs::remove_file(ballast).unwrap();
    eventually("room", || spool.keep(None, &batch("DENIED", n)).ok());
    spool.flush().unwrap();
    assert_eq!(spool.state().unwrap().trouble, None);
    let state = find(&spool, EGRESS);
    assert_eq!(state.kept, n + STEP);
    // Denied flows do not go for that: who could not bring his has them still.
    assert_eq!((state.pending, state.shed), (n + STEP, 0));
}

#[test]
fn a_disk_that_may_only_be_read_is_an_error_that_says_so() {
    let disk = Disk::new();
    let dir = disk.path().join("spool");
    drop(spool(&disk));
    disk.read_only(true);
    let e = Spool::open(&dir, bounds(1 << 30), |_| {})
        .err()
        .expect("it cannot be written");
    assert!(e.to_string().contains("Read-only"), "{e}");
    assert!(!e.is_fatal());
    disk.read_only(false);
    Spool::open(&dir, bounds(1 << 30), |_| {}).unwrap();
}

/// What would have gone to make room stays when no room can be made, and is for delivery again.
#[test]
fn where_no_room_can_be_made_nothing_that_stays_is_passed_over() {
    for refusals in 1..=4 {
        let disk = Disk::new();
        let spool = spool(&disk);
        let mut n = 0;
        while n < 4000 {
            spool.keep(None, &batch("ALLOWED", n)).unwrap();
            n += STEP;
        }
        let mut refused = 0;
        while refused < refusals {
            // The reserve is given up for making room: somebody else takes that as well.
            disk.fill();
            match spool.keep(None, &batch("ALLOWED", n)) {
                Ok(()) => n += STEP,
                Err(e) => {
                    assert!(!e.is_fatal(), "{e}");
                    refused += 1;
                }
            }
            assert!(n < 200_000, "the disk is never full");
        }
        fs::remove_file(disk.path().join("ballast")).unwrap();
        eventually("room", || spool.keep(None, &batch("DENIED", n)).ok());
        spool.flush().unwrap();
        let state = find(&spool, EGRESS);
        let waiting = all(&spool, EGRESS).len() as u64;
        assert_eq!(waiting, state.pending, "after {refusals} refusals");
        assert_eq!(state.kept, waiting + state.shed);
    }
}
