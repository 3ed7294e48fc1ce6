//! `rtnetlink(7)`: which interfaces of our network namespace lead into another one. No IP socket, and
//! nothing is done inside the other namespace.

use super::{
    KernelError,
    netlink::{Attributes, NLM_F_DUMP, Netlink},
};
use nix::sys::socket::SockProtocol;
use std::{fs::File, io, os::fd::AsRawFd as _};

// `include/uapi/linux/rtnetlink.h`, `if_link.h`, `net_namespace.h`.
const RTM_GETLINK: u16 = 18;
const RTM_GETNSID: u16 = 90;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
/// Bytes of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
/// Bytes of `struct rtgenmsg`, padded.
const RTGENMSG: usize = 4;

/// Indexes of the veth interfaces of our network namespace whose other ends are in this one
/// (`/proc/PID/ns/net`, opened), one a network of the container. None for a container that shares our
/// namespace or another's, or has other kinds of interfaces (macvlan, ipvlan).
pub fn host_sides(netns: &File) -> Result<Vec<u32>, KernelError> {
    find(netns).map_err(|source| KernelError::Call {
        what: "cannot find the interfaces of a network namespace",
        source,
    })
}

fn find(netns: &File) -> io::Result<Vec<u32>> {
    let route = Netlink::open(SockProtocol::NetlinkRoute)?;
    // The kernel numbers a namespace when it first lists an interface that leads there: list first.
    route.send(RTM_GETLINK, NLM_F_DUMP, &[0; IFINFOMSG])?;
    let links = route.dump(veth)?;
    let mut request = vec![0; RTGENMSG];
    request.extend(8u16.to_ne_bytes());
    request.extend(NETNSA_FD.to_ne_bytes());
    request.extend(netns.as_raw_fd().to_ne_bytes());
    route.send(RTM_GETNSID, 0, &request)?;
    let number = route.answer(|body| number(body.get(RTGENMSG..)?, NETNSA_NSID))?;
    // -1 is a namespace without a number, which no interface leads to.
    let wanted = number.filter(|n| *n >= 0);
    let ours = links.into_iter().filter(|(_, to)| Some(*to) == wanted);
    Ok(ours.map(|(index, _)| index).collect())
}

/// A veth interface and the number of the namespace that its other end is in.
fn veth(body: &[u8]) -> Option<(u32, i32)> {
    let index = u32::from_ne_bytes(*body.get(4..)?.first_chunk()?);
    let attributes = body.get(IFINFOMSG..)?;
    let info = Attributes(attributes).get(IFLA_LINKINFO)?;
    let kind = Attributes(info).get(IFLA_INFO_KIND)?;
    let to = number(attributes, IFLA_LINK_NETNSID)?;
    kind.starts_with(b"veth\0").then_some((index, to))
}

fn number(attributes: &[u8], kind: u16) -> Option<i32> {
    let value = Attributes(attributes).get(kind)?;
    value.first_chunk().map(|b| i32::from_ne_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = (4 + value.len() as u16).to_ne_bytes().to_vec();
        out.extend(kind.to_ne_bytes());
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn link(kind: &[u8], to: Option<i32>) -> Vec<u8> {
        let mut out = vec![0; IFINFOMSG];
        out[4] = 7;
        out.extend(attribute(3, b"name\0"));
        out.extend(attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, kind)));
        out.extend(to.map_or(Vec::new(), |n| {
            attribute(IFLA_LINK_NETNSID, &n.to_ne_bytes())
        }));
        out
    }

    #[test]
    fn only_a_veth_that_leads_elsewhere_counts() {
        assert_eq!(veth(&link(b"veth\0", Some(3))), Some((7, 3)));
        assert_eq!(veth(&link(b"veth\0", None)), None);
        assert_eq!(veth(&link(b"bridge\0", Some(3))), None);
        let whole = link(b"veth\0", Some(3));
        for n in 0..whole.len() {
            assert_eq!(veth(&whole[..n]), None, "{n} bytes");
        }
    }
}
