//! TCP packets: the fast path of an established flow, and everything that can be wrong with one.

use crate::{
    dgram, emit, handover, judge,
    maps::Work,
    mark,
    packet::{self, Packet},
    query, slot, tcp_flow, work,
};
use abi::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, FLOW_DNS, FLOW_LIFTED, FLOW_MID_STREAM, FLOW_PROXIED,
    PHASE_HEIR, SlotConfig, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_OUT, TCP_SYN_SENT, Tail, TcpFlow,
    VERDICT_DENIED, close, reason,
};
use aya_ebpf::bindings::__sk_buff;
use bpf::{
    addr,
    decide::{self, Decision, PORT_DNS},
    tcp::{self, FLAG_ACK, FLAG_FIN, FLAG_SYN},
};

/// Judges an outgoing TCP packet.
#[inline(never)]
pub(crate) fn egress(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    if p.wire.src_port == PORT_DNS && query::imitates_resolver(cfg, skb, p) == 0 {
        return 0;
    }
    let Some(st) = storage(cfg, skb, p, 0) else {
        return stateless(cfg, skb, p, 0);
    };
    if st.cut != 0 {
        return 0;
    }
    if !goes_where_it_should(st, p) && rewritten(cfg, skb, p, st) == 0 {
        return 0;
    }
    if !current(cfg, skb, st) && rejudge(cfg, skb, st) == 0 {
        return 0;
    }
    if st.flow.flags & FLOW_MID_STREAM != 0 {
        st.sent_end = p.wire.seq.wrapping_add(p.payload as u32);
    }
    if p.wire.tcp_flags & FLAG_FIN != 0 {
        st.fin_out = p.wire.seq.wrapping_add(p.payload as u32);
        st.hints |= TCP_FIN_OUT;
    }
    if st.flow.flags & FLOW_DNS != 0 {
        return query::stream_passes(cfg, skb, p, st);
    }
    1
}

/// Judges an incoming TCP packet.
#[inline(never)]
pub(crate) fn ingress(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet) -> i32 {
    let Some(st) = storage(cfg, skb, p, 1) else {
        return stateless(cfg, skb, p, 1);
    };
    if st.cut != 0 || (!current(cfg, skb, st) && rejudge(cfg, skb, st) == 0) {
        return 0;
    }
    if st.flow.flags & FLOW_MID_STREAM != 0 {
        st.arrived_end = p.wire.seq.wrapping_add(p.payload as u32);
    }
    if p.wire.tcp_flags & FLAG_FIN != 0 {
        st.fin_in = p.wire.seq.wrapping_add(p.payload as u32);
        st.fin_in_seen = 1;
    }
    if st.flow.flags & FLOW_DNS != 0 {
        query::learn_stream(cfg, skb, p);
    }
    1
}

/// Storage of the packet's socket; made if a set before this one had its flow.
#[inline(always)]
fn storage(
    cfg: &SlotConfig,
    skb: *mut __sk_buff,
    p: &Packet,
    inbound: u32,
) -> Option<&'static mut TcpFlow> {
    let known = tcp_flow::storage(packet::sk(skb), false);
    if known.is_some() || handover::inherit_tcp(cfg, skb, p, inbound) == 0 {
        return known;
    }
    tcp_flow::storage(packet::sk(skb), false)
}

/// Whether the packet goes to the peer that the flow was opened to (or accepted from).
#[inline(always)]
fn goes_where_it_should(st: &TcpFlow, p: &Packet) -> bool {
    let w = &p.wire;
    if st.flow.flags & FLOW_PROXIED != 0 {
        w.dst_port == st.wire_port && addr::same(&w.dst, &st.wire)
    } else if st.flow.direction == DIRECTION_EGRESS {
        w.dst_port == st.flow.dst_port && addr::same(&w.dst, &st.flow.dst)
    } else {
        w.dst_port == st.flow.src_port && addr::same(&w.dst, &st.flow.src)
    }
}

/// Whether the flow's judgement stands. Keeps, on the way, the counters of a flow that no other hook
/// will report.
#[inline(always)]
fn current(cfg: &SlotConfig, skb: *mut __sk_buff, st: &mut TcpFlow) -> bool {
    if st.flow.flags & FLOW_MID_STREAM != 0 {
        packet::counts(skb, &mut st.mid[1]);
    }
    if st.flow.flags & FLOW_LIFTED == 0 {
        return st.flow.generation == cfg.generation;
    }
    dgram::stands(&st.flow, cfg, slot::now())
}

/// Judges a live flow again: the configuration has changed or its bypass has ended.
#[inline(never)]
fn rejudge(cfg: &SlotConfig, skb: *mut __sk_buff, st: &mut TcpFlow) -> i32 {
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    let now = slot::now();
    let passes = if st.flow.direction == DIRECTION_INGRESS {
        settle(cfg, skb, st, &decide::ingress(cfg, now), now, &mut w.tail)
    } else {
        slot::copy(&mut w.flow.names, &st.flow.names);
        w.target.ip = st.flow.dst;
        w.target.port = st.flow.dst_port;
        w.target.proto = st.flow.proto;
        let j = judge::egress_or_proxy(cfg, now, w, true);
        let mut d = j.decision();
        // What went past the proxy so far cannot be sent there now.
        if st.flow.flags & FLOW_PROXIED == 0 {
            d = decide::direct(cfg, now, d);
        }
        j.internal() || settle(cfg, skb, st, &d, now, &mut w.tail)
    };
    work::release(w);
    passes as i32
}

#[inline(always)]
fn settle(
    cfg: &SlotConfig,
    skb: *mut __sk_buff,
    st: &mut TcpFlow,
    d: &Decision,
    now: u64,
    t: &mut Tail,
) -> bool {
    if d.verdict == VERDICT_DENIED {
        cut(cfg, skb, st, d.rule, now, t);
        return false;
    }
    st.flow.generation = cfg.generation;
    st.flow.flags = decide::lifted(st.flow.flags, d);
    true
}

/// Ends a live flow in mid-air: opening verdict and bytes stay, nothing passes any more.
#[inline(always)]
fn cut(cfg: &SlotConfig, skb: *mut __sk_buff, st: &mut TcpFlow, rule: u32, now: u64, t: &mut Tail) {
    st.cut = 1;
    if slot::swap(&raw mut st.live, 0) != 1 {
        return;
    }
    slot::tail_in(t, close::POLICY, now);
    t.cut_rule = rule;
    t.cut_policy = cfg.policy;
    // The copies in the storage are free: only flows older than the attachment need the second.
    if packet::counts(skb, &mut st.mid[1]) {
        tcp_flow::fill(t, st, &st.mid[1]);
    }
    emit::end(&st.flow, t);
}

/// The packet goes elsewhere than the flow was opened to: something rewrote it on the way. The new
/// destination is judged for itself; if it is denied, the attempt gets a record and the flow ends.
#[inline(never)]
fn rewritten(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, st: &mut TcpFlow) -> i32 {
    let seen = st.wire_port == p.wire.dst_port && addr::same(&st.wire, &p.wire.dst);
    if seen && dgram::stands(&st.flow, cfg, slot::now()) {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = p.to();
    let now = slot::now();
    let j = judge::egress(cfg, now, w, false);
    if j.denied() {
        w.flow.pid = st.flow.pid;
        w.flow.comm = st.flow.comm;
        packet::deny_out(cfg, p, w, &j.decision());
        cut(cfg, skb, st, j.decision().rule, now, &mut w.tail);
    } else {
        st.wire = p.wire.dst;
        st.wire_port = p.wire.dst_port;
    }
    work::release(w);
    !j.denied() as i32
}

/// A packet of a socket without a flow: a listener's handshake, or a socket older than the attachment.
#[inline(never)]
fn stateless(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, inbound: u32) -> i32 {
    let peer = if inbound != 0 { p.from() } else { p.to() };
    let internal = decide::internal(cfg, &peer.ip, peer.port);
    let listens = packet::socket_state(skb) == tcp::state::LISTEN;
    if inbound == 0 && (internal || listens) {
        mark::leave(cfg, skb);
    }
    if internal {
        return 1;
    }
    if listens {
        return listener(cfg, skb, p, inbound);
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = peer;
    let passes = mid_stream(cfg, skb, p, w, inbound);
    work::release(w);
    passes
}

/// Handshakes run on the listener's socket and carry no payload of its own.
#[inline(always)]
fn listener(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, inbound: u32) -> i32 {
    if inbound == 0 {
        return if p.payload == 0 {
            1
        } else {
            packet::refuse_out(cfg, p, reason::NO_STATE)
        };
    }
    if p.wire.tcp_flags & (FLAG_SYN | FLAG_ACK) != FLAG_SYN {
        return 1;
    }
    let Some(w) = work::claim() else {
        return emit::refused_blindly(cfg);
    };
    w.target = p.from();
    let passes = handshake(cfg, skb, p, w);
    work::release(w);
    passes
}

/// A connection begins. The answer to a source that was made up here is egress, and its retries come
/// without a socket of ours to stop them at: it is judged before there is one. Apart from its caller, whose stack
/// is full.
#[inline(never)]
fn handshake(cfg: &SlotConfig, skb: *mut __sk_buff, p: &Packet, w: &mut Work) -> i32 {
    let now = slot::now();
    let mut d = decide::ingress(cfg, now);
    if d.verdict != VERDICT_DENIED && packet::from_within(skb, p) {
        d = judge::egress(cfg, now, w, false).decision();
    }
    if d.verdict != VERDICT_DENIED {
        return 1;
    }
    packet::deny_in(cfg, p, w, &d);
    0
}

/// A connection that nobody judged when it began is judged now, by where it goes.
#[inline(never)]
fn mid_stream(
    cfg: &SlotConfig,
    skb: *mut __sk_buff,
    p: &Packet,
    w: &mut Work,
    inbound: u32,
) -> i32 {
    let now = slot::now();
    let j = judge::egress(cfg, now, w, false);
    if j.denied() && cfg.phase == PHASE_HEIR {
        // Perhaps the loader is about to say whose it was. TCP comes again.
        return 0;
    }
    let mut d = j.decision();
    if d.reason == reason::RULE || d.reason == reason::DEFAULT || d.reason == reason::RESOLVER {
        d.reason = reason::MID_STREAM;
    }
    work::fill(w, cfg, &d, now);
    let (here, port) = if inbound != 0 {
        (p.wire.dst, p.wire.dst_port)
    } else {
        (p.wire.src, p.wire.src_port)
    };
    work::source(&mut w.flow, &here, port);
    w.flow.flags |= FLOW_MID_STREAM;
    let st = tcp_flow::storage(packet::sk(skb), true);
    if j.denied() {
        if let Some(st) = st {
            st.cut = 1;
        }
        emit::refused(w);
        return 0;
    }
    let Some(st) = st else {
        w.flow.verdict = VERDICT_DENIED;
        w.flow.reason = reason::NO_STATE;
        emit::refused(w);
        return 0;
    };
    slot::copy(&mut st.flow, &w.flow);
    tcp_flow::begin(st);
    from_here(skb, p, st, inbound);
    1
}

/// Lets the counters of a flow begin in front of this packet.
#[inline(always)]
pub(crate) fn from_here(skb: *mut __sk_buff, p: &Packet, st: &mut TcpFlow, inbound: u32) {
    let state = packet::socket_state(skb);
    st.hints = if state == tcp::state::SYN_SENT {
        TCP_SYN_SENT
    } else if tcp::closed_here(state) {
        TCP_ESTABLISHED | TCP_CLOSING
    } else {
        TCP_ESTABLISHED
    };
    packet::counts(skb, &mut st.mid[0]);
    packet::counts(skb, &mut st.mid[1]);
    st.sent_end = st.mid[1].snd_nxt;
    st.arrived_end = st.mid[1].rcv_nxt;
    let end = p.wire.seq.wrapping_add(p.payload as u32);
    if inbound != 0 {
        st.arrived_end = end;
    } else {
        st.sent_end = end;
    }
}
