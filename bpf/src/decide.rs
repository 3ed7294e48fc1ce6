//! Which rule wins and what becomes of a flow: the verdict order in one place.
//!
//! Built-in deny set → bypass → deny rules → allow rules → default. DNS has its own gate between the
//! built-in set and the bypass: port 53 belongs to the trusted resolvers, port 853 to nobody.

use crate::addr;
use abi::{
    ACTION_ALLOW, ACTION_BUILTIN, FLOW_DNS, FLOW_LIFTED, FLOW_PROXIED, FLOW_WOULD_DENY,
    IPPROTO_TCP, IPPROTO_UDP, Ip, MAX_RESOLVERS, MODE_AUDIT, MODE_OBSERVE, NO_RULE, PROTO_ANY,
    PROXY_PORTS, PortRule, RULE_PRIVATE, RULE_PROXIED, RuleSet, SET_RULES, SLOT_DEFAULT_ALLOW,
    SLOT_INBOUND_DENY, SLOT_LOOPBACK_IS_EGRESS, SLOT_NAME_SERVER, SLOT_NO_DNS, SLOT_PROXY,
    SlotConfig, VERDICT_ALLOWED, VERDICT_BYPASSED, VERDICT_DENIED, reason,
};

/// DNS (RFC 1035 §4.2).
pub const PORT_DNS: u16 = 53;
/// DNS over TLS and over QUIC (RFC 7858, RFC 9250).
pub const PORT_DOT: u16 = 853;

/// The most severe matching rule so far: the action, then the rule's number, so that the smaller number wins, then
/// whether it needs the proxy.
pub type Best = u64;

/// No rule matches.
pub const NONE: Best = u64::MAX;

/// Packs one match.
#[inline(always)]
pub fn pack(action: u8, rule: u32, proxied: bool) -> Best {
    ((action as u64) << 33) | ((rule as u64) << 1) | proxied as u64
}

/// The action of a match, more than any for none.
#[inline(always)]
pub fn action(best: Best) -> u64 {
    best >> 33
}

/// Its rule, [`NO_RULE`] for none.
#[inline(always)]
pub fn rule(best: Best) -> u32 {
    (best >> 1) as u32
}

/// Whether it allows by way of the proxy only.
#[inline(always)]
pub fn proxied(best: Best) -> bool {
    action(best) == ACTION_ALLOW as u64 && best & 1 != 0
}

#[inline(always)]
fn matches(r: &PortRule, proto: u8, port: u16, private: bool) -> bool {
    (r.proto == PROTO_ANY || r.proto == proto)
        && port >= r.lo
        && port <= r.hi
        && (!private || r.flags & RULE_PRIVATE != 0 || r.action != ACTION_ALLOW)
}

/// Best match of one set. `private`: the set belongs to a name and the address is private.
#[inline(always)]
pub fn best_of(set: &RuleSet, proto: u8, port: u16, private: bool, mut best: Best) -> Best {
    let mut i = 0;
    while i < SET_RULES {
        let r = &set.rules[i];
        if i as u32 >= set.count {
            break;
        }
        if matches(r, proto, port, private) {
            let m = pack(r.action, r.rule, r.flags & RULE_PROXIED != 0);
            if m < best {
                best = m;
            }
        }
        i += 1;
    }
    best
}

/// Whether some rule of the set allows something.
#[inline(always)]
pub fn allows_something(set: &RuleSet) -> bool {
    let mut i = 0;
    while i < SET_RULES {
        if i as u32 >= set.count {
            break;
        }
        if set.rules[i].action == ACTION_ALLOW {
            return true;
        }
        i += 1;
    }
    false
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// `VERDICT_*`.
    pub verdict: u8,
    /// [`reason`].
    pub reason: u8,
    /// [`FLOW_WOULD_DENY`], [`FLOW_DNS`] and [`FLOW_LIFTED`].
    pub flags: u8,
    /// Rule that decided.
    pub rule: u32,
}

impl Decision {
    /// A refusal that policy has no part in.
    #[inline(always)]
    pub fn refusal(reason: u8) -> Self {
        Self::new(VERDICT_DENIED, reason, NO_RULE)
    }

    /// Passes because a bypass is running, and no longer than that.
    #[inline(always)]
    fn bypass(rule: u32) -> Self {
        Self {
            flags: FLOW_LIFTED,
            ..Self::new(VERDICT_BYPASSED, reason::BYPASS, rule)
        }
    }

    #[inline(always)]
    fn new(verdict: u8, reason: u8, rule: u32) -> Self {
        Self {
            verdict,
            reason,
            flags: 0,
            rule,
        }
    }
}

/// Whether this address is a trusted resolver of the slot, the name server that DNS is led to included.
#[inline(always)]
pub fn is_resolver(cfg: &SlotConfig, ip: &Ip) -> bool {
    let mut i = 0;
    while i < MAX_RESOLVERS {
        if i as u32 >= cfg.resolver_count as u32 {
            break;
        }
        if addr::same(&cfg.resolvers[i], ip) {
            return true;
        }
        i += 1;
    }
    is_name_server(cfg, ip)
}

#[inline(always)]
fn leads_dns(cfg: &SlotConfig) -> bool {
    cfg.flags & (SLOT_NAME_SERVER | SLOT_NO_DNS) == SLOT_NAME_SERVER
}

/// Whether this address is the name server that DNS is led to.
#[inline(always)]
pub fn is_name_server(cfg: &SlotConfig, ip: &Ip) -> bool {
    leads_dns(cfg) && (addr::same(&cfg.name_servers[0], ip) || addr::same(&cfg.name_servers[1], ip))
}

/// Whether what goes to an address is DNS that is led to the name server, now.
#[inline(always)]
pub fn is_led(cfg: &SlotConfig, now: u64, ip: &Ip, proto: u8, port: u16) -> bool {
    port == PORT_DNS
        && leads_dns(cfg)
        && (proto == IPPROTO_TCP || proto == IPPROTO_UDP)
        && cfg.mode != MODE_OBSERVE
        && !bypassed(cfg, now)
        && !is_name_server(cfg, ip)
}

/// The judgement of DNS that [`is_led`], in place of that of [`egress`].
#[inline(always)]
pub fn led(d: Decision) -> Decision {
    if d.reason == reason::BUILTIN {
        return d;
    }
    Decision {
        flags: FLOW_DNS | FLOW_PROXIED,
        ..Decision::new(VERDICT_ALLOWED, reason::RESOLVER, NO_RULE)
    }
}

/// Whether the slot decides and acts, now.
#[inline(always)]
pub fn enforcing(cfg: &SlotConfig, now: u64) -> bool {
    cfg.mode != MODE_AUDIT && cfg.mode != MODE_OBSERVE && !bypassed(cfg, now)
}

/// Whether a bypass is running.
#[inline(always)]
pub fn bypassed(cfg: &SlotConfig, now: u64) -> bool {
    cfg.bypass_until > now
}

/// A live flow's flags after this judgement: whether it stands beyond a bypass is told anew each time.
#[inline(always)]
pub fn lifted(flags: u8, d: &Decision) -> u8 {
    (flags & !FLOW_LIFTED) | (d.flags & FLOW_LIFTED)
}

/// Whether this destination is loopback inside the container's own namespace, and not DNS.
#[inline(always)]
pub fn internal(cfg: &SlotConfig, ip: &Ip, port: u16) -> bool {
    cfg.flags & SLOT_LOOPBACK_IS_EGRESS == 0
        && addr::is_loopback(ip)
        && port != PORT_DNS
        && port != PORT_DOT
}

/// Where the engine's resolver is, on loopback of every container's own.
const ENGINE: Ip = Ip([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 11]);

/// The port that a packet or call to an address was meant for. The engine's resolver sits on loopback of
/// the container's own and listens at a port of its choice, to which NAT leads what is sent to 53 before
/// any packet program sees it. So every port of it, and of a trusted resolver there, is that of DNS: a lookup
/// that goes straight to the real one is a lookup too. It answers whether the policy trusts it or not.
#[inline(always)]
pub fn meant_port(cfg: &SlotConfig, ip: &Ip, proto: u8, port: u16) -> u16 {
    let ported = proto == IPPROTO_TCP || proto == IPPROTO_UDP;
    let inside = cfg.flags & SLOT_LOOPBACK_IS_EGRESS == 0 && addr::is_loopback(ip);
    if ported && inside && (addr::same(&ENGINE, ip) || is_resolver(cfg, ip)) {
        PORT_DNS
    } else {
        port
    }
}

/// Softens a refusal by mode and bypass.
#[inline(always)]
fn refuse(cfg: &SlotConfig, now: u64, reason: u8, rule: u32) -> Decision {
    if bypassed(cfg, now) {
        return Decision::bypass(rule);
    }
    match cfg.mode {
        MODE_OBSERVE => Decision::new(VERDICT_ALLOWED, reason::OBSERVE, rule),
        MODE_AUDIT => Decision {
            flags: FLOW_WOULD_DENY,
            ..Decision::new(VERDICT_ALLOWED, reason, rule)
        },
        _ => Decision::new(VERDICT_DENIED, reason, rule),
    }
}

/// Judges an egress flow. `best` is the most severe rule that covers the destination.
#[inline(always)]
pub fn egress(cfg: &SlotConfig, now: u64, ip: &Ip, proto: u8, port: u16, best: Best) -> Decision {
    let rule = rule(best);
    let transport = proto == IPPROTO_TCP || proto == IPPROTO_UDP;
    let dns = transport && port == PORT_DNS && is_resolver(cfg, ip);
    if action(best) == ACTION_BUILTIN as u64 && !dns {
        return Decision::new(VERDICT_DENIED, reason::BUILTIN, NO_RULE);
    }
    let mut d = if transport && (port == PORT_DNS || port == PORT_DOT) && !dns {
        refuse(cfg, now, reason::RESOLVER, NO_RULE)
    } else if bypassed(cfg, now) {
        Decision::bypass(rule)
    } else if cfg.mode == MODE_OBSERVE {
        Decision::new(VERDICT_ALLOWED, reason::OBSERVE, rule)
    } else if dns {
        Decision::new(VERDICT_ALLOWED, reason::RESOLVER, NO_RULE)
    } else if best == NONE {
        if cfg.flags & SLOT_DEFAULT_ALLOW != 0 {
            Decision::new(VERDICT_ALLOWED, reason::DEFAULT, NO_RULE)
        } else {
            refuse(cfg, now, reason::DEFAULT, NO_RULE)
        }
    } else if proxied(best) {
        Decision {
            flags: FLOW_PROXIED,
            ..Decision::new(VERDICT_ALLOWED, reason::RULE, rule)
        }
    } else if action(best) == ACTION_ALLOW as u64 {
        Decision::new(VERDICT_ALLOWED, reason::RULE, rule)
    } else {
        refuse(cfg, now, reason::RULE, rule)
    };
    if dns {
        d.flags |= FLOW_DNS;
    }
    d
}

/// The proxy for flows to an address: one of its own family, or over IPv4 for those to IPv6.
#[inline(always)]
pub fn proxy<'c>(cfg: &'c SlotConfig, ip: &Ip) -> Option<&'c Ip> {
    of_family(&cfg.proxies, ip)
}

/// The name server for DNS to an address, likewise.
#[inline(always)]
pub fn name_server<'c>(cfg: &'c SlotConfig, ip: &Ip) -> Option<&'c Ip> {
    of_family(&cfg.name_servers, ip)
}

#[inline(always)]
fn of_family<'c>(all: &'c [Ip; 2], ip: &Ip) -> Option<&'c Ip> {
    let none = Ip([0; 16]);
    if !addr::is_v4(ip) && !addr::same(&all[1], &none) {
        return Some(&all[1]);
    }
    (!addr::same(&all[0], &none)).then_some(&all[0])
}

/// Whether this address is the proxy's.
#[inline(always)]
pub fn is_proxy(cfg: &SlotConfig, ip: &Ip) -> bool {
    cfg.flags & SLOT_PROXY != 0
        && (addr::same(&cfg.proxies[0], ip) || addr::same(&cfg.proxies[1], ip))
}

/// The proxy's port for a port, 0 for none.
#[inline(always)]
pub fn proxy_port(port: u16) -> u16 {
    if port > u16::MAX - PROXY_PORTS {
        0
    } else {
        port + PROXY_PORTS
    }
}

/// A judgement for what cannot be sent to the proxy, or not any more: a rule that needs it does not allow it.
#[inline(always)]
pub fn direct(cfg: &SlotConfig, now: u64, d: Decision) -> Decision {
    if d.flags & FLOW_PROXIED == 0 {
        return d;
    }
    refuse(cfg, now, reason::NO_PROXY_PATH, d.rule)
}

/// Judges a flow that a peer opened to the agent.
#[inline(always)]
pub fn ingress(cfg: &SlotConfig, now: u64) -> Decision {
    if cfg.flags & SLOT_INBOUND_DENY != 0 {
        return refuse(cfg, now, reason::INBOUND, NO_RULE);
    }
    if bypassed(cfg, now) {
        return Decision::bypass(NO_RULE);
    }
    let why = if cfg.mode == MODE_OBSERVE {
        reason::OBSERVE
    } else {
        reason::INBOUND
    };
    Decision::new(VERDICT_ALLOWED, why, NO_RULE)
}

/// Judges something that is refused by its kind: a socket type, a protocol, headers.
#[inline(always)]
pub fn kind(cfg: &SlotConfig, now: u64, why: u8) -> Decision {
    refuse(cfg, now, why, NO_RULE)
}

#[cfg(test)]
mod tests;
