//! The guard of a parent cgroup: nothing leaves from below it that no enrolled cgroup's program has
//! judged.
//!
//! One hook is enough. Every IP packet of a socket made below the parent comes by here, after the
//! programs of the socket's own cgroup; whatever a socket call promised, this is what leaves. What
//! arrives is not egress, and an answer to it comes by here.

use crate::{mark, packet, slot};
use abi::reason;
use aya_ebpf::{bindings::__sk_buff, macros::cgroup_skb, programs::SkBuffContext};
use core::mem::MaybeUninit;

#[cgroup_skb(egress)]
pub(crate) fn guard_egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let sk = packet::sk(skb);
    if mark::holds(sk) {
        return 1;
    }
    if mark::told(sk) {
        return 0;
    }
    refuse(skb)
}

/// Drops a packet, with a record that has no identity.
#[inline(never)]
fn refuse(skb: *mut __sk_buff) -> i32 {
    let Some(nobody) = slot::copied(0) else {
        return 0;
    };
    let mut p = MaybeUninit::uninit();
    let p = slot::zero(&mut p);
    if packet::packet_read(skb, p) == 0 {
        return packet::unreadable(nobody, skb);
    }
    packet::refuse_out(nobody, p, reason::NOT_ENROLLED)
}
