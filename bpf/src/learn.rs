//! Names learned from the answers of trusted resolvers, each slot within its own quota.

use crate::{
    maps::{LEARNED_ADDRS, LEARNED_NAMES, Scratch},
    query,
    slot::{add, clear, metrics, now, shared, trouble},
};
use abi::{
    ADDR_NAMES, Ip, LearnedAddr, LearnedAddrKey, LearnedNameKey, NAME_BYTES, NameRef, SlotConfig,
    trouble,
};
use aya_ebpf::{bindings::BPF_NOEXIST, helpers::generated::bpf_loop};
use bpf::dns::{self, Step};
use core::ffi::c_void;

/// How long the name of a refused query is kept for its record.
const REFUSED_HOLD_NS: u64 = 60_000_000_000;

/// Learns every address of the answer in the buffer for the name of its question.
#[inline(always)]
pub(crate) fn answer(cfg: &SlotConfig, s: &mut Scratch, at: &mut u32) {
    s.slot = cfg.slot;
    s.index = cfg.index;
    s.now = now();
    s.answer = dns::AnswerScan::new(&s.message, &s.question);
    shared(s);
    // SAFETY: a callback of the right type; its context is on the caller's stack.
    unsafe {
        bpf_loop(
            dns::MAX_STEPS,
            answer_callback as *mut c_void,
            core::ptr::from_mut(at).cast(),
            0,
        )
    };
}

unsafe extern "C" fn answer_callback(_i: u32, ctx: *mut c_void) -> i64 {
    let Some(s) = query::scratch(ctx) else {
        return 1;
    };
    match dns::answer_step(&s.message, &mut s.answer) {
        Step::More => 0,
        Step::Address(ip, ttl) => {
            let expires = s.now + dns::hold_ns(ttl);
            if remember_name(s, expires) {
                remember_addr(s, &ip, expires);
            }
            0
        }
        Step::End => 1,
        Step::Broken => {
            trouble(s.index, trouble::ANSWER_MALFORMED);
            1
        }
    }
}

/// Keeps the name of a refused query for a while, so that its record can show it. Returns its hash,
/// 0 when there was no room.
#[inline(always)]
pub(crate) fn note_refused(cfg: &SlotConfig, s: &mut Scratch) -> u64 {
    s.slot = cfg.slot;
    s.index = cfg.index;
    s.now = now();
    if remember_name(s, s.now + REFUSED_HOLD_NS) {
        s.question.hash
    } else {
        0
    }
}

/// Makes sure that the name in the buffer is in the table. A different name under the same hash is
/// not learned: whoever crafts one only hurts itself.
#[inline(always)]
fn remember_name(s: &mut Scratch, expires: u64) -> bool {
    let key = LearnedNameKey {
        slot: s.slot,
        pad: 0,
        hash: s.question.hash,
    };
    // SAFETY: a map value; `reversed` never changes, `expires` only grows.
    if let Some(known) = LEARNED_NAMES.get_ptr_mut(key).map(|p| unsafe { &mut *p }) {
        if !same_name(&known.reversed, &s.name.reversed) {
            trouble(s.index, trouble::NAME_COLLISION);
            return false;
        }
        if known.expires < expires {
            known.expires = expires;
        }
        return true;
    }
    let Some(m) = metrics(s.index) else {
        return false;
    };
    // SAFETY: `m` points to a map value.
    unsafe {
        if add(&raw mut (*m).names_used, 1) < (*m).max_names as u64 {
            s.name.expires = expires;
            if LEARNED_NAMES
                .insert(key, &s.name, BPF_NOEXIST as u64)
                .is_ok()
            {
                return true;
            }
        }
        add(&raw mut (*m).names_used, u64::MAX);
        add(&raw mut (*m).trouble[trouble::NAMES_FULL], 1);
    }
    false
}

#[inline(always)]
fn same_name(a: &[u8; NAME_BYTES], b: &[u8; NAME_BYTES]) -> bool {
    let mut i = 0;
    while i < NAME_BYTES / 4 {
        let j = i * 4;
        let x = u32::from_ne_bytes([a[j], a[j + 1], a[j + 2], a[j + 3]]);
        let y = u32::from_ne_bytes([b[j], b[j + 1], b[j + 2], b[j + 3]]);
        if x != y {
            return false;
        }
        i += 1;
    }
    true
}

/// Ties the name to an address, in place of itself, of nothing, or of whatever expires first.
#[inline(always)]
fn remember_addr(s: &mut Scratch, ip: &Ip, expires: u64) {
    let key = LearnedAddrKey {
        slot: s.slot,
        pad: 0,
        addr: *ip,
    };
    let fresh = NameRef {
        hash: s.question.hash,
        expires,
    };
    // SAFETY: a map value; see `tie`.
    if let Some(known) = LEARNED_ADDRS.get_ptr_mut(key).map(|p| unsafe { &mut *p }) {
        tie(known, fresh, s);
        return;
    }
    let Some(m) = metrics(s.index) else { return };
    clear(&mut s.addr);
    s.addr.names[0] = fresh;
    // SAFETY: `m` points to a map value.
    unsafe {
        if add(&raw mut (*m).addrs_used, 1) < (*m).max_addrs as u64
            && LEARNED_ADDRS
                .insert(key, &s.addr, BPF_NOEXIST as u64)
                .is_ok()
        {
            return;
        }
        add(&raw mut (*m).addrs_used, u64::MAX);
        add(&raw mut (*m).trouble[trouble::ADDRS_FULL], 1);
    }
}

/// Writes one reference. The expiry goes to zero first, so that a reader never sees the new name
/// with the old time.
#[inline(always)]
fn tie(known: &mut LearnedAddr, fresh: NameRef, s: &Scratch) {
    let mut victim = 0;
    let mut soonest = u64::MAX;
    let mut i = 0;
    while i < ADDR_NAMES {
        let r = &known.names[i];
        if r.hash == fresh.hash {
            if r.expires < fresh.expires {
                known.names[i].expires = fresh.expires;
            }
            return;
        }
        let when = if r.hash == 0 { 0 } else { r.expires };
        if when < soonest {
            soonest = when;
            victim = i;
        }
        i += 1;
    }
    if soonest > s.now {
        trouble(s.index, trouble::NAMES_CROWDED);
    }
    let r = &raw mut known.names[victim & (ADDR_NAMES - 1)];
    // SAFETY: a field of a map value; volatile keeps the order of the three stores.
    unsafe {
        (&raw mut (*r).expires).write_volatile(0);
        (&raw mut (*r).hash).write_volatile(fresh.hash);
        (&raw mut (*r).expires).write_volatile(fresh.expires);
    }
}
