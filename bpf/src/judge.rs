//! From a destination to a decision: the look-ups around `bpf::decide`.

use crate::maps::{
    LEARNED_ADDRS, LEARNED_NAMES, POLICY_ADDRS, POLICY_CHAIN, POLICY_NAMES, WORK, Work,
};
use crate::slot::{clear, copy, shared, store};
use abi::{
    ADDR_NAMES, ChainKey, FLOW_NAMES, LearnedAddrKey, LearnedNameKey, MAX_CHAIN, MODE_OBSERVE,
    NAME_BYTES, NAME_KEY_HEAD_BITS, NameKey, RuleSet, SlotConfig, VERDICT_DENIED,
};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_map_lookup_elem};
use bpf::{
    addr,
    decide::{self, Decision},
};
use core::ffi::c_void;

/// Looks up an LPM trie with one of the ABI's own key types.
#[inline(always)]
unsafe fn lookup<K>(map: *const c_void, key: *const K) -> Option<&'static RuleSet> {
    // SAFETY: the caller passes a trie whose key is `K` and whose value is `RuleSet`; policy entries are
    // written before the configuration that points at them and removed a grace period after.
    unsafe {
        bpf_map_lookup_elem(map.cast_mut(), key.cast::<c_void>().cast_mut())
            .cast::<RuleSet>()
            .as_ref()
    }
}

/// Work buffer of a loop callback, which gets its number.
#[inline(always)]
fn claimed(ctx: *mut c_void) -> Option<&'static mut Work> {
    // SAFETY: the context is the number on the caller's stack, the buffer is claimed by this run.
    WORK.get_ptr_mut(unsafe { *ctx.cast::<u32>() })
        .map(|p| unsafe { &mut *p })
}

/// Runs a callback over the work buffer. `bpf_loop` bodies are verified once, unrolled loops every time.
#[inline(always)]
fn each(times: u32, body: unsafe extern "C" fn(u32, *mut c_void) -> i64, w: &mut Work) {
    let mut number = w.number;
    shared(w);
    // SAFETY: a callback of the right type; its context is on this stack.
    unsafe { bpf_loop(times, body as *mut c_void, (&raw mut number).cast(), 0) };
}

/// Takes what a set says of the target, and the rest of its chain.
#[inline(always)]
fn consider(set: &RuleSet, w: &mut Work, private: bool) {
    w.best = decide::best_of(set, w.target.proto, w.target.port, private, w.best);
    if decide::allows_something(set) {
        w.known = KNOWN;
    }
    w.private = private as u32;
    w.next_set = set.next;
    if set.next != 0 {
        each(MAX_CHAIN as u32 - 1, next_in_chain, w);
    }
}

unsafe extern "C" fn next_in_chain(_i: u32, ctx: *mut c_void) -> i64 {
    let Some(w) = claimed(ctx) else { return 1 };
    let key = ChainKey {
        prefix_len: 64,
        policy: w.policy,
        set: w.next_set,
    };
    // SAFETY: key and map belong together.
    let Some(set) = (unsafe { lookup((&raw const POLICY_CHAIN).cast(), &key) }) else {
        return 1;
    };
    w.best = decide::best_of(set, w.target.proto, w.target.port, w.private != 0, w.best);
    w.next_set = set.next;
    i64::from(set.next == 0)
}

/// Takes what the rules about the target's address say.
#[inline(always)]
fn by_addr(w: &mut Work) {
    let key = addr::key(w.policy, &w.target.ip);
    for (to, word) in w.addr_key.iter_mut().zip(key) {
        store(to, word);
    }
    // SAFETY: the words are those of an `AddrKey`.
    if let Some(set) = unsafe { lookup((&raw const POLICY_ADDRS).cast(), &w.addr_key) } {
        consider(set, w, false);
        // Only names make a destination known beyond the rule that decided.
        w.known = 0;
    }
}

/// The rules that cover a name.
#[inline(always)]
fn set_of(policy: u32, reversed: &[u8; NAME_BYTES], key: &mut NameKey) -> Option<&'static RuleSet> {
    key.prefix_len = NAME_KEY_HEAD_BITS + NAME_BYTES as u32 * 8;
    key.policy = policy;
    copy(&mut key.name, reversed);
    // SAFETY: key and map belong together.
    unsafe { lookup((&raw const POLICY_NAMES).cast(), key) }
}

/// Whether a rule could allow something under this name.
#[inline(always)]
pub(crate) fn name_may_pass(policy: u32, reversed: &[u8; NAME_BYTES], key: &mut NameKey) -> bool {
    let Some(mut set) = set_of(policy, reversed, key) else {
        return false;
    };
    let mut i = 0;
    while i < MAX_CHAIN {
        if decide::allows_something(set) {
            return true;
        }
        if set.next == 0 {
            return false;
        }
        let key = ChainKey {
            prefix_len: 64,
            policy,
            set: set.next,
        };
        // SAFETY: key and map belong together.
        match unsafe { lookup((&raw const POLICY_CHAIN).cast(), &key) } {
            Some(next) => set = next,
            None => return false,
        }
        i += 1;
    }
    false
}

/// Bit of a judgement: loopback of the container's own, not a flow.
const INTERNAL: u64 = 1 << 24;
/// Bit of a judgement: some rule allows another port or protocol of the destination.
const KNOWN: u64 = 1 << 25;

/// A judgement that fits a register.
#[derive(Clone, Copy)]
pub(crate) struct Judgement(u64);

impl Judgement {
    #[inline(always)]
    fn new(d: &Decision, bits: u64) -> Self {
        Self(
            d.verdict as u64
                | (d.reason as u64) << 8
                | (d.flags as u64) << 16
                | bits
                | (d.rule as u64) << 32,
        )
    }

    /// The decision in it.
    #[inline(always)]
    pub(crate) fn decision(self) -> Decision {
        Decision {
            verdict: self.0 as u8,
            reason: (self.0 >> 8) as u8,
            flags: (self.0 >> 16) as u8,
            rule: (self.0 >> 32) as u32,
        }
    }

    /// Loopback of the container's own: passes, and is no flow.
    #[inline(always)]
    pub(crate) fn internal(self) -> bool {
        self.0 & INTERNAL != 0
    }

    /// Some rule allows another port or protocol of the destination.
    #[inline(always)]
    pub(crate) fn known(self) -> bool {
        self.0 & KNOWN != 0
    }

    /// Refused.
    #[inline(always)]
    pub(crate) fn denied(self) -> bool {
        !self.internal() && self.0 as u8 == VERDICT_DENIED
    }
}

/// Judges an egress flow to the target of the work buffer and leaves there the names that led to it.
/// `own`: the names of `w.flow`, found by an earlier judgement, count too; they stay with a flow
/// beyond their TTL. A rule that needs the proxy allows nothing here.
#[inline(always)]
pub(crate) fn egress(cfg: &SlotConfig, now: u64, w: &mut Work, own: bool) -> Judgement {
    Judgement(judge_egress(cfg, now, w, own as u64 * OWN))
}

/// The same for a flow that can be sent to the proxy, or is: its decision says whether it must be.
#[inline(always)]
pub(crate) fn egress_or_proxy(cfg: &SlotConfig, now: u64, w: &mut Work, own: bool) -> Judgement {
    Judgement(judge_egress(cfg, now, w, (own as u64 * OWN) | PROXY))
}

/// Bit of how to judge: the flow's own names count.
const OWN: u64 = 1;
/// Bit of how to judge: there is a way to the proxy.
const PROXY: u64 = 2;
/// Bit of how to judge: it is DNS that is led to the name server.
const LED: u64 = 4;

/// A global function, see [`crate::emit`].
#[unsafe(no_mangle)]
extern "C" fn judge_egress(cfg: *const SlotConfig, now: u64, w: *mut Work, how: u64) -> u64 {
    // SAFETY: pointers to whole values or null, as the verifier checks at every call.
    let (Some(cfg), Some(w)) = (unsafe { cfg.as_ref() }, unsafe { w.as_mut() }) else {
        return VERDICT_DENIED as u64;
    };
    w.name_count = 0;
    clear(&mut w.names);
    if decide::internal(cfg, &w.target.ip, w.target.port) {
        return INTERNAL;
    }
    w.slot = cfg.slot;
    w.policy = cfg.policy;
    w.now = now;
    let led = decide::is_led(cfg, now, &w.target.ip, w.target.proto, w.target.port);
    w.how = how | (led as u64 * LED);
    w.observing = (cfg.mode == MODE_OBSERVE) as u32;
    w.best = decide::NONE;
    w.known = 0;
    by_addr(w);
    let key = LearnedAddrKey {
        slot: cfg.slot,
        pad: 0,
        addr: w.target.ip,
    };
    if let Some(known) = LEARNED_ADDRS.get_ptr(&key) {
        // SAFETY: a map value. A writer changes one reference at a time and clears its expiry first.
        copy(&mut w.learned, unsafe { &*known });
        each(ADDR_NAMES as u32, learned_name, w);
    }
    if w.how & OWN != 0 {
        each(FLOW_NAMES as u32, own_name, w);
    }
    let mut d = decide::egress(
        cfg,
        w.now,
        &w.target.ip,
        w.target.proto,
        w.target.port,
        w.best,
    );
    if w.how & LED != 0 {
        d = decide::led(d);
    }
    if w.how & PROXY == 0 {
        d = decide::direct(cfg, w.now, d);
    }
    Judgement::new(&d, w.known).0
}

unsafe extern "C" fn learned_name(i: u32, ctx: *mut c_void) -> i64 {
    let Some(w) = claimed(ctx) else { return 1 };
    let r = w.learned.names[i as usize & (ADDR_NAMES - 1)];
    if r.hash != 0 && r.expires > w.now {
        by_name(w, r.hash);
    }
    // References are filled from the front and never emptied.
    i64::from(r.hash == 0)
}

unsafe extern "C" fn own_name(i: u32, ctx: *mut c_void) -> i64 {
    let Some(w) = claimed(ctx) else { return 1 };
    let hash = w.flow.names[i as usize & (FLOW_NAMES - 1)];
    if hash != 0 {
        by_name(w, hash);
    }
    i64::from(hash == 0)
}

/// Whether a name was found before: the names that led here and those of the flow overlap.
#[inline(always)]
fn is_noted(w: &Work, hash: u64) -> bool {
    let mut i = 0;
    while i < FLOW_NAMES {
        if w.names[i] == hash {
            return true;
        }
        i += 1;
    }
    false
}

/// Takes what the rules of one name say, and notes the name.
#[inline(always)]
fn by_name(w: &mut Work, hash: u64) {
    let at = w.name_count as usize;
    if at < FLOW_NAMES && !is_noted(w, hash) {
        w.names[at] = hash;
        w.name_count += 1;
    }
    if w.observing != 0 {
        return;
    }
    let key = LearnedNameKey {
        slot: w.slot,
        pad: 0,
        hash,
    };
    // SAFETY: a map value; names are never changed once learned.
    let Some(name) = LEARNED_NAMES.get_ptr(&key).map(|p| unsafe { &*p }) else {
        return;
    };
    let Some(set) = set_of(w.policy, &name.reversed, &mut w.key) else {
        return;
    };
    consider(set, w, addr::is_private(&w.target.ip));
}
