//! How many bytes a TCP connection carried, and how it ended, from the kernel's own counters.

use abi::{
    DIRECTION_EGRESS, FLOW_MID_STREAM, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN_OUT, TCP_SYN_SENT,
    TcpCounts, TcpFlow, close,
};

/// `FIN` in the flags byte of a TCP header.
pub const FLAG_FIN: u8 = 1;
/// `SYN`.
pub const FLAG_SYN: u8 = 2;
/// `RST`.
pub const FLAG_RST: u8 = 4;
/// `ACK`.
pub const FLAG_ACK: u8 = 16;

/// Socket states (`include/net/tcp_states.h`).
pub mod state {
    /// Connected.
    pub const ESTABLISHED: u32 = 1;
    /// Asked.
    pub const SYN_SENT: u32 = 2;
    /// Closed on our side, not answered.
    pub const FIN_WAIT1: u32 = 4;
    /// Closed on our side, acknowledged.
    pub const FIN_WAIT2: u32 = 5;
    /// Gone.
    pub const CLOSE: u32 = 7;
    /// Closed by the peer.
    pub const CLOSE_WAIT: u32 = 8;
    /// Closed on both sides, ours not acknowledged.
    pub const LAST_ACK: u32 = 9;
    /// Waiting for peers.
    pub const LISTEN: u32 = 10;
    /// Both closed at once.
    pub const CLOSING: u32 = 11;
}

/// Whether sequence number `a` lies behind `b` (RFC 9293 §3.4).
#[inline(always)]
pub fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// What left, without SYN and FIN.
#[inline(always)]
pub fn bytes_out(f: &TcpFlow, c: &TcpCounts) -> u64 {
    let mut n = sent(c);
    let mut syn = f.flow.direction == DIRECTION_EGRESS && f.hints & TCP_SYN_SENT != 0;
    if f.flow.flags & FLOW_MID_STREAM != 0 {
        let before = sent(&f.mid[0]);
        n = n.wrapping_sub(before);
        // One that left before the counters begin is not among them.
        syn &= before == 0;
        if after(f.sent_end, c.snd_nxt) {
            n = n.wrapping_add(f.sent_end.wrapping_sub(c.snd_nxt) as u64);
        }
    }
    if syn && n > 0 {
        n -= 1;
    }
    if fin_left(f, c) && n > 0 {
        n -= 1;
    }
    n
}

/// Whether a FIN is among what left since the counters began.
#[inline(always)]
fn fin_left(f: &TcpFlow, c: &TcpCounts) -> bool {
    let mid = f.flow.flags & FLOW_MID_STREAM != 0;
    if f.hints & TCP_FIN_OUT != 0 {
        return after(c.snd_nxt, f.fin_out) && !(mid && after(f.mid[0].snd_nxt, f.fin_out));
    }
    // Nothing follows it, so it is the last of whatever left.
    mid && f.hints & TCP_CLOSING != 0 && after(c.snd_nxt, f.mid[0].snd_nxt)
}

/// Whether a socket in this state will send no more.
#[inline(always)]
pub fn closed_here(state: u32) -> bool {
    matches!(
        state,
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::LAST_ACK | state::CLOSING
    )
}

#[inline(always)]
fn sent(c: &TcpCounts) -> u64 {
    c.acked
        .wrapping_add(c.snd_nxt.wrapping_sub(c.snd_una) as u64)
}

/// What arrived in order, without FIN.
#[inline(always)]
pub fn bytes_in(f: &TcpFlow, c: &TcpCounts) -> u64 {
    let mut n = c.received;
    if f.flow.flags & FLOW_MID_STREAM != 0 {
        n = n.wrapping_sub(f.mid[0].received);
        if after(f.arrived_end, c.rcv_nxt) {
            n = n.wrapping_add(f.arrived_end.wrapping_sub(c.rcv_nxt) as u64);
        }
    }
    let before = f.flow.flags & FLOW_MID_STREAM != 0 && after(f.mid[0].rcv_nxt, f.fin_in);
    if fin_taken(f, c) && !before && n > 0 {
        n -= 1;
    }
    n
}

/// Nothing is accepted behind a FIN, so it was taken exactly when the next expected number follows it.
#[inline(always)]
fn fin_taken(f: &TcpFlow, c: &TcpCounts) -> bool {
    f.fin_in_seen != 0 && c.rcv_nxt == f.fin_in.wrapping_add(1)
}

/// `ETIMEDOUT` (`include/uapi/asm-generic/errno.h`).
const ETIMEDOUT: u32 = 110;
/// `ECONNREFUSED`.
const ECONNREFUSED: u32 = 111;
/// `ECONNRESET`.
const ECONNRESET: u32 = 104;
/// `EPIPE`: reset after the peer had closed.
const EPIPE: u32 = 32;

/// Why a connection ended, given the state it left for `CLOSE` and the socket's error, which the kernel
/// sets before it changes the state.
#[inline(always)]
pub fn close_reason(f: &TcpFlow, c: &TcpCounts, old_state: u32, error: u32) -> u8 {
    let h = f.hints;
    if h & TCP_ESTABLISHED == 0 {
        return match error {
            _ if h & TCP_SYN_SENT == 0 => close::UNREACHABLE,
            ECONNREFUSED => close::REFUSED,
            // Without an error it is the application that gave up waiting.
            ETIMEDOUT | 0 => close::TIMEOUT,
            _ => close::UNREACHABLE,
        };
    }
    let both_closed = fin_taken(f, c)
        && h & TCP_FIN_OUT != 0
        && (old_state == state::LAST_ACK
            || old_state == state::FIN_WAIT2
            || old_state == state::CLOSING);
    if both_closed && c.snd_una == c.snd_nxt {
        return close::FIN;
    }
    match error {
        ECONNRESET | EPIPE | ECONNREFUSED => close::RST,
        // Who closes without saying so to the peer resets.
        0 if old_state == state::ESTABLISHED || old_state == state::CLOSE_WAIT => close::RST,
        0 => close::FIN,
        ETIMEDOUT => close::TIMEOUT,
        _ => close::UNREACHABLE,
    }
}

#[cfg(test)]
mod tests;
