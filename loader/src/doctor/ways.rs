//! Findings about where an agent's requests and lookups go.

use super::{
    Finding,
    instance::{Instance, Slot},
};
use crate::enrol::{self, Led, Way};
use abi::{Ip, SlotConfig};
use std::net::IpAddr;

/// Where something is led to a proxy that the slot does not reach.
pub(super) fn missing(s: &Slot, config: &SlotConfig) -> Vec<Finding> {
    const COST: &str = "it is DENIED, reason no_proxy_path";
    let missing = |led: Led| led.there && led.to == [Ip::default(); 2];
    let way = Way::of(config);
    let told = |what: &str, option: &str| {
        Finding::note(
            "proxy",
            format!("{} shares no network with {what}", s.place),
            COST,
            format!(
                "docker network connect NETWORK CONTAINER, with a network that the address of --{option} is on (clawker-agents in the stack)"
            ),
        )
    };
    let mut all = Vec::new();
    if missing(way.proxy) {
        all.push(told("the proxy that rules of its policy need", "proxy"));
    }
    if missing(way.names) {
        all.push(told("the name server that its DNS is led to", "dns"));
    }
    all
}

/// A machine that asks other resolvers than a slot trusts.
pub(super) fn resolvers(i: &Instance, config: &SlotConfig) -> Option<Finding> {
    if Way::of(config).names.there {
        // Whomever they are meant for, they are led to the name server.
        return None;
    }
    let used = usize::from(config.resolver_count).min(config.resolvers.len());
    let trusted: Vec<IpAddr> = config.resolvers[..used].iter().map(enrol::addr).collect();
    let strange: Vec<String> = i
        .resolvers
        .iter()
        .filter(|r| !trusted.contains(r))
        .map(ToString::to_string)
        .collect();
    if strange.is_empty() {
        return None;
    }
    Some(Finding::note(
        "resolvers",
        format!(
            "/etc/resolv.conf names {}, which its policy does not trust",
            strange.join(", ")
        ),
        "lookups there are refused, reason resolver",
        "if that is not meant: apply the policy again with `resolvers: [system]`",
    ))
}
