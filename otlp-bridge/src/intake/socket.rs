//! The loader's unix socket as a file: who may use it, what happens to the one that was there, and that it
//! goes away with us.

use super::IntakeError;
use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Owner and one group.
const MODE: u32 = 0o660;

/// The socket's name in the file system, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode.
    ours: (u64, u64),
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IntakeError {
    move |source| IntakeError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Takes a place in the file system, also of a bridge that has died there.
pub(super) fn bind(path: &Path, group: Option<u32>) -> Result<(UnixListener, Place), IntakeError> {
    is_free(path)?;
    let name = path
        .file_name()
        .ok_or_else(|| IntakeError::NotASocket(path.to_owned()))?;
    // It gets its name when it has its mode: nobody finds it before.
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let fresh = path.with_file_name(hidden);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &fresh)(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(io_error("create socket", &fresh))?;
    let placed = place(&fresh, path, group).inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&fresh);
    })?;
    listener
        .set_nonblocking(true)
        .map_err(io_error("use socket", path))?;
    Ok((listener, placed))
}

fn place(fresh: &Path, path: &Path, group: Option<u32>) -> Result<Place, IntakeError> {
    // The group before the mode: no other group may use it in between.
    if group.is_some() {
        chown(fresh, None, group).map_err(io_error("give to its group", fresh))?;
    }
    fs::set_permissions(fresh, Permissions::from_mode(MODE))
        .map_err(io_error("set the mode of", fresh))?;
    let about = fs::symlink_metadata(fresh).map_err(io_error("read", fresh))?;
    fs::rename(fresh, path).map_err(io_error("replace", path))?;
    Ok(Place {
        path: path.to_owned(),
        ours: (about.dev(), about.ino()),
    })
}

/// Whether nobody listens there.
fn is_free(path: &Path) -> Result<(), IntakeError> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io_error("read", path)(e)),
        Ok(about) if !about.file_type().is_socket() => {
            return Err(IntakeError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(IntakeError::Busy(path.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(io_error("connect to", path)(e)),
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let about = fs::symlink_metadata(&self.path);
        if about.is_ok_and(|about| (about.dev(), about.ino()) == self.ours) {
            // What stays is taken for what it is by the next one.
            let _ = fs::remove_file(&self.path);
        }
    }
}
