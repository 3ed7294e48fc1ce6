//! The record of a flow: kernel bytes turned into names and units, with the attribute names of every
//! stream (DESIGN §5). Pure, but for the name and rule look-ups it is handed.

use crate::enrol::addr;
use abi::{
    DIRECTION_INGRESS, FLOW_HAS_DST, FLOW_HAS_SRC, FLOW_NAMES, FLOW_WOULD_DENY, Flow, FlowEvent,
    FoldKey, FoldRow, LiveFlow, NO_RULE, Tail, VERDICT_ALLOWED, VERDICT_BYPASSED, reason,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

mod otlp;
mod read;
mod words;

pub use words::{
    CLOSE_REASONS, DIRECTIONS, FOLDED, REASONS, VERDICTS, Word, proto, proto_number, reason_name,
    verdict,
};
use words::{close_name, direction};

/// What a flow's record says. Absent values are left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// End of the flow.
    pub time: Timestamp,
    /// Raw label of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Raw label of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The container, in the engine's long form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// ALLOWED, DENIED or BYPASSED.
    #[serde(deserialize_with = "read::verdict")]
    pub verdict: Word,
    /// `egress`, or `ingress` for accepted flows.
    #[serde(deserialize_with = "read::direction")]
    pub direction: Word,
    /// Who began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_ip: Option<IpAddr>,
    /// Port of `src_ip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Where it went, as the agent asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_ip: Option<IpAddr>,
    /// Port of `dst_ip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// Transport protocol.
    pub l4_proto: String,
    /// The DNS name that led here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_host: Option<String>,
    /// The names, if several led here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dst_hosts: Vec<String>,
    /// The name of a refused DNS query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qname: Option<String>,
    /// Always `unknown` from the kernel (P17).
    #[serde(deserialize_with = "read::l7_proto")]
    pub l7_proto: Word,
    /// Payload that arrived.
    pub bytes_in: u64,
    /// Payload that left.
    pub bytes_out: u64,
    /// Segments or datagrams that arrived.
    pub packets_in: u64,
    /// Segments or datagrams that left.
    pub packets_out: u64,
    /// From the first to the last.
    pub duration_ms: u64,
    /// Beginning of the flow.
    pub start_time: Timestamp,
    /// Why this verdict.
    #[serde(deserialize_with = "read::reason")]
    pub reason: Word,
    /// Rule that decided, or that cut the flow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it ended; absent while it lives.
    #[serde(default, deserialize_with = "read::close_reason")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<Word>,
    /// Process that opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Command name of that process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Smoothed round trip of TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u32>,
    /// Retransmitted segments of TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<u32>,
    /// Unique for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<String>,
    /// Flows in a folded record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// End of the first flow of a folded record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_time: Option<Timestamp>,
    /// Audit mode let it pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub would_deny: Option<bool>,
    /// The proxy that the flow really went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_ip: Option<IpAddr>,
    /// Its port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_port: Option<u16>,
}

/// Whom a flow belongs to. Absent values are left out of records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Raw label of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Raw label of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The container, in the engine's long form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Name of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
}

/// Whose flows they are, and the clock they are told in.
#[derive(Clone, Debug)]
pub struct Context {
    /// Whom they belong to.
    pub owner: Owner,
    /// Boot id without dashes.
    pub boot: String,
    /// What to add to the boot clock to get the time of day, nanoseconds.
    pub wall_offset: i128,
    /// Set of maps that flows of no slot (0) were counted in: the kernel's id of its books. Every set has
    /// such a row, and numbers its flows from the beginning.
    pub set: u32,
}

/// Looks up what numbers in a flow stand for.
pub trait Lookup {
    /// A learned name by slot and hash.
    fn name(&mut self, slot: u32, hash: u64) -> Option<String>;
    /// A rule's name by policy and number.
    fn rule(&mut self, policy: u32, rule: u32) -> Option<String>;
}

impl Context {
    fn at(&self, boot_ns: u64) -> Timestamp {
        // A clock that far off is shown as the limit of what can be written down.
        Timestamp::from_nanosecond(i128::from(boot_ns) + self.wall_offset).unwrap_or(Timestamp::MAX)
    }

    /// An ended flow.
    pub fn ended(&self, e: &FlowEvent, look: &mut impl Lookup) -> Record {
        let mut r = self.flow(&e.flow, &e.tail, look);
        r.flow_id = Some(self.id(e.flow.slot, e.flow.verdict, e.seq));
        r
    }

    /// A flow that is still alive.
    pub fn live(&self, l: &LiveFlow, look: &mut impl Lookup) -> Record {
        self.flow(&l.flow, &l.tail, look)
    }

    fn id(&self, slot: u32, verdict: u8, seq: u64) -> String {
        let letter = match verdict {
            VERDICT_ALLOWED => 'a',
            VERDICT_BYPASSED => 'b',
            _ => 'd',
        };
        let set = self.nobodys(slot);
        format!("{}-{slot}-{letter}{seq}{set}", self.boot)
    }

    /// What tells apart the flows of no slot.
    fn nobodys(&self, slot: u32) -> String {
        if slot == 0 {
            format!("-{}", self.set)
        } else {
            String::new()
        }
    }

    fn flow(&self, f: &Flow, t: &Tail, look: &mut impl Lookup) -> Record {
        let names = names(f, look);
        let asked = f.reason == reason::NAME;
        let (one, many, qname) = match names.len() {
            0 => (None, Vec::new(), None),
            _ if asked => (None, Vec::new(), names.into_iter().next()),
            1 => (names.into_iter().next(), Vec::new(), None),
            _ => (None, names, None),
        };
        let tcp = f.proto == abi::IPPROTO_TCP;
        let has = |flag: u8| f.flags & flag != 0;
        let rule = if t.cut_rule == NO_RULE {
            (f.policy, f.rule)
        } else {
            (t.cut_policy, t.cut_rule)
        };
        Record {
            time: self.at(t.end),
            agent: self.owner.agent.clone(),
            project: self.owner.project.clone(),
            container_id: self.owner.container_id.clone(),
            container_name: self.owner.container_name.clone(),
            verdict: verdict(f.verdict),
            direction: direction(f.direction),
            src_ip: has(FLOW_HAS_SRC).then(|| addr(&f.src)),
            src_port: (has(FLOW_HAS_SRC) && f.src_port != 0).then_some(f.src_port),
            dst_ip: has(FLOW_HAS_DST).then(|| addr(&f.dst)),
            dst_port: (has(FLOW_HAS_DST) && ported(f.proto)).then_some(f.dst_port),
            // The kernel's byte has no room for 262, and TCP proper is never refused by its kind.
            l4_proto: if tcp && f.reason == reason::PROTOCOL {
                "mptcp".to_owned()
            } else {
                proto(f.proto)
            },
            dst_host: one,
            dst_hosts: many,
            qname,
            l7_proto: "unknown",
            bytes_in: t.bytes_in,
            bytes_out: t.bytes_out,
            packets_in: t.packets_in,
            packets_out: t.packets_out,
            duration_ms: t.end.saturating_sub(f.start) / 1_000_000,
            start_time: self.at(f.start),
            reason: reason_name(f.reason),
            rule: (rule.1 != NO_RULE)
                .then(|| look.rule(rule.0, rule.1))
                .flatten(),
            close_reason: close_name(t.close),
            pid: (f.pid != 0).then_some(f.pid),
            comm: (f.pid != 0).then(|| crate::enrol::text(&f.comm)),
            rtt_us: (tcp && t.rtt_us != 0).then_some(t.rtt_us),
            retransmits: (tcp && t.retransmits != 0).then_some(t.retransmits),
            flow_id: None,
            count: None,
            first_time: None,
            would_deny: has(FLOW_WOULD_DENY).then_some(true),
            proxy_ip: (t.proxy_port != 0).then(|| addr(&t.proxy)),
            proxy_port: u16::try_from(t.proxy_port).ok().filter(|port| *port != 0),
        }
    }

    /// A folded row: `count` flows of one destination, or of one verdict when there was no room to tell
    /// destinations apart.
    pub fn folded(&self, k: &FoldKey, r: &FoldRow, look: &mut impl Lookup) -> Record {
        let nowhere = k.proto == 0 && k.dst == abi::Ip::default();
        let ingress = k.direction == DIRECTION_INGRESS;
        let peer = (!nowhere).then(|| addr(&k.dst));
        Record {
            time: self.at(r.last),
            agent: self.owner.agent.clone(),
            project: self.owner.project.clone(),
            container_id: self.owner.container_id.clone(),
            container_name: self.owner.container_name.clone(),
            verdict: verdict(k.verdict),
            direction: direction(k.direction),
            src_ip: peer.filter(|_| ingress),
            src_port: None,
            dst_ip: peer.filter(|_| !ingress),
            dst_port: (!nowhere && ported(k.proto)).then_some(k.port),
            l4_proto: if nowhere {
                "any".to_owned()
            } else {
                proto(k.proto)
            },
            dst_host: None,
            dst_hosts: Vec::new(),
            qname: None,
            l7_proto: "unknown",
            bytes_in: r.bytes_in,
            bytes_out: r.bytes_out,
            packets_in: r.packets_in,
            packets_out: r.packets_out,
            duration_ms: 0,
            start_time: self.at(r.first),
            reason: if nowhere {
                FOLDED
            } else {
                reason_name(k.reason)
            },
            rule: (r.rule != NO_RULE)
                .then(|| look.rule(r.policy, r.rule))
                .flatten(),
            close_reason: None,
            pid: None,
            comm: None,
            rtt_us: None,
            retransmits: None,
            flow_id: Some(format!(
                "{}-{}-f{}-{:x}{}",
                self.boot,
                k.slot,
                k.epoch,
                fold_number(k),
                self.nobodys(k.slot)
            )),
            count: Some(r.count),
            first_time: Some(self.at(r.first)),
            would_deny: (k.flags & FLOW_WOULD_DENY != 0).then_some(true),
            proxy_ip: None,
            proxy_port: None,
        }
    }
}

/// Tells the rows of one epoch apart: their keys as one number.
fn fold_number(k: &FoldKey) -> u64 {
    let mut bytes = k.dst.0.to_vec();
    bytes.extend(k.port.to_be_bytes());
    bytes.extend([k.proto, k.verdict, k.reason, k.direction, k.flags]);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn names(f: &Flow, look: &mut impl Lookup) -> Vec<String> {
    let used = usize::from(f.name_count).min(FLOW_NAMES);
    let mut names: Vec<String> = f.names[..used]
        .iter()
        .filter_map(|hash| look.name(f.slot, *hash))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a protocol has ports.
fn ported(n: u8) -> bool {
    matches!(n, abi::IPPROTO_TCP | abi::IPPROTO_UDP)
}

#[cfg(test)]
mod tests;
