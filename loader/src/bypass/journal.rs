//! Audit records of changes that were made without a loader, until one takes them over: a file beside the
//! control socket of the instance, one JSON object a line. Written and taken while the instance's pins are
//! held, so that none is lost in between.

use crate::{
    audit::BypassChange,
    control::{self, ControlError},
};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// More than this is not read: nobody gives so many orders.
const MAX_BYTES: u64 = 16 << 20;

/// Where the records of an instance wait.
#[must_use]
pub fn path(control_dir: &Path, instance: &str) -> PathBuf {
    control_dir.join(format!("{instance}.audit.jsonl"))
}

/// Opens the directory for records, and makes it if there is none.
pub fn prepare(control_dir: &Path) -> Result<(), ControlError> {
    control::prepare(control_dir)
}

/// Appends a record and sees to it that it is on disk, as far as the directory is.
pub fn append(path: &Path, change: &BypassChange) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let line = serde_json::to_string(change).map_err(io::Error::other)? + "\n";
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

/// Puts aside what an earlier instance of the same name has left.
pub fn set_aside(path: &Path) {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return;
    };
    let old = path.with_extension(format!("{}.jsonl", meta.ctime()));
    // What resists is taken for this instance's; its records say which slot they are about.
    if fs::rename(path, &old).is_ok() {
        anstream::eprintln!(
            "{} holds audit records of an earlier instance",
            old.display()
        );
    }
}

/// Takes every record out, and the number of lines that are none.
pub fn take(path: &Path) -> io::Result<(Vec<BypassChange>, u64)> {
    let meta = fs::symlink_metadata(path)?;
    if !meta.is_file() || meta.uid() != 0 || meta.len() > MAX_BYTES {
        return Err(io::Error::other("not a journal of root's"));
    }
    let text = fs::read(path)?;
    let text = String::from_utf8_lossy(&text);
    let read = |line: &str| serde_json::from_str::<BypassChange>(line).ok();
    let all: Vec<_> = text.lines().map(read).collect();
    fs::remove_file(path)?;
    let broken = all.iter().filter(|c| c.is_none()).count() as u64;
    Ok((all.into_iter().flatten().collect(), broken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::bypass_tests::change;

    #[test]
    fn what_was_written_is_taken_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = path(dir.path(), "run-1");
        for _ in 0..3 {
            append(&path, &change()).unwrap();
        }
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"half").unwrap();
        if !nix::unistd::geteuid().is_root() {
            assert!(take(&path).is_err(), "it is believed only if it is root's");
            return;
        }
        assert_eq!(take(&path).unwrap(), (vec![change(); 3], 1));
        assert!(take(&path).is_err() && !path.exists());
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(append(&path, &change()).is_err(), "links are not followed");
        assert!(take(&path).is_err());
    }
}
