//! One slot is one attached cgroup: its configuration, its books, and what it has learned.

use crate::{
    Ip,
    policy::{MAX_RESOLVERS, NAME_BYTES},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SlotConfig::mode`: decide and act.
pub const MODE_ENFORCE: u8 = 0;
/// `SlotConfig::mode`: let everything pass, record what would have been denied.
pub const MODE_AUDIT: u8 = 1;
/// `SlotConfig::mode`: let everything pass (the built-in deny set still holds).
pub const MODE_OBSERVE: u8 = 2;

/// `SlotConfig::flags`: loopback is a destination like any other (`run`, host networking).
pub const SLOT_LOOPBACK_IS_EGRESS: u8 = 1;
/// `SlotConfig::flags`: some rule allows ICMP, so ICMP datagram sockets may exist.
pub const SLOT_ICMP_SOCKETS: u8 = 2;
/// `SlotConfig::flags`: what no rule names is allowed.
pub const SLOT_DEFAULT_ALLOW: u8 = 4;
/// `SlotConfig::flags`: connections that the agent accepts are denied.
pub const SLOT_INBOUND_DENY: u8 = 8;

/// `SlotConfig::flags`: the instance has a proxy, and the policy was compiled for it.
pub const SLOT_PROXY: u8 = 16;
/// [`SlotConfig::flags`]: DNS is led to `name_servers`; where the slot reaches none, there is no DNS.
pub const SLOT_NAME_SERVER: u8 = 32;
/// [`SlotConfig::flags`]: the policy trusts no resolver, so there is no DNS, led or not.
pub const SLOT_NO_DNS: u8 = 64;

/// Number of verdicts; indexes of every per-verdict array.
pub const VERDICTS: usize = 3;
/// Flow passed.
pub const VERDICT_ALLOWED: u8 = 0;
/// Flow was refused.
pub const VERDICT_DENIED: u8 = 1;
/// Flow passed because enforcement was lifted for a time.
pub const VERDICT_BYPASSED: u8 = 2;

/// Destinations whose names one address remembers.
pub const ADDR_NAMES: usize = 8;

/// Configuration of a slot, replaced as a whole (the kernel swaps the buffer under RCU), so every
/// program run sees one consistent configuration. Zero until written: `slot == 0` denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotConfig {
    /// Number of the slot, never reused in a boot; 0 is "not enrolled".
    pub slot: u32,
    /// Row of `metrics_map`, from 1; row 0 counts what not-enrolled cgroups attempted.
    pub index: u32,
    /// Policy id, the first part of every policy key.
    pub policy: u32,
    /// Raised with every change; a live flow of another generation is judged again.
    pub generation: u32,
    /// Enforcement is lifted until then, nanoseconds of the boot clock; 0 is never.
    pub bypass_until: u64,
    /// A datagram flow ends after this many nanoseconds without a packet.
    pub udp_idle_ns: u64,
    /// `MODE_*`.
    pub mode: u8,
    /// `SLOT_*` bits.
    pub flags: u8,
    /// Used entries of `resolvers`.
    pub resolver_count: u8,
    /// `PHASE_*`.
    pub phase: u8,
    /// Zero.
    pub pad: [u8; 4],
    /// Trusted resolvers, IPv4 as mapped.
    pub resolvers: [Ip; MAX_RESOLVERS],
    /// The proxy's addresses, IPv4 (as mapped) and IPv6; zero for none.
    pub proxies: [Ip; 2],
    /// Addresses of the name server that DNS is led to, likewise.
    pub name_servers: [Ip; 2],
}

/// Copies of a slot's configuration for the programs at interfaces, which have no cgroup to find it by.
/// A change writes the copy that is not in use, then `turn`: a program sees one or the other, whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConfigCopies {
    /// Which of the two is in force: 0 or 1.
    pub turn: u64,
    /// The configuration, now and before (or after).
    pub configs: [SlotConfig; 2],
}

/// Whose an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Device {
    /// Slot of the container at the other end.
    pub slot: u32,
    /// Its row.
    pub index: u32,
    /// How many of `addresses` there are; 0 where they are not known, or more than there is room for.
    pub held: u32,
    /// IP versions of `addresses`: bits 4 and 6. What comes from an address of another version is not looked at.
    pub versions: u32,
    /// The container's own addresses.
    pub addresses: [Ip; MAX_HELD],
}

/// Addresses of a container that the backstop knows.
pub const MAX_HELD: usize = 8;

/// Why something was not learned or had to be folded; indexes of `SlotMetrics::trouble`.
pub mod trouble {
    /// A ring had no room, the flow was folded.
    pub const RING_FULL: usize = 0;
    /// The slot was over its record rate, the flow was folded.
    pub const RATE: usize = 1;
    /// No room for a folded row of its own, the flow went to the catch-all row.
    pub const FOLDS_FULL: usize = 2;
    /// A name was not learned: the slot's quota or the map is full.
    pub const NAMES_FULL: usize = 3;
    /// An address was not learned: the slot's quota or the map is full.
    pub const ADDRS_FULL: usize = 4;
    /// An answer of a trusted resolver could not be parsed.
    pub const ANSWER_MALFORMED: usize = 5;
    /// Two names with one hash: the second was not learned.
    pub const NAME_COLLISION: usize = 6;
    /// Every scratch buffer of the CPU was in use; a packet was denied or an answer not learned.
    pub const SCRATCH_BUSY: usize = 7;
    /// A denied UDP packet or answer could not be tied to a flow because socket storage failed.
    pub const NO_STATE: usize = 8;
    /// An answer's address was forgotten early because one address had more than `ADDR_NAMES` names.
    pub const NAMES_CROWDED: usize = 9;
    /// The backstop let a packet pass that no socket sent and that policy allows: no record tells of it.
    pub const NO_SOCKET: usize = 10;
    /// How many there are.
    pub const COUNT: usize = 11;
}

/// Limits and books of a slot. Every counter only grows, by atomic additions, for as long as the slot
/// exists; the array is mapped by the loader, which resets what it has drained and notes what it has
/// recorded.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotMetrics {
    /// Shifts everything behind it.
    #[cfg(feature = "next")]
    pub next: u64,
    /// Slot that owns the row; 0 is free.
    pub slot: u32,
    /// Records a second before flows are folded.
    pub rate: u32,
    /// Names this slot may learn.
    pub max_names: u32,
    /// Addresses this slot may learn.
    pub max_addrs: u32,
    /// Folded rows this slot may hold in one epoch.
    pub max_folds: u32,
    /// Zero.
    pub pad: u32,
    /// Flows opened, those denied at once included. `opened = Σ ended + live`.
    pub opened: u64,
    /// Flows ended, by verdict; the value before the increment is the flow's sequence number.
    pub ended: [u64; VERDICTS],
    /// Of these, flows that went into folded rows instead of a record, by verdict.
    pub folded: [u64; VERDICTS],
    /// Payload bytes in of ended flows, by verdict.
    pub bytes_in: [u64; VERDICTS],
    /// Payload bytes out of ended flows, by verdict.
    pub bytes_out: [u64; VERDICTS],
    /// Counters of [`trouble`].
    pub trouble: [u64; trouble::COUNT],
    /// Denied flows by reason (`crate::reason`).
    pub denied: [u64; crate::reason::COUNT],
    /// Names learned and not yet forgotten.
    pub names_used: u64,
    /// Addresses learned and not yet forgotten.
    pub addrs_used: u64,
    /// Folded rows in use, by parity of the epoch.
    pub folds_used: [u64; 2],
    /// Current window of the record rate, in units of 2^30 ns of the boot clock.
    pub rate_window: u64,
    /// Records in that window.
    pub rate_count: u64,
    /// Catch-all rows by parity of the epoch and verdict: never fail, have no destination.
    pub catch_all: [[FoldRow; VERDICTS]; 2],
    /// Flows that written records tell of, by verdict; counted up by the loader alone, here so that the
    /// number outlives it. Last, so that no program writes to the same cache line.
    pub recorded: [u64; VERDICTS],
}

/// Switches that the loader flips for all programs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Control {
    /// Epoch of the folded rows being written. The loader raises it, waits for a grace period
    /// (`membarrier`), then owns the rows of the epoch before.
    pub fold_epoch: u32,
    /// The iterators end every flow of this slot; 0 is none.
    pub end_slot: u32,
    /// With this close reason.
    pub end_close: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of a folded row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FoldKey {
    /// Slot.
    pub slot: u32,
    /// Epoch.
    pub epoch: u32,
    /// Peer address, IPv4 as mapped.
    pub dst: Ip,
    /// Peer port (the local port of accepted flows), host byte order.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// `VERDICT_*`.
    pub verdict: u8,
    /// `crate::reason`.
    pub reason: u8,
    /// `crate::DIRECTION_*`.
    pub direction: u8,
    /// `crate::FLOW_WOULD_DENY` or zero.
    pub flags: u8,
    /// Zero.
    pub pad: u8,
}

/// Sums over the flows folded into one row.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FoldRow {
    /// Flows.
    pub count: u64,
    /// Payload bytes in.
    pub bytes_in: u64,
    /// Payload bytes out.
    pub bytes_out: u64,
    /// Packets in.
    pub packets_in: u64,
    /// Packets out.
    pub packets_out: u64,
    /// End of the first flow, boot clock.
    pub first: u64,
    /// End of the last flow, boot clock.
    pub last: u64,
    /// Rule that decided the first flow.
    pub rule: u32,
    /// Policy of that rule.
    pub policy: u32,
}

/// Key of a learned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LearnedAddrKey {
    /// Slot that asked.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
    /// Address, IPv4 as mapped.
    pub addr: Ip,
}

/// One name that led to an address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NameRef {
    /// [`LearnedNameKey::hash`]; 0 is empty.
    pub hash: u64,
    /// Until when, boot clock.
    pub expires: u64,
}

/// The names that led to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LearnedAddr {
    /// In no order.
    pub names: [NameRef; ADDR_NAMES],
}

/// Key of a learned name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LearnedNameKey {
    /// Slot that asked.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
    /// FNV-1a of the name in lower case, never 0. A second name with the same hash is not learned.
    pub hash: u64,
}

/// A learned name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LearnedName {
    /// Lower case, spelled backwards, NUL terminated, zero filled.
    pub reversed: [u8; NAME_BYTES],
    /// Length without the NUL.
    pub len: u32,
    /// Until when at least one address of it is good, boot clock.
    pub expires: u64,
}

/// Bytes of a text in [`SlotInfo`].
pub const INFO_TEXT: usize = 128;
/// Bytes of a cgroup path in [`SlotInfo`].
pub const INFO_PATH: usize = 256;
/// Bytes of a reason in [`SlotInfo`].
pub const INFO_REASON: usize = 256;

/// Who a slot is, for `dump`: no program reads it. Texts are UTF-8, cut to size, zero filled.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlotInfo {
    /// Slot that owns the row; 0 is free.
    pub slot: u32,
    /// Process id of the loader that enrolled it.
    pub loader: u32,
    /// Key of the `SLOT` map.
    pub cgroup_id: u64,
    /// Enrolment, boot clock.
    pub since: u64,
    /// `dev.clawker.agent`, or what `run --agent` says.
    pub agent: [u8; INFO_TEXT],
    /// `dev.clawker.project`, or what `run --project` says.
    pub project: [u8; INFO_TEXT],
    /// Command line of `run`.
    pub command: [u8; INFO_TEXT],
    /// Policy file.
    pub policy_file: [u8; INFO_TEXT],
    /// Path of the cgroup below the cgroup file system.
    pub cgroup: [u8; INFO_PATH],
    /// The engine's id of the container.
    pub container_id: [u8; INFO_TEXT],
    /// Its name.
    pub container_name: [u8; INFO_TEXT],
    /// Since when the bypass runs that `SlotConfig::bypass_until` tells of, boot clock.
    pub bypass_since: u64,
    /// Who ordered it.
    pub bypass_by: [u8; INFO_TEXT],
    /// Why.
    pub bypass_reason: [u8; INFO_REASON],
    /// What weakens the firewall around it: bits by the loader's own list.
    pub weaknesses: u32,
    /// Zero.
    pub pad: u32,
}
