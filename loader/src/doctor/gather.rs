//! Looks at the machine and at what is around.

use super::{
    around::Around,
    machine::{Cgroups, Machine, PinPlace},
};
use crate::{
    cgroup::{self, Cgroup},
    instance::{BPFFS, Root, on_bpffs},
    kernel::{
        probe::{self, FEATURES},
        query,
    },
    machine, resolvers,
    resolvers::Answer,
    user,
};
use abi::programs;
use caps::{CapSet, Capability};
use nix::sys::statvfs::{FsFlags, statvfs};
use policy::Resolver;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What `run` needs besides being root: namespaces and programs, the bounding set, another user, and
/// passing signals on to them.
const NEEDED: [Capability; 5] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETPCAP,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_KILL,
];

/// How often a resolver is asked, and for how long it may think each time.
const TRIES: u16 = 2;
const PATIENCE: Duration = Duration::from_millis(1500);
/// Processes that are just ending leave their cgroup within this time.
const SETTLE: Duration = Duration::from_millis(300);

/// Looks at the machine. Without root the kernel is not asked for what it can do.
#[must_use]
pub fn machine(root: &Root) -> Machine {
    let is_root = nix::unistd::geteuid().is_root();
    let cgroups = cgroups();
    let place = cgroups.as_ref().ok().map(|c| c.path.clone());
    let lacks = |c: &Capability| !caps::has_cap(None, CapSet::Effective, *c).unwrap_or(false);
    let ask = |f| {
        (
            f,
            probe::has(f, place.as_deref()).map_err(|e| e.to_string()),
        )
    };
    Machine {
        release: machine::release(),
        root: is_root,
        lacking: NEEDED
            .iter()
            .filter(|c| lacks(c))
            .map(ToString::to_string)
            .collect(),
        features: if is_root {
            FEATURES.map(ask).into()
        } else {
            Vec::new()
        },
        trial: is_root.then(|| probe::trial().map_err(|e| e.to_string())),
        compiled: fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
            .ok()
            .map(|text| text.trim() != "0"),
        types: probe::types().map_err(|e| e.to_string()),
        cgroups,
        pins: pin_place(root),
    }
}

fn read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|s| s.flags().contains(FsFlags::ST_RDONLY))
}

fn cgroups() -> Result<Cgroups, String> {
    let path = cgroup::root().map_err(|e| e.to_string())?;
    let mounts = cgroup::mounts().map_err(|e| e.to_string())?;
    Ok(Cgroups {
        hybrid: mounts.iter().any(|m| m.kind == "cgroup"),
        read_only: read_only(&path),
        borders: cgroup::has_borders(&mounts),
        path,
    })
}

fn pin_place(root: &Root) -> PinPlace {
    let (dir, nearest) = (root.dir(), root.nearest());
    let bpffs = on_bpffs(nearest);
    let base = Path::new(BPFFS);
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let known = known
        .lines()
        .any(|l| l.split_whitespace().last() == Some("bpf"));
    PinPlace {
        // The directory itself comes and goes; what is mounted there is what counts.
        path: if dir.starts_with(base) { base } else { nearest }.to_owned(),
        bpffs,
        read_only: read_only(nearest),
        mountable: known && base.is_dir() && dir.starts_with(base),
    }
}

/// Addresses of the resolvers that the machine uses.
pub fn system_resolvers() -> Result<Vec<IpAddr>, String> {
    resolvers::resolve(&[Resolver::System], resolvers::Place::Host, false)
        .map_err(|e| e.to_string())
}

/// Looks at what is around. `leftovers`: also at what other instances left.
#[must_use]
pub fn around(root: &Root, leftovers: bool) -> Around {
    let caller = user::invoking().ok().flatten();
    let name = caller
        .as_ref()
        .map(|u| u.name.to_string_lossy().into_owned());
    Around {
        resolvers: system_resolvers().map(ask_all),
        lookups: resolvers::unseen_lookups(),
        user: name.unwrap_or_else(|| "root".to_owned()),
        doors: user::doors(caller.as_ref()),
        wall: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs()),
        synchronised: synchronised(),
        boot_offset: boot_offset(
            &fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default(),
        ),
        other_versions: if leftovers {
            other_versions(root.dir())
        } else {
            Vec::new()
        },
        unguarded: if leftovers { unguarded() } else { Vec::new() },
    }
}

/// Asks all at once: silence takes as long as one.
fn ask_all(servers: Vec<IpAddr>) -> Vec<(IpAddr, Answer)> {
    thread::scope(|scope| {
        let asked: Vec<_> = servers
            .into_iter()
            .map(|s| (s, scope.spawn(move || resolvers::ask(s, TRIES, PATIENCE))))
            .collect();
        let failed = |_| Answer::Unreachable("asking failed".to_owned());
        asked
            .into_iter()
            .map(|(s, t)| (s, t.join().unwrap_or_else(failed)))
            .collect()
    })
}

/// What the kernel says of its clock (`adjtimex(2)`).
fn synchronised() -> Option<bool> {
    // SAFETY: all zeroes is a valid `timex` that asks and changes nothing.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: a whole `timex`, for the length of the call.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    (state >= 0).then_some(clock.status & libc::STA_UNSYNC == 0)
}

/// The boot clock's offset in `/proc/self/timens_offsets` (`time_namespaces(7)`), nanoseconds.
fn boot_offset(text: &str) -> i64 {
    let line = text.lines().find_map(|l| l.strip_prefix("boottime"));
    let mut numbers = line
        .unwrap_or_default()
        .split_whitespace()
        .map_while(|n| n.parse::<i64>().ok());
    let (seconds, nanos) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Directories like ours of another version that hold instances.
fn other_versions(ours: &Path) -> Vec<PathBuf> {
    let Some(base) = ours.parent() else {
        return Vec::new();
    };
    let is_version = |path: &Path| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        name.and_then(|n| n.strip_prefix('v')?.parse::<u32>().ok())
            .is_some()
    };
    let instances = |path: &Path| directories(path).next().is_some();
    let mut found: Vec<PathBuf> = directories(base)
        .filter(|p| p != ours && is_version(p) && instances(p))
        .collect();
    found.sort();
    found
}

fn directories(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
}

/// Cgroups of ours in which processes live that no program of anybody's judges.
fn unguarded() -> Vec<PathBuf> {
    let Ok(mount) = cgroup::root() else {
        return Vec::new();
    };
    let bare = |path: &PathBuf| {
        let cgroup = Cgroup::at(path);
        let guards = cgroup
            .open()
            .ok()
            .and_then(|f| query::programs_at(&f, programs::EGRESS, false).ok());
        cgroup.populated().unwrap_or(false) && guards.is_some_and(|g| g.is_empty())
    };
    let mut found: Vec<PathBuf> = directories(&mount.join(cgroup::OURS))
        .filter(bare)
        .collect();
    if !found.is_empty() {
        thread::park_timeout(SETTLE);
        found.retain(bare);
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clocks_offset_is_read() {
        let text = "monotonic           5         7\nboottime           -2         500\n";
        assert_eq!(boot_offset(text), -1_999_999_500);
        assert_eq!(boot_offset("monotonic 0 0\nboottime 0 0\n"), 0);
        assert_eq!(boot_offset(""), 0);
    }

    #[test]
    fn only_other_versions_that_hold_instances_are_found() {
        let base = std::env::temp_dir().join(format!("clawker-doctor-{}", std::process::id()));
        for dir in ["v1/run-1", "v7/run-2", "v8", "vx/run-3", "other/run-4"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        let found = other_versions(&base.join("v1"));
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(found, [base.join("v7")]);
    }
}
