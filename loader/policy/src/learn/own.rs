//! Ports that the observed opened for itself, where the kernel chose the number: another at every run.
//!
//! A command that talks to itself on such a port needs a rule, since under `run` its loopback is judged
//! like any destination, and no rule with that number would serve twice. So the rule is for all ports
//! that the kernel hands out, on that one address.

use super::ways::{Way, one_icmp};
use crate::rule::PortRange;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Ports from here on are handed out (Linux from 32768, RFC 6335 §6 from 49152).
const HANDED_OUT: PortRange = PortRange {
    lo: 32768,
    hi: u16::MAX,
};
/// Ports that are kept; others are learned as they are.
const MAX_KEPT: usize = 1 << 16;

/// An address with protocol and port.
pub(super) type Spot = (IpAddr, u8, u16);

/// Ports of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Own {
    opened: BTreeSet<Spot>,
    /// Something among the ports of this address was denied.
    refused: BTreeSet<(IpAddr, u8)>,
    overflow: bool,
}

/// Whether both ends of a flow are the same host: loopback, or one address.
pub(super) fn within(local: IpAddr, peer: IpAddr) -> bool {
    peer.is_loopback() || local == peer
}

/// Whether all ports that are handed out are among these.
pub(super) fn handed_out(ports: &[PortRange]) -> bool {
    let all =
        |range: &PortRange| (1..=HANDED_OUT.lo).contains(&range.lo) && range.hi == HANDED_OUT.hi;
    ports.iter().any(all)
}

impl Own {
    /// A port on which the observed heard itself.
    pub(super) fn open(&mut self, (addr, proto, port): Spot) {
        if port >= HANDED_OUT.lo && self.opened.len() < MAX_KEPT {
            self.opened.insert((addr, one_icmp(proto), port));
        }
    }

    /// A denied destination.
    pub(super) fn refuse(&mut self, (addr, proto, port): Spot) {
        if port < HANDED_OUT.lo {
            return;
        }
        self.overflow |= self.refused.len() >= MAX_KEPT;
        if !self.overflow {
            self.refused.insert((addr, one_icmp(proto)));
        }
    }

    /// The ports that a way to this spot stands for.
    pub(super) fn ports(&self, addr: IpAddr, way: &Way) -> Option<PortRange> {
        let own = self.opened.contains(&(addr, way.proto, way.port));
        let refused = self.overflow || self.refused.contains(&(addr, way.proto));
        (own && !refused).then_some(HANDED_OUT)
    }
}
