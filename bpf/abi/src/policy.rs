//! Policy as the programs read it: prefix tries over addresses and reversed names whose values are
//! short lists of port rules, each list already holding everything that covers its key.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Longest name a policy can match, in characters without the trailing dot. An LPM key holds 256
/// bytes (`LPM_DATA_SIZE_MAX`); four are the policy id and one is the end mark.
pub const MAX_NAME: usize = 251;
/// Room for a reversed name and its NUL in [`NameKey`].
pub const NAME_BYTES: usize = 252;
/// Rules held in one [`RuleSet`]; more go into chained sets.
pub const SET_RULES: usize = 8;
/// Sets followed from one key, the first included: 128 rules for one destination.
pub const MAX_CHAIN: usize = 16;
/// Trusted resolvers of one slot.
pub const MAX_RESOLVERS: usize = 4;
/// Bytes of a rule's name kept for `dump` and records.
pub const RULE_TEXT: usize = 96;
/// Rule number that means "no rule".
pub const NO_RULE: u32 = u32::MAX;
/// Entries that each policy trie may hold, over all policies of an instance.
pub const MAX_POLICY_ENTRIES: u32 = 1 << 18;

/// `PortRule::action`: this destination is in the built-in deny set.
pub const ACTION_BUILTIN: u8 = 1;
/// `PortRule::action`: a deny rule.
pub const ACTION_DENY: u8 = 2;
/// `PortRule::action`: an allow rule.
pub const ACTION_ALLOW: u8 = 3;

/// `PortRule::flags`: a name rule that holds for private addresses too.
pub const RULE_PRIVATE: u8 = 1;
/// `PortRule::flags`: what it allows goes through the proxy.
pub const RULE_PROXIED: u8 = 2;
/// The proxy's listener for a port is at this many ports above it.
pub const PROXY_PORTS: u16 = 10_000;

/// `PortRule::proto`: any protocol.
pub const PROTO_ANY: u8 = 0;

/// IANA protocol numbers used throughout.
pub const IPPROTO_ICMP: u8 = 1;
/// TCP.
pub const IPPROTO_TCP: u8 = 6;
/// UDP.
pub const IPPROTO_UDP: u8 = 17;
/// ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;

/// Address family in [`AddrKey`]: IPv4 (IPv4-mapped IPv6 addresses are IPv4).
pub const FAMILY_V4: u32 = 4;
/// Address family in [`AddrKey`]: IPv6.
pub const FAMILY_V6: u32 = 6;

/// Bits of [`AddrKey`] in front of the address.
pub const ADDR_KEY_HEAD_BITS: u32 = 64;
/// Bits of [`NameKey`] in front of the name.
pub const NAME_KEY_HEAD_BITS: u32 = 32;

/// Key of the address trie. `prefix_len` counts the bits of everything behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddrKey {
    /// [`ADDR_KEY_HEAD_BITS`] + bits of the address prefix.
    pub prefix_len: u32,
    /// Policy id.
    pub policy: u32,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u32,
    /// Network byte order; an IPv4 address in the first four bytes, the rest zero.
    pub addr: [u8; 16],
}

/// Key of the name trie: the name in lower case, spelled backwards, so that a suffix is a prefix.
///
/// `example.com` itself is `moc.elpmaxe` and a NUL, full length; everything below it is the prefix
/// `moc.elpmaxe.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NameKey {
    /// [`NAME_KEY_HEAD_BITS`] + 8 × bytes of the name that count.
    pub prefix_len: u32,
    /// Policy id.
    pub policy: u32,
    /// Reversed name, zero filled.
    pub name: [u8; NAME_BYTES],
}

/// One port range of one protocol with its action.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortRule {
    /// First port, host byte order.
    pub lo: u16,
    /// Last port, included.
    pub hi: u16,
    /// IANA protocol number or [`PROTO_ANY`].
    pub proto: u8,
    /// [`ACTION_BUILTIN`], [`ACTION_DENY`] or [`ACTION_ALLOW`].
    pub action: u8,
    /// `RULE_*`.
    pub flags: u8,
    /// Zero.
    pub pad: u8,
    /// Number of the rule in the policy, [`NO_RULE`] for the built-in set.
    pub rule: u32,
}

/// Everything that covers one key, most severe action first and then in file order: the first rule
/// that matches protocol and port decides.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RuleSet {
    /// Rules, the first `count` of them.
    pub rules: [PortRule; SET_RULES],
    /// Rules used.
    pub count: u32,
    /// Next set of the chain in `POLICY_CHAIN`, 0 for none.
    pub next: u32,
}

/// Key of a chained set: an exact match spelled as a full-length prefix, because a trie allocates
/// by entry and a hash its whole table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChainKey {
    /// 64.
    pub prefix_len: u32,
    /// Policy id.
    pub policy: u32,
    /// Number of the set, from 1.
    pub set: u32,
}

/// Key of a rule's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RuleTextKey {
    /// 64.
    pub prefix_len: u32,
    /// Policy id.
    pub policy: u32,
    /// Number of the rule.
    pub rule: u32,
}

/// A rule for people: its name (or position) and what it says, so that `dump` needs no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RuleText {
    /// Name of the rule, UTF-8, zero filled.
    pub name: [u8; RULE_TEXT],
    /// One line: action, destination, protocol, ports; UTF-8, zero filled.
    pub text: [u8; RULE_TEXT],
}
