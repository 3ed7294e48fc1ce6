//! Packets of UDP and every other protocol that is not TCP.

use crate::{
    dgram::{self, Add},
    dgram_end, emit, handover, judge,
    maps::Work,
    mark,
    packet::{self, Packet},
    query, slot, work,
};
use abi::{
    DIRECTION_INGRESS, FLOW_MID_STREAM, IPPROTO_UDP, PEER_OPEN, SlotConfig, VERDICT_DENIED, reason,
};
use aya_ebpf::bindings::__sk_buff;
use bpf::decide::{self, Decision, PORT_DNS};

/// Judges an outgoing datagram.
#[inline(never)]
pub(crate) fn egress(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    let to = p.to();
    let udp = to.proto == IPPROTO_UDP;
    // Before loopback passes: the resolver may be there.
    if udp && p.wire.src_port == PORT_DNS && query::imitates_resolver(cfg, skb, p) == 0 {
        return 0;
    }
    if decide::internal(cfg, &to.ip, to.port) {
        mark::leave(cfg, skb);
        return 1;
    }
    if udp && to.port == PORT_DNS && query::datagram_passes(cfg, skb, p) == 0 {
        return 0;
    }
    let add = Add {
        local: p.wire.src,
        local_port: p.wire.src_port as u64,
        bytes: p.payload,
        packets: packet::datagrams(skb),
        inbound: 0,
        now: slot::now(),
    };
    let st = dgram::storage(packet::sk(skb), false);
    let what = dgram::count(st, &to, cfg, &add);
    if what == dgram::COUNTED {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = to;
    w.what = what;
    inherit(cfg, skb, w);
    let passes = begin_out(cfg, skb, p, w, &add);
    work::release(w);
    passes
}

/// A flow that a set before this one had goes on here, once it is judged again.
#[inline(always)]
fn inherit(cfg: &SlotConfig, skb: *mut __sk_buff, w: &mut Work) {
    if w.what == dgram::UNKNOWN && handover::inherit_dgram(cfg, skb.cast(), packet::sk(skb), w) != 0
    {
        w.what = dgram::STALE;
    }
}

/// A datagram without a live, current flow: judged for itself, by where it really goes.
#[inline(never)]
fn begin_out(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, w: &mut Work, add: &Add) -> i32 {
    let what = w.what;
    let known = dgram::storage(packet::sk(skb), false);
    if known.is_null() || what == dgram::UNKNOWN || !dgram::recall(known, w) {
        w.flow.flags = 0;
    }
    let stale = what == dgram::STALE;
    if stale && w.flow.direction == DIRECTION_INGRESS {
        return settle(cfg, skb, w, add, &decide::ingress(cfg, add.now));
    }
    let j = judge::egress(cfg, add.now, w, stale);
    let mut d = if packet::understood(w.target.proto) {
        j.decision()
    } else {
        decide::kind(cfg, add.now, reason::PROTOCOL)
    };
    if stale {
        return settle(cfg, skb, w, add, &d);
    }
    let older = known.is_null();
    // Only UDP has a hook in front of every packet, so only there does no storage mean an older socket.
    if older
        && w.target.proto == IPPROTO_UDP
        && (d.reason == reason::RULE || d.reason == reason::DEFAULT)
    {
        d.reason = reason::MID_STREAM;
    }
    if d.verdict == VERDICT_DENIED {
        packet::deny_out(cfg, p, w, &d);
        return 0;
    }
    open(cfg, skb, p, w, add, &d, older)
}

#[inline(always)]
fn open(
    cfg: &SlotConfig,
    skb: *mut __sk_buff,
    p: &Packet,
    w: &mut Work,
    add: &Add,
    d: &Decision,
    older: bool,
) -> i32 {
    let st = dgram::storage(packet::sk(skb), true);
    if st.is_null() {
        packet::deny_out(cfg, p, w, &Decision::refusal(reason::NO_STATE));
        return 0;
    }
    work::fill_again(w, cfg, d, add.now);
    work::source(&mut w.flow, &p.wire.src, p.wire.src_port);
    if older {
        w.flow.flags |= FLOW_MID_STREAM;
    }
    dgram::place(st, w, PEER_OPEN, add);
    1
}

/// A live flow under a changed configuration: it goes on, or it is cut here.
#[inline(always)]
fn settle(cfg: &SlotConfig, skb: *mut __sk_buff, w: &mut Work, add: &Add, d: &Decision) -> i32 {
    let st = dgram::storage(packet::sk(skb), false);
    if st.is_null() {
        return 0;
    }
    if d.verdict != VERDICT_DENIED {
        dgram::confirm(st, &w.target, cfg.generation, d, add);
        return 1;
    }
    if dgram_end::cut(st, w) {
        w.tail.cut_rule = d.rule;
        w.tail.cut_policy = cfg.policy;
        w.tail.end = add.now;
        emit::end(&w.evicted, &w.tail);
    }
    0
}

/// Judges an incoming datagram: part of a live flow, or the beginning of one by the peer.
#[inline(never)]
pub(crate) fn ingress(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    let from = p.from();
    if decide::internal(cfg, &from.ip, from.port) {
        return 1;
    }
    let add = Add {
        local: p.wire.dst,
        local_port: p.wire.dst_port as u64,
        bytes: p.payload,
        packets: packet::datagrams(skb),
        inbound: 1,
        now: slot::now(),
    };
    let st = dgram::storage(packet::sk(skb), true);
    let what = dgram::count(st, &from, cfg, &add);
    if what == dgram::COUNTED {
        if from.port == PORT_DNS && from.proto == IPPROTO_UDP && decide::is_resolver(cfg, &from.ip)
        {
            query::learn_datagram(cfg, skb, p);
        }
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = from;
    w.what = what;
    inherit(cfg, skb, w);
    let passes = begin_in(cfg, skb, p, w, &add);
    work::release(w);
    passes
}

/// A datagram without a live, current flow. An answer to a flow of ours whose judgement is out of
/// date, or to one that went quiet, is judged as egress: it is that flow going on.
#[inline(never)]
fn begin_in(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, w: &mut Work, add: &Add) -> i32 {
    let what = w.what;
    let st = dgram::storage(packet::sk(skb), false);
    if st.is_null() {
        packet::deny_in(cfg, p, w, &Decision::refusal(reason::NO_STATE));
        return 0;
    }
    let known = what != dgram::UNKNOWN && dgram::recall(st, w);
    let ours = known && w.flow.direction != DIRECTION_INGRESS;
    let j = judge::egress(cfg, add.now, w, known);
    let forged = j.denied() && packet::from_within(skb, p);
    let d = if ours || forged || j.decision().reason == reason::BUILTIN {
        j.decision()
    } else {
        decide::ingress(cfg, add.now)
    };
    if what == dgram::STALE {
        return settle(cfg, skb, w, add, &d);
    }
    if d.verdict == VERDICT_DENIED {
        packet::deny_in(cfg, p, w, &d);
        return 0;
    }
    if ours {
        let (src, port) = (p.wire.dst, p.wire.dst_port);
        work::fill_again(w, cfg, &d, add.now);
        work::source(&mut w.flow, &src, port);
    } else {
        packet::fill_in(cfg, p, w, &d, add.now);
        w.target = p.from();
    }
    dgram::place(st, w, PEER_OPEN, add);
    1
}
