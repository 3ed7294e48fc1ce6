//! From a policy and an identity to an open slot: plain data first, then one write.

mod way;

pub use way::{Leads, Led, Way};

use crate::{
    control::Status,
    docker::Weakness,
    kernel::{KernelError, Pins},
    resolvers::Place,
    weakness,
};
use abi::{
    INFO_PATH, INFO_REASON, INFO_TEXT, Ip, MAX_RESOLVERS, PHASE_ALONE, SLOT_DEFAULT_ALLOW,
    SLOT_ICMP_SOCKETS, SLOT_INBOUND_DENY, SLOT_LOOPBACK_IS_EGRESS, SLOT_NO_DNS, SlotConfig,
    SlotInfo,
};
use jiff::Timestamp;
use policy::Compiled;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr},
};

/// Who a slot is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Value of `dev.clawker.agent`.
    pub agent: Option<String>,
    /// Value of `dev.clawker.project`.
    pub project: Option<String>,
    /// Command line.
    pub command: String,
    /// Policy file.
    pub policy_file: String,
    /// Path of the cgroup below the mount.
    pub cgroup: String,
    /// Kernel's id of the cgroup.
    pub cgroup_id: u64,
    /// The engine's id of the container.
    pub container_id: Option<String>,
    /// Its name.
    pub container_name: Option<String>,
    /// What weakens its firewall.
    pub weaknesses: Vec<Weakness>,
}

/// An address as the kernel side writes it.
#[must_use]
pub fn ip(addr: IpAddr) -> Ip {
    Ip(match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    })
}

/// An address as people write it.
#[must_use]
pub fn addr(ip: &Ip) -> IpAddr {
    Ipv6Addr::from(ip.0).to_canonical()
}

/// Text out of a zero-filled field.
#[must_use]
pub fn text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// Text into a zero-filled field, cut at a character.
pub(crate) fn field<const N: usize>(s: &str) -> [u8; N] {
    let mut end = s.len().min(N);
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = [0; N];
    out[..end].copy_from_slice(&s.as_bytes()[..end]);
    out
}

impl Identity {
    /// As told to whoever connects to the control socket; since now.
    #[must_use]
    pub fn status(&self, instance: &str) -> Status {
        Status {
            instance: instance.to_owned(),
            agent: self.agent.clone(),
            project: self.project.clone(),
            command: text(&field::<INFO_TEXT>(&self.command)),
            policy_file: self.policy_file.clone(),
            pid: std::process::id(),
            since: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// As kept in the kernel for `dump`.
    #[must_use]
    pub fn info(&self, slot: u32, since: u64) -> SlotInfo {
        SlotInfo {
            slot,
            loader: std::process::id(),
            cgroup_id: self.cgroup_id,
            since,
            agent: field::<INFO_TEXT>(self.agent.as_deref().unwrap_or("")),
            project: field::<INFO_TEXT>(self.project.as_deref().unwrap_or("")),
            command: field::<INFO_TEXT>(&self.command),
            policy_file: field::<INFO_TEXT>(&self.policy_file),
            cgroup: field::<INFO_PATH>(&self.cgroup),
            container_id: field::<INFO_TEXT>(self.container_id.as_deref().unwrap_or("")),
            container_name: field::<INFO_TEXT>(self.container_name.as_deref().unwrap_or("")),
            bypass_since: 0,
            bypass_by: [0; INFO_TEXT],
            bypass_reason: [0; INFO_REASON],
            weaknesses: weakness::bits(&self.weaknesses),
            pad: 0,
        }
    }
}

/// The configuration of a slot under a compiled policy. `place`: in whose network namespace it is; in the
/// machine's, loopback counts as egress.
#[must_use]
pub fn config(
    (slot, index): (u32, u32),
    policy: u32,
    compiled: &Compiled,
    resolvers: &[IpAddr],
    place: Place,
) -> SlotConfig {
    let mut flags = match place {
        Place::Host => SLOT_LOOPBACK_IS_EGRESS,
        Place::Container => 0,
    };
    for (on, flag) in [
        (compiled.allows_icmp, SLOT_ICMP_SOCKETS),
        (compiled.default_allow, SLOT_DEFAULT_ALLOW),
        (compiled.inbound_deny, SLOT_INBOUND_DENY),
        (compiled.resolvers.is_empty(), SLOT_NO_DNS),
    ] {
        if on {
            flags |= flag;
        }
    }
    let mut list = [Ip::default(); MAX_RESOLVERS];
    let used = resolvers.len().min(MAX_RESOLVERS);
    for (to, from) in list.iter_mut().zip(resolvers) {
        *to = ip(*from);
    }
    SlotConfig {
        slot,
        index,
        policy,
        generation: 1,
        bypass_until: 0,
        udp_idle_ns: u64::try_from(compiled.udp_idle.as_nanos()).unwrap_or(u64::MAX),
        mode: compiled.mode,
        flags,
        // At most MAX_RESOLVERS.
        resolver_count: used as u8,
        phase: PHASE_ALONE,
        pad: [0; 4],
        resolvers: list,
        proxies: [Ip::default(); 2],
        name_servers: [Ip::default(); 2],
    }
}

/// Tells anew what is known of the owner of a slot: his container's name and what weakens it.
pub fn describe(pins: &Pins, index: u32, identity: &Identity) -> Result<(), KernelError> {
    let _held = pins.hold()?;
    let mut infos = pins.infos()?.into_iter();
    let Some((_, old)) = infos.find(|(i, _)| *i == index) else {
        return Ok(());
    };
    let now = identity.info(old.slot, old.since);
    let info = SlotInfo {
        command: now.command,
        container_name: now.container_name,
        weaknesses: now.weaknesses,
        ..old
    };
    pins.set_info(index, &info)
}

/// What came of a change of policy.
#[derive(Debug)]
pub struct Replaced {
    /// The configuration in force from now on.
    pub config: SlotConfig,
    /// Whether the old policy's entries could be removed. If not they only take room.
    pub cleaned: Result<(), KernelError>,
}

/// Puts a slot under a new policy without a moment in between: the new entries are written beside the
/// old ones, one write switches over, and only then the old ones go. Live flows are judged again at
/// their next packet. A running bypass goes on. An error means that nothing has changed; nothing comes
/// back when the slot is not attached any more.
///
/// `make` compiles the policy of `file` under the id that it is handed, and finds the resolvers for a slot
/// with this configuration.
pub fn replace_policy<E: From<KernelError>>(
    pins: &Pins,
    index: u32,
    file: &str,
    make: impl FnOnce(u32, &SlotConfig) -> Result<(Compiled, Vec<IpAddr>), E>,
) -> Result<Option<Replaced>, E> {
    let _held = pins.hold()?;
    let Some((info, old)) = read(pins, index)? else {
        return Ok(None);
    };
    let policy = next_policy(&policies(pins)?);
    let (compiled, resolvers) = make(policy, &old)?;
    let mut maps = pins.policy()?;
    maps.discard(policy)?;
    maps.write(&compiled)?;
    let place = Place::of(&old);
    let config = renewed(&old, policy, &compiled, &resolvers, place);
    pins.configure(info.cgroup_id, &config)?;
    let cleaned = pins.set_info(index, &under_file(&info, file));
    let cleaned = cleaned.and_then(|()| {
        let used = policies(pins)?;
        maps.erase(old.policy, &used)
    });
    Ok(Some(Replaced { config, cleaned }))
}

/// Who a slot is, under another policy file.
#[must_use]
pub fn under_file(info: &SlotInfo, file: &str) -> SlotInfo {
    SlotInfo {
        policy_file: field::<INFO_TEXT>(file),
        ..*info
    }
}

/// The configuration of a slot under another policy. A running bypass goes on.
#[must_use]
pub fn renewed(
    old: &SlotConfig,
    policy: u32,
    compiled: &Compiled,
    resolvers: &[IpAddr],
    place: Place,
) -> SlotConfig {
    SlotConfig {
        generation: old.generation.wrapping_add(1),
        bypass_until: old.bypass_until,
        phase: old.phase,
        ..Way::of(old).lead(config(
            (old.slot, old.index),
            policy,
            compiled,
            resolvers,
            place,
        ))
    }
}

/// Ids of the policies that some slot is under. The caller holds the maps ([`Pins::hold`]).
fn policies(pins: &Pins) -> Result<BTreeSet<u32>, KernelError> {
    let mut used = BTreeSet::new();
    for (_, info) in pins.infos()? {
        used.extend(pins.config(info.cgroup_id)?.map(|config| config.policy));
    }
    Ok(used)
}

/// An id that no slot names, later than all that do.
#[must_use]
pub fn next_policy(used: &BTreeSet<u32>) -> u32 {
    used.last().map_or(1, |last| last.wrapping_add(1))
}

/// Who a slot is and what it is under; waits for a change that is on its way.
pub fn current(pins: &Pins, index: u32) -> Result<Option<(SlotInfo, SlotConfig)>, KernelError> {
    let _held = pins.hold()?;
    read(pins, index)
}

pub(crate) fn read(pins: &Pins, index: u32) -> Result<Option<(SlotInfo, SlotConfig)>, KernelError> {
    let info = pins.infos()?.into_iter().find(|(i, _)| *i == index);
    let Some((_, info)) = info else {
        return Ok(None);
    };
    Ok(pins.config(info.cgroup_id)?.map(|config| (info, config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_family() {
        for s in ["192.0.2.1", "2001:db8::1", "::1"] {
            let a: IpAddr = s.parse().unwrap();
            assert_eq!(addr(&ip(a)), a);
        }
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(text(&field::<5>("häää")), "hää");
        assert_eq!(text(&field::<8>("abc")), "abc");
        assert_eq!(text(&field::<3>("abc")), "abc");
    }
}
