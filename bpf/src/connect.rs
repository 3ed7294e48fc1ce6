//! `connect4/6` and `sendmsg4/6`: policy before anything is sent, and the opening of flows.
//!
//! A UDP flow begins with its first datagram, not with `connect`: C libraries connect a UDP socket to
//! every address of a name to sort them, and send nothing.

use crate::{
    dgram, dgram_end, emit, handover, judge,
    maps::{Peer, Work},
    redirect::{self, addr4, addr6},
    slot, tcp_flow, work,
};
use abi::{
    FLOW_PROXIED, IPPROTO_TCP, IPPROTO_UDP, Ip, PEER_TRIED, SlotConfig, VERDICT_DENIED, hook,
    reason,
};
use aya_ebpf::{bindings::bpf_sock, macros::cgroup_sock_addr, programs::SockAddrContext};
use bpf::{
    addr,
    decide::{self, Decision, PORT_DNS},
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
    named4(&ctx, passes)
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn connect6(ctx: SockAddrContext) -> i32 {
    let passes = connect(&ctx, addr6(&ctx));
    if passes == PROXIED
        && let Some(st) = tcp_flow::storage(socket(&ctx), false)
    {
        redirect::to6(&ctx, &st.wire, st.wire_port);
    }
    named6(&ctx, passes)
}

/// What [`connect`] says of a connection that passes, and goes where its storage says.
const PROXIED: i32 = 2;
/// What is said of datagrams that pass, and go to the name server.
const NAMED: i32 = 3;

/// Aims at the name server what goes there. A hook's answer.
#[inline(always)]
fn named4(ctx: &SockAddrContext, passes: i32) -> i32 {
    if passes == NAMED
        && let Some(to) = decide::name_server(slot::config(), &addr4(ctx))
    {
        redirect::to4(ctx, to, PORT_DNS);
    }
    (passes != 0) as i32
}

#[inline(always)]
fn named6(ctx: &SockAddrContext, passes: i32) -> i32 {
    if passes == NAMED
        && let Some(to) = decide::name_server(slot::config(), &addr6(ctx))
    {
        redirect::to6(ctx, to, PORT_DNS);
    }
    (passes != 0) as i32
}

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn sendmsg4(ctx: SockAddrContext) -> i32 {
    named4(&ctx, sendmsg(&ctx, addr4(&ctx)))
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn sendmsg6(ctx: SockAddrContext) -> i32 {
    named6(&ctx, sendmsg(&ctx, addr6(&ctx)))
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
    if cfg.slot != 0 && (dgram::is_open(socket(ctx), cfg, &to) || is_led_already(ctx, &to)) {
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

/// Whether the socket was connected to whom this goes, which was somebody else when the agent asked. A connected IPv6
/// socket names its peer itself when that is IPv4 (Linux 6.18, `udpv6_sendmsg`).
#[inline(always)]
fn is_led_already(ctx: &SockAddrContext, to: &Peer) -> bool {
    let sk = socket(ctx);
    if to.port != PORT_DNS || sk.is_null() {
        return false;
    }
    // SAFETY: a socket of the context, not null.
    let peer_port = unsafe { (&raw const (*sk.cast::<bpf_sock>()).dst_port).read_volatile() };
    peer_port != 0 && dgram::asked_for(sk, to).is_some()
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
    let names = w.target.port == PORT_DNS;
    let j = if tcp || names {
        judge::egress_or_proxy(cfg, now, w, false)
    } else {
        judge::egress(cfg, now, w, false)
    };
    if j.internal() {
        return 1;
    }
    let mut d = j.decision();
    let (proxy, port) = if names {
        (decide::name_server(cfg, &w.target.ip), PORT_DNS)
    } else {
        (
            decide::proxy(cfg, &w.target.ip),
            decide::proxy_port(w.target.port),
        )
    };
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
    let led = d.flags & FLOW_PROXIED != 0;
    let kept = if tcp {
        tcp_flow::open(sk, &w.flow)
    } else {
        aim(w, if led { proxy } else { None });
        dgram::aim(sk, w)
    };
    if kept && !(led && tcp) {
        return if led { NAMED } else { 1 };
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

/// Makes whom the datagrams go to the target; the flow keeps whom they were meant for.
#[inline(always)]
fn aim(w: &mut Work, at: Option<&Ip>) {
    if let Some(at) = at {
        w.target.ip = *at;
    }
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
    let j = if w.target.port == PORT_DNS {
        judge::egress_or_proxy(cfg, now, w, false)
    } else {
        judge::egress(cfg, now, w, false)
    };
    if j.internal() {
        return 1;
    }
    let mut d = j.decision();
    let server = decide::name_server(cfg, &w.target.ip);
    // Datagrams to IPv6 cannot be sent to IPv4 (Linux 6.18, `udpv6_sendmsg`).
    let there = server.is_some_and(|s| addr::is_v4(s) == addr::is_v4(&w.target.ip));
    if !there {
        d = decide::direct(cfg, now, d);
    }
    if d.verdict == VERDICT_DENIED {
        end_denied(cfg, w, sk, &d, now);
        return deny(cfg, w, &d);
    }
    work::fill(w, cfg, &d, now);
    let led = d.flags & FLOW_PROXIED != 0;
    aim(w, if led { server } else { None });
    let st = dgram::storage(sk, true);
    if st.is_null() {
        return deny(cfg, w, &Decision::refusal(reason::NO_STATE));
    }
    let mut add = MaybeUninit::uninit();
    dgram::place(st, w, PEER_TRIED, dgram::Add::nothing(now, &mut add));
    if led { NAMED } else { 1 }
}
