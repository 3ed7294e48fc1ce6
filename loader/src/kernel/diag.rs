//! `sock_diag(7)`: finds TCP sockets by cookie or cgroup and destroys them, so that nothing they still
//! hold can leave once the programs are gone. Sees the network namespace of this process.

use super::netlink::{Attributes, NLM_F_ACK, NLM_F_DUMP, Netlink};
use nix::sys::socket::SockProtocol;
use std::io;
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

// `include/uapi/linux/sock_diag.h`, `inet_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Every state but TIME_WAIT (6), CLOSE (7) and LISTEN (10), which have nothing to send.
const CONNECTED: u32 = 0xffff & !(1 << 6 | 1 << 7 | 1 << 10);

/// `struct inet_diag_sockid`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SockId {
    ports: [u16; 2],
    addresses: [u32; 8],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SockId,
}

/// `struct inet_diag_msg`.
#[derive(FromBytes, KnownLayout)]
#[repr(C)]
struct Answer {
    family: u8,
    _state: u8,
    _timer: u8,
    _retransmits: u8,
    id: SockId,
    _rest: [u32; 5],
}

/// A TCP socket with a connection.
struct Connection {
    family: u8,
    id: SockId,
    cgroup: u64,
}

impl Connection {
    fn cookie(&self) -> u64 {
        u64::from(self.id.cookie[0]) | u64::from(self.id.cookie[1]) << 32
    }
}

/// Destroys every TCP socket with a connection that `wanted` picks by cookie and cgroup id
/// (kernel ≥ 5.9, `CONFIG_INET_DIAG_DESTROY`). Sockets that end meanwhile are no error.
pub(super) fn destroy(wanted: impl Fn(u64, u64) -> bool) -> io::Result<()> {
    let diag = Netlink::open(SockProtocol::NetlinkSockDiag)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Both fit into a byte.
        let family = family as u8;
        let every = request(family, SockId::new_zeroed());
        diag.send(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, every.as_bytes())?;
        for c in diag.dump(connection)? {
            if wanted(c.cookie(), c.cgroup) {
                end(&diag, &c)?;
            }
        }
    }
    Ok(())
}

fn request(family: u8, id: SockId) -> Request {
    Request {
        family,
        protocol: abi::IPPROTO_TCP,
        extensions: 0,
        pad: 0,
        states: CONNECTED,
        id,
    }
}

fn end(diag: &Netlink, c: &Connection) -> io::Result<()> {
    let this = request(c.family, c.id);
    diag.send(SOCK_DESTROY, NLM_F_ACK, this.as_bytes())?;
    match diag.answer(|_| Some(())) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        r => r.map(drop),
    }
}

fn connection(body: &[u8]) -> Option<Connection> {
    let (answer, attributes) = Answer::read_from_prefix(body).ok()?;
    let cgroup = Attributes(attributes)
        .get(INET_DIAG_CGROUP_ID)
        .and_then(|value| value.first_chunk().copied())
        .map_or(0, u64::from_ne_bytes);
    Some(Connection {
        family: answer.family,
        id: answer.id,
        cgroup,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_found_among_other_attributes() {
        let mut body = vec![0; size_of::<Answer>()];
        body.extend([5, 0, 8, 0, 9, 0, 0, 0]);
        body.extend([12, 0, INET_DIAG_CGROUP_ID as u8, 0]);
        body.extend(77u64.to_ne_bytes());
        assert_eq!(connection(&body).unwrap().cgroup, 77);
        assert!(connection(&body[..40]).is_none());
    }
}
