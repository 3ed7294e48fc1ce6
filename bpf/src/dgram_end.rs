//! The end of datagram flows: one at a time under the table's lock, then its record.

use crate::{
    dgram::is_about,
    emit,
    maps::{DgramFlows, Work},
    slot,
};
use abi::{
    DGRAM_PEERS, DgramPeer, FLOW_PROXIED, Flow, PEER_OPEN, PEER_QUIET, PEER_TRIED, Tail, close,
};
use aya_ebpf::helpers::generated::{bpf_spin_lock, bpf_spin_unlock};

/// Copies what a flow has carried so far.
#[inline(always)]
pub(crate) fn copy_counts(t: &mut Tail, p: &DgramPeer) {
    t.end = p.last;
    t.bytes_in = p.bytes_in;
    t.bytes_out = p.bytes_out;
    t.packets_in = p.packets_in;
    t.packets_out = p.packets_out;
    t.rtt_us = 0;
    t.retransmits = 0;
    t.cut_rule = abi::NO_RULE;
    t.cut_policy = 0;
    let led = p.flow.flags & FLOW_PROXIED != 0;
    slot::clear(&mut t.proxy);
    t.proxy_port = 0;
    if led {
        slot::copy(&mut t.proxy, &p.peer);
        t.proxy_port = p.peer_port as u64;
    }
}

/// Cuts the live flow to the target of the work buffer. Returns whether there was one, then to be
/// found in `w.evicted` and `w.tail`.
#[inline(always)]
pub(crate) fn cut(st: *mut DgramFlows, w: &mut Work) -> bool {
    let mut found = false;
    // SAFETY: `st` is a map value; its lock is taken and given back on one path; indexes in range.
    unsafe {
        bpf_spin_lock(&raw mut (*st).lock);
        let mut i = 0;
        while i < DGRAM_PEERS {
            let p = &mut (*st).peers[i];
            if p.state == PEER_OPEN && is_about(p, &w.target) {
                slot::copy(&mut w.evicted, &p.flow);
                copy_counts(&mut w.tail, p);
                p.state = PEER_QUIET;
                found = true;
                break;
            }
            i = slot::next(i);
        }
        bpf_spin_unlock(&raw mut (*st).lock);
    }
    w.tail.close = close::POLICY as u64;
    found
}

/// Result of [`take`]: no live flow.
pub(crate) const GONE: u32 = 0;
/// A live flow that stays.
pub(crate) const LIVE: u32 = 1;
/// The flow was ended.
pub(crate) const TAKEN: u32 = 2;
/// An attempt was ended of which nothing came.
pub(crate) const TAKEN_TRIED: u32 = 3;

/// Copies one live entry; ends it, leaving it quiet, if it has been idle since `before`. Returns
/// [`TAKEN`], [`TAKEN_TRIED`], [`LIVE`] or [`GONE`].
#[inline(always)]
pub(crate) fn take(st: *mut DgramFlows, i: usize, before: u64, f: &mut Flow, t: &mut Tail) -> u32 {
    let mut result = GONE;
    // SAFETY: `st` is a map value; its lock is taken and given back on one path; indexes in range.
    unsafe {
        bpf_spin_lock(&raw mut (*st).lock);
        let p = &mut (*st).peers[i & (DGRAM_PEERS - 1)];
        let tried = p.state == PEER_TRIED;
        if tried || p.state == PEER_OPEN {
            slot::copy(f, &p.flow);
            copy_counts(t, p);
            result = if tried { GONE } else { LIVE };
            if p.last <= before {
                p.state = PEER_QUIET;
                result = if tried { TAKEN_TRIED } else { TAKEN };
            }
        }
        bpf_spin_unlock(&raw mut (*st).lock);
    }
    result
}

/// Ends every live flow of a socket, with `f` and `t` to work in.
#[inline(never)]
pub(crate) fn end_all(st: *mut DgramFlows, why: u8, f: &mut Flow, t: &mut Tail) -> i32 {
    if st.is_null() {
        return 0;
    }
    let now = slot::now();
    let mut i = 0;
    while i < DGRAM_PEERS {
        t.close = why as u64;
        finish(take(st, i, u64::MAX, f, t), f, t, now);
        i = slot::next(i);
    }
    0
}

/// Hands out the record of what [`take`] took.
#[inline(always)]
pub(crate) fn finish(taken: u32, f: &Flow, t: &mut Tail, end: u64) {
    if taken == TAKEN_TRIED {
        emit::opened(f.index);
        t.close = close::UNREACHABLE as u64;
    }
    if taken == TAKEN_TRIED || taken == TAKEN {
        t.end = end;
        emit::end(f, t);
    }
}
