//! What crosses the boundary between the BPF programs and user space, and nothing else.
//!
//! Every type is plain integers and byte arrays without padding: zerocopy's derives refuse anything
//! else at compile time. Enumerations cross as integers with named constants, because the kernel's
//! bytes are only as trustworthy as the object that wrote them; user space turns them into enums and
//! may fail. No `std`, no aya, no serde.
//!
//! Raise [`ABI_VERSION`] whenever the layout or the meaning of a type, a map name or a constant in
//! this crate changes. Pins live under a directory of that number, so a loader never reads the
//! layout of another version. `tests/layout.rs` fails on a change of size or offset that was not
//! written down.
#![no_std]
#![forbid(unsafe_code)]

mod flow;
mod handover;
mod policy;
mod slot;

pub use flow::*;
pub use handover::*;
pub use policy::*;
pub use slot::*;

/// Version of everything in this crate; part of the pin path.
pub const ABI_VERSION: u32 = 5 + NEXT;
/// A layout that exists for tests of the upgrade alone: see the feature `next`.
const NEXT: u32 = if cfg!(feature = "next") { 100 } else { 0 };

/// Names of maps, as pinned.
pub mod maps {
    /// `CGROUP_STORAGE` with a `u64` key (cgroup id): one [`crate::SlotConfig`] an attached cgroup.
    /// Written by the loader, read by every program.
    pub const SLOT: &str = "SLOT";
    /// Array of [`crate::SlotMetrics`], by [`crate::SlotConfig::index`]. Ground truth of the accounting.
    pub const METRICS: &str = "metrics_map";
    /// Array of [`crate::SlotInfo`], by the same index.
    pub const SLOT_INFO: &str = "SLOT_INFO";
    /// Array with one [`crate::Control`].
    pub const CONTROL: &str = "CONTROL";
    /// Socket storage of TCP flows.
    pub const TCP_FLOWS: &str = "TCP_FLOWS";
    /// Socket storage of UDP and every other datagram flow.
    pub const DGRAM_FLOWS: &str = "DGRAM_FLOWS";
    /// Ring of records of allowed flows ([`crate::FlowEvent`]).
    pub const RING_ALLOWED: &str = "RING_ALLOWED";
    /// Ring of records of denied and bypassed flows ([`crate::FlowEvent`]).
    pub const RING_DENIED: &str = "RING_DENIED";
    /// LPM trie [`crate::AddrKey`] → [`crate::RuleSet`].
    pub const POLICY_ADDRS: &str = "POLICY_ADDRS";
    /// LPM trie [`crate::NameKey`] → [`crate::RuleSet`].
    pub const POLICY_NAMES: &str = "POLICY_NAMES";
    /// LPM trie used as an on-demand exact map: [`crate::ChainKey`] → [`crate::RuleSet`].
    pub const POLICY_CHAIN: &str = "POLICY_CHAIN";
    /// LPM trie used as an on-demand exact map: [`crate::RuleTextKey`] → [`crate::RuleText`].
    pub const POLICY_TEXT: &str = "POLICY_TEXT";
    /// Hash [`crate::LearnedAddrKey`] → [`crate::LearnedAddr`].
    pub const LEARNED_ADDRS: &str = "LEARNED_ADDRS";
    /// Hash [`crate::LearnedNameKey`] → [`crate::LearnedName`].
    pub const LEARNED_NAMES: &str = "LEARNED_NAMES";
    /// Hash [`crate::FoldKey`] → [`crate::FoldRow`].
    pub const FOLDS: &str = "FOLDS";
    /// Socket storage of [`crate::Mark`]. Written by the programs of slots, read by guard and backstop.
    pub const MARKS: &str = "MARKS";
    /// Array of [`crate::ConfigCopies`], by [`crate::SlotConfig::index`]; row 0 stays zero. Written by the
    /// loader together with [`SLOT`], read by guard and backstop.
    pub const CONFIGS: &str = "CONFIGS";
    /// Hash from the index of an interface to [`crate::Device`]. Written by the loader, read by the backstop.
    pub const DEVICES: &str = "DEVICES";
    /// Hash with the ids (`u64`) of cgroups whose sockets the backstop lets pass. Written by the loader.
    pub const EXEMPT: &str = "EXEMPT";
    /// Per-CPU array of [`crate::Handled`], by [`crate::SlotConfig::index`]. Shared with the set that takes
    /// over.
    pub const HANDLED: &str = "HANDLED";
    /// Hash [`crate::HeirKey`] → [`crate::Flow`]: flows taken over, until their sockets are met.
    pub const HEIRS: &str = "HEIRS";
    /// LRU hash of the same types: what programs note while flows are handed over. Apart, so that nobody fills the place of
    /// what was taken over.
    pub const HEIR_NOTES: &str = "HEIR_NOTES";
    /// Every map that is pinned.
    pub const ALL: [&str; 22] = [
        SLOT,
        METRICS,
        SLOT_INFO,
        CONTROL,
        TCP_FLOWS,
        DGRAM_FLOWS,
        RING_ALLOWED,
        RING_DENIED,
        POLICY_ADDRS,
        POLICY_NAMES,
        POLICY_CHAIN,
        POLICY_TEXT,
        LEARNED_ADDRS,
        LEARNED_NAMES,
        FOLDS,
        MARKS,
        CONFIGS,
        DEVICES,
        EXEMPT,
        HANDLED,
        HEIRS,
        HEIR_NOTES,
    ];
}

/// Names of programs, which are also the names of their pinned links.
pub mod programs {
    /// `cgroup/connect4`.
    pub const CONNECT4: &str = "connect4";
    /// `cgroup/connect6`.
    pub const CONNECT6: &str = "connect6";
    /// `cgroup/sendmsg4`.
    pub const SENDMSG4: &str = "sendmsg4";
    /// `cgroup/sendmsg6`.
    pub const SENDMSG6: &str = "sendmsg6";
    /// `cgroup/recvmsg4`.
    pub const RECVMSG4: &str = "recvmsg4";
    /// `cgroup/recvmsg6`.
    pub const RECVMSG6: &str = "recvmsg6";
    /// `cgroup/getpeername4`.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// `cgroup/getpeername6`.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// `cgroup/sock_create`.
    pub const SOCK_CREATE: &str = "sock_create";
    /// `cgroup/sock_release`.
    pub const SOCK_RELEASE: &str = "sock_release";
    /// `sockops`.
    pub const SOCK_OPS: &str = "sock_ops";
    /// `cgroup_skb/egress`.
    pub const EGRESS: &str = "egress";
    /// `cgroup_skb/ingress`.
    pub const INGRESS: &str = "ingress";
    /// `iter/bpf_sk_storage_map` over [`super::maps::TCP_FLOWS`].
    pub const ITER_TCP: &str = "iter_tcp";
    /// `iter/bpf_sk_storage_map` over [`super::maps::DGRAM_FLOWS`].
    pub const ITER_DGRAM: &str = "iter_dgram";
    /// `cgroup_skb/egress` at a parent cgroup: see `Guarded parent` in `docs/architecture.md`.
    pub const GUARD: &str = "guard_egress";
    /// `tc` at the ingress of a container's host-side interface (TCX): see `Backstop` there.
    pub const BACKSTOP: &str = "backstop";
    /// Every program that is attached to the cgroup of a slot.
    pub const CGROUP: [&str; 13] = [
        CONNECT4,
        CONNECT6,
        SENDMSG4,
        SENDMSG6,
        RECVMSG4,
        RECVMSG6,
        GETPEERNAME4,
        GETPEERNAME6,
        SOCK_CREATE,
        SOCK_RELEASE,
        SOCK_OPS,
        EGRESS,
        INGRESS,
    ];
}
