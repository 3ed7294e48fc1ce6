//! The ways to the proxies, as a slot has them.

use super::ip;
use crate::cli::LeadArgs;
use abi::{Ip, SLOT_NAME_SERVER, SLOT_PROXY, SlotConfig};
use std::net::IpAddr;

/// Where the programs look for Envoy's listeners is where they are rendered.
const _: () = assert!(abi::PROXY_PORTS == proxy::LISTENER_OFFSET);

/// Where something is led: whether it is at all, and to which addresses that a slot reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// Whether it is led: then there is no other way for it.
    pub there: bool,
    /// The addresses, IPv4 and IPv6; zero for none.
    pub to: [Ip; 2],
}

impl Led {
    /// To some of these addresses: those that a slot reaches.
    #[must_use]
    pub fn to(all: &[IpAddr], reached: impl Fn(IpAddr) -> bool) -> Self {
        let first = |v6: bool| {
            let mut own = all
                .iter()
                .copied()
                .filter(|p| p.is_ipv6() == v6 && reached(*p));
            own.next().map(ip).unwrap_or_default()
        };
        Self {
            there: !all.is_empty(),
            to: [first(false), first(true)],
        }
    }
}

/// What is led at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leads {
    /// Connections to Envoy, as rules need it: policies are compiled for that.
    pub proxy: bool,
    /// DNS to CoreDNS.
    pub names: bool,
}

impl Leads {
    /// What is told to be led.
    #[must_use]
    pub fn of(lead: &LeadArgs) -> Self {
        Self {
            proxy: !lead.proxy.is_empty(),
            names: !lead.dns.is_empty(),
        }
    }
}

/// The ways to the proxies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// To Envoy; policies are compiled for it.
    pub proxy: Led,
    /// To CoreDNS.
    pub names: Led,
}

impl Way {
    /// As told, for a slot that reaches some of the addresses.
    #[must_use]
    pub fn to(lead: &LeadArgs, reached: impl Fn(IpAddr) -> bool) -> Self {
        Self {
            proxy: Led::to(&lead.proxy, &reached),
            names: Led::to(&lead.dns, &reached),
        }
    }

    /// What is led at all.
    #[must_use]
    pub fn leads(&self) -> Leads {
        Leads {
            proxy: self.proxy.there,
            names: self.names.there,
        }
    }

    /// The ones that a slot has.
    #[must_use]
    pub fn of(config: &SlotConfig) -> Self {
        let led = |flag, to| Led {
            there: config.flags & flag != 0,
            to,
        };
        Self {
            proxy: led(SLOT_PROXY, config.proxies),
            names: led(SLOT_NAME_SERVER, config.name_servers),
        }
    }

    /// The configuration of a slot that has them.
    #[must_use]
    pub fn lead(self, config: SlotConfig) -> SlotConfig {
        let bit = |led: Led, flag| if led.there { flag } else { 0 };
        let flags = bit(self.proxy, SLOT_PROXY) | bit(self.names, SLOT_NAME_SERVER);
        SlotConfig {
            flags: config.flags & !(SLOT_PROXY | SLOT_NAME_SERVER) | flags,
            proxies: self.proxy.to,
            name_servers: self.names.to,
            ..config
        }
    }
}
