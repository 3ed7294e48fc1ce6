//! Whom the command runs as.

use nix::unistd::{Gid, Uid, User};
use std::{env, ffi::CString};

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
