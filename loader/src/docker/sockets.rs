//! Whether a mount gives a container the engine's socket, and with it the machine.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Sockets with which containers can be started, besides that of the engine we follow.
const OTHERS: [&str; 3] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
];

/// The sockets, and every directory through which they can be reached.
#[derive(Debug)]
pub(super) struct Sockets {
    /// By name; for sockets that are not there yet.
    paths: HashSet<PathBuf>,
    /// By device and inode: whatever links and bind mounts lead there.
    inodes: HashSet<(u64, u64)>,
}

impl Sockets {
    /// What there is now, with the engine's own.
    pub(super) fn find(engine: &Path) -> Self {
        let mut paths = HashSet::new();
        for socket in OTHERS.iter().map(Path::new).chain([engine]) {
            let real = fs::canonicalize(socket).unwrap_or_else(|_| socket.to_owned());
            paths.extend(real.ancestors().map(Path::to_owned));
        }
        let inodes = paths.iter().filter_map(|path| inode(path)).collect();
        Self { paths, inodes }
    }

    /// Whether one of them is the source of a mount, or lies below it.
    pub(super) fn reached_from(&self, source: &Path) -> bool {
        // One is a link to the other, which people write without a thought.
        let below = source.strip_prefix("/var/run");
        let source = &below.map_or(source.to_owned(), |rest| Path::new("/run").join(rest));
        self.paths.contains(source) || inode(source).is_some_and(|i| self.inodes.contains(&i))
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{fs::symlink, net::UnixListener};

    #[test]
    fn the_socket_is_reached_by_every_way_that_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("run/deep")).unwrap();
        fs::create_dir(at("work")).unwrap();
        let _socket = UnixListener::bind(at("run/deep/docker.sock")).unwrap();
        symlink(at("run/deep/docker.sock"), at("work/link")).unwrap();
        fs::hard_link(at("run/deep/docker.sock"), at("work/hard")).unwrap();
        symlink(at("run"), at("alias")).unwrap();
        let sockets = Sockets::find(&at("alias/deep/docker.sock"));
        for yes in [
            "",
            "run",
            "run/deep",
            "run/deep/docker.sock",
            "alias",
            "work/link",
            "work/hard",
        ] {
            assert!(sockets.reached_from(&at(yes)), "{yes}");
        }
        for no in ["work", "run/deep/other", "run/de"] {
            assert!(!sockets.reached_from(&at(no)), "{no}");
        }
        for yes in [
            "/",
            "/run",
            "/var/run",
            "/var/run/docker.sock",
            "/run/containerd",
        ] {
            assert!(sockets.reached_from(Path::new(yes)), "{yes}");
        }
        for no in ["/usr", "/var/lib"] {
            assert!(!sockets.reached_from(Path::new(no)), "{no}");
        }
    }
}
