//! `connect4/6` and `sendmsg4/6`: policy before anything is sent, and the opening of flows.
//!
//! A UDP flow begins with its first datagram, not with `connect`: C libraries connect a UDP socket to
//! every address of a name to sort them, and send nothing.

use crate::{
    dgram, dgram_end, emit, handover, judge,
    maps::{Peer, Work},
    redirect, slot, tcp_flow, work,
};
use abi::{
    FLOW_PROXIED, IPPROTO_TCP, IPPROTO_UDP, Ip, PEER_TRIED, SlotConfig, VERDICT_DENIED, hook,
    reason,
};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use bpf::{
    addr,
    decide::{self, Decision},
};
use core::{ffi::c_void, mem::MaybeUninit};

#[cgroup_sock_addr(connect4)]
pub(crate) fn connect4(ctx: SockAddrContext) -> i32 {
    let passes = connect(&ctx, addr4(&ctx));
    if passes == PROXIED
        && let Some(st) = tcp_flow::storage(socket(&ctx), false)
    {
        redirect::to4(&ctx, &st.wire, st.wire_port);
    }
    (passes != 0) as i32
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    let passes = connect(&ctx, addr6(&ctx));
    if passes == PROXIED
        && let Some(st) = tcp_flow::storage(socket(&ctx), false)
    {
        redirect::to6(&ctx, &st.wire, st.wire_port);
    }
    (passes != 0) as i32
}

/// What [`connect`] says of a flow that passes, and goes to the proxy.
const PROXIED: i32 = 2;

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, addr4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(&ctx, addr6(&ctx))
}

#[inline(always)]
fn addr4(ctx: &SockAddrContext) -> Ip {
    // SAFETY: the context is valid for the run.
    addr::from_v4(u32::from_be(unsafe { (*ctx.sock_addr).user_ip4 }))
}

#[inline(always)]
fn addr6(ctx: &SockAddrContext) -> Ip {
    // SAFETY: the context is valid for the run.
    unsafe { slot::context_addr((&raw const (*ctx.sock_addr).user_ip6).cast()) }
}

/// Where this call goes. Protocols without ports have port 0.
#[inline(always)]
fn target(cfg: &SlotConfig, ctx: &SockAddrContext, ip: Ip) -> Peer {
    // SAFETY: the context is valid for the run.
    let (port, proto) = unsafe { ((*ctx.sock_addr).user_port, (*ctx.sock_addr).protocol) };
    let proto = if proto > 0xff {
        IPPROTO_TCP
    } else {
        proto as u8
    };
    let ported = proto == IPPROTO_TCP || proto == IPPROTO_UDP;
    let port = if ported { u16::from_be(port as u16) } else { 0 };
    Peer::new(ip, decide::meant_port(cfg, &ip, proto, port), proto)
}

#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *mut c_void {
    // SAFETY: the context is valid for the run.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }.cast()
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, ip: Ip) -> i32 {
    let cfg = slot::config();
    if handover::elsewhere(cfg, hook::CONNECT) {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    slot::copy(&mut w.target, &target(cfg, ctx, ip));
    slot::stamp_task(&mut w.flow);
    let verdict = judge_connect(cfg, w, socket(ctx));
    work::release(w);
    verdict
}

#[inline(always)]
fn sendmsg(ctx: &SockAddrContext, ip: Ip) -> i32 {
    let cfg = slot::config();
    if handover::elsewhere(cfg, hook::SENDMSG) {
        return 1;
    }
    let to = target(cfg, ctx, ip);
    if cfg.slot != 0 && dgram::is_open(socket(ctx), cfg, &to) {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    slot::copy(&mut w.target, &to);
    // The packet program judges a flow that is taken over.
    let known =
        cfg.slot != 0 && handover::inherit_dgram(cfg, ctx.sock_addr.cast(), socket(ctx), w) != 0;
    let verdict = if known {
        1
    } else {
        slot::stamp_task(&mut w.flow);
        judge_sendmsg(cfg, w, socket(ctx))
    };
    work::release(w);
    verdict
}

/// Refuses, with a record.
#[inline(always)]
fn deny(cfg: &SlotConfig, w: &mut Work, d: &Decision) -> i32 {
    work::fill(w, cfg, d, 0);
    emit::refused(w);
    0
}

#[inline(always)]
fn judge_connect(cfg: &SlotConfig, w: &mut Work, sk: *mut c_void) -> i32 {
    if cfg.slot == 0 {
        return deny(cfg, w, &Decision::refusal(reason::NOT_ENROLLED));
    }
    let now = slot::now();
    let tcp = w.target.proto == IPPROTO_TCP;
    let j = if tcp {
        judge::egress_or_proxy(cfg, now, w, false)
    } else {
        judge::egress(cfg, now, w, false)
    };
    if j.internal() {
        return 1;
    }
    let mut d = j.decision();
    let proxy = decide::proxy(cfg, &w.target.ip);
    let port = decide::proxy_port(w.target.port);
    if proxy.is_none() || port == 0 {
        d = decide::direct(cfg, now, d);
    }
    if d.verdict == VERDICT_DENIED && !j.denied() {
        return deny(cfg, w, &d);
    }
    // A UDP socket may be aimed at an address that is open for something else: nothing is sent yet,
    // and the packet program judges what is.
    if j.denied() && (tcp || !(j.known() && d.reason == reason::DEFAULT)) {
        return deny(cfg, w, &d);
    }
    work::fill(w, cfg, &d, now);
    let kept = if tcp {
        tcp_flow::open(sk, &w.flow)
    } else {
        dgram::aim(sk, w)
    };
    if kept && d.flags & FLOW_PROXIED == 0 {
        return 1;
    }
    if kept
        && let Some(proxy) = proxy
        && let Some(st) = tcp_flow::storage(sk, false)
    {
        tcp_flow::lead(st, proxy, port);
        return PROXIED;
    }
    deny(cfg, w, &Decision::refusal(reason::NO_STATE))
}

/// A live flow to a peer that a newer policy denies ends here: its packets will not come by any more.
#[inline(always)]
fn end_denied(cfg: &SlotConfig, w: &mut Work, sk: *mut c_void, d: &Decision, now: u64) {
    let st = dgram::storage(sk, false);
    if !st.is_null() && dgram_end::cut(st, w) {
        w.tail.cut_rule = d.rule;
        w.tail.cut_policy = cfg.policy;
        w.tail.end = now;
        emit::end(&w.evicted, &w.tail);
    }
}

#[inline(always)]
fn judge_sendmsg(cfg: &SlotConfig, w: &mut Work, sk: *mut c_void) -> i32 {
    if cfg.slot == 0 {
        return deny(cfg, w, &Decision::refusal(reason::NOT_ENROLLED));
    }
    let now = slot::now();
    let j = judge::egress(cfg, now, w, false);
    if j.internal() {
        return 1;
    }
    if j.denied() {
        let d = j.decision();
        end_denied(cfg, w, sk, &d, now);
        return deny(cfg, w, &d);
    }
    work::fill(w, cfg, &j.decision(), now);
    let st = dgram::storage(sk, true);
    if st.is_null() {
        return deny(cfg, w, &Decision::refusal(reason::NO_STATE));
    }
    let mut add = MaybeUninit::uninit();
    dgram::place(st, w, PEER_TRIED, dgram::Add::nothing(now, &mut add));
    1
}
