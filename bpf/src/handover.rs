//! What a set of programs does while another one takes over, or while it takes over from another; see
//! [`abi::Handled`].

use crate::{
    dgram, dgram_end, emit,
    maps::{HANDLED, HEIR_NOTES, HEIRS, Work},
    packet::{self, Packet},
    packet_tcp,
    slot::{self, add},
    tcp_flow, work,
};
use abi::{
    FLOW_DNS, FLOW_MID_STREAM, FLOW_PROXIED, Flow, HEIR_FLOW, HEIR_SENT, HeirKey, IPPROTO_UDP,
    PEER_OPEN, PHASE_ALONE, PHASE_GONE, PHASE_HEIR, PHASE_LEAVING, PHASE_WAITING, SlotConfig,
    TCP_HEIR, VERDICT_DENIED, close, hook, reason,
};
use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::generated::bpf_get_socket_cookie,
};
use bpf::decide::{self, PORT_DNS};
use core::{ffi::c_void, mem::MaybeUninit};

/// Whether another set handles this event: then the program lets it pass and does nothing.
#[inline(always)]
pub(crate) fn elsewhere(cfg: &SlotConfig, at: usize) -> bool {
    cfg.phase != PHASE_ALONE && handled_elsewhere(cfg.phase as u32, cfg.index, at as u32) != 0
}

/// A global function, see [`crate::emit`].
#[unsafe(no_mangle)]
extern "C" fn handled_elsewhere(phase: u32, index: u32, at: u32) -> u32 {
    if phase == PHASE_GONE as u32 {
        return 1;
    }
    let at = at as usize;
    if at >= hook::COUNT {
        return 0;
    }
    let Some(marks) = HANDLED.get_ptr_mut(index) else {
        return (phase == PHASE_WAITING as u32) as u32;
    };
    // SAFETY: a map value, the index is in range.
    let left = unsafe { &raw mut (*marks).left[at] };
    if phase == PHASE_LEAVING as u32 {
        add(left, 1);
        return 0;
    }
    // What is nested between our two looks takes its own mark away again.
    // SAFETY: as above; volatile, or the look is joined with others.
    let marked = unsafe { left.read_volatile() } != 0;
    if marked {
        add(left, u64::MAX);
    }
    (marked || phase != PHASE_HEIR as u32) as u32
}

/// Ends the flow of a TCP packet that passes a set that is gone: in the same event the successor takes
/// the kernel's counters as its beginning, so nothing is counted twice.
#[inline(never)]
pub(crate) fn leave_tcp(skb: *mut __sk_buff) -> i32 {
    let Some(st) = tcp_flow::storage(packet::sk(skb), false) else {
        return 1;
    };
    if st.live == 0 {
        return 1;
    }
    packet::counts(skb, &mut st.mid[1]);
    if slot::swap(&raw mut st.live, 0) == 1 {
        let mut t = MaybeUninit::uninit();
        let t = slot::tail(&mut t, close::UPGRADED, slot::now());
        tcp_flow::fill(t, st, &st.mid[1]);
        emit::end(&st.flow, t);
    }
    1
}

/// Ends the flow of a datagram that passes a set that is gone. What `sendmsg` announced here becomes the
/// successor's.
#[inline(never)]
pub(crate) fn leave_dgram(skb: *mut __sk_buff, p: &Packet, inbound: u32) -> i32 {
    let st = dgram::storage(packet::sk(skb), false);
    if st.is_null() {
        return 1;
    }
    // Without memory to work in the iterator ends it.
    let Some(w) = work::claim() else { return 1 };
    w.target = if inbound != 0 { p.from() } else { p.to() };
    dgram::take_back(st, &w.target);
    if dgram_end::cut(st, w) {
        w.tail.close = close::UPGRADED as u64;
        w.tail.end = slot::now();
        emit::end(&w.evicted, &w.tail);
    }
    work::release(w);
    1
}

/// Notes who has begun to talk over UDP, since the loader may not have read the flow of the other set yet
/// when this one has to judge the answer. TCP comes again, and needs no note.
///
/// A global function, see [`crate::emit`]. The packet passes.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn handover_note(
    skb: *mut __sk_buff,
    cfg: *const SlotConfig,
    p: *const Packet,
    inbound: u32,
) -> i32 {
    // SAFETY: pointers to whole values or null, as the verifier checks at every call.
    let (Some(cfg), Some(p)) = (unsafe { cfg.as_ref() }, unsafe { p.as_ref() }) else {
        return 1;
    };
    let peer = if inbound != 0 { p.from() } else { p.to() };
    if peer.proto != IPPROTO_UDP || decide::internal(cfg, &peer.ip, peer.port) {
        return 1;
    }
    let mut k = MaybeUninit::uninit();
    // SAFETY: the context of the running program.
    let k = key(&mut k, unsafe { bpf_get_socket_cookie(skb.cast()) });
    k.peer = peer.ip;
    k.port = peer.port;
    k.proto = peer.proto;
    k.kind = HEIR_SENT;
    // Without memory to work in, or room in the map, the answer is judged as if nobody had asked.
    let Some(w) = work::claim() else { return 1 };
    if inbound == 0 {
        let _ = HEIR_NOTES.insert(&*k, &w.flow, BPF_NOEXIST as u64);
    } else if HEIR_NOTES.get_ptr(&*k).is_none() && !packet::from_within(skb, p) {
        let now = slot::now();
        let mut d = decide::ingress(cfg, now);
        if d.verdict != VERDICT_DENIED {
            d.reason = reason::MID_STREAM;
            packet::fill_in(cfg, p, w, &d, now);
            w.flow.generation = 0;
            k.kind = HEIR_FLOW;
            let _ = HEIR_NOTES.insert(&*k, &w.flow, BPF_NOEXIST as u64);
        }
    }
    work::release(w);
    1
}

/// Takes over the flow of this socket, if a set before this one had it, into `to`. Its generation is
/// none of ours: it is judged before anything of it passes.
#[inline(always)]
fn inherit(cfg: &SlotConfig, key: &HeirKey, to: &mut Flow) -> bool {
    let taken = if let Some(heir) = HEIRS.get_ptr(key) {
        // SAFETY: a map value.
        slot::copy(to, unsafe { &*heir });
        HEIRS.remove(key).is_ok()
    } else if let Some(heir) = HEIR_NOTES.get_ptr(key) {
        // SAFETY: a map value. It may be another's as soon as it is removed, so it is copied before.
        slot::copy(to, unsafe { &*heir });
        HEIR_NOTES.remove(key).is_ok()
    } else {
        false
    };
    // Whoever removes it has it.
    if !taken {
        to.pid = 0;
        slot::clear(&mut to.comm);
        return false;
    }
    to.start = slot::now();
    to.policy = cfg.policy;
    true
}

#[inline(always)]
fn key(to: &mut MaybeUninit<HeirKey>, cookie: u64) -> &mut HeirKey {
    let key = slot::zero(to);
    key.cookie = cookie;
    key
}

/// Takes over the TCP flow of this packet's socket; 1 when there was one.
#[inline(never)]
pub(crate) fn inherit_tcp(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, inbound: u32) -> i32 {
    let mut k = MaybeUninit::uninit();
    // SAFETY: the context of the running program.
    let k = key(&mut k, unsafe { bpf_get_socket_cookie(skb.cast()) });
    if HEIRS.get_ptr(&*k).is_none() {
        return 0;
    }
    let Some(st) = tcp_flow::storage(packet::sk(skb), true) else {
        return 0;
    };
    if !inherit(cfg, k, &mut st.flow) {
        return 0;
    }
    let older = st.flow.flags & FLOW_MID_STREAM != 0;
    st.flow.flags |= FLOW_MID_STREAM;
    tcp_flow::begin(st);
    if st.flow.flags & FLOW_PROXIED != 0 {
        let (to, port) = if st.flow.flags & FLOW_DNS != 0 {
            (decide::name_server(cfg, &st.flow.dst), PORT_DNS)
        } else {
            (
                decide::proxy(cfg, &st.flow.dst),
                decide::proxy_port(st.flow.dst_port),
            )
        };
        if let Some(to) = to {
            tcp_flow::lead(st, to, port);
        }
    }
    packet_tcp::from_here(skb, p, st, inbound);
    if !older {
        st.hints |= TCP_HEIR;
    }
    1
}

/// Takes over the datagram flow of a socket to the target of the work buffer; 1 when there was one. Apart
/// from its callers, whose stacks are full.
#[inline(never)]
pub(crate) fn inherit_dgram(
    cfg: &SlotConfig,
    ctx: *mut c_void,
    sk: *mut c_void,
    w: &mut Work,
) -> i32 {
    let mut k = MaybeUninit::uninit();
    // SAFETY: the context of the running program.
    let k = key(&mut k, unsafe { bpf_get_socket_cookie(ctx) });
    k.peer = w.target.ip;
    k.port = w.target.port;
    k.proto = w.target.proto;
    if HEIRS.get_ptr(&*k).is_none() && HEIR_NOTES.get_ptr(&*k).is_none() {
        return 0;
    }
    let st = dgram::storage(sk, true);
    if st.is_null() || !inherit(cfg, k, &mut w.flow) {
        return 0;
    }
    let mut add = MaybeUninit::uninit();
    dgram::place(
        st,
        w,
        PEER_OPEN,
        dgram::Add::nothing(w.flow.start, &mut add),
    );
    1
}
