//! From the engine's description of a container to what we want to know of it. Pure: see the tests for
//! what a real engine says.

use super::Weakness;
use bollard::models::{ContainerInspectResponse, HostConfig, NetworkInspect};
use ipnet::IpNet;
use jiff::Timestamp;
use lease::{Labels, container_name};
use std::{net::IpAddr, path::PathBuf};

/// Capabilities with which the firewall could be lifted, or a process outside of it made to send.
const DANGEROUS: [&str; 5] = ["NET_ADMIN", "SYS_ADMIN", "BPF", "SYS_MODULE", "SYS_PTRACE"];
/// What stands for every capability.
const ALL: &str = "ALL";

/// A container as described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Full id.
    pub(super) id: String,
    /// Name, without the slash.
    pub(super) name: String,
    /// What its labels say.
    pub(super) labels: Labels,
    /// `--cgroup-parent`; empty for the engine's default.
    pub(super) parent: String,
    /// Its addresses on all of its networks, sorted.
    pub(super) addresses: Vec<IpAddr>,
    /// The networks that these are in, sorted.
    pub(super) networks: Vec<IpNet>,
    /// What is mounted into it from the machine.
    pub(super) mounts: Vec<PathBuf>,
    /// What weakens its firewall, except for what `mounts` may do; sorted.
    pub(super) weaknesses: Vec<Weakness>,
    /// Its first process and when it was started (nanoseconds of wall time); nothing if it does not run.
    pub(super) life: Option<(u32, i64)>,
    /// When its last life ended, nanoseconds of wall time; nothing if none has.
    pub(super) finished: Option<i64>,
    /// Whether the last try to start it failed.
    pub(super) failed: bool,
}

/// What is missing in a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine's description of the container has no usable {0}")]
pub(super) struct Missing(&'static str);

/// Reads a description.
pub(super) fn read(from: ContainerInspectResponse) -> Result<Described, Missing> {
    let id = from.id.ok_or(Missing("Id"))?;
    let name = from.name.ok_or(Missing("Name"))?;
    let config = from.config.ok_or(Missing("Config"))?;
    let state = from.state.ok_or(Missing("State"))?;
    let host = from.host_config.ok_or(Missing("HostConfig"))?;
    let pid = state.pid.and_then(|pid| u32::try_from(pid).ok());
    let life = match pid.filter(|pid| *pid > 0 && state.running == Some(true)) {
        None => None,
        Some(pid) => {
            let started = state.started_at.as_deref().and_then(nanoseconds);
            Some((pid, started.ok_or(Missing("State.StartedAt"))?))
        }
    };
    // Never is the year 1, which is out of range.
    let finished = state.finished_at.as_deref().and_then(nanoseconds);
    let networks = from.network_settings.and_then(|n| n.networks);
    let ends: Vec<(IpAddr, Option<i64>)> = networks
        .into_iter()
        .flatten()
        .flat_map(|(_, end)| {
            [
                (end.ip_address, end.ip_prefix_len),
                (end.global_ipv6_address, end.global_ipv6_prefix_len),
            ]
        })
        .filter_map(|(text, prefix)| Some((text?.parse().ok()?, prefix)))
        .collect();
    let mut addresses: Vec<IpAddr> = ends.iter().map(|(ip, _)| *ip).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let net = |(ip, prefix): &(IpAddr, Option<i64>)| {
        let prefix = u8::try_from((*prefix)?).ok()?;
        Some(IpNet::new(*ip, prefix).ok()?.trunc())
    };
    let mut networks: Vec<IpNet> = ends.iter().filter_map(net).collect();
    networks.sort_unstable();
    networks.dedup();
    let mounts = from.mounts.unwrap_or_default();
    Ok(Described {
        id,
        name: container_name(&name).to_owned(),
        labels: Labels::read(&config.labels.unwrap_or_default()),
        addresses,
        networks,
        mounts: mounts
            .into_iter()
            .filter_map(|m| Some(m.source?.into()))
            .collect(),
        weaknesses: weaknesses(&host),
        parent: host.cgroup_parent.unwrap_or_default(),
        life,
        finished,
        failed: state.error.is_some_and(|error| !error.is_empty()),
    })
}

/// The addresses of a container on a network, as the engine describes that.
pub(super) fn ends(from: NetworkInspect, id: &str) -> Vec<IpNet> {
    let end = from.containers.and_then(|mut all| all.remove(id));
    let texts = end.map(|end| [end.ipv4_address, end.ipv6_address]);
    let texts = texts.into_iter().flatten().flatten();
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// RFC 3339 as nanoseconds since 1970.
fn nanoseconds(text: &str) -> Option<i64> {
    let time: Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

fn weaknesses(host: &HostConfig) -> Vec<Weakness> {
    let network = host.network_mode.as_deref().unwrap_or_default();
    let all = [
        (host.privileged == Some(true), Weakness::Privileged),
        (network == "host", Weakness::HostNetwork),
        (network.starts_with("container:"), Weakness::SharedNetwork),
        (host.pid_mode.as_deref() == Some("host"), Weakness::HostPid),
        (may_lift(host), Weakness::Capability),
    ];
    all.into_iter()
        .filter_map(|(is, weakness)| is.then_some(weakness))
        .collect()
}

/// Whether the container has a dangerous capability. The engine takes drops from `ALL`, but what is
/// added by name stays whatever is dropped.
fn may_lift(host: &HostConfig) -> bool {
    let names = |list: &Option<Vec<String>>| -> Vec<String> {
        let list = list.iter().flatten().map(|name| name.to_uppercase());
        list.map(|name| name.strip_prefix("CAP_").unwrap_or(&name).to_owned())
            .collect()
    };
    let (added, dropped) = (names(&host.cap_add), names(&host.cap_drop));
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    let all = has(&added, ALL);
    DANGEROUS.iter().any(|name| {
        if all {
            !has(&dropped, name)
        } else {
            has(&added, name)
        }
    })
}

#[cfg(test)]
mod tests;
