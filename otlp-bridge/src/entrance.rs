//! The unix socket of the bridge.

use axum::Router;
use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
};
use tokio::net::UnixListener;

/// Who may connect: the bridge's user and group.
const MODE: u32 = 0o660;

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// Another bridge listens there.
    #[error("a bridge listens on {} already: stop it, or give this one another --socket", .0.display())]
    InUse(PathBuf),
    /// The directory or the socket resists.
    #[error("cannot listen on {}: {source}; its directory must be writable for the bridge's user", path.display())]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Listens on a unix socket, in place of one that nobody listens on any more.
pub fn listen(path: &Path) -> Result<UnixListener, EntranceError> {
    let bind = |source| EntranceError::Bind {
        path: path.to_owned(),
        source,
    };
    if UnixStream::connect(path).is_ok() {
        return Err(EntranceError::InUse(path.to_owned()));
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(bind(e)),
        _ => {}
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(bind)?;
    }
    let listener = UnixListener::bind(path).map_err(bind)?;
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(bind)?;
    Ok(listener)
}

/// Answers on a socket until it is dropped.
pub async fn serve(listener: UnixListener, router: Router) -> io::Result<()> {
    axum::serve(listener, router).await
}
