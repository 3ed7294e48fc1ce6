//! The way to the proxy and back: where a connection is led, and what the agent sees of it.

use crate::tcp_flow;
use abi::{FLOW_PROXIED, Ip};
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use bpf::addr;
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
    if let Some((ip, port)) = asked_for(&ctx) {
        to4(&ctx, &ip, port);
    }
    1
}

#[cgroup_sock_addr(getpeername6)]
pub(crate) fn getpeername6(ctx: SockAddrContext) -> i32 {
    if let Some((ip, port)) = asked_for(&ctx) {
        to6(&ctx, &ip, port);
    }
    1
}

/// What a connection that was led to the proxy had been opened to.
#[inline(always)]
fn asked_for(ctx: &SockAddrContext) -> Option<(Ip, u16)> {
    // SAFETY: the context is valid for the run.
    let sk: *mut c_void = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }.cast();
    let st = tcp_flow::storage(sk, false)?;
    (st.flow.flags & FLOW_PROXIED != 0).then_some((st.flow.dst, st.flow.dst_port))
}
