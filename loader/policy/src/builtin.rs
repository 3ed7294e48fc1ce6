//! The built-in deny set: what no agent may reach, whatever the policy says.
//!
//! Link-local networks hold the metadata services of most clouds; the single addresses are those
//! that live elsewhere. `allow_builtin` opens parts of it.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const fn v4(octets: [u8; 4], bits: u8) -> IpNet {
    let [a, b, c, d] = octets;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits))
}

/// The first two segments and the last.
const fn v6(segments: [u16; 3], bits: u8) -> IpNet {
    let [a, b, last] = segments;
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, last),
        bits,
    ))
}

/// Networks and addresses of the set, and what each is.
pub const BUILTIN: [(IpNet, &str); 8] = [
    (v4([169, 254, 0, 0], 16), "link-local and cloud metadata"),
    (v4([169, 254, 169, 254], 32), "cloud metadata"),
    (v4([100, 100, 100, 200], 32), "Alibaba Cloud metadata"),
    (v4([168, 63, 129, 16], 32), "Azure platform"),
    (v4([192, 0, 0, 192], 32), "Oracle Cloud metadata"),
    (v6([0xfe80, 0, 0], 10), "link-local"),
    (v6([0xfd00, 0xec2, 0x254], 128), "AWS metadata"),
    (v6([0xfd20, 0xce, 0x254], 128), "Google Cloud metadata"),
];

/// What networks are in the set that whoever runs the monitor has named ([`crate::Policy::close`]).
const OWN: &str = "the monitor's own network";

/// The set as it is here: [`BUILTIN`], and the monitor's own networks.
pub(crate) fn set(own: &[IpNet]) -> impl Iterator<Item = (IpNet, &'static str)> + '_ {
    let own = own.iter().map(|net| (*net, OWN));
    BUILTIN.into_iter().chain(own)
}

/// The entry of the set that an address is in, if it is not opened by `allow_builtin`.
pub(crate) fn denies(addr: IpAddr, allow_builtin: &[IpNet], own: &[IpNet]) -> Option<&'static str> {
    let (_, what) = set(own).find(|(net, _)| net.contains(&addr))?;
    let opened = allow_builtin.iter().any(|net| net.contains(&addr));
    (!opened).then_some(what)
}

/// Whether a network is inside the set as a whole, nothing of it opened.
pub(crate) fn covers(net: &IpNet, allow_builtin: &[IpNet]) -> Option<&'static str> {
    let (_, what) = BUILTIN.iter().find(|(denied, _)| denied.contains(net))?;
    let opened = allow_builtin
        .iter()
        .any(|open| open.contains(net) || net.contains(open));
    (!opened).then_some(what)
}

/// Whether a name's answer with this address is believed only by rules with `private: true`:
/// addresses that are not the public Internet's, and forms that carry an IPv4 address a resolver
/// could aim anywhere.
#[must_use]
pub fn is_private(addr: IpAddr) -> bool {
    match addr.to_canonical() {
        IpAddr::V4(v4) => private_v4(v4),
        IpAddr::V6(v6) => private_v6(v6),
    }
}

fn private_v4(addr: Ipv4Addr) -> bool {
    let [a, b, ..] = addr.octets();
    a == 0
        || addr.is_loopback()
        || addr.is_private()
        || addr.is_link_local()
        || (a == 100 && b & 0xc0 == 64)
        || a >= 224
        || denies(addr.into(), &[], &[]).is_some()
}

fn private_v6(addr: Ipv6Addr) -> bool {
    let segments = addr.segments();
    segments[..6] == [0; 6]
        || addr.is_unique_local()
        || addr.is_unicast_link_local()
        || addr.is_multicast()
        || segments[0] == 0x2002
        || segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_set_is_what_the_design_says() {
        let set: Vec<String> = BUILTIN.iter().map(|(net, _)| net.to_string()).collect();
        let expected = [
            "169.254.0.0/16",
            "169.254.169.254/32",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
            "fe80::/10",
            "fd00:ec2::254/128",
            "fd20:ce::254/128",
        ];
        assert_eq!(set, expected);
    }

    #[test]
    fn opening_an_address_opens_only_it() {
        let open = ["169.254.169.254/32".parse().unwrap()];
        assert!(denies(ip("169.254.169.254"), &[], &[]).is_some());
        assert!(denies(ip("169.254.169.254"), &open, &[]).is_none());
        assert!(denies(ip("169.254.169.253"), &open, &[]).is_some());
        assert!(denies(ip("169.255.0.0"), &[], &[]).is_none());
        assert!(covers(&"169.254.8.0/24".parse().unwrap(), &open).is_some());
        assert!(covers(&"169.254.169.0/24".parse().unwrap(), &open).is_none());
        assert!(covers(&"169.0.0.0/8".parse().unwrap(), &[]).is_none());
    }

    #[test]
    fn private_ranges_end_where_they_end() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "172.31.255.255",
            "192.168.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "::1",
            "::7f00:1",
            "fe80::1",
            "fdff::1",
            "ff02::1",
            "2002:7f00:1::1",
            "64:ff9b::7f00:1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_private(ip(private)), "{private}");
        }
        for public in [
            "11.0.0.0",
            "172.32.0.0",
            "192.169.0.1",
            "100.128.0.0",
            "168.63.129.17",
            "1.1.1.1",
            "223.255.255.255",
            "2001:db8::1",
            "fec0::1",
            "64:ff9c::1",
            "::ffff:1.1.1.1",
        ] {
            assert!(!is_private(ip(public)), "{public}");
        }
    }
}
