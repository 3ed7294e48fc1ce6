//! The world of a kernel test: a network namespace with addresses of its own, a pin root of its own,
//! the real binary, and the records it writes.
//!
//! Every test runs in a process of its own (cargo-nextest), so it may change namespace. Nothing here
//! sleeps: it waits for a condition, with a limit.

pub mod agent;
pub mod bpf;
pub mod check;
pub mod collector;
pub mod container;
pub mod control;
pub mod dns;
pub mod doctor;
pub mod engine;
pub mod evasion;
pub mod fleet;
pub mod follow;
pub mod net;
pub mod operate;
pub mod operators;
pub mod parent;
pub mod peer;
pub mod policies;
pub mod pty;
pub mod run;
pub mod server;
pub mod shell;
pub mod sniff;
pub mod stand_in;
pub mod talk;
pub mod traffic;

use ebpf_manager::cgroup::Cgroup;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    env,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory of this process, which goes with the value. What a test leaves that is killed is known by the
/// process's number (`.ci/run`).
#[must_use]
pub fn temporary() -> tempfile::TempDir {
    let prefix = format!("clawker-test-{}-", std::process::id());
    tempfile::TempDir::with_prefix(prefix).expect("a temporary directory")
}

/// Waits until `probe` finds something; panics with what was waited for after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// Waits until `probe` finds something; panics with what was waited for when it takes longer.
#[track_caller]
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    eventually_told(patience, || probe().ok_or_else(|| what.to_owned()))
}

/// The same where what is missing is only known while one waits: the last such word is in the message.
#[track_caller]
pub fn eventually_told<T>(patience: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        let what = match probe() {
            Ok(found) => return found,
            Err(what) => what,
        };
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        nix::poll::poll(&mut [], 5u16).ok();
    }
}

/// Mounts of this process and of what it starts alone, which end with it.
pub fn own_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, private, none).expect("mounts of its own");
}

/// What a script of `scripts/` has put into the cache, by its real name.
#[must_use]
#[track_caller]
pub fn cached(name: &str, script: &str) -> PathBuf {
    let home = || Path::new(&env::var_os("HOME").expect("HOME is set")).join(".cache");
    let cache = env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    let path = cache.join("clawker").join(name);
    path.canonicalize()
        .unwrap_or_else(|e| panic!("{}: {e}: run scripts/{script}", path.display()))
}

/// Mount point of cgroup v2.
#[must_use]
pub fn cgroup_root() -> PathBuf {
    ebpf_manager::cgroup::root().expect("cgroup v2 is mounted; see `make test`")
}

/// Cgroup of the instance that a loader with this process id runs.
#[must_use]
pub fn instance_cgroup(loader: u32) -> PathBuf {
    cgroup_root().join(format!("clawker/run-{loader}"))
}

/// Kills whatever lives in a cgroup and waits until it is gone. For `drop`: it complains of nothing.
pub fn clear(cgroup: &Cgroup) {
    let _ = cgroup.kill();
    let deadline = Instant::now() + PATIENCE;
    while cgroup.populated().unwrap_or(false) && Instant::now() < deadline {
        nix::poll::poll(&mut [], 5u16).ok();
    }
}

/// A generator of noise that is the same every time (xorshift).
pub fn noise(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }
}
