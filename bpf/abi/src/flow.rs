//! Flows: what socket storage keeps of a live one and what the rings carry of an ended one.

use crate::ADDR_NAMES;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address in network byte order, IPv4 mapped into IPv6 (RFC 4291 §2.5.5.2). Aligned, so that the
/// programs compare it in two loads.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Ip(pub [u8; 16]);

/// Destinations that one datagram socket keeps apart.
pub const DGRAM_PEERS: usize = 8;
/// Names kept with a flow: as many as one address remembers.
pub const FLOW_NAMES: usize = ADDR_NAMES;

/// Opened by the agent.
pub const DIRECTION_EGRESS: u8 = 0;
/// Accepted by the agent.
pub const DIRECTION_INGRESS: u8 = 1;

/// `Flow::flags`: audit mode let it pass.
pub const FLOW_WOULD_DENY: u8 = 1;
/// `Flow::flags`: to port 53 of a trusted resolver, its queries are filtered and its answers teach.
pub const FLOW_DNS: u8 = 2;
/// `Flow::flags`: the socket is older than the attachment; byte counts start at the first packet seen.
pub const FLOW_MID_STREAM: u8 = 4;
/// `Flow::flags`: `src` and `src_port` are known.
pub const FLOW_HAS_SRC: u8 = 8;
/// `Flow::flags`: it was last judged under a bypass, so that its judgement ends with that bypass.
pub const FLOW_LIFTED: u8 = 32;
/// `Flow::flags`: it goes to the proxy, which decides what the kernel does not see, or to the name server.
pub const FLOW_PROXIED: u8 = 64;
/// `Flow::flags`: `dst` and `dst_port` are known (a refused socket has none).
pub const FLOW_HAS_DST: u8 = 16;

/// Why a verdict was given.
pub mod reason {
    /// A rule of the policy.
    pub const RULE: u8 = 0;
    /// No rule, the policy's default.
    pub const DEFAULT: u8 = 1;
    /// The built-in deny set.
    pub const BUILTIN: u8 = 2;
    /// Enforcement was lifted for a time.
    pub const BYPASS: u8 = 3;
    /// No policy, or observe mode.
    pub const OBSERVE: u8 = 4;
    /// A raw socket.
    pub const RAW_SOCKET: u8 = 5;
    /// A protocol outside the allow list.
    pub const PROTOCOL: u8 = 6;
    /// DNS to or as a resolver that is not trusted, or DNS over TLS.
    pub const RESOLVER: u8 = 7;
    /// A DNS query for a name that no rule could allow.
    pub const NAME: u8 = 8;
    /// Something on the way to a resolver that is not a well-formed query in one piece.
    pub const QUERY: u8 = 9;
    /// The kernel had no memory for the flow's state.
    pub const NO_STATE: u8 = 10;
    /// The socket is older than the attachment.
    pub const MID_STREAM: u8 = 11;
    /// The cgroup has no configuration.
    pub const NOT_ENROLLED: u8 = 12;
    /// The policy's `inbound`.
    pub const INBOUND: u8 = 13;
    /// A packet with a source route, a routing header, headers that could not be followed, or the address of somebody else
    /// as its source.
    pub const HEADERS: u8 = 14;
    /// No program of an enrolled cgroup has judged it: seen by the backstop at an interface.
    pub const UNJUDGED: u8 = 15;
    /// Its rule needs the proxy, and the agent has no way to one.
    pub const NO_PROXY_PATH: u8 = 16;
    /// How many there are.
    pub const COUNT: usize = 17;
}

/// Why a flow ended.
pub mod close {
    /// It is still alive (rows of the iterators).
    pub const LIVE: u8 = 0;
    /// Both sides closed, or a datagram socket was closed.
    pub const FIN: u8 = 1;
    /// Reset by either side.
    pub const RST: u8 = 2;
    /// The peer refused the connection.
    pub const REFUSED: u8 = 3;
    /// No answer in time, or the application gave up waiting for one.
    pub const TIMEOUT: u8 = 4;
    /// No way to the peer.
    pub const UNREACHABLE: u8 = 5;
    /// A datagram flow without packets for the idle time.
    pub const IDLE: u8 = 6;
    /// Its place was taken: a ninth peer of a datagram socket, or a new connect on the socket.
    pub const REPLACED: u8 = 7;
    /// Cut: a newer policy, or the end of a bypass, denies it.
    pub const POLICY: u8 = 8;
    /// It never began.
    pub const DENIED: u8 = 9;
    /// Its container ended before it did.
    pub const CONTAINER_EXIT: u8 = 10;
    /// Handed to a program set of another ABI.
    pub const UPGRADED: u8 = 11;
    /// The programs were detached.
    pub const DETACHED: u8 = 12;
    /// How many there are.
    pub const COUNT: u8 = 13;
}

/// What is known of a flow when it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// Shifts everything behind it.
    #[cfg(feature = "next")]
    pub next: u64,
    /// Boot clock.
    pub start: u64,
    /// [`crate::LearnedNameKey::hash`] of the names that led to the peer.
    pub names: [u64; FLOW_NAMES],
    /// Peer of an egress flow as the agent asked for it; of an accepted flow the local address.
    /// IPv4 as mapped.
    pub dst: Ip,
    /// Local address of an egress flow; of an accepted flow the peer.
    pub src: Ip,
    /// Task that opened the flow; zeroes for accepted flows.
    pub comm: [u8; 16],
    /// Process that opened the flow; 0 is unknown.
    pub pid: u32,
    /// Slot.
    pub slot: u32,
    /// Row of `metrics_map`.
    pub index: u32,
    /// Policy that `rule` counts in.
    pub policy: u32,
    /// Rule that decided, [`crate::NO_RULE`] for none.
    pub rule: u32,
    /// Generation that the flow was last judged under.
    pub generation: u32,
    /// Host byte order.
    pub dst_port: u16,
    /// Host byte order.
    pub src_port: u16,
    /// IANA protocol number; MPTCP (262) is 6 with reason `protocol`.
    pub proto: u8,
    /// `crate::VERDICT_*`.
    pub verdict: u8,
    /// [`reason`].
    pub reason: u8,
    /// `DIRECTION_*`.
    pub direction: u8,
    /// `FLOW_*`.
    pub flags: u8,
    /// Used entries of `names`.
    pub name_count: u8,
    /// `SOCK_*` of a refused socket, else zero.
    pub sock_type: u8,
    /// Zero.
    pub pad: u8,
    /// Zero.
    pub pad2: u32,
}

/// What is known of a flow when it ends, or so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tail {
    /// Boot clock.
    pub end: u64,
    /// Payload that arrived.
    pub bytes_in: u64,
    /// Payload that left.
    pub bytes_out: u64,
    /// Segments or datagrams that arrived.
    pub packets_in: u64,
    /// Segments or datagrams that left.
    pub packets_out: u64,
    /// Smoothed round trip of TCP in microseconds; 0 is unknown.
    pub rtt_us: u32,
    /// Retransmitted TCP segments.
    pub retransmits: u32,
    /// Rule that cut the flow when `close` is `POLICY`, else [`crate::NO_RULE`].
    pub cut_rule: u32,
    /// Policy that `cut_rule` counts in.
    pub cut_policy: u32,
    /// [`close`].
    pub close: u64,
    /// The proxy that the flow really went to; zero for none.
    pub proxy: Ip,
    /// Its port.
    pub proxy_port: u64,
}

/// A row of the iterators: a live flow, or what is left of one that was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LiveFlow {
    /// How it began.
    pub flow: Flow,
    /// How it stands. `close` is [`close::LIVE`]; of a TCP flow that was cut while its socket still has
    /// a connection, and so may hold unsent data, it is [`close::POLICY`] and the counters are zero.
    pub tail: Tail,
    /// Cookie of the socket (`SO_COOKIE`).
    pub cookie: u64,
}

/// What a ring carries: an ended flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowEvent {
    /// How it began.
    pub flow: Flow,
    /// How it ended.
    pub tail: Tail,
    /// Number among the ended flows of its slot and verdict.
    pub seq: u64,
}

/// Socket storage: which slot's programs judge the packets of a socket that has no flow. They leave it
/// with a packet, before the guard of a parent cgroup and the backstop at an interface ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mark {
    /// Slot; 0 when the cgroup is attached and not enrolled.
    pub slot: u32,
    /// Its row: as long as `CONFIGS` says the same slot there, the mark holds.
    pub index: u32,
    /// 1 when a packet was refused and counted because the cgroup is not enrolled; taken to 0 by the
    /// guard, which then does not count it again.
    pub told: u64,
}

/// `TcpFlow::hints`: a set before this one has asked for the socket's states, so its end will be heard.
pub const TCP_HEIR: u32 = 8;
/// `TcpFlow::hints`: taken over when our side was closed already; whether the FIN had left is not known.
pub const TCP_CLOSING: u32 = 16;
/// `TcpFlow::hints`: a SYN left.
pub const TCP_SYN_SENT: u32 = 1;
/// The connection was established.
pub const TCP_ESTABLISHED: u32 = 2;
/// A FIN left; `fin_out` is its sequence number.
pub const TCP_FIN_OUT: u32 = 4;

/// Socket storage of a TCP flow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TcpFlow {
    /// How it began.
    pub flow: Flow,
    /// 1 while the flow lives; taken to 0 by whoever ends it.
    pub live: u64,
    /// 1 when packets are to be dropped.
    pub cut: u32,
    /// `TCP_*`; written under the socket's lock only.
    pub hints: u32,
    /// Sequence number of the FIN that left.
    pub fin_out: u32,
    /// Sequence number of the FIN that arrived.
    pub fin_in: u32,
    /// Next message boundary of a DNS stream, valid when `dns_synced` is 1.
    pub dns_next: u32,
    /// Whether `dns_next` is set.
    pub dns_synced: u32,
    /// Where the packets really go: to the proxy, or after a rewrite that the policy allowed; zero for neither.
    pub wire: Ip,
    /// Port of `wire`.
    pub wire_port: u16,
    /// 1 when a FIN arrived. A byte of its own: the receive path runs without the socket's lock.
    pub fin_in_seen: u8,
    /// Zero.
    pub pad: [u8; 5],
    /// Counters at the first and at the latest packet of a flow that began before the attachment.
    pub mid: [TcpCounts; 2],
    /// End of the last segment that left of such a flow; the socket's own count moves after the program.
    pub sent_end: u32,
    /// End of the last segment that arrived.
    pub arrived_end: u32,
}

/// Byte counters of the kernel's TCP socket.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TcpCounts {
    /// `tcp_sock.bytes_acked`.
    pub acked: u64,
    /// `tcp_sock.bytes_received`.
    pub received: u64,
    /// `tcp_sock.segs_in`.
    pub segs_in: u32,
    /// `tcp_sock.segs_out`.
    pub segs_out: u32,
    /// `tcp_sock.snd_nxt`.
    pub snd_nxt: u32,
    /// `tcp_sock.snd_una`.
    pub snd_una: u32,
    /// `tcp_sock.rcv_nxt`.
    pub rcv_nxt: u32,
    /// `tcp_sock.srtt_us`, in eighths of a microsecond.
    pub srtt: u32,
    /// `tcp_sock.total_retrans`.
    pub retrans: u32,
    /// Zero.
    pub pad: u32,
}

/// `DgramPeer::state`: unused.
pub const PEER_FREE: u32 = 0;
/// Known but without a packet: a connected socket that has not sent yet, or one whose flow went idle.
pub const PEER_QUIET: u32 = 1;
/// A live flow.
pub const PEER_OPEN: u32 = 2;
/// `sendmsg` was let through and no packet of it has been seen: not a flow yet, but an attempt that
/// gets a record if nothing comes of it.
pub const PEER_TRIED: u32 = 3;

/// One destination of a datagram socket.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DgramPeer {
    /// How it began.
    pub flow: Flow,
    /// Last packet, boot clock.
    pub last: u64,
    /// The flow ends after this long without a packet.
    pub idle_ns: u64,
    /// Payload in.
    pub bytes_in: u64,
    /// Payload out.
    pub bytes_out: u64,
    /// Datagrams in.
    pub packets_in: u64,
    /// Datagrams out.
    pub packets_out: u64,
    /// `PEER_*`.
    pub state: u32,
    /// Port of `peer`.
    pub peer_port: u16,
    /// Zero.
    pub pad: u16,
    /// Whom the packets go to and come from: the flow's other end, or where it is led.
    pub peer: Ip,
}
