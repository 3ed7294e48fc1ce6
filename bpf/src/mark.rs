//! Whether a socket's packets are judged: asked by the guard of a parent cgroup and by the backstop.
//!
//! Only our programs write socket storage, and those of a socket's own cgroup run on a packet before
//! those of a parent, and before any interface sees it. So whoever asks later needs to know no
//! container: state that an enrolled slot keeps with the socket says that its programs have judged the
//! packet in hand, and have not refused it if it has come this far.
//!
//! A flow's state is such a mark, at no cost: another storage would make every connection a third
//! dearer. What has no flow and passes all the same (a listener's handshake, sockets that talk to
//! themselves) gets a mark of its own, and so does what is refused, lest it be refused and counted twice.

use crate::{dgram, maps::MARKS, packet, slot, tcp_flow};
use abi::{Flow, Mark, SlotConfig, trouble};
use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_sk_storage_get};
use core::ffi::c_void;

#[inline(always)]
fn storage(sk: *mut c_void, create: bool) -> Option<&'static mut Mark> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: `sk` is a socket pointer from a context; the value is plain integers, and writers on
    // several CPUs write the same ones.
    unsafe {
        bpf_sk_storage_get(
            (&raw const MARKS).cast_mut().cast(),
            sk,
            core::ptr::null_mut(),
            create as u64,
        )
        .cast::<Mark>()
        .as_mut()
    }
}

/// Leaves the mark of the running program's slot on the socket of a packet that goes out without a
/// flow. A socket without memory for it stays unmarked, which is noted; guard and backstop then refuse
/// what it sends.
#[inline(never)]
pub(crate) fn leave(cfg: &SlotConfig, skb: *mut __sk_buff) -> i32 {
    let Some(m) = storage(packet::sk(skb), true) else {
        slot::trouble(cfg.index, trouble::NO_STATE);
        return 0;
    };
    if cfg.slot == 0 {
        slot::swap(&raw mut m.told, 1);
    }
    if m.slot != cfg.slot {
        m.index = cfg.index;
        m.slot = cfg.slot;
    }
    0
}

/// Whether a slot that exists judges the packets of this socket.
#[inline(always)]
pub(crate) fn holds(sk: *mut c_void) -> bool {
    let of = |f: &Flow| exists(f.slot, f.index);
    if tcp_flow::storage(sk, false).is_some_and(|st| of(&st.flow)) {
        return true;
    }
    let st = dgram::storage(sk, false);
    // The first entry is the first to be used. Read without the lock: one flow of the socket takes the
    // place of another, and both are of one slot.
    // SAFETY: a map value.
    if !st.is_null() && of(unsafe { &(*st).peers[0].flow }) {
        return true;
    }
    storage(sk, false).is_some_and(|m| exists(m.slot, m.index))
}

/// Whether there is such a slot. The loader takes it back before it detaches the programs.
#[inline(always)]
fn exists(slot: u32, index: u32) -> bool {
    slot != 0 && slot::copied(index).is_some_and(|cfg| cfg.slot == slot)
}

/// Whether the program of an attached cgroup that is not enrolled has refused and counted the packet in
/// hand. True once for each packet.
#[inline(always)]
pub(crate) fn told(sk: *mut c_void) -> bool {
    storage(sk, false).is_some_and(|m| slot::swap(&raw mut m.told, 0) != 0)
}
