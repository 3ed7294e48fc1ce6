//! Which processes are the container engine: those that hold the socket it listens on. The peer of a connection
//! does not tell where systemd has made the socket and handed it over; it is asked where the socket goes by
//! another name, as through a link.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// `__SO_ACCEPTCON` in `/proc/net/unix`: it listens.
const LISTENS: u32 = 0x1_0000;

/// A path as it is written where `/var/run` is a link to `/run`.
fn plain(path: &Path) -> PathBuf {
    let below = path.strip_prefix("/var/run");
    below.map_or_else(|_| path.to_owned(), |rest| Path::new("/run").join(rest))
}

/// Inodes of the sockets that listen at a path, out of `/proc/net/unix`.
fn listening(table: &str, at: &Path) -> Vec<u64> {
    let socket = |line: &str| {
        // Num: RefCount Protocol Flags Type St Inode Path
        let mut words = line.split_ascii_whitespace().skip(3);
        let flags = u32::from_str_radix(words.next()?, 16).ok()?;
        let inode = words.nth(2)?.parse().ok()?;
        let path = Path::new(words.next()?);
        (flags & LISTENS != 0 && plain(path) == plain(at)).then_some(inode)
    };
    table.lines().filter_map(socket).collect()
}

/// The engine's processes.
pub(super) fn processes(socket: &Path) -> io::Result<Vec<u32>> {
    let holders = holders(socket)?;
    if !holders.is_empty() {
        return Ok(holders);
    }
    let peer = UnixStream::connect(socket).and_then(|s| Ok(getsockopt(&s, PeerCredentials)?));
    let pid = peer.ok().and_then(|peer| u32::try_from(peer.pid()).ok());
    Ok(pid.filter(|pid| *pid > 1).into_iter().collect())
}

/// Processes that hold the socket which somebody listens on at this path, but for the first one, which may
/// have made it and handed it over. Those of other users' that end meanwhile are left out.
fn holders(socket: &Path) -> io::Result<Vec<u32>> {
    let wanted = listening(&fs::read_to_string("/proc/net/unix")?, socket);
    let wanted: Vec<PathBuf> = wanted
        .iter()
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let descriptors = fs::read_dir(process.path().join("fd"));
        let mut links = descriptors
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|d| fs::read_link(d.path()).ok());
        if pid != 1 && links.any(|link| wanted.contains(&link)) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::{
        os::unix::net::UnixListener,
        process::{Command, Stdio},
    };

    #[test]
    fn only_who_listens_there_is_meant() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            ffff: 00000002 00000000 00010000 0001 01 41 /run/docker.sock\n\
            ffff: 00000003 00000000 00000000 0001 03 42 /run/docker.sock\n\
            ffff: 00000002 00000000 00010000 0001 01 43 /run/other.sock\n\
            ffff: 00000002 00000000 00010000 0001 01 44\n\
            nonsense\n";
        for path in ["/run/docker.sock", "/var/run/docker.sock"] {
            assert_eq!(listening(table, Path::new(path)), [41]);
        }
        assert!(listening(table, Path::new("/run")).is_empty());
    }

    #[test]
    fn who_was_handed_the_socket_is_found_and_not_who_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(holders(&path).unwrap(), [std::process::id()]);
        fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        drop(listener);
        assert_eq!(holders(&path).unwrap(), [child.id()]);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(holders(&path).unwrap().is_empty());
    }
}
