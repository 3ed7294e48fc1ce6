//! Short ways to say what a test is about.

use lease::{BootId, BootTime, Hold, Lease, Leases, Reading, WallTime};
use std::net::IpAddr;

pub(crate) const BOOT: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn boot_id() -> BootId {
    BootId::parse(BOOT).unwrap()
}

pub(crate) fn book() -> Leases {
    Leases::new(boot_id())
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn at(time: u64) -> BootTime {
    BootTime(time)
}

/// The open lease of a container that has nothing.
pub(crate) fn lease(container: &str, since: u64) -> Lease {
    Lease {
        agent: Some(format!("agent of {container}")),
        project: None,
        container_id: container.to_owned(),
        name: container.to_owned(),
        slot: None,
        cgroup_id: None,
        netns: None,
        since: at(since),
        until: None,
        ips: Vec::new(),
    }
}

/// The same with an address from its beginning.
pub(crate) fn lease_with_ip(container: &str, since: u64, address: &str) -> Lease {
    let mut lease = lease(container, since);
    lease.ips = vec![hold(address, since, None)];
    lease
}

pub(crate) fn hold(address: &str, since: u64, until: Option<u64>) -> Hold {
    Hold {
        ip: ip(address),
        since: at(since),
        until: until.map(at),
    }
}

/// A reading that took no time.
pub(crate) fn reading(boot: u64, wall: u64) -> Reading {
    Reading {
        before: at(boot),
        wall: WallTime(wall),
        after: at(boot),
    }
}
