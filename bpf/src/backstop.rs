//! The backstop: a program at the host's end of a container's veth, where everything comes by that
//! leaves the container's network namespace, whatever made it. The packet still knows its socket.
//!
//! A socket that bears a mark was judged before. What is left is packets of AF_PACKET and of sockets
//! made in another cgroup, which no hook of a cgroup sees, and packets of no socket at all: made by the
//! kernel, or forwarded.

use crate::{
    emit, judge,
    maps::{DEVICES, EXEMPT, Work},
    mark,
    packet::{self, Linear, Packet},
    query, slot, work,
};
use abi::{
    Device, IPPROTO_TCP, IPPROTO_UDP, MAX_HELD, SlotConfig, VERDICT_DENIED, close, reason, trouble,
};
use aya_ebpf::{
    Global,
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_skb_cgroup_id, bpf_skb_load_bytes, bpf_skb_pull_data},
    macros::classifier,
    programs::TcContext,
};
use bpf::{
    addr,
    decide::{self, Decision, PORT_DNS},
    tcp, upkeep,
};
use core::mem::MaybeUninit;

/// `TCX_NEXT`: whoever else is attached decides.
const NEXT: i32 = -1;
/// `TCX_DROP`.
const DROP: i32 = 2;

/// Bytes of an Ethernet header, with which packets begin here.
const ETHERNET: u32 = 14;
/// Bytes of an ARP message for IPv4 in a frame that is filled up to the shortest there is.
const SHORTEST: u32 = 60;
/// As much of a packet as is looked at.
const HEADERS: u32 = 256;
/// `ETH_P_*`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;

/// Offset and bit of `sk_kern_sock` in `struct sock`; the loader reads them from the kernel's BTF.
#[unsafe(no_mangle)]
static SK_KERN: Global<[u32; 2]> = Global::new([0; 2]);

#[classifier]
pub(crate) fn backstop(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let sk = packet::sk(skb).cast::<bpf_sock>();
    // What bears the name of a listener is a reset that the kernel sends to whoever asked for it, the
    // agent itself under a made-up source included.
    // SAFETY: a socket of the context, not null.
    let connected = !sk.is_null() && unsafe { (*sk).state } != tcp::state::LISTEN;
    let passes = if connected && mark::holds(sk.cast()) {
        !forged(skb) || imitated(skb) != 0
    } else {
        unmarked(skb) != 0
    };
    if passes { NEXT } else { DROP }
}

/// Whose the interface is.
#[inline(always)]
fn device(skb: *mut __sk_buff) -> Option<&'static Device> {
    // SAFETY: the context is valid for the run.
    let ifindex = unsafe { (*skb).ifindex };
    // SAFETY: a map value; entries are replaced, not changed.
    DEVICES.get_ptr(&ifindex).map(|p| unsafe { &*p })
}

/// Whether a packet says that it comes from somebody else. Who asked whom is told by this address, to the proxies and in
/// their records. A socket may have any that it likes: IP_TRANSPARENT asks for CAP_NET_RAW, IPV6_FREEBIND for nothing.
#[inline(never)]
fn forged(skb: *mut __sk_buff) -> bool {
    let Some(d) = device(skb) else { return false };
    if d.held == 0 {
        return false;
    }
    // SAFETY: the context is valid for the run.
    let kind = u16::from_be(unsafe { (*skb).protocol } as u16);
    let (version, at) = match kind {
        IPV4 => (4, ETHERNET + 12),
        IPV6 => (6, ETHERNET + 8),
        _ => return false,
    };
    if d.versions & (1 << version) == 0 {
        return false;
    }
    let mut words = [0u32; 4];
    let to = words.as_mut_ptr().cast();
    let len = if version == 4 { 4 } else { 16 };
    // SAFETY: `len` bytes on the stack, of which there are 16.
    if unsafe { bpf_skb_load_bytes(skb.cast(), at, to, len) } != 0 {
        return true;
    }
    let words = words.map(u32::from_be);
    let source = if version == 4 {
        addr::from_v4(words[0])
    } else {
        addr::from_v6(words)
    };
    // Nobody beyond the link is asked or told under an address of the link.
    if version == 6 && words[0] >> 22 == 0xfe80 >> 6 {
        return false;
    }
    let mut i = 0;
    while i < MAX_HELD {
        if (i as u32) < d.held && addr::same(&d.addresses[i], &source) {
            return false;
        }
        i += 1;
    }
    true
}

/// Refuses a packet that comes from somebody else, in every mode. Returns 0.
#[inline(never)]
fn imitated(skb: *mut __sk_buff) -> i32 {
    let Some(cfg) = config(skb) else { return 0 };
    let mut p = MaybeUninit::uninit();
    let p = slot::zero(&mut p);
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    frame_read(skb, p);
    w.target = p.to();
    packet::deny_out(cfg, p, w, &Decision::refusal(reason::HEADERS));
    work::release(w);
    0
}

/// Judges a packet whose socket bears no mark. Returns whether it passes.
#[inline(never)]
fn unmarked(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is valid for the run.
    let (kind, len, tagged) = unsafe {
        let kind = u16::from_be((*skb).protocol as u16);
        (kind, (*skb).len, (*skb).vlan_present)
    };
    let nobodys = packet::sk(skb).is_null();
    if nobodys && kind == ARP && len <= SHORTEST && tagged == 0 {
        return 1;
    }
    if !nobodys && exempt(skb) {
        return 1;
    }
    let Some(cfg) = config(skb) else { return 0 };
    // The headers of what is forwarded need not be in the linear part. If they cannot be brought there,
    // they cannot be read below.
    let wanted = if len < HEADERS { len } else { HEADERS };
    // SAFETY: the context is valid for the run; no pointer into the packet is held.
    unsafe { bpf_skb_pull_data(skb, wanted) };
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    let passes = judged(cfg, skb, w, kind);
    work::release(w);
    passes
}

/// Configuration of the slot at the other end of the interface; of no slot when that is gone.
#[inline(always)]
fn config(skb: *mut __sk_buff) -> Option<&'static SlotConfig> {
    if let Some(d) = device(skb)
        && let Some(cfg) = slot::copied(d.index)
        && cfg.slot == d.slot
    {
        return Some(cfg);
    }
    slot::copied(0)
}

/// Whether the socket was made in a cgroup that the loader trusts.
#[inline(always)]
fn exempt(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid for the run; the answer is 0 for a socket without a cgroup.
    let cgroup = unsafe { bpf_skb_cgroup_id(skb) };
    cgroup != 0 && EXEMPT.get_ptr(&cgroup).is_some()
}

/// Nobody's: the kernel made it for itself, or it was forwarded.
const NOBODY: u32 = 0;
/// A connection that is no full socket, not yet or not any more: the kernel's handshake.
const HALF: u32 = 1;
/// A socket of user space.
const SOMEBODY: u32 = 2;

/// Whose packet it is.
#[inline(always)]
fn whose(skb: *mut __sk_buff, w: &mut Work) -> u32 {
    if packet::sk(skb).is_null() {
        return NOBODY;
    }
    let sk = packet::full(skb);
    if sk.is_null() {
        return HALF;
    }
    // SAFETY: a full socket.
    if unsafe { (*sk).state } == tcp::state::LISTEN {
        return NOBODY;
    }
    // The verifier takes no arithmetic on a socket; through memory its address becomes a number.
    slot::store(&mut w.socket, sk as u64);
    slot::shared(w);
    let [off, bit] = SK_KERN.load();
    let flags: u8 = slot::kernel_field(w.socket as *mut _, off);
    if flags as u32 & bit != 0 {
        NOBODY
    } else {
        SOMEBODY
    }
}

#[inline(always)]
fn judged(cfg: &SlotConfig, skb: *mut __sk_buff, w: &mut Work, kind: u16) -> i32 {
    let whose = whose(skb, w);
    let ip = kind == IPV4 || kind == IPV6;
    if ip && whose == NOBODY && frame_is_upkeep(skb) != 0 {
        return 1;
    }
    let mut p = MaybeUninit::uninit();
    let p = slot::zero(&mut p);
    if !ip || frame_read(skb, p) == 0 {
        if ip {
            w.target = packet::glimpse(&Linear::of(skb, ETHERNET as usize));
        } else {
            slot::clear(&mut w.target.ip);
            w.target.port = 0;
            w.target.proto = 0;
        }
        return refuse(cfg, p, w);
    }
    w.target = p.to();
    let handshake = p.wire.proto == IPPROTO_TCP && p.payload == 0;
    match whose {
        NOBODY => by_policy(cfg, skb, p, w),
        HALF if handshake => 1,
        _ if forged(skb) => {
            packet::deny_out(cfg, p, w, &Decision::refusal(reason::HEADERS));
            0
        }
        _ => refuse(cfg, p, w),
    }
}

/// Whether a packet keeps the link going. A global function, see [`crate::emit`].
#[unsafe(no_mangle)]
extern "C" fn frame_is_upkeep(skb: *mut __sk_buff) -> i32 {
    upkeep::is(&Linear::of(skb, ETHERNET as usize)) as i32
}

/// As [`packet::packet_read`], behind an Ethernet header.
#[unsafe(no_mangle)]
extern "C" fn frame_read(skb: *mut __sk_buff, p: *mut Packet) -> i32 {
    // SAFETY: a pointer to a whole value or null.
    match unsafe { p.as_mut() } {
        Some(p) => packet::read(skb, p, ETHERNET),
        None => 0,
    }
}

/// A packet of no socket goes where policy lets it go; there is no flow to record, so it is counted.
#[inline(never)]
fn by_policy(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, w: &mut Work) -> i32 {
    let now = slot::now();
    let dns = p.wire.dst_port == PORT_DNS || p.wire.src_port == PORT_DNS;
    if cfg.slot == 0 {
        return refuse(cfg, p, w);
    }
    if dns && p.wire.proto == IPPROTO_UDP && query::datagram_passes(cfg, skb, p) == 0 {
        return 0;
    }
    // The queries of a stream cannot be followed without its socket.
    if dns && p.wire.proto == IPPROTO_TCP && p.payload != 0 && decide::enforcing(cfg, now) {
        return refuse(cfg, p, w);
    }
    // The kernel's own answer to a proxy that goes on when the socket is gone; whom the connection was meant for nobody
    // knows any more.
    if p.wire.proto == IPPROTO_TCP && p.payload == 0 && decide::is_proxy(cfg, &p.wire.dst) {
        return 1;
    }
    let j = judge::egress(cfg, now, w, false);
    if j.internal() || !packet::understood(p.wire.proto) {
        return refuse(cfg, p, w);
    }
    let mut d = j.decision();
    if d.verdict != VERDICT_DENIED {
        slot::trouble(cfg.index, trouble::NO_SOCKET);
        return 1;
    }
    d.reason = reason::UNJUDGED;
    packet::deny_out(cfg, p, w, &d);
    0
}

/// Refuses what nobody has judged, unless the mode lets it pass; a record either way.
#[inline(never)]
fn refuse(cfg: &SlotConfig, p: &Packet, w: &mut Work) -> i32 {
    let now = slot::now();
    let d = if cfg.slot == 0 {
        Decision::refusal(reason::UNJUDGED)
    } else {
        decide::kind(cfg, now, reason::UNJUDGED)
    };
    if d.verdict == VERDICT_DENIED {
        packet::deny_out(cfg, p, w, &d);
        return 0;
    }
    // Each packet is a flow of its own: there is nowhere to remember it.
    work::fill(w, cfg, &d, now);
    work::source(&mut w.flow, &p.wire.src, p.wire.src_port);
    emit::opened(w.flow.index);
    slot::clear(&mut w.tail);
    w.tail.end = now;
    w.tail.bytes_out = p.payload;
    w.tail.packets_out = 1;
    w.tail.cut_rule = abi::NO_RULE;
    w.tail.close = close::LIVE as u64;
    emit::end(&w.flow, &w.tail);
    1
}
