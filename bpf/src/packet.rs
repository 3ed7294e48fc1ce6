//! `cgroup_skb`: judges what is really on the wire, whatever an earlier hook was told.

use crate::{
    emit, handover,
    maps::{Peer, Work},
    mark, packet_dgram, packet_tcp, slot, work,
};
use abi::{
    DIRECTION_INGRESS, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, PHASE_GONE,
    PHASE_HEIR, SlotConfig, TcpCounts, VERDICT_DENIED, hook, reason,
};
use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_sk_fullsock, bpf_tcp_sock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use bpf::{
    addr,
    decide::{self, Decision},
    wire::{self, Bytes, Wire},
};
use core::{arch::asm, ffi::c_void, mem::MaybeUninit};
use zerocopy::FromZeros;

/// A packet under judgement.
#[derive(FromZeros)]
#[repr(C)]
pub(crate) struct Packet {
    pub(crate) wire: Wire,
    /// Payload behind the transport header.
    pub(crate) payload: u64,
}

/// Direct access to the linear part of a packet, which always holds the headers.
pub(crate) struct Linear {
    data: usize,
    end: usize,
}

impl Linear {
    /// The packet from `base` on, where the IP header is: 0 for programs of cgroups.
    #[inline(always)]
    pub(crate) fn of(skb: *const __sk_buff, base: usize) -> Self {
        // SAFETY: the context is valid for the run.
        let (mut data, mut end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
        // The fields are 32 bits wide and hold pointers: hide that, or they are compared as 32 bit
        // numbers, from which the verifier learns nothing.
        // SAFETY: two moves onto themselves; an empty block would leave line information without an
        // instruction, which the kernel refuses.
        unsafe {
            asm!("{0} = {0}", "{1} = {1}", inout(reg) data, inout(reg) end, options(pure, nomem, nostack));
        }
        Self {
            data: data + base,
            end,
        }
    }

    /// A value at `off`. Network headers are aligned to two bytes at least and the kernel allows
    /// unaligned access where it has BPF at all; the compiler would take it apart into bytes.
    #[inline(always)]
    fn get<T: Copy>(&self, off: u32) -> Option<T> {
        // Three extension headers of 256 words at most; the verifier wants the bound.
        if off > 8192 {
            return None;
        }
        let at = self.data + off as usize;
        if at + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the bytes lie within the packet, checked above.
        Some(unsafe { *(at as *const T) })
    }
}

impl Bytes for Linear {
    #[inline(always)]
    fn byte(&self, off: u32) -> Option<u8> {
        self.get(off)
    }

    #[inline(always)]
    fn half(&self, off: u32) -> Option<u16> {
        self.get(off).map(u16::from_be)
    }

    #[inline(always)]
    fn word(&self, off: u32) -> Option<u32> {
        self.get(off).map(u32::from_be)
    }
}

/// Reads the headers into `p`; 0 when they cannot be followed. A global function, see [`crate::emit`]:
/// behind it every packet looks alike to the verifier.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn packet_read(skb: *mut __sk_buff, p: *mut Packet) -> i32 {
    // SAFETY: a pointer to a whole value or null.
    let Some(p) = (unsafe { p.as_mut() }) else {
        return 0;
    };
    read(skb, p, 0)
}

/// Reads the headers of an IP packet that begins at `base`.
#[inline(always)]
pub(crate) fn read(skb: *mut __sk_buff, p: &mut Packet, base: u32) -> i32 {
    let Some(mut wire) = wire::parse(&Linear::of(skb, base as usize)) else {
        return 0;
    };
    wire.payload += base;
    // SAFETY: the context is valid for the run.
    let len = unsafe { (*skb).len };
    p.payload = len.saturating_sub(wire.payload) as u64;
    p.wire = wire;
    1
}

/// Socket that the packet belongs to.
#[inline(always)]
pub(crate) fn sk(skb: *mut __sk_buff) -> *mut c_void {
    // SAFETY: the context is valid for the run.
    unsafe { (*skb).__bindgen_anon_2.sk }.cast()
}

#[inline(always)]
pub(crate) fn full(skb: *mut __sk_buff) -> *mut bpf_sock {
    let sk = sk(skb).cast::<bpf_sock>();
    if sk.is_null() {
        return sk;
    }
    // SAFETY: a socket pointer from the context.
    unsafe { bpf_sk_fullsock(sk) }
}

/// State of a full socket, 0 for others.
#[inline(always)]
pub(crate) fn socket_state(skb: *mut __sk_buff) -> u32 {
    let sk = full(skb);
    if sk.is_null() {
        return 0;
    }
    // SAFETY: not null.
    unsafe { (*sk).state }
}

/// Writes the kernel's counters of a TCP socket. Returns whether it is one.
#[inline(always)]
pub(crate) fn counts(skb: *mut __sk_buff, c: &mut TcpCounts) -> bool {
    let sk = full(skb);
    if sk.is_null() {
        return false;
    }
    // SAFETY: a full socket; the helper answers NULL for anything but TCP.
    unsafe {
        let t = bpf_tcp_sock(sk);
        if t.is_null() {
            return false;
        }
        c.acked = (*t).bytes_acked;
        c.received = (*t).bytes_received;
        c.segs_in = (*t).segs_in;
        c.segs_out = (*t).segs_out;
        c.snd_nxt = (*t).snd_nxt;
        c.snd_una = (*t).snd_una;
        c.rcv_nxt = (*t).rcv_nxt;
        c.srtt = (*t).srtt_us;
        c.retrans = (*t).total_retrans;
        c.pad = 0;
    }
    true
}

/// Datagrams in this packet: one buffer may hold many (UDP_SEGMENT, UDP_GRO).
#[inline(always)]
pub(crate) fn datagrams(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the context is valid for the run.
    let n = unsafe { (*skb).gso_segs };
    if n == 0 { 1 } else { n as u64 }
}

impl Packet {
    /// Where the packet goes.
    #[inline(always)]
    pub(crate) fn to(&self) -> Peer {
        Peer::new(self.wire.dst, self.wire.dst_port, self.wire.proto)
    }

    /// Where the packet comes from.
    #[inline(always)]
    pub(crate) fn from(&self) -> Peer {
        Peer::new(self.wire.src, self.wire.src_port, self.wire.proto)
    }
}

/// Puts in the ports that were meant, see [`decide::meant_port`]. A global function, see [`crate::emit`]:
/// on a stack of its own, of which the way of a packet has none to spare.
#[unsafe(no_mangle)]
extern "C" fn packet_meant(cfg: *const SlotConfig, p: *mut Packet) -> i32 {
    // SAFETY: pointers to whole values or null, as the verifier checks at every call.
    let (Some(cfg), Some(p)) = (unsafe { cfg.as_ref() }, unsafe { p.as_mut() }) else {
        return 0;
    };
    let w = &mut p.wire;
    w.src_port = decide::meant_port(cfg, &w.src, w.proto, w.src_port);
    w.dst_port = decide::meant_port(cfg, &w.dst, w.proto, w.dst_port);
    1
}

#[cgroup_skb(egress)]
pub(crate) fn egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let cfg = slot::config();
    let passes = judged(cfg, skb);
    if passes == 0 {
        mark::leave(cfg, skb);
    }
    passes
}

#[inline(always)]
fn judged(cfg: &SlotConfig, skb: *mut __sk_buff) -> i32 {
    if handover::elsewhere(cfg, hook::EGRESS) {
        // Guard and backstop of either set ask for a mark of their own.
        mark::leave(cfg, skb);
        return leave(cfg, skb, 0);
    }
    let mut p = MaybeUninit::uninit();
    let p = slot::zero(&mut p);
    if packet_read(skb, p) == 0 {
        return unreadable(cfg, skb);
    }
    if cfg.slot == 0 {
        return refuse_out(cfg, p, reason::NOT_ENROLLED);
    }
    packet_meant(cfg, p);
    if p.wire.proto == IPPROTO_TCP {
        return packet_tcp::egress(cfg, skb, p);
    }
    packet_dgram::egress(cfg, skb, p)
}

#[cgroup_skb(ingress)]
pub(crate) fn ingress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let cfg = slot::config();
    if cfg.slot == 0 {
        return 0;
    }
    if handover::elsewhere(cfg, hook::INGRESS) {
        return leave(cfg, skb, 1);
    }
    let mut p = MaybeUninit::uninit();
    let p = slot::zero(&mut p);
    // What arrives in a shape that cannot be followed is nobody's flow; nothing is learned from it.
    if packet_read(skb, p) == 0 {
        return !decide::enforcing(cfg, slot::now()) as i32;
    }
    packet_meant(cfg, p);
    if p.wire.proto == IPPROTO_TCP {
        return packet_tcp::ingress(cfg, skb, p);
    }
    packet_dgram::ingress(cfg, skb, p)
}

/// A packet that another set of programs handles. If this set has left for good, so has its flow; if it is
/// about to take over, it may have to know of it.
#[inline(never)]
fn leave(cfg: &SlotConfig, skb: *mut __sk_buff, inbound: u32) -> i32 {
    if cfg.phase != PHASE_GONE && cfg.phase != PHASE_HEIR {
        return 1;
    }
    let mut p = MaybeUninit::uninit();
    let p = slot::zero(&mut p);
    if packet_read(skb, p) == 0 {
        return 1;
    }
    if cfg.phase == PHASE_HEIR {
        packet_meant(cfg, p);
        return handover::handover_note(skb, cfg, p, inbound);
    }
    if p.wire.proto == IPPROTO_TCP {
        return handover::leave_tcp(skb);
    }
    handover::leave_dgram(skb, p, inbound)
}

/// A packet whose headers cannot be followed; the record says what can be seen.
#[inline(never)]
pub(crate) fn unreadable(cfg: &SlotConfig, skb: *mut __sk_buff) -> i32 {
    let now = slot::now();
    let d = if cfg.slot == 0 {
        Decision::refusal(reason::NOT_ENROLLED)
    } else {
        decide::kind(cfg, now, reason::HEADERS)
    };
    if d.verdict != VERDICT_DENIED {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = glimpse(&Linear::of(skb, 0));
    work::fill(w, cfg, &d, now);
    emit::refused(w);
    work::release(w);
    0
}

/// Destination and protocol of a packet, without following anything.
#[inline(always)]
pub(crate) fn glimpse(b: &Linear) -> Peer {
    let mut peer = Peer::new(addr::from_halves(0, 0), 0, 0);
    let Some(first) = b.byte(0) else { return peer };
    if first >> 4 == 4 {
        if let (Some(a), Some(n)) = (b.word(16), b.byte(9)) {
            peer.ip = addr::from_v4(a);
            peer.proto = n;
        }
    } else if let (Some(a), Some(n)) = (wire::words(b, 24), b.byte(6)) {
        peer.ip = addr::from_v6(a);
        peer.proto = n;
    }
    peer
}

/// Drops an outgoing packet for a reason that policy has no part in, with a record of its own.
#[inline(never)]
pub(crate) fn refuse_out(cfg: &SlotConfig, p: &Packet, why: u8) -> i32 {
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = p.to();
    deny_out(cfg, p, w, &Decision::refusal(why));
    work::release(w);
    0
}

/// Records the refusal of an outgoing packet to the target of the work buffer, whose flow names the
/// task where one is known.
#[inline(always)]
pub(crate) fn deny_out(cfg: &SlotConfig, p: &Packet, w: &mut Work, d: &Decision) {
    work::fill(w, cfg, d, 0);
    work::source(&mut w.flow, &p.wire.src, p.wire.src_port);
    emit::refused(w);
}

/// Records the refusal of an incoming packet.
#[inline(always)]
pub(crate) fn deny_in(cfg: &SlotConfig, p: &Packet, w: &mut Work, d: &Decision) {
    fill_in(cfg, p, w, d, 0);
    emit::refused(w);
}

/// Fills in a flow that the sender of this packet opens.
#[inline(always)]
pub(crate) fn fill_in(cfg: &SlotConfig, p: &Packet, w: &mut Work, d: &Decision, now: u64) {
    w.target = Peer::new(p.wire.dst, p.wire.dst_port, p.wire.proto);
    work::fill(w, cfg, d, now);
    work::source(&mut w.flow, &p.wire.src, p.wire.src_port);
    w.flow.direction = DIRECTION_INGRESS;
}

/// Whether an arriving packet may have been sent from here under a made-up source: over loopback, from
/// an address that is neither loopback's nor its own destination. An answer to it is egress.
#[inline(always)]
pub(crate) fn from_within(skb: *mut __sk_buff, p: &Packet) -> bool {
    // SAFETY: the context is valid for the run. Loopback has index 1 in every network namespace.
    let lo = unsafe { (*skb).ingress_ifindex } == 1;
    lo && !addr::is_loopback(&p.wire.src) && !addr::same(&p.wire.src, &p.wire.dst)
}

/// Whether packets of this protocol can be judged at all. Others come only from sockets that the
/// policy would have refused, and could carry another packet inside.
#[inline(always)]
pub(crate) fn understood(proto: u8) -> bool {
    proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6
}
