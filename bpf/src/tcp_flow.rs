//! TCP flows: opened by `connect*` or when a connection is accepted, ended by the socket's last state
//! change, with the kernel's own byte counters.

use crate::{dgram, dgram_end, emit, handover, maps::TCP_FLOWS, slot, work};
use abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, FLOW_HAS_SRC, FLOW_MID_STREAM, FLOW_PROXIED, Flow,
    IPPROTO_TCP, Ip, TCP_ESTABLISHED, TCP_HEIR, TCP_SYN_SENT, Tail, TcpCounts, TcpFlow, close,
    hook,
};
use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::bpf_sock_ops,
    helpers::generated::{bpf_sk_storage_get, bpf_skc_to_tcp_sock},
    macros::{cgroup_sock, sock_ops as sock_ops_program},
    programs::{SockContext, SockOpsContext},
};
use bpf::{addr, decide, tcp};
use core::{ffi::c_void, mem::MaybeUninit};

// `include/uapi/linux/bpf.h`.
const OP_CONNECT: u32 = 3;
const OP_ACTIVE_ESTABLISHED: u32 = 4;
const OP_PASSIVE_ESTABLISHED: u32 = 5;
const OP_STATE: u32 = 10;
const FLAG_STATE: i32 = 4;

const AF_INET: u32 = 2;

/// Storage of a socket, made if need be.
#[inline(always)]
pub(crate) fn storage(sk: *mut c_void, create: bool) -> Option<&'static mut TcpFlow> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` is a socket pointer from a context; the value is plain integers. Writers are the
    // socket's owner or write fields of their own (see `TcpFlow`).
    unsafe {
        bpf_sk_storage_get(
            (&raw const TCP_FLOWS).cast_mut().cast(),
            sk,
            core::ptr::null_mut(),
            create as u64,
        )
        .cast::<TcpFlow>()
        .as_mut()
    }
}

/// Starts a flow on a socket that is about to connect, after ending one that never got away.
#[inline(always)]
pub(crate) fn open(sk: *mut c_void, flow: &Flow) -> bool {
    let Some(st) = storage(sk, true) else {
        return false;
    };
    if slot::swap(&raw mut st.live, 0) == 1 {
        let why = if st.hints & TCP_SYN_SENT == 0 {
            close::UNREACHABLE
        } else {
            close::REPLACED
        };
        let mut t = MaybeUninit::uninit();
        let t = slot::tail(&mut t, why, flow.start);
        via(t, st);
        emit::end(&st.flow, t);
    }
    slot::copy(&mut st.flow, flow);
    begin(st);
    true
}

/// Notes in a storage where its flow really goes.
#[inline(always)]
pub(crate) fn lead(st: &mut TcpFlow, to: &Ip, port: u16) {
    st.wire = *to;
    st.wire_port = port;
}

/// Notes in a record which proxy the flow went to.
#[inline(always)]
fn via(t: &mut Tail, st: &TcpFlow) {
    if st.flow.flags & FLOW_PROXIED != 0 {
        t.proxy = st.wire;
        t.proxy_port = st.wire_port as u64;
    }
}

/// Resets everything but the flow in a storage, and counts the flow.
#[inline(always)]
pub(crate) fn begin(st: &mut TcpFlow) {
    slot::store(&mut st.cut, 0);
    slot::store(&mut st.hints, 0);
    slot::store(&mut st.fin_in_seen, 0);
    slot::store(&mut st.dns_synced, 0);
    slot::store(&mut st.wire_port, 0);
    slot::clear(&mut st.wire);
    slot::swap(&raw mut st.live, 1);
    emit::opened(st.flow.index);
}

/// Hands out the record. The caller has taken `live`.
#[inline(never)]
pub(crate) fn end(st: &TcpFlow, c: &TcpCounts, t: &mut Tail) -> i32 {
    fill(t, st, c);
    emit::end(&st.flow, t)
}

/// Puts the kernel's counters into a record.
#[inline(always)]
pub(crate) fn fill(t: &mut Tail, st: &TcpFlow, c: &TcpCounts) {
    t.bytes_out = tcp::bytes_out(st, c);
    t.bytes_in = tcp::bytes_in(st, c);
    let (mut packets_in, mut packets_out) = (c.segs_in, c.segs_out);
    if st.flow.flags & FLOW_MID_STREAM != 0 {
        packets_in = packets_in.wrapping_sub(st.mid[0].segs_in);
        packets_out = packets_out.wrapping_sub(st.mid[0].segs_out);
    }
    t.packets_in = packets_in as u64;
    t.packets_out = packets_out as u64;
    t.rtt_us = c.srtt >> 3;
    t.retransmits = c.retrans;
    via(t, st);
}

#[sock_ops_program]
pub(crate) fn sock_ops(ctx: SockOpsContext) -> u32 {
    let ops = ctx.ops;
    // SAFETY: the context is valid for the run.
    let (op, sk) = unsafe { ((*ops).op, (*ops).__bindgen_anon_2.sk.cast::<c_void>()) };
    match op {
        OP_CONNECT => connecting(ops),
        OP_ACTIVE_ESTABLISHED => {
            if let Some(st) = storage(sk, false) {
                st.hints |= TCP_ESTABLISHED;
            }
        }
        OP_PASSIVE_ESTABLISHED => accepted(ops),
        OP_STATE => state_changed(ops),
        _ => {}
    }
    // 1 leaves the reply as it is; 0 would overrule other programs on the way up.
    1
}

/// A SYN is about to leave: from here on the socket's states are of interest, or a refused or
/// timed-out connection would vanish.
#[inline(never)]
fn connecting(ops: *mut bpf_sock_ops) {
    let ctx = &SockOpsContext::new(ops);
    // SAFETY: the context is valid for the run.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk.cast::<c_void>() };
    let Some(st) = storage(sk, false) else { return };
    st.hints |= TCP_SYN_SENT;
    let (local, port) = local(ops);
    st.flow.src = local;
    st.flow.src_port = port;
    st.flow.flags |= FLOW_HAS_SRC;
    // The call fails only on sockets that are not full, which cannot connect.
    let _ = ctx.set_cb_flags(FLAG_STATE);
}

#[inline(never)]
fn accepted(ops: *mut bpf_sock_ops) {
    let ctx = &SockOpsContext::new(ops);
    // SAFETY: the context is valid for the run.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk.cast::<c_void>() };
    let cfg = slot::config();
    if handover::elsewhere(cfg, hook::ACCEPT) {
        return;
    }
    let now = slot::now();
    let (local, port) = local(ops);
    let (peer, peer_port) = remote(ops);
    if cfg.slot == 0 || decide::internal(cfg, &peer, 0) {
        return;
    }
    // Without storage the packet program denies what this socket sends, and says so.
    let Some(st) = storage(sk, true) else { return };
    let f = &mut st.flow;
    work::begin(f, cfg, &decide::ingress(cfg, now), now);
    f.direction = DIRECTION_INGRESS;
    f.proto = IPPROTO_TCP;
    f.dst = local;
    f.dst_port = port;
    f.pid = 0;
    slot::clear(&mut f.comm);
    slot::clear(&mut f.names);
    f.name_count = 0;
    f.sock_type = 0;
    work::source(f, &peer, peer_port);
    begin(st);
    st.hints = TCP_ESTABLISHED;
    let _ = ctx.set_cb_flags(FLAG_STATE);
}

#[inline(never)]
fn state_changed(ops: *mut bpf_sock_ops) {
    // SAFETY: the context is valid for the run.
    let sk = unsafe { (*ops).__bindgen_anon_2.sk.cast::<c_void>() };
    // SAFETY: the arguments are the old and the new state.
    let (old, new) = unsafe {
        (
            (*ops).__bindgen_anon_1.args[0],
            (*ops).__bindgen_anon_1.args[1],
        )
    };
    if new != tcp::state::CLOSE {
        return;
    }
    let Some(st) = storage(sk, false) else { return };
    if slot::swap(&raw mut st.live, 0) != 1 {
        return;
    }
    let c = counts(ops);
    let mut t = MaybeUninit::uninit();
    let t = slot::tail(
        &mut t,
        tcp::close_reason(st, &c, old, error(sk)),
        slot::now(),
    );
    end(st, &c, t);
}

/// Offset of `sk_err` in `struct sock`; the loader reads it from the kernel's BTF.
#[unsafe(no_mangle)]
static SK_ERR_OFFSET: Global<u32> = Global::new(0);

/// The socket's error.
#[inline(always)]
fn error(sk: *mut c_void) -> u32 {
    // SAFETY: a socket of a TCP hook.
    let sk = unsafe { bpf_skc_to_tcp_sock(sk) };
    if sk.is_null() {
        return 0;
    }
    slot::kernel_field(sk.cast(), SK_ERR_OFFSET.load())
}

#[inline(always)]
fn counts(ops: *mut bpf_sock_ops) -> TcpCounts {
    // SAFETY: the context is valid; each field is read on its own, as the verifier wants it.
    unsafe {
        TcpCounts {
            acked: (&raw const (*ops).bytes_acked).read_volatile(),
            received: (&raw const (*ops).bytes_received).read_volatile(),
            segs_in: (&raw const (*ops).segs_in).read_volatile(),
            segs_out: (&raw const (*ops).segs_out).read_volatile(),
            snd_nxt: (&raw const (*ops).snd_nxt).read_volatile(),
            snd_una: (&raw const (*ops).snd_una).read_volatile(),
            rcv_nxt: (&raw const (*ops).rcv_nxt).read_volatile(),
            srtt: (&raw const (*ops).srtt_us).read_volatile(),
            retrans: (&raw const (*ops).total_retrans).read_volatile(),
            pad: 0,
        }
    }
}

#[inline(always)]
fn local(ops: *mut bpf_sock_ops) -> (Ip, u16) {
    // SAFETY: the context is valid for the run.
    unsafe {
        let port = (*ops).local_port as u16;
        if (*ops).family == AF_INET {
            (addr::from_v4(u32::from_be((*ops).local_ip4)), port)
        } else {
            (
                slot::context_addr((&raw const (*ops).local_ip6).cast()),
                port,
            )
        }
    }
}

#[inline(always)]
fn remote(ops: *mut bpf_sock_ops) -> (Ip, u16) {
    // SAFETY: the context is valid for the run; the port is in network order in the upper half.
    unsafe {
        let port = u32::from_be((*ops).remote_port) as u16;
        if (*ops).family == AF_INET {
            (addr::from_v4(u32::from_be((*ops).remote_ip4)), port)
        } else {
            (
                slot::context_addr((&raw const (*ops).remote_ip6).cast()),
                port,
            )
        }
    }
}

/// `sock_release`: the application's last reference is gone, whoever held it. Datagram flows end
/// here; a TCP flow goes on until the kernel is done with it, unless nothing of it will be heard.
#[cgroup_sock(sock_release)]
pub(crate) fn sock_release(ctx: SockContext) -> i32 {
    let sk = ctx.as_ptr();
    let now = slot::now();
    let (mut f, mut t) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    let (f, t) = (slot::zero(&mut f), slot::zero(&mut t));
    dgram_end::end_all(dgram::storage(sk, false), close::FIN, f, t);
    let Some(st) = storage(sk, false) else {
        return 1;
    };
    let mid = st.flow.flags & FLOW_MID_STREAM != 0 && st.hints & TCP_HEIR == 0;
    let never_left =
        st.flow.direction == DIRECTION_EGRESS && st.hints & (TCP_SYN_SENT | TCP_ESTABLISHED) == 0;
    if (mid || never_left) && slot::swap(&raw mut st.live, 0) == 1 {
        let mut t = MaybeUninit::uninit();
        if mid {
            end(st, &st.mid[1], slot::tail(&mut t, close::FIN, now));
        } else {
            let t = slot::tail(&mut t, close::UNREACHABLE, now);
            via(t, st);
            emit::end(&st.flow, t);
        }
    }
    1
}
