//! Netlink messages: their common shape, which `sock_diag` and the list of interfaces share.

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

// `include/uapi/linux/netlink.h`.
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Flags in the kind of an attribute: nested, and network byte order.
const NLA_FLAGS: u16 = 0xc000;

/// `struct nlmsghdr`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) pid: u32,
}

/// A conversation with one subsystem of the kernel.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Ok(Self(fd))
    }

    /// Sends a request: a header of this kind, and a body whose length is a multiple of four.
    pub(super) fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let header = Header {
            len: (size_of::<Header>() + body.len()) as u32,
            kind,
            flags: NLM_F_REQUEST | flags,
            seq: 0,
            pid: 0,
        };
        let message = [header.as_bytes(), body].concat();
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        Ok(())
    }

    /// Bodies of the answers to a dump, as far as `read` takes them.
    pub(super) fn dump<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let n = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, body) in Messages(&buffer[..n]) {
                match kind {
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => error(body)?,
                    _ => found.extend(read(body)),
                }
            }
        }
    }

    /// What the one answer to a request says; an acknowledgement says nothing.
    pub(super) fn answer<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        let mut buffer = [0; 1024];
        let n = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        match Messages(&buffer[..n]).next() {
            Some((NLMSG_ERROR, body)) => error(body).map(|()| None),
            Some((_, body)) => Ok(read(body)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
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
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Attributes<'a> {
    /// Value of the first attribute of a kind.
    pub(super) fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = u16::from_ne_bytes(*self.0.first_chunk()?);
        let attribute = split(&mut self.0, usize::from(len))?;
        let kind = u16::from_ne_bytes(attribute.get(2..4)?.try_into().ok()?);
        Some((kind & !NLA_FLAGS, attribute.get(4..)?))
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
    fn an_attribute_is_found_among_others_whatever_its_flags() {
        let mut all = vec![5, 0, 8, 0, 9, 0, 0, 0];
        all.extend([8, 0, 21, 0x80, 1, 2, 3, 4]);
        assert_eq!(Attributes(&all).get(21), Some(&[1, 2, 3, 4][..]));
        assert_eq!(Attributes(&all).get(9), None);
        for n in 0..all.len() {
            assert_eq!(Attributes(&all[..n]).get(21), None);
        }
    }
}
