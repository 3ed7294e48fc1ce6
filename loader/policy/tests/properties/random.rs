//! Random policies and flows for the property tests.

use policy::Question;
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt::Write;
use std::net::IpAddr;

/// A name of few labels, so that names meet.
pub(crate) fn host() -> impl Strategy<Value = String> {
    let labels = prop::collection::vec(select(vec!["a", "b", "ab"]), 1..4);
    labels.prop_map(|labels| labels.join("."))
}

/// An address near the edges of networks, private and built-in ones among them.
pub(crate) fn addr() -> impl Strategy<Value = String> {
    let low = select(vec![0u8, 1, 2, 128, 254, 255]);
    prop_oneof![
        (low.clone(), low.clone()).prop_map(|(a, b)| format!("10.0.{a}.{b}")),
        (low.clone(), low.clone()).prop_map(|(a, b)| format!("203.0.{a}.{b}")),
        low.clone().prop_map(|a| format!("169.254.169.{a}")),
        low.clone().prop_map(|a| format!("::ffff:203.0.0.{a}")),
        low.clone().prop_map(|a| format!("2001:db8::{a:x}:1")),
        low.prop_map(|a| format!("fe80::{a:x}")),
        select(vec![
            "100.100.100.200",
            "fd00:ec2::254",
            "168.63.129.16",
            "0.0.0.0",
            "::"
        ])
        .prop_map(str::to_owned),
    ]
}

/// A network around such an address.
pub(crate) fn network() -> impl Strategy<Value = String> {
    let bits = prop_oneof![Just(0u8), 1u8..=32, Just(32)];
    (addr(), bits).prop_map(|(addr, less)| {
        let addr: IpAddr = addr.parse().unwrap();
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let net = format!("{addr}/{}", most - less);
        net.parse::<ipnet::IpNet>().unwrap().trunc().to_string()
    })
}

/// A rule as flow-style YAML.
pub(crate) fn rule() -> impl Strategy<Value = String> {
    let name = (host(), select(vec!["", ".", "*."])).prop_map(|(name, how)| format!("{how}{name}"));
    let dst = prop_oneof![3 => name, 1 => addr(), 3 => network()];
    let proto = select(vec![
        "https",
        "http",
        "ssh",
        "icmp",
        "any",
        "any, port: 80",
        "tcp, port: 443",
        "tcp, port: 1-65535",
        "tcp, port: [22, 80, 90-95]",
        "udp, port: 53",
        "udp, port: 50-60",
        "udp, port: [443, 853]",
    ]);
    let action = select(vec![
        "",
        ", action: deny",
        ", private: true",
        ", private: true, action: deny",
    ]);
    (dst, proto, action)
        .prop_map(|(dst, proto, rest)| format!("{{dst: \"{dst}\", proto: {proto}{rest}}}"))
}

/// A policy with a project `p`, an agent `p/a` and an agent `a`.
pub(crate) fn source() -> impl Strategy<Value = String> {
    let rules = |most| prop::collection::vec(rule(), 0..most);
    let open = prop::collection::vec(
        select(vec![
            "169.254.169.254",
            "169.254.169.0/25",
            "fe80::/64",
            "169.254.0.0/15",
            "1.1.1.1",
        ]),
        0..3,
    );
    let default = select(vec!["allow", "deny"]);
    (rules(12), rules(4), rules(4), rules(4), open, default).prop_map(
        |(common, project, own, plain, open, default)| {
            let mut text = format!("default: {default}\nallow_builtin: {open:?}\n");
            let list = |rules: &[String]| format!("[{}]", rules.join(", "));
            writeln!(text, "rules: {}", list(&common)).unwrap();
            writeln!(text, "projects: {{p: {{rules: {}}}}}", list(&project)).unwrap();
            let (own, plain) = (list(&own), list(&plain));
            writeln!(
                text,
                "agents: {{p/a: {{rules: {own}}}, a: {{rules: {plain}}}}}"
            )
            .unwrap();
            text
        },
    )
}

/// Names, address, protocol, port, trusted resolver.
pub(crate) type Flow = (Vec<String>, Option<String>, u8, u16, bool);

/// A flow that such a policy may be about.
pub(crate) fn flow() -> impl Strategy<Value = Flow> {
    let hosts = prop_oneof![3 => prop::collection::vec(host(), 0..2), 1 => prop::collection::vec(host(), 2..4)];
    let proto = select(vec![6u8, 6, 6, 17, 17, 1, 58, 132]);
    let port = select(vec![0u16, 22, 53, 80, 92, 443, 853, 8080, 65535]);
    (
        hosts,
        prop::option::weighted(0.9, addr()),
        proto,
        port,
        prop::bool::weighted(0.1),
    )
}

/// The names of a flow, for [`ask`].
pub(crate) fn hosts(flow: &Flow) -> Vec<&str> {
    flow.0.iter().map(String::as_str).collect()
}

/// The flow as a question.
pub(crate) fn ask<'q>(flow: &Flow, hosts: &'q [&'q str]) -> Question<'q> {
    let (_, addr, proto, port, resolver) = flow;
    let addr = addr.as_ref().map(|addr| addr.parse().unwrap());
    Question {
        hosts,
        addr,
        proto: *proto,
        port: *port,
        resolver: *resolver,
    }
}
