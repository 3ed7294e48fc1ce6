//! The way to the proxy and back: where a connection is led, and what the agent sees of it.

use crate::{dgram, maps::Peer, slot, tcp_flow};
use abi::{FLOW_PROXIED, IPPROTO_TCP, IPPROTO_UDP, Ip};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use bpf::{addr, decide::PORT_DNS};
use core::ffi::c_void;

/// Aims an IPv4 socket.
#[inline(always)]
pub(crate) fn to4(ctx: &SockAddrContext, ip: &Ip, port: u16) {
    let words = addr::words(ip);
    // SAFETY: the context is valid for the run; each field is written by itself, as the verifier wants it.
    unsafe {
        (&raw mut (*ctx.sock_addr).user_ip4).write_volatile(words[3]);
        (&raw mut (*ctx.sock_addr).user_port).write_volatile(port.to_be() as u32);
    }
}

/// Aims an IPv6 socket; IPv4 as mapped.
#[inline(always)]
pub(crate) fn to6(ctx: &SockAddrContext, ip: &Ip, port: u16) {
    let words = addr::words(ip);
    // SAFETY: as above.
    unsafe {
        let to = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
        to.write_volatile(words[0]);
        to.add(1).write_volatile(words[1]);
        to.add(2).write_volatile(words[2]);
        to.add(3).write_volatile(words[3]);
        (&raw mut (*ctx.sock_addr).user_port).write_volatile(port.to_be() as u32);
    }
}

#[cgroup_sock_addr(getpeername4)]
pub(crate) fn getpeername4(ctx: SockAddrContext) -> i32 {
    back4(&ctx)
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    back6(&ctx)
}

#[cgroup_sock_addr(recvmsg4)]
pub(crate) fn recvmsg4(ctx: SockAddrContext) -> i32 {
    back4(&ctx)
}

#[cgroup_sock_addr(recvmsg6)]
pub(crate) fn recvmsg6(ctx: SockAddrContext) -> i32 {
    back6(&ctx)
}

#[inline(always)]
fn back4(ctx: &SockAddrContext) -> i32 {
    if let Some((ip, port)) = asked_for(ctx, addr4(ctx)) {
        to4(ctx, &ip, port);
    }
    1
}

#[inline(always)]
fn back6(ctx: &SockAddrContext) -> i32 {
    if let Some((ip, port)) = asked_for(ctx, addr6(ctx)) {
        to6(ctx, &ip, port);
    }
    1
}

/// The IPv4 address in a context.
#[inline(always)]
pub(crate) fn addr4(ctx: &SockAddrContext) -> Ip {
    // SAFETY: the context is valid for the run.
    addr::from_v4(u32::from_be(unsafe { (*ctx.sock_addr).user_ip4 }))
}

/// The IPv6 address in a context.
#[inline(always)]
pub(crate) fn addr6(ctx: &SockAddrContext) -> Ip {
    // SAFETY: the context is valid for the run.
    unsafe { slot::context_addr((&raw const (*ctx.sock_addr).user_ip6).cast()) }
}

/// What the agent had asked for, where a socket's packets go to and come from another address.
#[inline(always)]
fn asked_for(ctx: &SockAddrContext, at: Ip) -> Option<(Ip, u16)> {
    // SAFETY: the context is valid for the run.
    let (sk, proto, port) = unsafe {
        (
            (*ctx.sock_addr).__bindgen_anon_1.sk,
            (*ctx.sock_addr).protocol,
            u16::from_be((*ctx.sock_addr).user_port as u16),
        )
    };
    let sk: *mut c_void = sk.cast();
    if proto == IPPROTO_TCP as u32 {
        let st = tcp_flow::storage(sk, false)?;
        return (st.flow.flags & FLOW_PROXIED != 0).then_some((st.flow.dst, st.flow.dst_port));
    }
    // Of datagrams only DNS is led elsewhere.
    if port != PORT_DNS {
        return None;
    }
    dgram::asked_for(sk, &Peer::new(at, port, IPPROTO_UDP))
}
