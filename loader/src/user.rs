//! Whom the command runs as, and what they can reach.

use nix::unistd::{self, Gid, Uid, User};
use std::{env, ffi::CString, fs, io, os::unix::fs::MetadataExt as _, path::Path};

/// Why nobody was found.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is no such user.
    #[error("there is no user {0}")]
    Unknown(String),
    /// The user database fails.
    #[error("cannot look up user {name}: {source}")]
    Lookup {
        /// Name or number asked for.
        name: String,
        /// What the C library said.
        source: nix::Error,
    },
    /// A name with a NUL byte.
    #[error("user name {0:?} has a NUL byte in it")]
    Name(String),
}

/// A user to become.
#[derive(Clone, Debug)]
pub struct Target {
    /// User id.
    pub uid: Uid,
    /// Primary group.
    pub gid: Gid,
    /// Name, for supplementary groups.
    pub name: CString,
    /// Environment of that user.
    pub env: Vec<(&'static str, String)>,
}

/// The user to become: `wanted` if there is one, else whoever called sudo, else nobody changes.
pub fn target(wanted: Option<&str>) -> Result<Option<Target>, UserError> {
    if let Some(name) = wanted {
        return find(name).map(Some);
    }
    let caller = env::var("SUDO_UID").ok().filter(|id| id != "0");
    caller.map(|id| find(&id)).transpose()
}

/// Whoever called: through sudo, or as themselves; nobody in particular when that is root.
pub fn invoking() -> Result<Option<Target>, UserError> {
    match unistd::geteuid() {
        me if me.is_root() => target(None),
        me => find(&me.to_string()).map(Some),
    }
}

/// Sockets through which a user (root, if none) could have something started outside every cgroup of
/// ours.
#[must_use]
pub fn doors(user: Option<&Target>) -> Vec<&'static str> {
    const DOORS: [&str; 5] = [
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
        "/run/systemd/private",
        "/run/dbus/system_bus_socket",
    ];
    DOORS
        .into_iter()
        .filter(|path| reachable(Path::new(path), user))
        .collect()
}

/// Whether a user may write to a path, by owner, group and mode.
fn reachable(path: &Path, user: Option<&Target>) -> bool {
    let Ok(meta) = fs::metadata(path) else {
        return false;
    };
    let Some(user) = user.filter(|u| !u.uid.is_root()) else {
        return true;
    };
    let groups = unistd::getgrouplist(&user.name, user.gid).unwrap_or_default();
    let in_group = groups.iter().any(|g| g.as_raw() == meta.gid());
    let mode = meta.mode();
    (meta.uid() == user.uid.as_raw() && mode & 0o200 != 0)
        || (in_group && mode & 0o020 != 0)
        || mode & 0o002 != 0
}

fn find(name: &str) -> Result<Target, UserError> {
    let lookup = |source| UserError::Lookup {
        name: name.to_owned(),
        source,
    };
    let by_number = || name.parse().ok().map(|n| User::from_uid(Uid::from_raw(n)));
    let user = match User::from_name(name).map_err(lookup)? {
        Some(user) => Some(user),
        None => by_number().transpose().map_err(lookup)?.flatten(),
    };
    let user = user.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    let env = vec![
        ("HOME", user.dir.to_string_lossy().into_owned()),
        ("USER", user.name.clone()),
        ("LOGNAME", user.name.clone()),
        ("SHELL", user.shell.to_string_lossy().into_owned()),
    ];
    let name = CString::new(user.name.clone()).map_err(|_| UserError::Name(user.name))?;
    Ok(Target {
        uid: user.uid,
        gid: user.gid,
        name,
        env,
    })
}

/// The file system as somebody else sees it, until dropped.
#[derive(Debug)]
pub struct SeenAs {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Target {
    /// From here on this thread opens only what the user may open, although we are root.
    pub fn eyes(&self) -> io::Result<SeenAs> {
        let groups = unistd::getgroups()?;
        unistd::setgroups(&unistd::getgrouplist(&self.name, self.gid)?)?;
        Ok(SeenAs {
            groups,
            gid: unistd::setfsgid(self.gid),
            uid: unistd::setfsuid(self.uid),
        })
    }
}

impl Drop for SeenAs {
    fn drop(&mut self) {
        unistd::setfsuid(self.uid);
        unistd::setfsgid(self.gid);
        // Root may, and a failure would leave us with fewer groups than before.
        let _ = unistd::setgroups(&self.groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(find("root").unwrap().uid.as_raw(), 0);
        assert_eq!(find("0").unwrap().name.to_str(), Ok("root"));
        assert!(matches!(find("no-such-user"), Err(UserError::Unknown(_))));
    }
}
