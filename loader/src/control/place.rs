//! The directory of the sockets, one socket an instance in it, and the removal of those that nobody
//! serves any more.

use super::ControlError;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt,
    },
    unistd::{Gid, Group, chown},
};
use std::{
    fs::{self, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// The group whose members may watch, where there is one of this name.
pub const GROUP: &str = "clawker";
/// How sockets are called, behind the name of their instance.
const SUFFIX: &str = ".sock";
/// How they are called while they are made.
const UNFINISHED: &str = ".sock.new";
/// An unfinished socket of this age was left behind.
const ABANDONED: Duration = Duration::from_secs(60);

/// The group to let in: the one that is named, by name or number, else [`GROUP`] if it exists.
pub fn group(wanted: Option<&str>) -> Result<Option<Gid>, ControlError> {
    let name = wanted.unwrap_or(GROUP);
    let lookup = |source| ControlError::Group {
        name: name.to_owned(),
        source,
    };
    match (Group::from_name(name).map_err(lookup)?, name.parse()) {
        (Some(group), _) => Ok(Some(group.gid)),
        (None, Ok(number)) => Ok(Some(Gid::from_raw(number))),
        (None, Err(_)) if wanted.is_none() => Ok(None),
        (None, Err(_)) => Err(ControlError::NoGroup(name.to_owned())),
    }
}

/// Makes the directory if there is none, and makes sure that nobody but root can put sockets into it.
pub fn prepare(dir: &Path) -> Result<(), ControlError> {
    if !dir.exists() {
        fs::create_dir_all(dir).map_err(|e| ControlError::io("create", dir, e))?;
        // Names of instances are no secret; whether a socket may be opened is its own affair.
        fs::set_permissions(dir, Permissions::from_mode(0o755))
            .map_err(|e| ControlError::io("change the mode of", dir, e))?;
    }
    let meta = fs::metadata(dir).map_err(|e| ControlError::io("look at", dir, e))?;
    if !meta.is_dir() {
        return Err(ControlError::io("use", dir, Errno::ENOTDIR));
    }
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return Err(ControlError::NotOurs {
            path: dir.to_owned(),
            owner: meta.uid(),
            mode: meta.mode() & 0o7777,
        });
    }
    Ok(())
}

/// Where the socket of an instance is.
#[must_use]
pub fn socket_path(dir: &Path, instance: &str) -> PathBuf {
    dir.join(format!("{instance}{SUFFIX}"))
}

/// Starts listening for an instance. The socket shows up under its name only when it is complete.
pub(super) fn listen(
    dir: &Path,
    instance: &str,
    group: Option<Gid>,
) -> Result<UnixListener, ControlError> {
    let unfinished = dir.join(format!("{instance}{UNFINISHED}"));
    let finished = socket_path(dir, instance);
    let failed = |what| {
        let path = unfinished.clone();
        move |e: io::Error| {
            // Nobody uses it, and the next attempt would find it in its way.
            let _ = fs::remove_file(&path);
            ControlError::io(what, path, e)
        }
    };
    // The instance's name is ours, so what has this name was left behind.
    let _ = fs::remove_file(&unfinished);
    let listener = UnixListener::bind(&unfinished).map_err(failed("listen on"))?;
    listener.set_nonblocking(true).map_err(failed("set up"))?;
    chown(&unfinished, None, group).map_err(|e| failed("give to the control group")(e.into()))?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(&unfinished, Permissions::from_mode(mode))
        .map_err(failed("change the mode of"))?;
    fs::rename(&unfinished, &finished).map_err(failed("rename"))?;
    Ok(listener)
}

/// The instance that a file name of the directory stands for.
fn id_of(file: &str) -> Option<&str> {
    file.strip_suffix(SUFFIX)
}

/// Instances that have a socket, by name, dead ones included. A directory that does not exist has none.
pub fn sockets(dir: &Path) -> Result<Vec<String>, ControlError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            return Err(ControlError::Unreadable(dir.to_owned()));
        }
        Err(e) => return Err(ControlError::io("read", dir, e)),
    };
    let names = entries.flatten().map(|e| e.file_name());
    let mut ids: Vec<String> = names
        .filter_map(|n| id_of(n.to_str()?).map(ToOwned::to_owned))
        .collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Connects without waiting; `EAGAIN` when too many wait already.
pub(crate) fn connect_to(path: &Path) -> nix::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

/// Whether it is root that listens at the other end. Anything may be told by somebody else.
pub(crate) fn is_connected_to_root(stream: &UnixStream) -> bool {
    getsockopt(stream, sockopt::PeerCredentials).is_ok_and(|peer| peer.uid() == 0)
}

/// Removes the sockets of loaders that died.
pub fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_socket = entry.file_type().is_ok_and(|t| t.is_socket());
        // Between its making and its first wait for connections a socket refuses them too.
        let left = id_of(&name).is_some() || (name.ends_with(UNFINISHED) && is_old(&path));
        if is_socket && left && connect_to(&path).err() == Some(Errno::ECONNREFUSED) {
            // What resists does no harm: whoever connects is told that nobody listens.
            let _ = fs::remove_file(&path);
        }
    }
}

fn is_old(path: &Path) -> bool {
    let made = fs::metadata(path).and_then(|m| m.modified());
    made.is_ok_and(|t| t.elapsed().is_ok_and(|age| age > ABANDONED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_go_by_name_or_number() {
        assert_eq!(group(Some("root")).unwrap(), Some(Gid::from_raw(0)));
        assert_eq!(group(Some("4711")).unwrap(), Some(Gid::from_raw(4711)));
        for wrong in ["no-such-group", "-1", ""] {
            assert!(matches!(group(Some(wrong)), Err(ControlError::NoGroup(_))));
        }
        let usual = Group::from_name(GROUP).unwrap().map(|g| g.gid);
        assert_eq!(group(None).unwrap(), usual);
    }

    #[test]
    fn an_instance_and_its_socket_have_one_name() {
        let path = socket_path(Path::new("/run/clawker"), "run-7");
        assert_eq!(path, Path::new("/run/clawker/run-7.sock"));
        assert_eq!(id_of("run-7.sock"), Some("run-7"));
        assert_eq!((id_of("run-7.sock.new"), id_of("x")), (None, None));
    }
}
