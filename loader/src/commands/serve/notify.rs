//! Telling the service manager how far we are (`sd_notify(3)`).

use std::{
    env,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Sends one line to who started us, if they want to know. Nothing depends on its arrival.
pub(super) fn tell(state: &str) {
    let Some(to) = env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match to.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&to),
    };
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(state.as_bytes(), &address);
    }
}
