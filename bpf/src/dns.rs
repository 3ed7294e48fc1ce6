//! DNS messages as far as a firewall reads them: the one question, and the addresses of an answer.
//!
//! Written as state machines that advance by one step, because in the kernel the loop around them is
//! `bpf_loop`. Buffers are powers of two and every index is masked, so no step can leave them.

use abi::{Ip, NAME_BYTES};

/// Bytes of a DNS header (RFC 1035 §4.1.1).
pub const HEADER: u32 = 12;
/// Longest query that is let through: what a plain UDP query could ever need.
pub const MAX_QUERY: u32 = 512;
/// Longest answer that is read; a longer one teaches only what fits.
pub const MAX_ANSWER: usize = 4096;
/// Steps after which an answer is given up: 64 records of ordinary names.
pub const MAX_STEPS: u32 = 1024;
/// Room for a name in text form; more than a policy can match.
pub const TEXT: usize = 256;
/// Shortest time an answer holds, so that a TTL of 0 ("use once") can be used at all.
pub const MIN_HOLD_NS: u64 = 2_000_000_000;
/// Longest time an answer holds (RFC 8767 §4 advises a week).
pub const MAX_HOLD_S: u32 = 7 * 86_400;

const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

const TYPE_A: u16 = 1;
const TYPE_OPT: u16 = 41;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// Name being read.
pub const RUNNING: u32 = 0;
/// Name read to its end.
pub const DONE: u32 = 1;
/// Not a name that can be trusted to be one.
pub const BAD: u32 = 2;

/// Progress through the name of a question.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NameScan {
    /// FNV-1a so far.
    pub hash: u64,
    /// Next byte of the message.
    pub pos: u32,
    /// End of the message.
    pub end: u32,
    /// Bytes left of the label.
    pub label: u32,
    /// Characters written.
    pub len: u32,
    /// [`RUNNING`], [`DONE`] or [`BAD`].
    pub state: u32,
    /// Zero.
    pub pad: u32,
}

impl NameScan {
    /// Starts behind the header.
    #[inline(always)]
    pub fn new(pos: u32, end: u32) -> Self {
        Self {
            hash: FNV_BASIS,
            pos,
            end,
            label: 0,
            len: 0,
            state: RUNNING,
            pad: 0,
        }
    }
}

#[inline(always)]
fn at<const N: usize>(msg: &[u8; N], i: u32) -> u8 {
    msg[i as usize & (N - 1)]
}

#[inline(always)]
fn be16<const N: usize>(msg: &[u8; N], i: u32) -> u16 {
    (at(msg, i) as u16) << 8 | at(msg, i.wrapping_add(1)) as u16
}

#[inline(always)]
fn be32<const N: usize>(msg: &[u8; N], i: u32) -> u32 {
    (be16(msg, i) as u32) << 16 | be16(msg, i.wrapping_add(2)) as u32
}

/// Reads one byte of an uncompressed name into lower-case text. Returns whether to go on.
///
/// A dot, a blank or a control character inside a label would make two different names look alike
/// as text, and compression has no place in a question: all of that is [`BAD`].
#[inline(always)]
pub fn name_step<const N: usize>(msg: &[u8; N], text: &mut [u8; TEXT], s: &mut NameScan) -> bool {
    if s.state != RUNNING {
        return false;
    }
    if s.pos >= s.end || s.len as usize >= NAME_BYTES {
        s.state = BAD;
        return false;
    }
    let c = at(msg, s.pos);
    s.pos += 1;
    let mut out = c;
    if s.label == 0 {
        if c == 0 {
            s.state = if s.len as usize >= NAME_BYTES {
                BAD
            } else {
                DONE
            };
            if s.hash == 0 {
                s.hash = 1;
            }
            return false;
        }
        if c > 63 {
            s.state = BAD;
            return false;
        }
        s.label = c as u32;
        if s.len == 0 {
            return true;
        }
        out = b'.';
    } else {
        s.label -= 1;
        if c <= b' ' || c >= 0x7f || c == b'.' {
            s.state = BAD;
            return false;
        }
        if c.is_ascii_uppercase() {
            out = c | 0x20;
        }
    }
    text[s.len as usize & (TEXT - 1)] = out;
    s.len += 1;
    s.hash = (s.hash ^ out as u64).wrapping_mul(FNV_PRIME);
    true
}

/// Writes character `i` of the name spelled backwards.
#[inline(always)]
pub fn reverse_step(text: &[u8; TEXT], len: u32, i: u32, out: &mut [u8; NAME_BYTES]) {
    let from = len.wrapping_sub(1).wrapping_sub(i) as usize & (TEXT - 1);
    if (i as usize) < NAME_BYTES {
        out[i as usize] = text[from];
    }
}

/// Whether the header is that of one plain question (opcode QUERY, nothing answered yet).
#[inline(always)]
pub fn is_query<const N: usize>(msg: &[u8; N], len: u32) -> bool {
    len > HEADER
        && len <= MAX_QUERY
        && at(msg, 2) & 0xfa == 0
        && be16(msg, 4) == 1
        && be16(msg, 6) == 0
        && be16(msg, 8) == 0
        && be16(msg, 10) <= 1
}

/// Whether the message ends with the question, or with it and one EDNS record (RFC 6891 §6.1.2):
/// nothing can ride along behind the name.
#[inline(always)]
pub fn query_ends_well<const N: usize>(msg: &[u8; N], s: &NameScan) -> bool {
    let after = s.pos + 4;
    if be16(msg, 10) == 0 {
        return after == s.end;
    }
    if after + 11 > s.end {
        return false;
    }
    at(msg, after) == 0
        && be16(msg, after + 1) == TYPE_OPT
        && after + 11 + be16(msg, after + 9) as u32 == s.end
}

/// Whether the header is that of a successful answer to one question. A truncated one counts:
/// what is there is true.
#[inline(always)]
pub fn is_answer<const N: usize>(msg: &[u8; N], len: u32) -> bool {
    len > HEADER && at(msg, 2) & 0xf8 == 0x80 && at(msg, 3) & 0x0f == 0 && be16(msg, 4) == 1
}

/// Progress through the answer section.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AnswerScan {
    /// Next byte of the message.
    pub pos: u32,
    /// End of the message.
    pub end: u32,
    /// Records left.
    pub left: u32,
    /// Whether the owner name of the record has been passed.
    pub named: u32,
}

impl AnswerScan {
    /// Starts behind the question, whose name `question` has read.
    #[inline(always)]
    pub fn new<const N: usize>(msg: &[u8; N], question: &NameScan) -> Self {
        Self {
            pos: question.pos + 4,
            end: question.end,
            left: be16(msg, 6) as u32,
            named: 0,
        }
    }
}

/// What a step through the answer section found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    More,
    /// An address, as 16 bytes, with its TTL in seconds; go on.
    Address(Ip, u32),
    /// All records read.
    End,
    /// The rest cannot be read.
    Broken,
}

/// Passes one label of an owner name or one record.
///
/// Every address of the section counts for the name that was asked: the resolver is trusted to
/// answer the question, and whoever controls the name could have answered directly what a CNAME
/// chain spells out.
#[inline(always)]
pub fn answer_step<const N: usize>(msg: &[u8; N], s: &mut AnswerScan) -> Step {
    if s.left == 0 {
        return Step::End;
    }
    if s.pos >= s.end {
        return Step::Broken;
    }
    if s.named == 0 {
        let c = at(msg, s.pos) as u32;
        if c == 0 {
            s.pos += 1;
            s.named = 1;
        } else if c & 0xc0 == 0xc0 {
            s.pos += 2;
            s.named = 1;
        } else if c > 63 {
            return Step::Broken;
        } else {
            s.pos += c + 1;
        }
        return Step::More;
    }
    let at_rr = s.pos;
    if at_rr + 10 > s.end {
        return Step::Broken;
    }
    let kind = be16(msg, at_rr);
    let class = be16(msg, at_rr + 2);
    let ttl = be32(msg, at_rr + 4);
    let len = be16(msg, at_rr + 8) as u32;
    let data = at_rr + 10;
    if data + len > s.end {
        return Step::Broken;
    }
    s.pos = data + len;
    s.left -= 1;
    s.named = 0;
    if class != CLASS_IN {
        return Step::More;
    }
    if kind == TYPE_A && len == 4 {
        return Step::Address(crate::addr::from_v4(be32(msg, data)), ttl);
    }
    if kind == TYPE_AAAA && len == 16 {
        let words = [
            be32(msg, data),
            be32(msg, data + 4),
            be32(msg, data + 8),
            be32(msg, data + 12),
        ];
        return Step::Address(crate::addr::from_v6(words), ttl);
    }
    Step::More
}

/// How long an answer holds, in nanoseconds. A TTL with the top bit set is 0 (RFC 2181 §8).
#[inline(always)]
pub fn hold_ns(ttl: u32) -> u64 {
    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
    let s = if ttl > MAX_HOLD_S { MAX_HOLD_S } else { ttl };
    let ns = s as u64 * 1_000_000_000;
    if ns < MIN_HOLD_NS { MIN_HOLD_NS } else { ns }
}

#[cfg(test)]
mod tests;
