//! Working memory: a run claims a buffer of its CPU and gives it back.

use crate::{
    maps::{WORK, WORKS, Work},
    slot::{clear, copy, swap},
};
use abi::{FLOW_HAS_SRC, FLOW_PROXIED, Flow, Ip, SlotConfig};
use bpf::decide::Decision;

/// Claims a buffer. With [`WORKS`] runs nested on one CPU there is none left, and the caller refuses.
#[inline(always)]
pub(crate) fn claim() -> Option<&'static mut Work> {
    let mut i = 0;
    while i < WORKS {
        // SAFETY: a map value; whoever takes `busy` owns the rest until giving it back.
        if let Some(w) = WORK.get_ptr_mut(i).map(|p| unsafe { &mut *p })
            && swap(&raw mut w.busy, 1) == 0
        {
            w.number = i;
            w.flow.pid = 0;
            clear(&mut w.flow.comm);
            clear(&mut w.flow.src);
            w.flow.src_port = 0;
            w.flow.sock_type = 0;
            w.name_count = 0;
            clear(&mut w.names);
            return Some(w);
        }
        i += 1;
    }
    None
}

/// Gives a buffer back.
#[inline(always)]
pub(crate) fn release(w: &mut Work) {
    swap(&raw mut w.busy, 0);
}

/// Fills in the flow to the target as it opens; task and source are left as they are.
#[inline(always)]
pub(crate) fn fill(w: &mut Work, cfg: &SlotConfig, d: &Decision, now: u64) {
    w.flow.flags = 0;
    fill_again(w, cfg, d, now);
}

/// The same where the buffer has the flow as it was: what it was meant for stays if that is led to the target.
#[inline(always)]
pub(crate) fn fill_again(w: &mut Work, cfg: &SlotConfig, d: &Decision, now: u64) {
    let led = w.flow.flags & FLOW_PROXIED;
    if led == 0 {
        copy(&mut w.flow.dst, &w.target.ip);
        w.flow.dst_port = w.target.port;
    }
    copy(&mut w.flow.names, &w.names);
    w.flow.name_count = w.name_count as u8;
    w.flow.proto = w.target.proto;
    begin(&mut w.flow, cfg, d, now);
    w.flow.flags |= led;
    w.flow.direction = abi::DIRECTION_EGRESS;
}

/// Fills in everything of a flow but the two ends, the task and the names.
#[inline(always)]
pub(crate) fn begin(f: &mut Flow, cfg: &SlotConfig, d: &Decision, now: u64) {
    f.start = now;
    f.slot = cfg.slot;
    f.index = cfg.index;
    f.policy = cfg.policy;
    f.rule = d.rule;
    f.generation = cfg.generation;
    f.verdict = d.verdict;
    f.reason = d.reason;
    f.flags = d.flags | abi::FLOW_HAS_DST;
    f.pad = 0;
    f.pad2 = 0;
}

/// Notes the local end of an egress flow.
#[inline(always)]
pub(crate) fn source(f: &mut Flow, ip: &Ip, port: u16) {
    f.src = *ip;
    f.src_port = port;
    f.flags |= FLOW_HAS_SRC;
}
