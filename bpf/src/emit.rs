//! The end of a flow: it gets its number, and its record leaves through a ring or, when there is no
//! room or the slot is over its rate, as part of a folded row. Nothing is dropped.

use crate::{
    maps::{FOLDS, RING_ALLOWED, RING_DENIED, Work, ZERO_ROW},
    slot::{add, clear, control, copy, metrics, now, swap, tail},
};
use abi::{
    DIRECTION_INGRESS, FLOW_WOULD_DENY, Flow, FlowEvent, FoldKey, FoldRow, SlotConfig, SlotMetrics,
    Tail, VERDICT_ALLOWED, VERDICT_DENIED, VERDICTS, close, reason, trouble,
};
use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit},
};
use core::{ffi::c_void, mem::MaybeUninit};

const AVAIL_DATA: u64 = 0;
const RING_SIZE: u64 = 1;
/// The rate window is 2^30 ns.
#[cfg(not(feature = "other"))]
const WINDOW_SHIFT: u64 = 30;
/// Something that tells the object apart which tests of the upgrade use.
#[cfg(feature = "other")]
const WINDOW_SHIFT: u64 = 29;

/// Hands out the record of an ended flow.
#[inline(always)]
pub(crate) fn end(f: &Flow, t: &Tail) -> i32 {
    flow_end(f, t)
}

/// A global function, like the others with C linkage here: the kernel verifies it once, for any
/// arguments, and not again on every path that leads to it.
#[unsafe(no_mangle)]
extern "C" fn flow_end(f: *const Flow, t: *const Tail) -> i32 {
    // SAFETY: pointers to whole values or null, as the verifier checks at every call.
    let (Some(f), Some(t)) = (unsafe { f.as_ref() }, unsafe { t.as_ref() }) else {
        return 0;
    };
    let Some(m) = metrics(f.index) else { return 0 };
    let verdict = verdict_index(f.verdict);
    // SAFETY: `m` points to a map value; indexes are bounded here.
    unsafe {
        let seq = add(&raw mut (*m).ended[verdict], 1);
        add(&raw mut (*m).bytes_in[verdict], t.bytes_in);
        add(&raw mut (*m).bytes_out[verdict], t.bytes_out);
        if f.verdict == VERDICT_DENIED {
            let why = f.reason as usize;
            if why < reason::COUNT {
                add(&raw mut (*m).denied[why], 1);
            }
        }
        if over_rate(m, t.end) {
            add(&raw mut (*m).trouble[trouble::RATE], 1);
            fold(f, t, m);
        } else if !submit(f, t, seq) {
            add(&raw mut (*m).trouble[trouble::RING_FULL], 1);
            fold(f, t, m);
        }
    }
    0
}

/// Counts the opening of a flow.
#[inline(always)]
pub(crate) fn opened(index: u32) {
    if let Some(m) = metrics(index) {
        // SAFETY: `m` points to a map value.
        add(unsafe { &raw mut (*m).opened }, 1);
    }
}

/// The flow of a work buffer that is over as it begins: counted as opened, ended and recorded.
#[inline(always)]
pub(crate) fn refused(w: &mut Work) -> i32 {
    flow_refused(w)
}

#[unsafe(no_mangle)]
extern "C" fn flow_refused(w: *mut Work) -> i32 {
    // SAFETY: a pointer to a whole value or null.
    let Some(w) = (unsafe { w.as_mut() }) else {
        return 0;
    };
    opened(w.flow.index);
    clear(&mut w.tail);
    // What a mode let pass is told too, and has no end.
    let denied = w.flow.verdict == VERDICT_DENIED;
    w.tail.close = if denied { close::DENIED } else { close::LIVE } as u64;
    w.tail.cut_rule = abi::NO_RULE;
    w.tail.end = now();
    w.flow.start = w.tail.end;
    end(&w.flow, &w.tail);
    0
}

/// A refusal for which no working memory was left: counted, and folded into the catch-all row.
#[inline(always)]
pub(crate) fn refused_blindly(cfg: &SlotConfig) -> i32 {
    flow_refused_blindly(cfg.index, cfg.policy)
}

#[unsafe(no_mangle)]
extern "C" fn flow_refused_blindly(index: u32, policy: u32) -> i32 {
    let Some(m) = metrics(index) else { return 0 };
    let verdict = VERDICT_DENIED as usize;
    // SAFETY: `m` points to a map value; indexes are constants in range.
    unsafe {
        add(&raw mut (*m).opened, 1);
        add(&raw mut (*m).ended[verdict], 1);
        add(&raw mut (*m).folded[verdict], 1);
        add(&raw mut (*m).denied[reason::NO_STATE as usize], 1);
        add(&raw mut (*m).trouble[trouble::SCRATCH_BUSY], 1);
        let mut t = MaybeUninit::uninit();
        let t = tail(&mut t, close::DENIED, now());
        if let Some(c) = control() {
            let row = &raw mut (*m).catch_all[(c.fold_epoch & 1) as usize][verdict];
            add_to(row, t, abi::NO_RULE, policy);
        }
    }
    0
}

#[inline(always)]
fn verdict_index(v: u8) -> usize {
    if (v as usize) < VERDICTS {
        v as usize
    } else {
        VERDICT_DENIED as usize
    }
}

/// Whether this record is one too many in its window. A race at the turn of a window lets a few
/// more through, which the ring has room for.
#[inline(always)]
unsafe fn over_rate(m: *mut SlotMetrics, t: u64) -> bool {
    // SAFETY: `m` points to a map value.
    unsafe {
        let window = t >> WINDOW_SHIFT;
        if (*m).rate_window < window && swap(&raw mut (*m).rate_window, window) != window {
            swap(&raw mut (*m).rate_count, 0);
        }
        add(&raw mut (*m).rate_count, 1) >= (*m).rate as u64
    }
}

#[inline(always)]
fn submit(f: &Flow, t: &Tail, seq: u64) -> bool {
    if f.verdict == VERDICT_ALLOWED {
        write((&raw const RING_ALLOWED).cast_mut().cast(), f, t, seq)
    } else {
        write((&raw const RING_DENIED).cast_mut().cast(), f, t, seq)
    }
}

/// Submits without waking the reader, who comes on a timer; wakes it when the ring is half full.
#[inline(always)]
fn write(ring: *mut c_void, f: &Flow, t: &Tail, seq: u64) -> bool {
    // SAFETY: `ring` is one of the two ring maps; the reserved memory is written whole, then given
    // back exactly once.
    unsafe {
        let ev = bpf_ringbuf_reserve(ring, size_of::<FlowEvent>() as u64, 0).cast::<FlowEvent>();
        if ev.is_null() {
            return false;
        }
        copy(&mut (*ev).flow, f);
        copy(&mut (*ev).tail, t);
        (*ev).seq = seq;
        let half_full =
            bpf_ringbuf_query(ring, AVAIL_DATA) * 2 > bpf_ringbuf_query(ring, RING_SIZE);
        let flags = if half_full {
            BPF_RB_FORCE_WAKEUP
        } else {
            BPF_RB_NO_WAKEUP
        };
        bpf_ringbuf_submit(ev.cast(), flags as u64);
    }
    true
}

/// Adds a flow to the row of its destination, or to the catch-all row of its verdict.
#[inline(never)]
fn fold(f: &Flow, t: &Tail, m: *mut SlotMetrics) -> i32 {
    let Some(c) = control() else { return 0 };
    if m.is_null() {
        return 0;
    }
    let epoch = c.fold_epoch;
    let verdict = verdict_index(f.verdict);
    let key = FoldKey {
        slot: f.slot,
        epoch,
        dst: if f.direction == DIRECTION_INGRESS {
            f.src
        } else {
            f.dst
        },
        port: f.dst_port,
        proto: f.proto,
        verdict: verdict as u8,
        reason: f.reason,
        direction: f.direction,
        flags: f.flags & FLOW_WOULD_DENY,
        pad: 0,
    };
    let parity = (epoch & 1) as usize;
    // SAFETY: `m` points to a map value, `parity` and `verdict` are in range, rows are map values.
    unsafe {
        add(&raw mut (*m).folded[verdict], 1);
        if let Some(row) = FOLDS.get_ptr_mut(&key) {
            return add_to(row, t, f.rule, f.policy);
        }
        let used = &raw mut (*m).folds_used[parity];
        if add(used, 1) < (*m).max_folds as u64
            && let Some(zero) = ZERO_ROW.get(0)
        {
            let inserted = FOLDS.insert(&key, zero, BPF_NOEXIST as u64).is_ok();
            if let Some(row) = FOLDS.get_ptr_mut(&key) {
                if !inserted {
                    add(used, u64::MAX);
                }
                return add_to(row, t, f.rule, f.policy);
            }
        }
        add(used, u64::MAX);
        add(&raw mut (*m).trouble[trouble::FOLDS_FULL], 1);
        add_to(
            &raw mut (*m).catch_all[parity][verdict],
            t,
            abi::NO_RULE,
            f.policy,
        )
    }
}

#[inline(always)]
unsafe fn add_to(row: *mut FoldRow, t: &Tail, rule: u32, policy: u32) -> i32 {
    // SAFETY: `row` points to a map value.
    unsafe {
        if add(&raw mut (*row).count, 1) == 0 {
            (*row).first = t.end;
            (*row).rule = rule;
            (*row).policy = policy;
        }
        add(&raw mut (*row).bytes_in, t.bytes_in);
        add(&raw mut (*row).bytes_out, t.bytes_out);
        add(&raw mut (*row).packets_in, t.packets_in);
        add(&raw mut (*row).packets_out, t.packets_out);
        (*row).last = t.end;
    }
    0
}
