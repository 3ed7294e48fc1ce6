//! What keeps a link going and carries nothing for anybody: neighbour discovery, and membership of
//! multicast groups. Only for packets that the kernel made: anybody can write such headers.

use crate::wire::Bytes;
use abi::IPPROTO_ICMPV6;

const IGMP: u8 = 2;
const HOP_BY_HOP: u8 = 0;

/// Whether an IP packet is IGMP (RFC 3376), neighbour discovery (RFC 4861 §4) or MLD (RFC 3810 §5),
/// none of which a router hands on.
#[inline(always)]
pub fn is<B: Bytes + ?Sized>(b: &B) -> bool {
    match b.byte(0) {
        Some(first) if first >> 4 == 4 => {
            let multicast = b.byte(16).is_some_and(|a| a >> 4 == 0xe);
            b.byte(9) == Some(IGMP) && multicast
        }
        Some(first) if first >> 4 == 6 => six(b).unwrap_or(false),
        _ => false,
    }
}

#[inline(always)]
fn six<B: Bytes + ?Sized>(b: &B) -> Option<bool> {
    let (mut proto, mut at) = (b.byte(6)?, 40);
    // MLD comes behind a router alert.
    if proto == HOP_BY_HOP {
        proto = b.byte(40)?;
        at += (b.byte(41)? as u32 + 1) * 8;
    }
    if proto != IPPROTO_ICMPV6 {
        return Some(false);
    }
    let hops = b.byte(7)?;
    Some(match b.byte(at)? {
        133..=137 => hops == 255,
        130..=132 | 143 => hops == 1 && b.byte(24)? == 0xff,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn six(hops: u8, to: u8, next: &[u8], kind: u8) -> Vec<u8> {
        let mut p = vec![
            0x60,
            0,
            0,
            0,
            0,
            0,
            next.first().copied().unwrap_or(58),
            hops,
        ];
        p.extend([0xfe; 16]);
        p.push(to);
        p.extend([2; 15]);
        if !next.is_empty() {
            p.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        }
        p.extend([kind, 0, 0, 0]);
        p
    }

    fn four(proto: u8, to: u8) -> Vec<u8> {
        let mut p = vec![0x46; 24];
        (p[9], p[16]) = (proto, to);
        p
    }

    #[test]
    fn what_the_link_needs_is_known() {
        for kind in 133..=137 {
            assert!(is(&six(255, 0xff, &[], kind)[..]), "{kind}");
            assert!(is(&six(255, 0xfe, &[], kind)[..]), "{kind}");
        }
        for kind in [130, 131, 132, 143] {
            assert!(is(&six(1, 0xff, &[0], kind)[..]), "{kind}");
        }
        assert!(is(&four(2, 224)[..]));
    }

    #[test]
    fn everything_else_is_not() {
        // Echo, errors, and the right kind with hops to spare, to one receiver, or behind other headers.
        for kind in [1, 2, 3, 4, 128, 129, 134, 143] {
            assert!(!is(&six(64, 0xff, &[], kind)[..]), "{kind}");
        }
        assert!(!is(&six(1, 0x20, &[0], 143)[..]));
        assert!(!is(&six(255, 0xff, &[0], 128)[..]));
        assert!(!is(&six(255, 0xff, &[60], 135)[..]));
        assert!(!is(&four(2, 192)[..]));
        assert!(!is(&four(17, 224)[..]));
    }

    #[test]
    fn cut_off_anywhere_it_is_not() {
        for whole in [six(1, 0xff, &[0], 143), six(255, 0xff, &[], 135)] {
            for n in 0..whole.len() - 3 {
                assert!(!is(&whole[..n]), "{n} bytes");
            }
        }
    }
}
