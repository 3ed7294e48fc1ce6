//! What a packet really is: final destination, protocol and ports, read from its headers.
//!
//! A packet that could mean something else further on (IPv4 options such as source routes, an IPv6
//! routing header, a fragment made by its sender) is refused as a whole rather than understood.

use crate::addr;
use abi::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, Ip};
use zerocopy::FromZeros;

const HOP_BY_HOP: u8 = 0;
const DESTINATION_OPTIONS: u8 = 60;
/// Extension headers followed before giving up.
const MAX_EXTENSIONS: usize = 3;

/// Read access to a packet from its network header on, in network byte order.
pub trait Bytes {
    /// One byte, if it is there.
    fn byte(&self, off: u32) -> Option<u8>;
    /// Two bytes.
    fn half(&self, off: u32) -> Option<u16>;
    /// Four bytes.
    fn word(&self, off: u32) -> Option<u32>;
}

impl Bytes for [u8] {
    fn byte(&self, off: u32) -> Option<u8> {
        self.get(off as usize).copied()
    }

    fn half(&self, off: u32) -> Option<u16> {
        self.get(off as usize..)?
            .first_chunk()
            .copied()
            .map(u16::from_be_bytes)
    }

    fn word(&self, off: u32) -> Option<u32> {
        self.get(off as usize..)?
            .first_chunk()
            .copied()
            .map(u32::from_be_bytes)
    }
}

/// A packet's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromZeros)]
pub struct Wire {
    /// Source, IPv4 as mapped.
    pub src: Ip,
    /// Destination, IPv4 as mapped.
    pub dst: Ip,
    /// Host byte order; 0 for protocols without ports.
    pub src_port: u16,
    /// Host byte order; 0 for protocols without ports.
    pub dst_port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// Flags byte of a TCP header.
    pub tcp_flags: u8,
    /// Offset of the payload behind the transport header.
    pub payload: u32,
    /// TCP sequence number.
    pub seq: u32,
}

/// Reads the headers; nothing for a packet that cannot be followed or must not be.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(b: &B) -> Option<Wire> {
    let first = b.byte(0)?;
    if first >> 4 == 4 {
        // 5 is a header without options; a fragment of its own making is no datagram.
        if first & 0xf != 5 || b.half(6)? & 0x3fff != 0 {
            return None;
        }
        let (src, dst) = (addr::from_v4(b.word(12)?), addr::from_v4(b.word(16)?));
        transport(b, src, dst, b.byte(9)?, 20)
    } else if first >> 4 == 6 {
        let (src, dst) = (addr::from_v6(words(b, 8)?), addr::from_v6(words(b, 24)?));
        extensions(b, src, dst, b.byte(6)?)
    } else {
        None
    }
}

/// Four words, an IPv6 address.
#[inline(always)]
pub fn words<B: Bytes + ?Sized>(b: &B, off: u32) -> Option<[u32; 4]> {
    Some([
        b.word(off)?,
        b.word(off + 4)?,
        b.word(off + 8)?,
        b.word(off + 12)?,
    ])
}

/// Passes hop-by-hop and destination options; a routing or fragment header ends the packet's way.
#[inline(always)]
fn extensions<B: Bytes + ?Sized>(b: &B, src: Ip, dst: Ip, mut proto: u8) -> Option<Wire> {
    let mut off = 40;
    let mut i = 0;
    while i < MAX_EXTENSIONS {
        if proto != HOP_BY_HOP && proto != DESTINATION_OPTIONS {
            break;
        }
        proto = b.byte(off)?;
        off += (b.byte(off + 1)? as u32 + 1) * 8;
        i += 1;
    }
    match proto {
        HOP_BY_HOP | DESTINATION_OPTIONS | 43 | 44 | 51 | 135 | 139 | 140 => None,
        _ => transport(b, src, dst, proto, off),
    }
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(b: &B, src: Ip, dst: Ip, proto: u8, l4: u32) -> Option<Wire> {
    let mut w = Wire {
        src,
        dst,
        src_port: 0,
        dst_port: 0,
        proto,
        tcp_flags: 0,
        payload: l4,
        seq: 0,
    };
    if proto == IPPROTO_TCP {
        w.src_port = b.half(l4)?;
        w.dst_port = b.half(l4 + 2)?;
        w.seq = b.word(l4 + 4)?;
        w.payload = l4 + (b.byte(l4 + 12)? as u32 >> 4) * 4;
        w.tcp_flags = b.byte(l4 + 13)?;
    } else if proto == IPPROTO_UDP {
        w.src_port = b.half(l4)?;
        w.dst_port = b.half(l4 + 2)?;
        w.payload = l4 + 8;
    } else if proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6 {
        w.payload = l4 + 8;
    }
    Some(w)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(proto: u8, l4: &[u8]) -> Vec<u8> {
        let mut p = vec![
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2,
        ];
        p.extend_from_slice(l4);
        p
    }

    fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut p = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        p.extend_from_slice(rest);
        p
    }

    const UDP: [u8; 8] = [0x30, 0x39, 0, 53, 0, 8, 0, 0];
    const TCP: [u8; 20] = [
        0, 80, 1, 187, 0, 0, 1, 0, 0, 0, 0, 0, 0x60, 0x11, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    fn plain_packets_of_both_families() {
        let w = parse(&v4(17, &UDP)[..]).unwrap();
        assert_eq!(
            (w.proto, w.src_port, w.dst_port, w.payload),
            (17, 12345, 53, 28)
        );
        assert_eq!(w.dst.0[10..], [0xff, 0xff, 198, 51, 100, 2]);
        let w = parse(&v6(6, &TCP)[..]).unwrap();
        assert_eq!(
            (w.proto, w.src_port, w.dst_port, w.payload),
            (6, 80, 443, 64)
        );
        assert_eq!((w.seq, w.tcp_flags), (256, 0x11));
    }

    #[test]
    fn options_and_fragments_are_refused() {
        let mut p = v4(17, &UDP);
        p[0] = 0x46;
        assert_eq!(parse(&p[..]), None);
        for (i, v) in [(6, 0x20), (6, 0x01), (7, 1)] {
            let mut p = v4(17, &UDP);
            p[i] = v;
            assert_eq!(parse(&p[..]), None, "byte {i}");
        }
    }

    #[test]
    fn extension_headers_are_followed_and_routing_refused() {
        let with = |kinds: &[u8]| {
            let mut rest = Vec::new();
            for next in kinds[1..].iter().chain(&[17]) {
                rest.extend([*next, 0, 1, 4, 0, 0, 0, 0]);
            }
            rest.extend(UDP);
            v6(kinds[0], &rest)
        };
        assert_eq!(parse(&with(&[60])[..]).unwrap().payload, 56);
        assert_eq!(parse(&with(&[0, 60])[..]).unwrap().dst_port, 53);
        for refused in [
            &[43][..],
            &[44],
            &[60, 43],
            &[60, 60, 60, 60],
            &[51],
            &[135],
        ] {
            assert_eq!(parse(&with(refused)[..]), None, "{refused:?}");
        }
    }

    #[test]
    fn short_packets_are_refused() {
        let whole = v4(6, &TCP);
        for n in 0..34 {
            assert_eq!(parse(&whole[..n]), None, "{n} bytes");
        }
    }

    #[test]
    fn tunnels_keep_their_protocol() {
        assert_eq!(parse(&v4(47, &[0; 8])[..]).unwrap().proto, 47);
        assert_eq!(parse(&v4(4, &v4(17, &UDP))[..]).unwrap().proto, 4);
    }
}
