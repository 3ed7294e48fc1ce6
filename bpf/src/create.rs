//! `sock_create`: no socket of a kind whose traffic the other hooks would not understand.

use crate::{emit, handover, slot, work};
use abi::{
    FLOW_WOULD_DENY, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, SLOT_ICMP_SOCKETS,
    VERDICT_DENIED, hook, reason,
};
use aya_ebpf::{EbpfContext as _, bindings::bpf_sock, macros::cgroup_sock, programs::SockContext};
use bpf::decide::{self, Decision};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;

#[cgroup_sock(sock_create)]
pub(crate) fn sock_create(ctx: SockContext) -> i32 {
    let sk = ctx.as_ptr().cast::<bpf_sock>();
    // SAFETY: the context is a `bpf_sock`.
    let (kind, proto) = unsafe { ((*sk).type_, (*sk).protocol) };
    if handover::elsewhere(slot::config(), hook::SOCK_CREATE) {
        return 1;
    }
    let tcp = kind == SOCK_STREAM && proto == IPPROTO_TCP as u32;
    let udp = kind == SOCK_DGRAM && proto == IPPROTO_UDP as u32;
    if (tcp || udp) && slot::config().slot != 0 {
        return 1;
    }
    unusual(kind, proto)
}

/// Everything but a plain TCP or UDP socket, and any socket of a cgroup without a slot.
#[inline(always)]
fn unusual(kind: u32, proto: u32) -> i32 {
    let cfg = slot::config();
    let icmp = proto == IPPROTO_ICMP as u32 || proto == IPPROTO_ICMPV6 as u32;
    if kind == SOCK_DGRAM && icmp && cfg.flags & SLOT_ICMP_SOCKETS != 0 {
        return 1;
    }
    let now = slot::now();
    let d = if cfg.slot == 0 {
        Decision::refusal(reason::NOT_ENROLLED)
    } else if kind == SOCK_RAW {
        decide::kind(cfg, now, reason::RAW_SOCKET)
    } else {
        decide::kind(cfg, now, reason::PROTOCOL)
    };
    let passes = d.verdict != VERDICT_DENIED;
    if passes && d.flags & FLOW_WOULD_DENY == 0 {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    slot::clear(&mut w.target.ip);
    w.target.port = 0;
    // MPTCP is 262, the only number in use above a byte.
    w.target.proto = if proto > 0xff {
        IPPROTO_TCP
    } else {
        proto as u8
    };
    work::fill(w, cfg, &d, now);
    slot::stamp_task(&mut w.flow);
    w.flow.flags = d.flags;
    w.flow.sock_type = kind as u8;
    emit::refused(w);
    work::release(w);
    passes as i32
}
