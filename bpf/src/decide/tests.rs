use super::*;
use abi::{ACTION_DENY, MODE_ENFORCE};
use std::net::IpAddr;

fn ip(s: &str) -> Ip {
    match s.parse().unwrap() {
        IpAddr::V4(a) => addr::from_v4(a.into()),
        IpAddr::V6(a) => Ip(a.octets()),
    }
}

fn slot(mode: u8) -> SlotConfig {
    let mut resolvers = [Ip::default(); MAX_RESOLVERS];
    resolvers[0] = ip("192.0.2.53");
    SlotConfig {
        slot: 1,
        index: 1,
        policy: 1,
        generation: 1,
        bypass_until: 0,
        udp_idle_ns: 0,
        mode,
        flags: SLOT_LOOPBACK_IS_EGRESS,
        resolver_count: 1,
        phase: 0,
        pad: [0; 4],
        resolvers,
        proxies: [Ip::default(); 2],
        name_servers: [Ip::default(); 2],
    }
}

const PEER: &str = "198.51.100.9";

fn judge(cfg: &SlotConfig, port: u16, best: Best) -> (u8, u8) {
    let d = egress(cfg, 1000, &ip(PEER), IPPROTO_TCP, port, best);
    (d.verdict, d.reason)
}

#[test]
fn verdict_order_holds_for_every_mode_and_bypass() {
    for mode in [MODE_ENFORCE, MODE_AUDIT, MODE_OBSERVE] {
        for bypass in [0, 2000] {
            let cfg = SlotConfig {
                bypass_until: bypass,
                ..slot(mode)
            };
            let builtin = judge(&cfg, 80, pack(ACTION_BUILTIN, NO_RULE, false));
            assert_eq!(
                builtin,
                (VERDICT_DENIED, reason::BUILTIN),
                "{mode} {bypass}"
            );
            let denied = judge(&cfg, 80, pack(ACTION_DENY, 3, false));
            let allowed = judge(&cfg, 80, pack(ACTION_ALLOW, 3, false));
            if bypass != 0 {
                assert_eq!(denied, (VERDICT_BYPASSED, reason::BYPASS));
                assert_eq!(allowed, (VERDICT_BYPASSED, reason::BYPASS));
            } else if mode == MODE_OBSERVE {
                assert_eq!(denied, (VERDICT_ALLOWED, reason::OBSERVE));
                assert_eq!(allowed, (VERDICT_ALLOWED, reason::OBSERVE));
            } else {
                let refused = if mode == MODE_AUDIT {
                    VERDICT_ALLOWED
                } else {
                    VERDICT_DENIED
                };
                assert_eq!(denied, (refused, reason::RULE));
                assert_eq!(allowed, (VERDICT_ALLOWED, reason::RULE));
                assert_eq!(judge(&cfg, 80, NONE), (refused, reason::DEFAULT));
            }
        }
    }
}

#[test]
fn an_expired_bypass_is_none() {
    let cfg = SlotConfig {
        bypass_until: 1000,
        ..slot(MODE_ENFORCE)
    };
    assert_eq!(judge(&cfg, 80, NONE), (VERDICT_DENIED, reason::DEFAULT));
}

#[test]
fn a_judgement_by_a_bypass_is_marked_and_any_other_takes_the_mark_away() {
    let cfg = SlotConfig {
        bypass_until: 2000,
        ..slot(MODE_ENFORCE)
    };
    for best in [
        NONE,
        pack(ACTION_DENY, 3, false),
        pack(ACTION_ALLOW, 3, false),
    ] {
        let at = |now| egress(&cfg, now, &ip(PEER), IPPROTO_TCP, 80, best);
        let (during, after) = (at(1999), at(2000));
        assert_eq!(lifted(FLOW_DNS, &during), FLOW_DNS | FLOW_LIFTED);
        assert_eq!(lifted(FLOW_DNS | FLOW_LIFTED, &after), FLOW_DNS);
    }
    assert_eq!(lifted(0, &ingress(&cfg, 1999)), FLOW_LIFTED);
    assert_eq!(lifted(FLOW_LIFTED, &ingress(&cfg, 2000)), 0);
}

#[test]
fn port_53_belongs_to_the_resolvers_and_853_to_nobody() {
    let cfg = slot(MODE_ENFORCE);
    let allow = pack(ACTION_ALLOW, 0, false);
    assert_eq!(judge(&cfg, 53, allow), (VERDICT_DENIED, reason::RESOLVER));
    assert_eq!(judge(&cfg, 853, allow), (VERDICT_DENIED, reason::RESOLVER));
    for proto in [IPPROTO_TCP, IPPROTO_UDP] {
        let to = ip("192.0.2.53");
        let d = egress(&cfg, 0, &to, proto, 53, NONE);
        assert_eq!(
            (d.verdict, d.reason, d.flags),
            (VERDICT_ALLOWED, reason::RESOLVER, FLOW_DNS)
        );
        let builtin = pack(ACTION_BUILTIN, NO_RULE, false);
        assert_eq!(
            egress(&cfg, 0, &to, proto, 53, builtin).verdict,
            VERDICT_ALLOWED
        );
        assert_eq!(
            egress(&cfg, 0, &to, proto, 80, builtin).verdict,
            VERDICT_DENIED
        );
        assert_eq!(
            egress(&cfg, 0, &to, proto, 853, NONE).verdict,
            VERDICT_DENIED
        );
    }
}

#[test]
fn audit_lets_pass_and_says_what_it_would_have_done() {
    let d = egress(
        &slot(MODE_AUDIT),
        0,
        &ip(PEER),
        IPPROTO_TCP,
        80,
        pack(ACTION_DENY, 7, false),
    );
    assert_eq!(
        (d.verdict, d.flags, d.rule),
        (VERDICT_ALLOWED, FLOW_WOULD_DENY, 7)
    );
}

#[test]
fn loopback_is_internal_only_in_a_namespace_of_its_own() {
    let own = SlotConfig {
        flags: 0,
        ..slot(MODE_ENFORCE)
    };
    assert!(internal(&own, &ip("127.0.0.1"), 8080));
    assert!(!internal(&own, &ip("127.0.0.11"), 53));
    assert!(!internal(&own, &ip(PEER), 8080));
    assert!(!internal(&slot(MODE_ENFORCE), &ip("127.0.0.1"), 8080));
}

#[test]
fn every_port_of_a_resolver_on_loopback_of_its_own_is_that_of_dns() {
    let mut own = SlotConfig {
        flags: 0,
        ..slot(MODE_ENFORCE)
    };
    own.resolvers[0] = ip("127.0.0.53");
    let meant = |cfg: &SlotConfig, to: &str, proto| meant_port(cfg, &ip(to), proto, 40_000);
    // The engine's is there, trusted or not.
    for resolver in ["127.0.0.11", "127.0.0.53"] {
        assert_eq!(meant(&own, resolver, IPPROTO_UDP), 53);
        assert_eq!(meant(&own, resolver, IPPROTO_TCP), 53);
        assert_eq!(meant(&own, resolver, abi::IPPROTO_ICMP), 40_000);
    }
    assert_eq!(meant(&own, "127.0.0.1", IPPROTO_UDP), 40_000);
    assert_eq!(
        meant(&slot(MODE_ENFORCE), "192.0.2.53", IPPROTO_UDP),
        40_000
    );
    let hosts = SlotConfig {
        flags: SLOT_LOOPBACK_IS_EGRESS,
        ..own
    };
    assert_eq!(meant(&hosts, "127.0.0.11", IPPROTO_UDP), 40_000);
}

#[test]
fn inbound_follows_the_policy() {
    let open = ingress(&slot(MODE_ENFORCE), 0);
    assert_eq!(
        (open.verdict, open.reason),
        (VERDICT_ALLOWED, reason::INBOUND)
    );
    let cfg = slot(MODE_ENFORCE);
    let shut = SlotConfig {
        flags: cfg.flags | SLOT_INBOUND_DENY,
        ..cfg
    };
    assert_eq!(ingress(&shut, 0).verdict, VERDICT_DENIED);
    assert_eq!(
        ingress(
            &SlotConfig {
                bypass_until: 9,
                ..shut
            },
            0
        )
        .verdict,
        VERDICT_BYPASSED
    );
}

fn rule(proto: u8, lo: u16, hi: u16, action: u8, rule: u32, flags: u8) -> PortRule {
    PortRule {
        lo,
        hi,
        proto,
        action,
        flags,
        pad: 0,
        rule,
    }
}

#[test]
fn deny_beats_allow_and_the_earlier_rule_names_the_decision() {
    let mut set = RuleSet::default();
    set.rules[0] = rule(IPPROTO_TCP, 0, 65535, ACTION_ALLOW, 1, 0);
    set.rules[1] = rule(PROTO_ANY, 22, 22, ACTION_DENY, 9, 0);
    set.rules[2] = rule(IPPROTO_TCP, 22, 22, ACTION_DENY, 4, 0);
    set.count = 3;
    assert_eq!(
        best_of(&set, IPPROTO_TCP, 22, false, NONE),
        pack(ACTION_DENY, 4, false)
    );
    assert_eq!(
        best_of(&set, IPPROTO_UDP, 22, false, NONE),
        pack(ACTION_DENY, 9, false)
    );
    assert_eq!(
        best_of(&set, IPPROTO_TCP, 80, false, NONE),
        pack(ACTION_ALLOW, 1, false)
    );
    assert_eq!(best_of(&set, IPPROTO_UDP, 80, false, NONE), NONE);
    set.count = 1;
    assert_eq!(
        best_of(&set, IPPROTO_TCP, 22, false, NONE),
        pack(ACTION_ALLOW, 1, false)
    );
}

#[test]
fn private_answers_open_nothing_unless_the_rule_says_so() {
    let mut set = RuleSet::default();
    set.rules[0] = rule(IPPROTO_TCP, 443, 443, ACTION_ALLOW, 0, 0);
    set.rules[1] = rule(IPPROTO_TCP, 80, 80, ACTION_ALLOW, 1, RULE_PRIVATE);
    set.rules[2] = rule(IPPROTO_TCP, 22, 22, ACTION_DENY, 2, 0);
    set.count = 3;
    assert_eq!(best_of(&set, IPPROTO_TCP, 443, true, NONE), NONE);
    assert_eq!(
        best_of(&set, IPPROTO_TCP, 80, true, NONE),
        pack(ACTION_ALLOW, 1, false)
    );
    assert_eq!(
        best_of(&set, IPPROTO_TCP, 22, true, NONE),
        pack(ACTION_DENY, 2, false)
    );
}

#[test]
fn what_needs_the_proxy_is_allowed_by_way_of_it_only() {
    let best = pack(ACTION_ALLOW, 3, true);
    for mode in [MODE_ENFORCE, MODE_AUDIT, MODE_OBSERVE] {
        for bypass_until in [0, 2000] {
            let cfg = SlotConfig {
                bypass_until,
                ..slot(mode)
            };
            let d = egress(&cfg, 1000, &ip(PEER), IPPROTO_TCP, 80, best);
            // Whoever only watches, or has lifted the firewall, leaves the way as it is.
            let led = bypass_until == 0 && mode != MODE_OBSERVE;
            assert_eq!(d.flags & FLOW_PROXIED != 0, led);
            let past = direct(&cfg, 1000, d);
            assert_eq!(past.flags & FLOW_PROXIED, 0);
            let denied = led && mode == MODE_ENFORCE;
            assert_eq!(past.verdict == VERDICT_DENIED, denied, "{past:?}");
            if led {
                assert_eq!((past.reason, past.rule), (reason::NO_PROXY_PATH, 3));
            }
        }
    }
    // A rule that denies, and one that comes first, decide as ever.
    for other in [pack(ACTION_DENY, 9, false), pack(ACTION_ALLOW, 2, false)] {
        assert!(other < best);
    }
    assert!(!proxied(NONE) && !proxied(pack(ACTION_DENY, 3, true)));
}

#[test]
fn a_proxy_is_of_the_flows_own_family_or_over_ipv4() {
    let (four, six) = (ip("192.0.2.80"), ip("2001:db8::80"));
    let with = |proxies| SlotConfig {
        proxies,
        ..slot(MODE_ENFORCE)
    };
    let none = Ip::default();
    for (proxies, to, wanted) in [
        ([four, six], PEER, Some(four)),
        ([four, six], "2001:db8::9", Some(six)),
        ([four, none], "2001:db8::9", Some(four)),
        ([none, six], PEER, None),
        ([none, none], "2001:db8::9", None),
    ] {
        assert_eq!(proxy(&with(proxies), &ip(to)).copied(), wanted, "{to}");
    }
    assert_eq!(
        (proxy_port(443), proxy_port(55_535), proxy_port(55_536)),
        (10_443, 65_535, 0)
    );
}

#[test]
fn dns_is_led_whomever_it_is_meant_for_while_the_policy_holds() {
    let server = ip("203.0.113.53");
    let mut cfg = slot(MODE_ENFORCE);
    cfg.flags |= SLOT_NAME_SERVER;
    cfg.name_servers[0] = server;
    let told = |cfg: &SlotConfig, to: &str, proto, port, best| {
        let to = ip(to);
        let d = egress(cfg, 5, &to, proto, port, best);
        if is_led(cfg, 5, &to, proto, port) {
            led(d)
        } else {
            d
        }
    };
    let to_server = FLOW_DNS | FLOW_PROXIED;
    for (to, proto, port, verdict, flags) in [
        ("192.0.2.53", IPPROTO_UDP, 53, VERDICT_ALLOWED, to_server),
        ("198.51.100.7", IPPROTO_TCP, 53, VERDICT_ALLOWED, to_server),
        ("2001:db8::1", IPPROTO_UDP, 53, VERDICT_ALLOWED, to_server),
        // Itself is asked as it is.
        ("203.0.113.53", IPPROTO_UDP, 53, VERDICT_ALLOWED, FLOW_DNS),
        ("198.51.100.7", IPPROTO_TCP, 853, VERDICT_DENIED, 0),
        ("198.51.100.7", 132, 53, VERDICT_DENIED, 0),
    ] {
        let d = told(&cfg, to, proto, port, NONE);
        assert_eq!(
            (d.verdict, d.flags),
            (verdict, flags),
            "{to} {proto} {port}"
        );
    }
    // What is closed to everybody is no way around.
    let builtin = pack(ACTION_BUILTIN, 0, false);
    let d = told(&cfg, "169.254.169.254", IPPROTO_UDP, 53, builtin);
    assert_eq!((d.verdict, d.reason), (VERDICT_DENIED, reason::BUILTIN));
    // Where there is no way to it there is no DNS.
    let d = direct(&cfg, 5, told(&cfg, "192.0.2.53", IPPROTO_UDP, 53, NONE));
    assert_eq!(
        (d.verdict, d.reason),
        (VERDICT_DENIED, reason::NO_PROXY_PATH)
    );
    cfg.flags |= SLOT_NO_DNS;
    for to in ["198.51.100.7", "203.0.113.53"] {
        let d = told(&cfg, to, IPPROTO_UDP, 53, NONE);
        assert_eq!(
            (d.verdict, d.reason),
            (VERDICT_DENIED, reason::RESOLVER),
            "{to}"
        );
    }
    cfg.flags &= !SLOT_NO_DNS;
    for loosened in [
        SlotConfig {
            mode: MODE_OBSERVE,
            ..cfg
        },
        SlotConfig {
            bypass_until: 6,
            ..cfg
        },
    ] {
        let d = told(&loosened, "198.51.100.7", IPPROTO_UDP, 53, NONE);
        assert_eq!(d.flags & FLOW_PROXIED, 0);
        assert_ne!(d.verdict, VERDICT_DENIED);
    }
}
