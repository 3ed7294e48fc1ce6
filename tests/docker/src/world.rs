//! The namespaces of an engine: a machine of its own, as far as it can tell.

use kernel_tests::{net, own_mounts};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// Where cgroup v2 is in there, whatever the machine's layout.
pub const CGROUPS: &str = "/sys/fs/cgroup";
/// Of whatever outlives a test that was killed; `.ci/run` looks for it.
const MARK: &str = "clawker-test";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Waits until the test ends, however it ends, and removes what is left of its world: processes first,
/// then cgroups and files. Mounts and network go with the last process.
const GUARDIAN: &str = r#"
read -r _
echo 1 >"$1/cgroup.kill"
for _ in $(seq 600); do
    grep -q 'populated 0' "$1/cgroup.events" && break
    sleep 0.05
done
find "$1" -depth -type d -exec rmdir {} +
rm -rf --one-file-system -- "$2"
"#;

/// A mount, network and cgroup namespace for the thread that made it, and for every thread and process
/// that this one starts from then on. Removed with all that lives in it.
pub struct World {
    dir: PathBuf,
    guardian: Child,
    /// `cgroup.procs` of the cgroup that this process came from.
    home: File,
}

impl World {
    /// Enters a fresh one. It has the addresses of a kernel test ([`net::ADDRESSES`]) on its loopback.
    ///
    /// cgroup v2 is alone at [`CGROUPS`], and its root is a cgroup of ours: the engine makes the same
    /// paths in it as on a machine of its own, two engines do not meet, and one write kills all of it.
    #[must_use]
    pub fn enter() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "docker tests need root: use `sudo make test-docker`"
        );
        let name = format!(
            "{MARK}-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir(&dir).expect("a directory of its own");
        let mounted = kernel_tests::cgroup_root();
        let cgroup = mounted.join(&name);
        fs::create_dir(&cgroup).expect("a cgroup of its own");
        let guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .args([&cgroup, &dir])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // What ends the test by its process group must not end this.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let home = mounted.join(own_cgroup()).join("cgroup.procs");
        let home = OpenOptions::new()
            .write(true)
            .open(home)
            .expect("our cgroup");
        join(&cgroup);
        net::isolate();
        unshare(CloneFlags::CLONE_NEWCGROUP).expect("a cgroup namespace");
        own_mounts();
        mounts();
        // A cgroup with processes of its own gives its children no controllers.
        let here = Path::new(CGROUPS).join("tests");
        fs::create_dir(&here).expect("a cgroup for the test");
        join(&here);
        Self {
            dir,
            guardian,
            home,
        }
    }

    /// A directory that goes with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Out of the cgroup whose processes are killed. If that fails the test dies, too.
        let _ = self.home.write_all(b"0");
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
    }
}

/// Path of this process's cgroup below the mount.
fn own_cgroup() -> PathBuf {
    let text = fs::read_to_string("/proc/thread-self/cgroup").expect("procfs");
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"));
    path.expect("cgroup v2").into()
}

fn join(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), "0").expect("the cgroup takes us");
}

fn mounts() {
    let none = None::<&str>;
    // All of version 1 as well, or nothing where nothing was mounted.
    let _ = umount2(CGROUPS, MntFlags::MNT_DETACH);
    mount(
        Some("none"),
        CGROUPS,
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )
    .expect("cgroup v2");
    // Sockets of containerd's helpers have fixed places in it, as those of our binaries have.
    mount(
        Some("none"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .expect("a directory for sockets");
}
