//! Who may change a file: whether a user could write it, or put another file in its place.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf, absolute},
};

/// As many symbolic links as the kernel follows (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// The first part of a path, symbolic links included, that a user may change: the file, a directory on
/// the way to it, or a link. Nothing when the file is out of the user's reach.
///
/// Root may change everything. Whoever owns something may, whatever its mode. Everybody else may where
/// group or others may write: which groups a process can join and what an access list adds is not looked
/// into, so the answer errs on the side of yes.
pub fn exposed(path: &Path, uid: u32) -> io::Result<Option<PathBuf>> {
    if uid == 0 {
        return Ok(Some(path.to_owned()));
    }
    let mut ahead = parts(&absolute(path)?);
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let meta = fs::symlink_metadata(&next)?;
        let link = meta.is_symlink();
        if may_change(&Part::of(&meta), uid) {
            return Ok(Some(next));
        }
        if !link {
            at = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let target = fs::read_link(&next)?;
        if target.is_absolute() {
            at = PathBuf::from("/");
        }
        for part in parts(&target).into_iter().rev() {
            ahead.push_front(part);
        }
    }
    Ok(None)
}

/// The names of a path, `..` among them.
fn parts(path: &Path) -> VecDeque<OsString> {
    let name = |c: std::path::Component<'_>| match c {
        std::path::Component::Normal(n) => Some(n.to_owned()),
        std::path::Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(name).collect()
}

/// What counts of one part of a path.
struct Part {
    owner: u32,
    mode: u32,
    directory: bool,
    link: bool,
}

impl Part {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            owner: meta.uid(),
            mode: meta.mode(),
            directory: meta.is_dir(),
            link: meta.is_symlink(),
        }
    }
}

fn may_change(part: &Part, uid: u32) -> bool {
    // In a sticky directory everybody can only change what they own, and that is asked of each part.
    let sticky = part.directory && part.mode & libc::S_ISVTX != 0;
    // The mode of a link means nothing.
    let open = part.mode & 0o022 != 0 && !sticky && !part.link;
    part.owner == uid || open
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1000;

    fn part(owner: u32, mode: u32, directory: bool, link: bool) -> bool {
        let part = Part {
            owner,
            mode,
            directory,
            link,
        };
        may_change(&part, USER)
    }

    #[test]
    fn owners_and_writers_may_change_a_part() {
        for (owner, mode, directory, link, may) in [
            (0, 0o644, false, false, false),
            (0, 0o755, true, false, false),
            (1001, 0o600, false, false, false),
            // An owner can change the mode first.
            (USER, 0o444, false, false, true),
            (USER, 0o555, true, false, true),
            (0, 0o664, false, false, true),
            (0, 0o646, false, false, true),
            (0, 0o775, true, false, true),
            // /tmp: the directory does not help with the files of others.
            (0, 0o1777, true, false, false),
            (0, 0o1666, false, false, true),
            (0, 0o777, false, true, false),
            (USER, 0o777, false, true, true),
        ] {
            assert_eq!(
                part(owner, mode, directory, link),
                may,
                "{owner} {mode:o} {directory} {link}"
            );
        }
    }

    #[test]
    fn paths_are_followed_part_by_part() {
        let names: Vec<_> = parts(Path::new("/a/./b/../c")).into_iter().collect();
        assert_eq!(names, ["a", "b", "..", "c"]);
        assert_eq!(
            exposed(Path::new("/proc/version"), 0).unwrap(),
            Some(PathBuf::from("/proc/version"))
        );
        assert_eq!(exposed(Path::new("/proc/version"), USER).unwrap(), None);
        let missing = exposed(Path::new("/proc/no-such-file"), USER);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
