//! DNS on the wire: what may be asked of a trusted resolver, and that nobody inside answers for one.

use crate::{
    dgram, emit, judge, learn,
    maps::{SCRATCH, SCRATCHES, Scratch},
    packet::{self, Packet},
    slot::{self, swap},
    work,
};
use abi::{
    FLOW_WOULD_DENY, Ip, MODE_OBSERVE, SLOT_DEFAULT_ALLOW, SLOT_LOOPBACK_IS_EGRESS, SlotConfig,
    TcpFlow, VERDICT_DENIED, reason, trouble,
};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use bpf::{
    decide::{self, PORT_DNS},
    dns,
    tcp::{self, FLAG_SYN},
};
use core::ffi::c_void;

/// Messages looked for in one TCP segment.
const MAX_MESSAGES: usize = 4;

/// Claims a scratch buffer of this CPU.
#[inline(always)]
fn claim(at: &mut u32) -> Option<&'static mut Scratch> {
    let mut i = 0;
    while i < SCRATCHES {
        // SAFETY: a map value; whoever takes `busy` owns the rest until giving it back.
        if let Some(s) = SCRATCH.get_ptr_mut(i).map(|p| unsafe { &mut *p })
            && swap(&raw mut s.busy, 1) == 0
        {
            *at = i;
            return Some(s);
        }
        i += 1;
    }
    None
}

#[inline(always)]
fn release(s: &mut Scratch) {
    swap(&raw mut s.busy, 0);
}

/// The claimed buffer, in a callback that gets its number.
#[inline(always)]
pub(crate) fn scratch(ctx: *mut c_void) -> Option<&'static mut Scratch> {
    // SAFETY: the callbacks' context is the number on the caller's stack; the buffer is claimed.
    SCRATCH
        .get_ptr_mut(unsafe { *ctx.cast::<u32>() })
        .map(|p| unsafe { &mut *p })
}

/// Copies a message into the buffer. The length goes through a register the optimiser cannot see
/// through, so that the verifier meets the bound it needs.
#[inline(always)]
fn load(skb: *mut __sk_buff, s: &mut Scratch, off: u32, len: u64) -> bool {
    let len = core::hint::black_box(len);
    if len == 0 || len > dns::MAX_ANSWER as u64 {
        return false;
    }
    // SAFETY: the buffer holds `len` bytes.
    unsafe { bpf_skb_load_bytes(skb.cast(), off, s.message.as_mut_ptr().cast(), len as u32) == 0 }
}

unsafe extern "C" fn name_callback(_i: u32, ctx: *mut c_void) -> i64 {
    let Some(s) = scratch(ctx) else { return 1 };
    i64::from(!dns::name_step(&s.message, &mut s.text, &mut s.question))
}

unsafe extern "C" fn reverse_callback(i: u32, ctx: *mut c_void) -> i64 {
    let Some(s) = scratch(ctx) else { return 1 };
    if i >= s.question.len {
        return 1;
    }
    dns::reverse_step(&s.text, s.question.len, i, &mut s.name.reversed);
    0
}

/// Reads the question's name; leaves it reversed in `s.name`.
#[inline(always)]
fn read_question(s: &mut Scratch, at: &mut u32, len: u32) -> bool {
    s.question = dns::NameScan::new(dns::HEADER, len);
    slot::clear(&mut s.name);
    slot::shared(s);
    // SAFETY: callbacks of the right type; their context is on this stack.
    unsafe {
        bpf_loop(
            dns::TEXT as u32 + 64,
            name_callback as *mut c_void,
            core::ptr::from_mut(at).cast(),
            0,
        );
        if s.question.state != dns::DONE {
            return false;
        }
        bpf_loop(
            abi::NAME_BYTES as u32,
            reverse_callback as *mut c_void,
            core::ptr::from_mut(at).cast(),
            0,
        );
    }
    s.name.len = s.question.len;
    true
}

/// Whether a rule could allow something under the name in the buffer. A global function, see [`crate::emit`].
#[unsafe(no_mangle)]
extern "C" fn name_passes(policy: u32, s: *mut Scratch) -> i32 {
    // SAFETY: a pointer to a whole value or null, as the verifier checks at every call.
    match unsafe { s.as_mut() } {
        Some(s) => judge::name_may_pass(policy, &s.name.reversed, &mut s.key) as i32,
        None => 0,
    }
}

/// Result of [`judge_query`]: nothing to refuse.
const PASS: u8 = 0xff;

/// Judges the query in the buffer. Returns the reason to refuse it, or [`PASS`].
#[inline(always)]
fn judge_query(cfg: &SlotConfig, s: &mut Scratch, at: &mut u32, len: u32, to: &Ip) -> u8 {
    if !dns::is_query(&s.message, len)
        || !read_question(s, at, len)
        || !dns::query_ends_well(&s.message, &s.question)
    {
        return reason::QUERY;
    }
    // What may be asked of it, the name server says itself, in words.
    if cfg.flags & SLOT_DEFAULT_ALLOW != 0
        || decide::is_name_server(cfg, to)
        || name_passes(cfg.policy, s) != 0
    {
        return PASS;
    }
    reason::NAME
}

/// Refuses a query, with the name in the record where there is one. Returns whether the mode lets it
/// pass all the same.
#[inline(never)]
fn refuse(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, why: u8, name: u64) -> i32 {
    let d = decide::kind(cfg, slot::now(), why);
    let passes = d.verdict != VERDICT_DENIED;
    if passes && d.flags & FLOW_WOULD_DENY == 0 {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = p.to();
    let st = dgram::storage(packet::sk(skb), false);
    if !st.is_null() {
        dgram::recall(st, w);
        if !passes {
            dgram::take_back(st, &w.target);
        }
    }
    if name != 0 {
        w.names[0] = name;
        w.name_count = 1;
    }
    packet::deny_out(cfg, p, w, &d);
    work::release(w);
    passes as i32
}

/// Refuses a packet that leaves from a trusted resolver's own address and port: nobody inside answers
/// for it.
#[inline(never)]
pub(crate) fn imitates_resolver(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    if decide::is_resolver(cfg, &p.wire.src) {
        return refuse(cfg, skb, p, reason::RESOLVER, 0);
    }
    1
}

/// Whether an outgoing datagram to port 53 may leave: a trusted resolver is asked only for names that a
/// rule could allow.
#[inline(never)]
pub(crate) fn datagram_passes(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    let w = &p.wire;
    if w.dst_port != PORT_DNS || !decide::is_resolver(cfg, &w.dst) {
        return 1;
    }
    if cfg.mode == MODE_OBSERVE || decide::bypassed(cfg, slot::now()) {
        return 1;
    }
    let mut at = 0;
    let Some(s) = claim(&mut at) else {
        slot::trouble(cfg.index, trouble::SCRATCH_BUSY);
        return refuse(cfg, skb, p, reason::QUERY, 0);
    };
    let mut why = reason::QUERY;
    if p.payload <= dns::MAX_QUERY as u64
        && packet::datagrams(skb) == 1
        && load(skb, s, w.payload, p.payload)
    {
        why = judge_query(cfg, s, &mut at, p.payload as u32, &w.dst);
    }
    let name = if why == reason::NAME {
        learn::note_refused(cfg, s)
    } else {
        0
    };
    release(s);
    if why == PASS {
        1
    } else {
        refuse(cfg, skb, p, why, name)
    }
}

/// Whether a segment of a DNS stream may leave: only whole queries, each judged. A retransmission of
/// what was judged passes.
#[inline(never)]
pub(crate) fn stream_passes(
    cfg: &SlotConfig,
    skb: *mut __sk_buff,
    p: &Packet,
    st: &mut TcpFlow,
) -> i32 {
    if p.payload == 0 {
        return 1;
    }
    if cfg.mode == MODE_OBSERVE || decide::bypassed(cfg, slot::now()) {
        // What passes unread moves the boundary nobody knows where to.
        st.dns_synced = 0;
        return 1;
    }
    // Data in a SYN (RFC 7413) begins behind it.
    let syn = (p.wire.tcp_flags & FLAG_SYN != 0) as u32;
    let first = p.wire.seq.wrapping_add(syn);
    let end = first.wrapping_add(p.payload as u32);
    if st.dns_synced != 0 {
        if !tcp::after(end, st.dns_next) {
            return 1;
        }
        if first != st.dns_next {
            return refuse(cfg, skb, p, reason::QUERY, 0);
        }
    }
    let mut at = 0;
    let Some(s) = claim(&mut at) else {
        slot::trouble(cfg.index, trouble::SCRATCH_BUSY);
        return refuse(cfg, skb, p, reason::QUERY, 0);
    };
    let why = judge_stream(cfg, skb, p, s, &mut at);
    let name = if why == reason::NAME {
        learn::note_refused(cfg, s)
    } else {
        0
    };
    release(s);
    if why != PASS && refuse(cfg, skb, p, why, name) == 0 {
        return 0;
    }
    st.dns_next = end;
    st.dns_synced = 1;
    1
}

/// Judges the messages of a segment, which must fill it.
#[inline(always)]
fn judge_stream(
    cfg: &SlotConfig,
    skb: *mut __sk_buff,
    p: &Packet,
    s: &mut Scratch,
    at: &mut u32,
) -> u8 {
    let mut off = 0u64;
    let mut i = 0;
    while i < MAX_MESSAGES {
        let len = message_len(skb, p, off);
        if len == 0 || off + 2 + len > p.payload || len > dns::MAX_QUERY as u64 {
            return reason::QUERY;
        }
        if !load(skb, s, p.wire.payload + off as u32 + 2, len) {
            return reason::QUERY;
        }
        let why = judge_query(cfg, s, at, len as u32, &p.wire.dst);
        off += 2 + len;
        if why != PASS || off == p.payload {
            return why;
        }
        i = slot::next(i);
    }
    reason::QUERY
}

/// Length field of the message at `off` (RFC 1035 §4.2.2), 0 when it is not there.
#[inline(always)]
fn message_len(skb: *mut __sk_buff, p: &Packet, off: u64) -> u64 {
    let mut len = [0u8; 2];
    // SAFETY: two bytes on the stack.
    let r = unsafe {
        bpf_skb_load_bytes(
            skb.cast(),
            p.wire.payload + off as u32,
            len.as_mut_ptr().cast(),
            2,
        )
    };
    if r == 0 {
        u16::from_be_bytes(len) as u64
    } else {
        0
    }
}

/// Whether an answer may have been made inside of a container: packets that are put on its loopback by hand pass no
/// program before they arrive. A resolver on loopback itself cannot be told apart from that.
#[inline(always)]
fn made_here(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> bool {
    cfg.flags & SLOT_LOOPBACK_IS_EGRESS == 0 && packet::from_within(skb, p)
}

/// Learns from an answer that belongs to a live flow of ours to a trusted resolver.
#[inline(never)]
pub(crate) fn learn_datagram(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    let st = dgram::storage(packet::sk(skb), false);
    if st.is_null() || !dgram::is_ours(st, &p.from()) || made_here(cfg, skb, p) {
        return 0;
    }
    learn_message(cfg, skb, p.wire.payload, p.payload)
}

/// Learns from the answers on a DNS stream that came whole in one segment.
#[inline(never)]
pub(crate) fn learn_stream(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    if made_here(cfg, skb, p) {
        return 0;
    }
    let mut off = 0;
    let mut i = 0;
    while i < MAX_MESSAGES {
        let len = message_len(skb, p, off);
        if len == 0 || off + 2 + len > p.payload {
            break;
        }
        learn_message(cfg, skb, p.wire.payload + off as u32 + 2, len);
        off += 2 + len;
        i = slot::next(i);
    }
    0
}

#[inline(never)]
fn learn_message(cfg: &SlotConfig, skb: *mut __sk_buff, off: u32, len: u64) -> i32 {
    let len = if len > dns::MAX_ANSWER as u64 {
        dns::MAX_ANSWER as u64
    } else {
        len
    };
    let mut at = 0;
    let Some(s) = claim(&mut at) else {
        slot::trouble(cfg.index, trouble::SCRATCH_BUSY);
        return 0;
    };
    if load(skb, s, off, len) && dns::is_answer(&s.message, len as u32) {
        if read_question(s, &mut at, len as u32) {
            learn::answer(cfg, s, &mut at);
        } else {
            slot::trouble(cfg.index, trouble::ANSWER_MALFORMED);
        }
    }
    release(s);
    0
}
