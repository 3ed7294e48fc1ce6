//! The iterators over all flow state, pinned: a plain read lists the live flows, ends datagram flows
//! that have gone idle, and ends all flows of a slot when the loader says so.

use crate::{
    dgram, dgram_end,
    maps::DgramFlows,
    slot::{self, control},
    tcp_flow,
};
use abi::{
    DGRAM_PEERS, FLOW_MID_STREAM, Flow, PEER_OPEN, PEER_TRIED, Tail, TcpCounts, TcpFlow, close,
};
use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_socket_cookie, bpf_seq_write},
};
use bpf::tcp;
use core::{ffi::c_void, mem::MaybeUninit};

/// Offsets of the fields of `struct tcp_sock`, in the order of [`TcpCounts`]; the loader reads them
/// from the kernel's BTF. Helpers that read TCP counters do not exist for iterators.
#[unsafe(no_mangle)]
static TCP_OFFSETS: Global<[u32; 9]> = Global::new([0; 9]);

/// Offset of `skc_state` in `struct sock`; the loader reads it from the kernel's BTF.
#[unsafe(no_mangle)]
static SK_STATE_OFFSET: Global<u32> = Global::new(0);

#[repr(C)]
pub(crate) struct Meta {
    seq: *mut c_void,
    session: u64,
    number: u64,
}

/// `struct bpf_iter__bpf_sk_storage_map`.
#[repr(C)]
pub(crate) struct Row<T> {
    meta: *const Meta,
    map: *mut c_void,
    sk: *mut c_void,
    value: *mut T,
}

#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub(crate) fn iter_tcp(row: *mut Row<TcpFlow>) -> i32 {
    // SAFETY: the context is valid for the run.
    let (sk, value, seq) = unsafe { ((*row).sk, (*row).value, (*(*row).meta).seq) };
    if value.is_null() || sk.is_null() {
        return 0;
    }
    let Some(st) = tcp_flow::storage(sk, false) else {
        return 0;
    };
    if st.live == 0 {
        if st.cut != 0 && connected(sk) {
            let mut t = MaybeUninit::uninit();
            write(
                seq,
                &st.flow,
                slot::tail(&mut t, close::POLICY, 0),
                cookie(sk),
            );
        }
        return 0;
    }
    let c = if st.flow.flags & FLOW_MID_STREAM != 0 {
        st.mid[1]
    } else {
        counts(sk)
    };
    let why = ending(st.flow.slot);
    let mut t = MaybeUninit::uninit();
    let t = slot::tail(&mut t, why, slot::now());
    if why == close::LIVE {
        tcp_flow::fill(t, st, &c);
        write(seq, &st.flow, t, cookie(sk));
    } else if slot::swap(&raw mut st.live, 0) == 1 {
        // What another set takes over goes on.
        st.cut = (why != close::UPGRADED) as u32;
        tcp_flow::end(st, &c, t);
    }
    0
}

#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
pub(crate) fn iter_dgram(row: *mut Row<DgramFlows>) -> i32 {
    // SAFETY: the context is valid for the run.
    let (sk, value, seq) = unsafe { ((*row).sk, (*row).value, (*(*row).meta).seq) };
    if value.is_null() || sk.is_null() {
        return 0;
    }
    let st = dgram::storage(sk, false);
    if st.is_null() {
        return 0;
    }
    let mut i = 0;
    while i < DGRAM_PEERS {
        visit(st, i, seq, sk);
        i += 1;
    }
    0
}

/// Lists one live flow, or ends it because it is idle or the loader says so.
#[inline(always)]
fn visit(st: *mut DgramFlows, i: usize, seq: *mut c_void, sk: *mut c_void) {
    // SAFETY: a map value, the index is in range; a torn look is corrected by `take`, which looks
    // again under the lock.
    let (state, owner, idle) = unsafe {
        let p = &(*st).peers[i];
        (p.state, p.flow.slot, p.idle_ns)
    };
    if state != PEER_OPEN && state != PEER_TRIED {
        return;
    }
    let now = slot::now();
    let forced = ending(owner);
    let (why, before) = if forced == close::LIVE {
        (close::IDLE, now.saturating_sub(idle))
    } else {
        (forced, u64::MAX)
    };
    let mut f = MaybeUninit::<Flow>::uninit();
    // SAFETY: `take` writes the whole flow unless it says `GONE`.
    let f = unsafe { &mut *f.as_mut_ptr() };
    let mut t = MaybeUninit::uninit();
    let t = slot::tail(&mut t, why, now);
    let taken = dgram_end::take(st, i, before, f, t);
    if taken == dgram_end::LIVE {
        t.close = close::LIVE as u64;
        t.end = now;
        write(seq, f, t, cookie(sk));
        return;
    }
    if taken == dgram_end::TAKEN_TRIED && forced == close::UPGRADED {
        // Nothing of it was seen here: it is the other set's.
        return;
    }
    // An idle flow ended with its last packet.
    let end = if forced == close::LIVE { t.end } else { now };
    dgram_end::finish(taken, f, t, end);
}

/// The close reason that the loader wants for this slot's flows.
#[inline(always)]
fn ending(slot: u32) -> u8 {
    match control() {
        Some(c) if c.end_slot == slot && slot != 0 => c.end_close as u8,
        _ => close::LIVE,
    }
}

/// Whether a socket has a connection, or is making one.
#[inline(always)]
fn connected(sk: *mut c_void) -> bool {
    let state = slot::kernel_field::<u8>(sk, SK_STATE_OFFSET.load()) as u32;
    state != tcp::state::CLOSE && state != tcp::state::LISTEN
}

#[inline(always)]
fn cookie(sk: *mut c_void) -> u64 {
    // SAFETY: the socket of the row.
    unsafe { bpf_get_socket_cookie(sk) }
}

/// Writes an [`abi::LiveFlow`] in its parts. A full buffer makes the kernel
/// drop what this run wrote and call again with the same row.
#[inline(always)]
fn write(seq: *mut c_void, f: &Flow, t: &Tail, mut cookie: u64) {
    let (flow, tail) = (
        core::ptr::from_ref(f).cast_mut().cast(),
        core::ptr::from_ref(t).cast_mut().cast(),
    );
    // SAFETY: `seq` comes from the context; the buffers are of the given sizes.
    unsafe {
        bpf_seq_write(seq.cast(), flow, size_of::<Flow>() as u32);
        bpf_seq_write(seq.cast(), tail, size_of::<Tail>() as u32);
        bpf_seq_write(
            seq.cast(),
            (&raw mut cookie).cast(),
            size_of::<u64>() as u32,
        );
    }
}

#[inline(always)]
fn counts(sk: *mut c_void) -> TcpCounts {
    let o = TCP_OFFSETS.load();
    TcpCounts {
        acked: slot::kernel_field::<u64>(sk, o[0]),
        received: slot::kernel_field::<u64>(sk, o[1]),
        segs_in: slot::kernel_field::<u32>(sk, o[2]),
        segs_out: slot::kernel_field::<u32>(sk, o[3]),
        snd_nxt: slot::kernel_field::<u32>(sk, o[4]),
        snd_una: slot::kernel_field::<u32>(sk, o[5]),
        rcv_nxt: slot::kernel_field::<u32>(sk, o[6]),
        srtt: slot::kernel_field::<u32>(sk, o[7]),
        retrans: slot::kernel_field::<u32>(sk, o[8]),
        pad: 0,
    }
}
