//! The wire's own word: every packet on the namespace's loopback, as a packet socket sees it.

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket},
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

/// Bytes of an Ethernet header, which loopback has too.
const ETHERNET: usize = 14;

/// A packet, as far as tests ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// IANA protocol number.
    pub proto: u8,
    /// From the transport header on.
    pub rest: Vec<u8>,
}

/// Listens from its making on.
pub struct Sniffer {
    socket: OwnedFd,
}

impl Sniffer {
    /// Starts listening in the namespace of this thread.
    #[must_use]
    pub fn start() -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )
        .expect("a packet socket");
        Self { socket }
    }

    /// Every IP packet since the last call, each twice: loopback shows it leaving and arriving.
    #[must_use]
    pub fn packets(&self) -> Vec<Seen> {
        let mut out = Vec::new();
        let mut buf = vec![0; 1 << 16];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buf, MsgFlags::empty()) {
                Ok(n) => out.extend(parse(&buf[..n])),
                Err(Errno::EINTR) => {}
                Err(_) => return out,
            }
        }
    }

    /// Bytes of TCP payload to an address.
    #[must_use]
    pub fn payload(&self, ip: &str) -> usize {
        let all = self.to(ip);
        let tcp = all.iter().filter(|p| p.proto == 6);
        tcp.map(|p| p.rest.len() - usize::from(p.rest[12] >> 4) * 4)
            .sum()
    }

    /// Packets to an address.
    #[must_use]
    pub fn to(&self, ip: &str) -> Vec<Seen> {
        let ip: IpAddr = ip.parse().expect("an address");
        self.packets().into_iter().filter(|p| p.dst == ip).collect()
    }
}

fn parse(frame: &[u8]) -> Option<Seen> {
    let p = frame.get(ETHERNET..)?;
    match p.first()? >> 4 {
        4 => {
            let addr = |at: usize| -> Option<IpAddr> {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(p.get(at..at + 4)?).ok()?).into())
            };
            let header = usize::from(p[0] & 0xf) * 4;
            Some(Seen {
                src: addr(12)?,
                dst: addr(16)?,
                proto: p[9],
                rest: p.get(header..)?.to_vec(),
            })
        }
        6 => {
            let addr = |at: usize| -> Option<IpAddr> {
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(p.get(at..at + 16)?).ok()?).into())
            };
            Some(Seen {
                src: addr(8)?,
                dst: addr(24)?,
                proto: p[6],
                rest: p.get(40..)?.to_vec(),
            })
        }
        _ => None,
    }
}
