//! kill -9 of a process that keeps.

use crate::support::{BOOT, all, find, ids, open};
use otlp_bridge::incoming::Keeper as _;
use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};
use wire::stream::EGRESS;

/// Records of a batch of the example `keeper`.
const BATCH: u64 = 20;
const KILLS: u32 = 12;

/// The example `keeper`, which cargo builds beside the tests.
fn keeper() -> PathBuf {
    let test = env::current_exe().unwrap();
    let built = test.ancestors().nth(2).unwrap().join("examples/keeper");
    assert!(built.exists(), "{} is not built", built.display());
    built
}

fn start(dir: &Path, sender: u32) -> (Child, Receiver<u64>) {
    // So that it does not outlive a test that is killed.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(keeper())
        .arg(dir)
        .arg(sender.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (said, heard) = channel();
    let out: ChildStdout = child.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            // The last line may be half there.
            let Ok(number) = line.unwrap_or_default().parse() else {
                break;
            };
            if said.send(number).is_err() {
                break;
            }
        }
    });
    (child, heard)
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut random = 0x2545_f491_u64;
    for sender in 1..=KILLS {
        let (mut child, heard) = start(dir.path(), sender);
        // It lives for some batches, and for some time within the next one.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let (batches, micros) = (1 + (random >> 33) % 6, (random >> 40) % 20_000);
        let mut last = 0;
        while last < batches {
            last = heard
                .recv_timeout(Duration::from_secs(60))
                .expect("it keeps");
        }
        let until = Instant::now() + Duration::from_micros(micros);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            last = heard.recv_timeout(left).unwrap_or(last);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        last = heard.iter().last().unwrap_or(last);
        acknowledged.insert(sender, last);
    }
    let spool = open(dir.path(), 1 << 30);
    let mut got = ids(&all(&spool, EGRESS));
    let total = got.len() as u64;
    got.sort();
    got.dedup();
    assert_eq!(got.len() as u64, total, "some are there twice");
    let held = spool.held(BOOT).unwrap();
    let mut sum = 0;
    for (sender, last) in acknowledged {
        let held = held.iter().find(|h| h.slot == sender).unwrap().flows;
        // The one that was under way may be there, whole, or not.
        assert!(
            held == last * BATCH || held == (last + 1) * BATCH,
            "{held} of {last}"
        );
        for batch in 1..=last {
            for n in batch * BATCH..(batch + 1) * BATCH {
                let id = format!("{BOOT}-{sender}-a{n}");
                assert!(got.binary_search(&id).is_ok(), "{id} is missing");
            }
        }
        sum += held;
    }
    assert_eq!(sum, total);
    assert_eq!(find(&spool, EGRESS).kept, total);
}
