//! Two sets of programs at one cgroup: one of another [`crate::ABI_VERSION`] takes over from the one that
//! is there. The names and meanings here hold for all versions; where the fields are, each set's own
//! type information tells.
//!
//! The predecessor runs first, since it was attached first. While it is `LEAVING` it leaves a mark for
//! every event that it handles, and the successor lets that event pass. With one write the predecessor is
//! `GONE`: it stands aside without a mark, and the successor handles the event. So every event is handled
//! by exactly one of them, also those that are under way when the write happens.

use crate::flow::Ip;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SlotConfig::phase`: nobody else.
pub const PHASE_ALONE: u8 = 0;
/// A successor whose predecessor does not mark yet: takes marks and handles nothing.
pub const PHASE_WAITING: u8 = 1;
/// A successor: takes marks and handles what has none.
pub const PHASE_HEIR: u8 = 2;
/// A predecessor: handles everything and marks it.
pub const PHASE_LEAVING: u8 = 3;
/// A predecessor: handles nothing; a flow that still lives ends with its next packet.
pub const PHASE_GONE: u8 = 4;

/// Hooks at which marks are left: indexes of [`Handled::left`]. Numbers are never used for another hook.
pub mod hook {
    /// `connect4`, `connect6`.
    pub const CONNECT: usize = 0;
    /// `sendmsg4`, `sendmsg6`.
    pub const SENDMSG: usize = 1;
    /// `sock_create`.
    pub const SOCK_CREATE: usize = 2;
    /// `sock_ops`, an accepted connection.
    pub const ACCEPT: usize = 3;
    /// `egress`.
    pub const EGRESS: usize = 4;
    /// `ingress`.
    pub const INGRESS: usize = 5;
    /// Room for more.
    pub const COUNT: usize = 8;
}

/// Marks of one slot on one processor. All programs of an event run on the same one. The same map serves
/// both sets, so this layout never changes.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Handled {
    /// Events that the predecessor has handled and the successor has not seen yet, by [`hook`].
    pub left: [u64; hook::COUNT],
}

/// Key of a flow that a successor goes on with when it meets the socket.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct HeirKey {
    /// Cookie of the socket (`SO_COOKIE`).
    pub cookie: u64,
    /// Far end of a datagram flow; zero for TCP.
    pub peer: Ip,
    /// Its port.
    pub port: u16,
    /// IANA protocol number.
    pub proto: u8,
    /// `HEIR_*`.
    pub kind: u8,
    /// Zero.
    pub pad: [u8; 4],
}

/// `HeirKey::kind`: a flow to go on with.
pub const HEIR_FLOW: u8 = 0;
/// `HeirKey::kind`: the agent has sent datagrams to this peer while its flows were being handed over, so what comes from there may
/// be an answer and begins nothing. The value has no meaning.
pub const HEIR_SENT: u8 = 1;
