//! Addresses as 16 bytes: IPv6, or IPv4 mapped into it, so that one code path serves both.

use abi::{ADDR_KEY_HEAD_BITS, AddrKey, FAMILY_V4, FAMILY_V6, Ip};

/// Puts an address together from its two halves.
#[inline(always)]
pub fn from_halves(hi: u64, lo: u64) -> Ip {
    let [a0, a1, a2, a3, a4, a5, a6, a7] = hi.to_be_bytes();
    let [b0, b1, b2, b3, b4, b5, b6, b7] = lo.to_be_bytes();
    Ip([
        a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7,
    ])
}

/// Maps an IPv4 address given as a number. The unspecified address becomes loopback, which is where
/// Linux sends what is addressed to it.
#[inline(always)]
pub fn from_v4(a: u32) -> Ip {
    let a = if a == 0 { 0x7f00_0001 } else { a };
    from_halves(0, 0xffff_0000_0000 | a as u64)
}

/// Normalises an IPv6 address given as four numbers: the unspecified address, mapped or not, becomes
/// loopback.
#[inline(always)]
pub fn from_v6(w: [u32; 4]) -> Ip {
    let hi = (w[0] as u64) << 32 | w[1] as u64;
    let lo = (w[2] as u64) << 32 | w[3] as u64;
    if hi != 0 {
        from_halves(hi, lo)
    } else if lo >> 32 == 0xffff {
        from_v4(lo as u32)
    } else {
        from_halves(0, if lo == 0 { 1 } else { lo })
    }
}

/// The two halves as numbers.
#[inline(always)]
pub fn halves(a: &Ip) -> (u64, u64) {
    let [
        a0,
        a1,
        a2,
        a3,
        a4,
        a5,
        a6,
        a7,
        b0,
        b1,
        b2,
        b3,
        b4,
        b5,
        b6,
        b7,
    ] = a.0;
    (
        u64::from_be_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
        u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
    )
}

/// The address as four numbers in network byte order, as the kernel's contexts have it.
#[inline(always)]
pub fn words(a: &Ip) -> [u32; 4] {
    let (hi, lo) = halves(a);
    [(hi >> 32) as u32, hi as u32, (lo >> 32) as u32, lo as u32].map(u32::to_be)
}

/// Whether two addresses are the same.
#[inline(always)]
pub fn same(a: &Ip, b: &Ip) -> bool {
    let (a, b) = (halves(a), halves(b));
    a.0 == b.0 && a.1 == b.1
}

/// Whether this is a mapped IPv4 address.
#[inline(always)]
pub fn is_v4(a: &Ip) -> bool {
    let (hi, lo) = halves(a);
    hi == 0 && lo >> 32 == 0xffff
}

/// The IPv4 address as a number, meaningful when [`is_v4`].
#[inline(always)]
fn v4(a: &Ip) -> u32 {
    halves(a).1 as u32
}

/// Whether this is a loopback address.
#[inline(always)]
pub fn is_loopback(a: &Ip) -> bool {
    if is_v4(a) {
        v4(a) >> 24 == 127
    } else {
        halves(a) == (0, 1)
    }
}

/// Whether an answer with this address is not to be believed without `private: true`: loopback,
/// link-local, private, shared (RFC 6598), unique-local (RFC 4193), this-network, multicast and
/// the metadata addresses outside those ranges.
#[inline(always)]
pub fn is_private(a: &Ip) -> bool {
    if is_v4(a) {
        let ip = v4(a);
        return ip >> 24 == 127
            || ip >> 24 == 10
            || ip >> 24 == 0
            || ip >> 20 == 0xac1
            || ip >> 16 == 0xc0a8
            || ip >> 16 == 0xa9fe
            || ip >> 22 == 0x6440 >> 6
            || ip >> 28 >= 0xe
            || ip == 0xa83f_8110
            || ip == 0xc000_00c0;
    }
    let (hi, lo) = halves(a);
    // ::/96 holds ::, ::1 and the deprecated IPv4-compatible addresses; NAT64 (64:ff9b::/96) and
    // 6to4 (2002::/16) carry an IPv4 address that the resolver could aim anywhere.
    (hi == 0 && lo >> 32 == 0)
        || hi >> 57 == 0xfc >> 1
        || hi >> 54 == 0xfe80 >> 6
        || hi >> 56 == 0xff
        || hi >> 48 == 0x2002
        || (hi == 0x0064_ff9b_0000_0000 && lo >> 32 == 0)
}

/// Key of the address trie for a whole address: the words of an [`AddrKey`].
#[inline(always)]
pub fn key(policy: u32, a: &Ip) -> [u32; 7] {
    let (hi, lo) = halves(a);
    if is_v4(a) {
        [
            ADDR_KEY_HEAD_BITS + 32,
            policy,
            FAMILY_V4,
            (lo as u32).to_be(),
            0,
            0,
            0,
        ]
    } else {
        [
            ADDR_KEY_HEAD_BITS + 128,
            policy,
            FAMILY_V6,
            ((hi >> 32) as u32).to_be(),
            (hi as u32).to_be(),
            ((lo >> 32) as u32).to_be(),
            (lo as u32).to_be(),
        ]
    }
}

const _: () = assert!(size_of::<AddrKey>() == 28);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use zerocopy::FromBytes as _;

    fn v6(s: &str) -> Ip {
        Ip(s.parse::<Ipv6Addr>().unwrap().octets())
    }

    fn mapped(s: &str) -> Ip {
        from_v4(s.parse::<Ipv4Addr>().unwrap().into())
    }

    /// As the kernel sees it: four words.
    fn seen(s: &str) -> Ip {
        let b = s.parse::<Ipv6Addr>().unwrap().to_bits();
        from_v6([
            (b >> 96) as u32,
            (b >> 64) as u32,
            (b >> 32) as u32,
            b as u32,
        ])
    }

    #[test]
    fn unspecified_means_loopback_in_every_spelling() {
        assert_eq!(from_v4(0), mapped("127.0.0.1"));
        assert_eq!(seen("::"), v6("::1"));
        assert_eq!(seen("::1"), v6("::1"));
        assert_eq!(seen("::ffff:0.0.0.0"), mapped("127.0.0.1"));
        assert_eq!(seen("::ffff:192.0.2.7"), mapped("192.0.2.7"));
        assert_eq!(seen("2001:db8::7"), v6("2001:db8::7"));
    }

    #[test]
    fn private_ranges_end_where_they_end() {
        for (inside, outside) in [
            ("10.255.255.255", "11.0.0.0"),
            ("172.16.0.0", "172.15.255.255"),
            ("172.31.255.255", "172.32.0.0"),
            ("192.168.0.1", "192.169.0.1"),
            ("169.254.1.1", "169.255.1.1"),
            ("100.64.0.0", "100.63.255.255"),
            ("100.127.255.255", "100.128.0.0"),
            ("127.9.9.9", "128.0.0.0"),
            ("224.0.0.1", "223.255.255.255"),
            ("168.63.129.16", "168.63.129.17"),
        ] {
            assert!(is_private(&mapped(inside)), "{inside}");
            assert!(!is_private(&mapped(outside)), "{outside}");
        }
        for inside in [
            "::1", "fe80::1", "febf::1", "fc00::1", "fdff::1", "ff02::1", "::7f00:1",
        ] {
            assert!(is_private(&v6(inside)), "{inside}");
        }
        for carrier in ["64:ff9b::7f00:1", "2002:7f00:1::1"] {
            assert!(is_private(&v6(carrier)), "{carrier}");
        }
        for outside in ["2001:db8::1", "fec0::1", "2606:4700::1111", "64:ff9c::1"] {
            assert!(!is_private(&v6(outside)), "{outside}");
        }
    }

    #[test]
    fn keys_are_the_words_of_an_address_key() {
        let bytes =
            |a: &Ip| -> Vec<u8> { key(7, a).iter().flat_map(|w| w.to_ne_bytes()).collect() };
        let four = AddrKey::read_from_bytes(&bytes(&mapped("192.0.2.7"))).unwrap();
        assert_eq!(
            (four.prefix_len, four.policy, four.family),
            (96, 7, FAMILY_V4)
        );
        assert_eq!(
            four.addr,
            [192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let six = AddrKey::read_from_bytes(&bytes(&v6("2001:db8::7"))).unwrap();
        assert_eq!(
            (six.prefix_len, six.policy, six.family),
            (192, 7, FAMILY_V6)
        );
        assert_eq!(six.addr, v6("2001:db8::7").0);
    }
}
