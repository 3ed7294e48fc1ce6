//! Every map, with who writes and who reads it. Sizes written here are those of one slot; the loader
//! overrides them when it loads the object.

use abi::{
    AddrKey, ChainKey, ConfigCopies, Control, DGRAM_PEERS, Device, DgramPeer, Flow, FlowEvent,
    FoldKey, FoldRow, Handled, HeirKey, Ip, LearnedAddr, LearnedAddrKey, LearnedName,
    LearnedNameKey, Mark, NameKey, RuleSet, RuleText, RuleTextKey, SlotConfig, SlotInfo,
    SlotMetrics, Tail, TcpFlow,
};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_spin_lock},
    btf_maps::{
        Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, lpm_trie::Key,
    },
    macros::btf_map,
};
use bpf::dns;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
/// Room for the largest policy beside the one that it replaces. Tries take memory entry by entry.
const POLICY_ENTRIES: usize = 2 * abi::MAX_POLICY_ENTRIES as usize;
/// The rules of one that went before stay as text.
const TEXT_ENTRIES: usize = 3 * abi::MAX_POLICY_ENTRIES as usize;

/// `BPF_MAP_TYPE_CGROUP_STORAGE` with a `u64` key: one buffer an attached cgroup, shared by all
/// attach types (kernel ≥ 5.9). aya's type knows only the key that splits it by attach type.
#[repr(C)]
pub(crate) struct SlotMap {
    r#type: *const [i32; 19],
    key: *const u64,
    value: *const SlotConfig,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 0],
}
// SAFETY: the fields are a description for the loader; nothing dereferences them.
unsafe impl Sync for SlotMap {}

/// Written by the loader (one update replaces the whole buffer under RCU), read by every program.
#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "SLOT")]
pub(crate) static SLOT: SlotMap = SlotMap {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// Books and limits of the slots; counted up by every program, mapped by the loader.
#[btf_map(name = "metrics_map")]
pub(crate) static METRICS: Array<SlotMetrics, 2, MMAPABLE> = Array::new();

/// Who the slots are; written by the loader, read by `dump`.
#[btf_map]
pub(crate) static SLOT_INFO: Array<SlotInfo, 2> = Array::new();

/// Switches; written by the loader through its mapping.
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, MMAPABLE> = Array::new();

/// Live TCP flows.
#[btf_map]
pub(crate) static TCP_FLOWS: SkStorage<TcpFlow> = SkStorage::new();

/// Peers of one datagram socket.
#[repr(C)]
pub(crate) struct DgramFlows {
    /// Guards `peers`: senders on several CPUs and the receive path meet here.
    pub(crate) lock: bpf_spin_lock,
    pub(crate) pad: u32,
    pub(crate) peers: [DgramPeer; DGRAM_PEERS],
}

/// Live flows of UDP and every other datagram protocol.
#[btf_map]
pub(crate) static DGRAM_FLOWS: SkStorage<DgramFlows> = SkStorage::new();

/// Sockets that programs judge although they have no flow; see `mark`.
#[btf_map]
pub(crate) static MARKS: SkStorage<Mark> = SkStorage::new();

/// Configurations for programs that are not attached to the slot's cgroup; row 0 is of no slot.
#[btf_map]
pub(crate) static CONFIGS: Array<ConfigCopies, 2> = Array::new();

/// Whose an interface is, by its index; written by the loader.
#[btf_map]
pub(crate) static DEVICES: HashMap<u32, Device, 64, NO_PREALLOC> = HashMap::new();

/// Cgroups whose sockets the backstop lets pass; written by the loader.
#[btf_map]
pub(crate) static EXEMPT: HashMap<u64, u32, 64, NO_PREALLOC> = HashMap::new();

/// Records of allowed flows; read by the loader.
#[btf_map]
pub(crate) static RING_ALLOWED: RingBuf<FlowEvent, 1048576> = RingBuf::new();

/// Records of denied and bypassed flows; read by the loader. Apart, so that neither starves the other.
#[btf_map]
pub(crate) static RING_DENIED: RingBuf<FlowEvent, 1048576> = RingBuf::new();

/// Flows that found no room or were over the slot's rate, summed; drained by the loader.
#[btf_map]
pub(crate) static FOLDS: HashMap<FoldKey, FoldRow, 256, NO_PREALLOC> = HashMap::new();

/// Policy by address; written by the loader.
#[btf_map]
pub(crate) static POLICY_ADDRS: LpmTrie<AddrData, RuleSet, POLICY_ENTRIES> = LpmTrie::new();

/// Policy by name; written by the loader.
#[btf_map]
pub(crate) static POLICY_NAMES: LpmTrie<NameData, RuleSet, POLICY_ENTRIES> = LpmTrie::new();

/// Continuations of long rule sets; written by the loader.
#[btf_map]
pub(crate) static POLICY_CHAIN: LpmTrie<[u32; 2], RuleSet, POLICY_ENTRIES> = LpmTrie::new();

/// Rules as text; written by the loader, read by `dump`.
#[btf_map]
pub(crate) static POLICY_TEXT: LpmTrie<[u32; 2], RuleText, TEXT_ENTRIES> = LpmTrie::new();

/// What an [`AddrKey`] holds behind its prefix length.
pub(crate) type AddrData = [u8; size_of::<AddrKey>() - 4];
/// What a [`NameKey`] holds behind its prefix length.
pub(crate) type NameData = [u8; size_of::<NameKey>() - 4];

const _: () = assert!(size_of::<Key<AddrData>>() == size_of::<AddrKey>());
const _: () = assert!(size_of::<Key<NameData>>() == size_of::<NameKey>());
const _: () = assert!(size_of::<Key<[u32; 2]>>() == size_of::<ChainKey>());
const _: () = assert!(size_of::<Key<[u32; 2]>>() == size_of::<RuleTextKey>());

/// Names that led to an address; written by the ingress program, cleaned by the loader.
#[btf_map]
pub(crate) static LEARNED_ADDRS: HashMap<LearnedAddrKey, LearnedAddr, 4096, NO_PREALLOC> =
    HashMap::new();

/// Names by hash; written by the packet programs, cleaned by the loader.
#[btf_map]
pub(crate) static LEARNED_NAMES: HashMap<LearnedNameKey, LearnedName, 2048, NO_PREALLOC> =
    HashMap::new();

/// Which events another set has handled; see `handover`. Written by both sets.
#[btf_map]
pub(crate) static HANDLED: PerCpuArray<Handled, 2> = PerCpuArray::new();

/// Flows taken over from another set, until their sockets are met; written by the loader.
#[btf_map]
pub(crate) static HEIRS: HashMap<HeirKey, Flow, 65536, NO_PREALLOC> = HashMap::new();

/// What programs note while flows are handed over; the oldest goes when it is full.
#[btf_map]
pub(crate) static HEIR_NOTES: LruHashMap<HeirKey, Flow, 1024> = LruHashMap::new();

/// Working memory for one DNS message.
#[repr(C)]
pub(crate) struct Scratch {
    /// 1 while a program run uses it.
    pub(crate) busy: u64,
    pub(crate) question: dns::NameScan,
    pub(crate) answer: dns::AnswerScan,
    pub(crate) text: [u8; dns::TEXT],
    pub(crate) key: NameKey,
    pub(crate) name: LearnedName,
    pub(crate) addr: LearnedAddr,
    pub(crate) slot: u32,
    pub(crate) index: u32,
    pub(crate) now: u64,
    pub(crate) message: [u8; dns::MAX_ANSWER],
}

/// Scratch buffers of a CPU. A run can be preempted by another (programs run with migration off, not
/// preemption) and interrupted by a softirq's, so each run claims a buffer of its own.
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 4> = PerCpuArray::new();

/// Buffers in [`SCRATCH`].
pub(crate) const SCRATCHES: u32 = 4;

/// Working memory for one judgement: the stack of 512 bytes is shared by a whole call chain.
#[repr(C)]
pub(crate) struct Work {
    /// 1 while a program run uses it.
    pub(crate) busy: u64,
    /// What is being judged.
    pub(crate) target: Peer,
    /// Names found for it.
    pub(crate) names: [u64; abi::FLOW_NAMES],
    pub(crate) name_count: u64,
    /// Best rule so far, and whether any rule allows anything of the target.
    pub(crate) best: u64,
    pub(crate) known: u64,
    /// What loop callbacks need of the configuration.
    pub(crate) now: u64,
    pub(crate) slot: u32,
    pub(crate) policy: u32,
    pub(crate) observing: u32,
    /// Number of this buffer.
    pub(crate) number: u32,
    /// Where a chain of rule sets goes on, and whether private addresses count in it.
    pub(crate) next_set: u32,
    pub(crate) private: u32,
    /// How to judge: bits of `judge`.
    pub(crate) how: u64,
    /// What the table of peers says of the target, `dgram::UNKNOWN` and so on.
    pub(crate) what: u32,
    pub(crate) pad: u32,
    /// A socket's address as a number, for reading what no helper tells of it.
    pub(crate) socket: u64,
    /// The names that led to the target.
    pub(crate) learned: LearnedAddr,
    /// The flow in the making.
    pub(crate) flow: Flow,
    /// A flow that had to make room, and its counters.
    pub(crate) evicted: Flow,
    pub(crate) tail: Tail,
    pub(crate) key: NameKey,
    /// An `AddrKey` as words.
    pub(crate) addr_key: [u32; 7],
}

/// The far end of a datagram or connection.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Peer {
    pub(crate) ip: Ip,
    pub(crate) port: u16,
    pub(crate) proto: u8,
    pub(crate) pad: u8,
    pub(crate) pad2: u32,
}

impl Peer {
    /// Somebody.
    #[inline(always)]
    pub(crate) fn new(ip: Ip, port: u16, proto: u8) -> Self {
        Self {
            ip,
            port,
            proto,
            pad: 0,
            pad2: 0,
        }
    }
}

/// Work buffers of a CPU, claimed like [`SCRATCH`].
#[btf_map]
pub(crate) static WORK: PerCpuArray<Work, 8> = PerCpuArray::new();

/// Buffers in [`WORK`].
pub(crate) const WORKS: u32 = 8;

/// A row of zeroes, from which folded rows are made.
#[btf_map]
pub(crate) static ZERO_ROW: Array<FoldRow, 1> = Array::new();
