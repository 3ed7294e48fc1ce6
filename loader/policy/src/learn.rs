//! The smallest policy that allows what was seen: from records of flows to rules.
//!
//! ```text
//! Observation ──add──▶ Learner (ways that were taken) ──finish──▶ Learned (rules) ──render──▶ source
//!                                                                      ▲
//!                                                  source ──read───────┘ merge
//! ```
//!
//! What was denied, or would have been, teaches nothing. What cannot be put into a rule is noted, not
//! bent into one. Everything is kept sorted, so that the same flows give the same text in any order.

mod notes;
mod own;
mod rules;
mod ways;
mod wildcards;
mod words;
mod written;

pub use written::{Form, LearnError, Learned};

use crate::builtin;
use crate::decide::{PORT_DNS, Question, Reason, is_dns, names};
use crate::destination::judged;
use crate::policy::{Policy, Resolver};
use crate::rule::Action;
use crate::target::is_trusted;
use abi::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, MAX_RESOLVERS};
use ipnet::IpNet;
use notes::{Note, Notes};
use own::{Own, within};
use rules::Rules;
use std::collections::BTreeSet;
use std::net::IpAddr;
use ways::Ways;
use wildcards::Refused;
use written::Counts;

/// Opened addresses of the built-in deny set that are kept.
const MAX_OPENED: usize = 256;
/// Resolvers that are kept; more than a policy may trust tell what was left out.
const MAX_SEEN_RESOLVERS: usize = 64;

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It passed, and the policy of the time let it.
    Allowed,
    /// It was denied, would have been, or was cut by a later policy.
    Denied,
    /// It passed because enforcement was lifted.
    Bypassed,
}

/// One record, as far as learning goes.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'r> {
    /// What became of it.
    pub outcome: Outcome,
    /// A peer opened it.
    pub ingress: bool,
    /// Names that led to the far end.
    pub hosts: &'r [&'r str],
    /// The name of a refused look-up.
    pub qname: Option<&'r str>,
    /// Address of the destination.
    pub addr: Option<IpAddr>,
    /// IANA protocol number, where it is one that rules can be about.
    pub proto: Option<u8>,
    /// Port of the destination, 0 where there is none.
    pub port: u16,
    /// Of a flow that a peer opened, the peer's address and port.
    pub peer: Option<(IpAddr, u16)>,
    /// Name of the process.
    pub comm: Option<&'r str>,
    /// Flows that the record stands for.
    pub flows: u64,
    /// The record was folded: it has no names even where names led there.
    pub folded: bool,
    /// The flow passed as DNS to a trusted resolver.
    pub resolver: bool,
    /// Raw label of the agent.
    pub agent: Option<&'r str>,
    /// Raw label of the project.
    pub project: Option<&'r str>,
}

/// A policy that the flows are held against.
#[derive(Clone, Debug)]
pub struct Base {
    /// The policy. What a rule of it denies is not learned.
    pub policy: Policy,
    /// Its file, for the notes.
    pub name: String,
    /// Only what the policy does not allow already is learned.
    pub beyond: bool,
}

/// Collects observations.
#[derive(Clone, Debug)]
pub struct Learner {
    base: Option<Base>,
    /// Addresses that count as trusted resolvers.
    trusted: Vec<IpAddr>,
    ways: Ways,
    own: Own,
    refused: Refused,
    notes: Notes,
    /// Resolvers that records name as trusted.
    resolvers: BTreeSet<IpAddr>,
    /// Addresses of the built-in deny set that the base opens, and that were reached.
    opened: BTreeSet<IpAddr>,
    counts: Counts,
}

impl Learner {
    /// Nothing seen yet. `trusted` are the resolvers of the time, as far as they are known.
    #[must_use]
    pub fn new(base: Option<Base>, trusted: Vec<IpAddr>) -> Self {
        Self {
            base,
            trusted,
            ways: Ways::default(),
            own: Own::default(),
            refused: Refused::default(),
            notes: Notes::default(),
            resolvers: BTreeSet::new(),
            opened: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Takes one record.
    pub fn add(&mut self, seen: &Observation<'_>) {
        match seen.outcome {
            Outcome::Denied => {
                more(&mut self.counts.denied, seen.flows);
                self.refuse(seen);
            }
            Outcome::Bypassed => self.notes.add(Note::Bypassed, seen.flows),
            Outcome::Allowed if seen.ingress => {
                more(&mut self.counts.accepted, seen.flows);
                self.accept(seen);
            }
            Outcome::Allowed => {
                more(&mut self.counts.allowed, seen.flows);
                self.learn(seen);
            }
        }
    }

    fn refuse(&mut self, seen: &Observation<'_>) {
        self.refused.add(seen);
        // Of a datagram from this host it was the way back that was denied.
        let far = match seen.peer {
            Some(peer) if seen.ingress => Some(peer),
            _ => seen.addr.map(|addr| (addr, seen.port)),
        };
        if let (Some(proto), Some((addr, port))) = (seen.proto, far) {
            self.own.refuse((judged(addr), proto, port));
        }
    }

    /// Whoever hears itself has ports of its own, and a datagram from this host passes only where one
    /// to its sender would.
    fn accept(&mut self, seen: &Observation<'_>) {
        let (Some(proto), Some(local), Some((peer, port))) = (seen.proto, seen.addr, seen.peer)
        else {
            return;
        };
        let (local, peer) = (judged(local), judged(peer));
        if !within(local, peer) {
            return;
        }
        self.own.open((local, proto, seen.port));
        if proto == IPPROTO_UDP {
            self.own.open((peer, proto, port));
            self.learn(&Observation {
                addr: Some(peer),
                port,
                ..*seen
            });
        }
    }

    fn learn(&mut self, seen: &Observation<'_>) {
        let Some(proto) = seen.proto.filter(has_rules) else {
            return self.notes.add(Note::Protocol, seen.flows);
        };
        let names = names(seen.hosts);
        let addr = seen.addr.map(judged);
        if names.is_empty() && addr.is_none() {
            return self.notes.add(Note::NoDestination, seen.flows);
        }
        if is_dns(proto, seen.port) {
            return self.dns(seen, addr);
        }
        match self.held_against(seen, proto, addr) {
            Held::Known => {}
            Held::Refused(note) => self.notes.add(note, seen.flows),
            Held::New => {
                if !self.open(addr) || !self.ways.take(seen, proto, addr, &names) {
                    self.notes.add(Note::TooMany, seen.flows);
                }
            }
        }
    }

    /// Remembers an address of the built-in deny set. False: there is no room for another.
    fn open(&mut self, addr: Option<IpAddr>) -> bool {
        let Some(addr) = addr.filter(|addr| builtin::denies(*addr, &[], &[]).is_some()) else {
            return true;
        };
        let room = self.opened.len() < MAX_OPENED || self.opened.contains(&addr);
        if room {
            self.opened.insert(addr);
        }
        room
    }

    /// DNS needs a trusted resolver, never a rule.
    fn dns(&mut self, seen: &Observation<'_>, addr: Option<IpAddr>) {
        let trusted = addr.is_some_and(|addr| is_trusted(addr, &self.trusted));
        let dns = seen.port == PORT_DNS;
        match addr {
            Some(addr) if dns && seen.resolver && self.resolvers.len() < MAX_SEEN_RESOLVERS => {
                self.resolvers.insert(addr);
            }
            _ if dns && trusted => {}
            Some(addr) if dns => self.notes.add(Note::Dns(addr), seen.flows),
            _ => self.notes.add(Note::DnsOverTls, seen.flows),
        }
    }

    /// What the built-in deny set and the base make of a flow.
    fn held_against(&self, seen: &Observation<'_>, proto: u8, addr: Option<IpAddr>) -> Held {
        let open = self
            .base
            .as_ref()
            .map_or(&[][..], |b| b.policy.allow_builtin());
        if let Some(addr) = addr
            && builtin::denies(addr, open, &[]).is_some()
        {
            return Held::Refused(Note::Builtin(addr));
        }
        let Some(base) = &self.base else {
            return Held::New;
        };
        let selected = base.policy.select(seen.agent, seen.project);
        let verdict = selected.decide(&Question {
            hosts: seen.hosts,
            addr,
            proto,
            port: seen.port,
            resolver: false,
        });
        match (verdict.action, verdict.reason) {
            (Action::Allow, _) if base.beyond => Held::Known,
            (Action::Deny, Reason::Rule(rule)) => {
                let rule = selected.rules()[rule as usize].title().to_owned();
                Held::Refused(Note::Base(rule))
            }
            _ => Held::New,
        }
    }

    /// What was learned. `wildcards`: names below one registered domain become one rule.
    #[must_use]
    pub fn finish(mut self, wildcards: bool) -> Learned {
        self.ways.unfold();
        if wildcards {
            wildcards::group(&mut self.ways, &self.refused);
        }
        let mut rules = Rules::from_ways(std::mem::take(&mut self.ways), &self.own);
        for (dst, flows) in rules.take_crowded() {
            self.notes.add(Note::ManyPorts(dst), flows);
        }
        let resolvers = self.trust();
        let base = self.base.as_ref();
        let beyond = base.filter(|base| base.beyond);
        let inbound = if self.counts.accepted > 0 {
            Action::Allow
        } else {
            Action::Deny
        };
        Learned {
            inbound: beyond.is_none().then_some(inbound),
            resolvers,
            allow_builtin: self.opened.into_iter().map(IpNet::from).collect(),
            beyond: beyond.map(|base| base.name.clone()),
            rules,
            notes: self.notes.lines(base.map_or("", |base| &base.name)),
            counts: self.counts,
        }
    }

    /// `resolvers:` of the learned policy: the base's, else those that answered, where the system's
    /// are not enough.
    fn trust(&mut self) -> Vec<Resolver> {
        if let Some(base) = &self.base {
            let mut resolvers = base.policy.resolvers().to_vec();
            resolvers.sort_unstable();
            return resolvers;
        }
        let known = |addr: &IpAddr| is_trusted(*addr, &self.trusted);
        let (system, others): (Vec<IpAddr>, Vec<IpAddr>) =
            self.resolvers.iter().copied().partition(known);
        let system = (!system.is_empty() || others.is_empty()).then_some(Resolver::System);
        let room = MAX_RESOLVERS - system.iter().len();
        for addr in others.iter().skip(room) {
            self.notes.add(Note::Dns(*addr), 1);
        }
        let others = others.into_iter().take(room).map(Resolver::Address);
        system.into_iter().chain(others).collect()
    }
}

/// What the rest of a policy makes of a flow.
enum Held {
    /// It needs a rule.
    New,
    /// It is allowed already.
    Known,
    /// A rule for it would be in vain.
    Refused(Note),
}

/// Counts in records are somebody else's numbers.
fn more(sum: &mut u64, flows: u64) {
    *sum = sum.saturating_add(flows);
}

fn has_rules(proto: &u8) -> bool {
    matches!(
        *proto,
        IPPROTO_TCP | IPPROTO_UDP | IPPROTO_ICMP | IPPROTO_ICMPV6
    )
}
