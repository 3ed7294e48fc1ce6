//! `sock_diag(7)`: finds TCP sockets by cookie or cgroup and destroys them, so that nothing they still
//! hold can leave once the programs are gone. Sees the network namespace of this process.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

// `include/uapi/linux/sock_diag.h`, `netlink.h`, `inet_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Every state but TIME_WAIT (6), CLOSE (7) and LISTEN (10), which have nothing to send.
const CONNECTED: u32 = 0xffff & !(1 << 6 | 1 << 7 | 1 << 10);

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    len: u32,
    kind: u16,
    flags: u16,
    seq: u32,
    pid: u32,
}

/// `struct inet_diag_sockid`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SockId {
    ports: [u16; 2],
    addresses: [u32; 8],
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2` behind its header.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Request {
    header: Header,
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
    let diag = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Both fit into a byte.
        for c in connections(&diag, family as u8)? {
            if wanted(c.cookie(), c.cgroup) {
                end(&diag, &c)?;
            }
        }
    }
    Ok(())
}

fn send(diag: &OwnedFd, kind: u16, flags: u16, family: u8, id: SockId) -> io::Result<()> {
    let request = Request {
        header: Header {
            len: size_of::<Request>() as u32,
            kind,
            flags: NLM_F_REQUEST | flags,
            seq: 0,
            pid: 0,
        },
        family,
        protocol: abi::IPPROTO_TCP,
        extensions: 0,
        pad: 0,
        states: CONNECTED,
        id,
    };
    let kernel = NetlinkAddr::new(0, 0);
    sendto(
        diag.as_raw_fd(),
        request.as_bytes(),
        &kernel,
        MsgFlags::empty(),
    )?;
    Ok(())
}

fn connections(diag: &OwnedFd, family: u8) -> io::Result<Vec<Connection>> {
    send(
        diag,
        SOCK_DIAG_BY_FAMILY,
        NLM_F_DUMP,
        family,
        SockId::new_zeroed(),
    )?;
    let mut found = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, body) in Messages(&buffer[..n]) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => error(body)?,
                _ => found.extend(connection(body)),
            }
        }
    }
}

fn end(diag: &OwnedFd, c: &Connection) -> io::Result<()> {
    send(diag, SOCK_DESTROY, NLM_F_ACK, c.family, c.id)?;
    let mut buffer = [0; 1024];
    let n = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let acknowledged = Messages(&buffer[..n]).find(|(kind, _)| *kind == NLMSG_ERROR);
    let (_, body) = acknowledged.ok_or(io::ErrorKind::InvalidData)?;
    match error(body) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        r => r,
    }
}

/// What an `NLMSG_ERROR` says; 0 is an acknowledgement.
fn error(body: &[u8]) -> io::Result<()> {
    let code = body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code.wrapping_neg()))
    }
}

fn connection(body: &[u8]) -> Option<Connection> {
    let (answer, attributes) = Answer::read_from_prefix(body).ok()?;
    let cgroup = Attributes(attributes)
        .find(|(kind, _)| *kind == INET_DIAG_CGROUP_ID)
        .and_then(|(_, value)| value.first_chunk().copied())
        .map_or(0, u64::from_ne_bytes);
    Some(Connection {
        family: answer.family,
        id: answer.id,
        cgroup,
    })
}

/// Cuts `len` bytes off the front, and the padding to four.
fn split<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let part = rest.get(..len)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some(part)
}

/// Messages of a datagram: kind and body.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = Header::read_from_prefix(self.0).ok()?;
        let message = split(&mut self.0, header.len as usize)?;
        Some((header.kind, message.get(size_of::<Header>()..)?))
    }
}

/// Attributes behind an answer: kind and value.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = u16::from_ne_bytes(*self.0.first_chunk()?);
        let attribute = split(&mut self.0, usize::from(len))?;
        let kind = u16::from_ne_bytes(attribute.get(2..4)?.try_into().ok()?);
        Some((kind, attribute.get(4..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_messages_end_the_reading_and_never_panic() {
        let mut whole = Vec::new();
        for kind in [7u16, 8] {
            let header = Header {
                len: 21,
                kind,
                flags: 0,
                seq: 0,
                pid: 0,
            };
            whole.extend(header.as_bytes());
            whole.extend([1, 2, 3, 4, 5, 0, 0, 0]);
        }
        let body = &[1, 2, 3, 4, 5][..];
        assert_eq!(Messages(&whole).collect::<Vec<_>>(), [(7, body), (8, body)]);
        for n in 0..whole.len() {
            assert!(Messages(&whole[..n]).count() <= 2);
        }
        let mut endless = whole;
        endless[..4].fill(0);
        assert_eq!(Messages(&endless).count(), 0);
    }

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
