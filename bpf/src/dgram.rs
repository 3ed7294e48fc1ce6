//! Flows of datagram sockets: a table of peers in socket storage, guarded by a spin lock, because
//! senders on several CPUs and the receive path meet in it. No helper is called under the lock.

use crate::{
    dgram_end, emit,
    maps::{DGRAM_FLOWS, DgramFlows, Peer, Work},
    slot,
};
use abi::{
    DGRAM_PEERS, DIRECTION_EGRESS, DIRECTION_INGRESS, DgramPeer, FLOW_HAS_SRC, FLOW_LIFTED,
    FLOW_PROXIED, Flow, Ip, PEER_FREE, PEER_OPEN, PEER_QUIET, PEER_TRIED, SlotConfig, close,
};
use aya_ebpf::helpers::generated::{bpf_sk_storage_get, bpf_spin_lock, bpf_spin_unlock};
use bpf::{
    addr,
    decide::{self, Decision},
};
use core::{ffi::c_void, mem::MaybeUninit};
use zerocopy::FromZeros;

/// Storage of a socket, made if need be.
#[inline(always)]
pub(crate) fn storage(sk: *mut c_void, create: bool) -> *mut DgramFlows {
    if sk.is_null() {
        return core::ptr::null_mut();
    }
    // SAFETY: `sk` is a socket pointer from a context.
    unsafe {
        bpf_sk_storage_get(
            (&raw const DGRAM_FLOWS).cast_mut().cast(),
            sk,
            core::ptr::null_mut(),
            create as u64,
        )
        .cast()
    }
}

/// What a packet adds to a flow.
#[derive(Clone, Copy, FromZeros)]
pub(crate) struct Add {
    /// Our end of the packet.
    pub(crate) local: Ip,
    pub(crate) local_port: u64,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) inbound: u64,
    pub(crate) now: u64,
}

impl Add {
    /// An opening without a packet.
    #[inline(always)]
    pub(crate) fn nothing(now: u64, to: &mut MaybeUninit<Self>) -> &mut Self {
        let add = slot::zero(to);
        add.now = now;
        add
    }
}

/// Whether an entry is about this peer. Of an accepted flow the peer is the source.
#[inline(always)]
pub(crate) fn is_about(p: &DgramPeer, peer: &Peer) -> bool {
    p.state != PEER_FREE
        && p.flow.proto == peer.proto
        && p.peer_port == peer.port
        && addr::same(&p.peer, &peer.ip)
}

/// Whether the entry's flow is the one in the making: of what is led to one place, only what was asked for tells.
#[inline(always)]
fn goes_on(p: &DgramPeer, w: &Work) -> bool {
    is_about(p, &w.target)
        && ((p.flow.flags | w.flow.flags) & FLOW_PROXIED == 0
            || addr::same(&p.flow.dst, &w.flow.dst))
}

/// Whether the flow's judgement still stands.
#[inline(always)]
pub(crate) fn stands(f: &Flow, cfg: &SlotConfig, now: u64) -> bool {
    f.generation == cfg.generation && (f.flags & FLOW_LIFTED == 0 || decide::bypassed(cfg, now))
}

/// Whether a live flow to this peer exists and its judgement stands, or is not for `sendmsg` to renew: the peer began
/// it, so that it is judged otherwise than what the agent sends of its own accord. Reads without the lock: what
/// it lets pass is checked again, under the lock, when the packet leaves.
#[inline(always)]
pub(crate) fn is_open(sk: *mut c_void, cfg: &SlotConfig, peer: &Peer) -> bool {
    let st = storage(sk, false);
    if st.is_null() {
        return false;
    }
    let mut i = 0;
    while i < DGRAM_PEERS {
        // SAFETY: a map value, the index is in range.
        let p = unsafe { &(*st).peers[i] };
        let live = p.state == PEER_OPEN || p.state == PEER_TRIED;
        if live && is_about(p, peer) && p.flow.flags & FLOW_PROXIED == 0 {
            return p.flow.direction == DIRECTION_INGRESS
                || p.flow.generation == cfg.generation && p.flow.flags & FLOW_LIFTED == 0;
        }
        i = slot::next(i);
    }
    false
}

/// Notes where a socket is aimed by `connect`, after ending the flows it had.
#[inline(always)]
pub(crate) fn aim(sk: *mut c_void, w: &mut Work) -> bool {
    let st = storage(sk, true);
    if st.is_null() {
        return false;
    }
    dgram_end::end_all(st, close::REPLACED, &mut w.evicted, &mut w.tail);
    let mut add = MaybeUninit::uninit();
    place(st, w, PEER_QUIET, Add::nothing(w.flow.start, &mut add));
    true
}

/// Result of [`count`]: no entry.
pub(crate) const UNKNOWN: u32 = 0;
/// The packet was counted.
pub(crate) const COUNTED: u32 = 1;
/// The packet was counted, and is the first of what `sendmsg` announced.
pub(crate) const OPENED: u32 = 4;
/// The entry is quiet, its flow begins (again) with this packet.
pub(crate) const QUIET: u32 = 2;
/// The entry's judgement is out of date.
pub(crate) const STALE: u32 = 3;

/// Counts a packet for its peer if there is a live flow whose judgement stands; otherwise says what
/// there is.
#[inline(never)]
pub(crate) fn count(st: *mut DgramFlows, peer: &Peer, cfg: &SlotConfig, add: &Add) -> u32 {
    if st.is_null() {
        return UNKNOWN;
    }
    let mut result = UNKNOWN;
    // SAFETY: `st` is a map value; its lock is taken and given back on one path; indexes in range.
    unsafe {
        bpf_spin_lock(&raw mut (*st).lock);
        let mut i = 0;
        while i < DGRAM_PEERS {
            let p = &mut (*st).peers[i];
            if is_about(p, peer) {
                let current = stands(&p.flow, cfg, add.now);
                if p.state == PEER_OPEN {
                    result = if current { COUNTED } else { STALE };
                } else {
                    result = if current && p.state == PEER_TRIED {
                        OPENED
                    } else {
                        QUIET
                    };
                }
                if result == OPENED {
                    p.flow.src = add.local;
                    p.flow.src_port = add.local_port as u16;
                    p.flow.flags |= FLOW_HAS_SRC;
                }
                if result == COUNTED || result == OPENED {
                    p.state = PEER_OPEN;
                    tally(p, add);
                }
                break;
            }
            i = slot::next(i);
        }
        bpf_spin_unlock(&raw mut (*st).lock);
    }
    if result == OPENED {
        emit::opened(cfg.index);
        result = COUNTED;
    }
    result
}

/// Takes an attempt back: its packet was refused, and that refusal is its record.
#[inline(always)]
pub(crate) fn take_back(st: *mut DgramFlows, peer: &Peer) {
    // SAFETY: as in `count`.
    unsafe {
        bpf_spin_lock(&raw mut (*st).lock);
        let mut i = 0;
        while i < DGRAM_PEERS {
            let p = &mut (*st).peers[i];
            if p.state == PEER_TRIED && is_about(p, peer) {
                p.state = PEER_QUIET;
                break;
            }
            i = slot::next(i);
        }
        bpf_spin_unlock(&raw mut (*st).lock);
    }
}

/// Copies the entry of a peer into the work buffer. Returns whether there is one.
#[inline(always)]
pub(crate) fn recall(st: *mut DgramFlows, w: &mut Work) -> bool {
    let mut found = false;
    // SAFETY: as in `count`.
    unsafe {
        bpf_spin_lock(&raw mut (*st).lock);
        let mut i = 0;
        while i < DGRAM_PEERS {
            let p = &(*st).peers[i];
            if is_about(p, &w.target) {
                slot::copy(&mut w.flow, &p.flow);
                found = true;
                break;
            }
            i = slot::next(i);
        }
        bpf_spin_unlock(&raw mut (*st).lock);
    }
    found
}

#[inline(always)]
fn tally(p: &mut DgramPeer, add: &Add) {
    p.last = add.now;
    if add.inbound != 0 {
        p.bytes_in += add.bytes;
        p.packets_in += add.packets;
    } else {
        p.bytes_out += add.bytes;
        p.packets_out += add.packets;
    }
}

/// Confirms a live flow under the current configuration and counts the packet.
#[inline(always)]
pub(crate) fn confirm(st: *mut DgramFlows, peer: &Peer, generation: u32, d: &Decision, add: &Add) {
    // SAFETY: as in `count`.
    unsafe {
        bpf_spin_lock(&raw mut (*st).lock);
        let mut i = 0;
        while i < DGRAM_PEERS {
            let p = &mut (*st).peers[i];
            if is_about(p, peer) {
                p.flow.generation = generation;
                p.flow.flags = decide::lifted(p.flow.flags, d);
                tally(p, add);
                break;
            }
            i = slot::next(i);
        }
        bpf_spin_unlock(&raw mut (*st).lock);
    }
}

/// Puts the flow of the work buffer, whose target is its peer, into the table, with the packet that
/// opens it. A live flow to the same peer goes on; a ninth peer takes the place of the least recent one, whose record leaves.
#[inline(never)]
pub(crate) fn place(st: *mut DgramFlows, w: &mut Work, state: u32, add: &Add) -> i32 {
    if st.is_null() {
        return 0;
    }
    let idle_ns = slot::config().udp_idle_ns;
    let mut opens = state == PEER_OPEN;
    let mut evicted = PEER_FREE;
    // SAFETY: as in `count`; `choose` stays below `DGRAM_PEERS`.
    unsafe {
        bpf_spin_lock(&raw mut (*st).lock);
        let at = choose(&(*st).peers, &w.target);
        let p = &mut (*st).peers[at & (DGRAM_PEERS - 1)];
        let same = goes_on(p, w);
        if p.state == PEER_OPEN && same {
            opens = false;
        } else {
            if p.state == PEER_OPEN || (p.state == PEER_TRIED && !same) {
                slot::copy(&mut w.evicted, &p.flow);
                dgram_end::copy_counts(&mut w.tail, p);
                evicted = p.state;
            }
            slot::copy(&mut p.flow, &w.flow);
            slot::copy(&mut p.peer, &w.target.ip);
            p.peer_port = w.target.port;
            p.state = state;
            p.idle_ns = idle_ns;
            slot::store(&mut p.bytes_in, 0);
            slot::store(&mut p.bytes_out, 0);
            slot::store(&mut p.packets_in, 0);
            slot::store(&mut p.packets_out, 0);
        }
        tally(p, add);
        bpf_spin_unlock(&raw mut (*st).lock);
    }
    if opens {
        emit::opened(w.flow.index);
    }
    if evicted == PEER_TRIED {
        emit::opened(w.evicted.index);
    }
    if evicted != PEER_FREE {
        w.tail.close = close::REPLACED as u64;
        emit::end(&w.evicted, &w.tail);
    }
    0
}

/// The entry of this peer, else a free one, else the least recent quiet one, else the least recent.
#[inline(always)]
fn choose(peers: &[DgramPeer; DGRAM_PEERS], peer: &Peer) -> usize {
    let mut best = 0;
    let mut rank = u64::MAX;
    let mut i = 0;
    while i < DGRAM_PEERS {
        let p = &peers[i];
        // The boot clock stays far below 2^62 ns (146 years).
        let r = if is_about(p, peer) {
            return i;
        } else if p.state == PEER_FREE {
            1
        } else if p.state == PEER_QUIET {
            2 + p.last
        } else {
            (1 << 62) + p.last
        };
        if r < rank {
            rank = r;
            best = i;
        }
        i = slot::next(i);
    }
    best
}

/// Whom the agent asked for, where what it sends is led to this peer.
#[inline(always)]
pub(crate) fn asked_for(sk: *mut c_void, peer: &Peer) -> Option<(Ip, u16)> {
    let st = storage(sk, false);
    if st.is_null() {
        return None;
    }
    let mut i = 0;
    while i < DGRAM_PEERS {
        // SAFETY: a map value, the index is in range. Read without the lock: another flow may be there by now, to the
        // same place.
        let p = unsafe { &(*st).peers[i] };
        if is_about(p, peer) && p.flow.flags & FLOW_PROXIED != 0 {
            return Some((p.flow.dst, p.flow.dst_port));
        }
        i = slot::next(i);
    }
    None
}

/// Whether the live flow to a peer was opened by us.
#[inline(always)]
pub(crate) fn is_ours(st: *mut DgramFlows, peer: &Peer) -> bool {
    let mut i = 0;
    while i < DGRAM_PEERS {
        // SAFETY: a map value, the index is in range; the packet was counted to this entry.
        let p = unsafe { &(*st).peers[i] };
        if p.state == PEER_OPEN && is_about(p, peer) {
            return p.flow.direction == DIRECTION_EGRESS;
        }
        i = slot::next(i);
    }
    false
}
