//! What becomes of flows that are not plain: ports by the thousand, resolvers, the built-in deny set, a
//! base, a command that talks to itself.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use policy::{
    Base, Form, LearnError, Learned, Learner, MAX_COVERING, Observation, Outcome, Policy,
};
use std::net::IpAddr;

fn flow(addr: &str, port: u16) -> Observation<'static> {
    Observation {
        outcome: Outcome::Allowed,
        ingress: false,
        hosts: &[],
        qname: None,
        addr: Some(addr.parse().unwrap()),
        proto: Some(6),
        port,
        peer: None,
        comm: None,
        flows: 1,
        folded: false,
        resolver: false,
        agent: None,
        project: None,
    }
}

fn learned(base: Option<Base>, flows: &[Observation<'_>]) -> Learned {
    let mut learner = Learner::new(base, vec!["192.0.2.53".parse().unwrap()]);
    for flow in flows {
        learner.add(flow);
    }
    learner.finish(false)
}

/// The text without its comments.
fn text(learned: &Learned) -> String {
    let text = learned.render(Form::Kept).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

fn base(source: &str, beyond: bool) -> Option<Base> {
    Some(Base {
        policy: Policy::parse(source).policy.unwrap(),
        name: "base.yaml".to_owned(),
        beyond,
    })
}

#[test]
fn nothing_seen_is_nothing_allowed() {
    assert_eq!(text(&learned(None, &[])), "inbound: deny\nrules: []\n");
}

#[test]
fn more_ports_than_a_policy_holds_are_said_not_learned() {
    let every_other = |n: u16| flow("203.0.113.9", 1000 + 2 * n);
    let many: Vec<_> = (0..u16::try_from(MAX_COVERING).unwrap())
        .map(every_other)
        .collect();
    let all = learned(None, &many);
    assert_eq!(text(&all), "inbound: deny\nrules: []\n");
    let note = "128 flows to more ports of 203.0.113.9 than a policy can tell apart: write a range";
    assert_eq!(all.notes(), [note]);
    // In a row they are one range.
    let row: Vec<_> = (1000..3000).map(|port| flow("203.0.113.9", port)).collect();
    let rule = "  - {dst: 203.0.113.9, proto: tcp, port: \"1000-2999\"}\n";
    assert!(text(&learned(None, &row)).ends_with(rule));
    // Two runs that fit each, and not together.
    let (first, second) = many.split_at(60);
    let mut later = learned(None, &second[..60]);
    later.merge(learned(None, first)).unwrap();
    assert_eq!(text(&later), "inbound: deny\nrules: []\n");
    assert_eq!(later.notes().len(), 1);
}

#[test]
fn resolvers_are_the_systems_or_those_that_answered() {
    let dns = |addr: &str, resolver| Observation {
        proto: Some(17),
        resolver,
        ..flow(addr, 53)
    };
    let first = |flows: &[_]| {
        text(&learned(None, flows))
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    // Known here.
    assert_eq!(
        first(&[dns("192.0.2.53", true), dns("192.0.2.53", false)]),
        "inbound: deny"
    );
    assert_eq!(
        first(&[dns("192.0.2.53", true), dns("198.51.100.53", true)]),
        "resolvers: [system, \"198.51.100.53\"]"
    );
    assert_eq!(
        first(&[dns("2001:db8::53", true), dns("198.51.100.53", true)]),
        "resolvers: [\"198.51.100.53\", \"2001:db8::53\"]"
    );
    let other = learned(None, &[dns("8.8.8.8", false), flow("8.8.8.8", 853)]);
    assert_eq!(text(&other), "inbound: deny\nrules: []\n");
    assert_eq!(other.notes().len(), 2);
    assert!(other.notes()[0].contains("8.8.8.8 port 53"));
    // More than a policy may trust.
    let many: Vec<String> = (1..=6).map(|n| format!("198.51.100.{n}")).collect();
    let many: Vec<_> = many.iter().map(|addr| dns(addr, true)).collect();
    let all = learned(None, &many);
    assert_eq!(
        text(&all).lines().next().unwrap().matches("198.51").count(),
        4
    );
    assert_eq!(all.notes().len(), 2);
    let mut later = learned(None, &[dns("198.51.100.9", true)]);
    assert_eq!(later.merge(all), Err(LearnError::Resolvers));
}

#[test]
fn a_base_that_opens_the_built_in_set_opens_what_was_reached() {
    let metadata = flow("169.254.169.254", 80);
    let closed = learned(None, &[metadata]);
    assert_eq!(closed.notes().len(), 1);
    let source = "allow_builtin: [169.254.169.0/24]\nresolvers: [192.0.2.53]\nrules: []\n";
    let open = learned(base(source, false), &[metadata, flow("169.254.1.1", 80)]);
    assert_eq!(
        text(&open),
        "resolvers: [\"192.0.2.53\"]\nallow_builtin: [\"169.254.169.254\"]\ninbound: deny\n\
         rules:\n  - {dst: 169.254.169.254, proto: http}\n"
    );
    assert_eq!(open.notes().len(), 1);
    let read = Learned::read(&open.render(Form::Kept).unwrap()).unwrap();
    assert_eq!(text(&read), text(&open));
}

#[test]
fn a_base_keeps_out_what_it_allows_and_what_it_denies() {
    let source = "rules:\n  - {dst: 203.0.113.0/24, proto: http}\n\
        \x20 - {dst: 203.0.113.66, proto: any, action: deny, name: no}\n\
        agents:\n  a: {rules: [{dst: 192.0.2.1, proto: ssh}]}\n";
    let flows = [
        flow("203.0.113.9", 80),
        flow("203.0.113.9", 81),
        flow("203.0.113.66", 80),
        flow("192.0.2.1", 22),
        Observation {
            agent: Some("a"),
            ..flow("192.0.2.1", 22)
        },
    ];
    let beyond = learned(base(source, true), &flows);
    assert_eq!(
        text(&beyond),
        "rules:\n  - {dst: 192.0.2.1, proto: ssh}\n  - {dst: 203.0.113.9, proto: tcp, port: 81}\n"
    );
    assert_eq!(
        beyond.notes(),
        ["1 flow that the rule `no` of base.yaml denies"]
    );
    assert!(
        beyond
            .render(Form::Printed)
            .unwrap()
            .contains(" # 1 flow\n")
    );
    let whole = learned(base(source, false), &flows);
    assert!(text(&whole).contains("{dst: 203.0.113.9, proto: http}"));
    assert_eq!(whole.notes(), beyond.notes());
}

/// A flow that the observed heard from itself.
fn heard(addr: &str, proto: u8, port: u16, peer: u16) -> Observation<'static> {
    let peer_addr: IpAddr = addr.parse().unwrap();
    Observation {
        ingress: true,
        proto: Some(proto),
        peer: Some((peer_addr, peer)),
        ..flow(addr, port)
    }
}

#[test]
fn ports_that_the_kernel_chose_are_one_range_at_their_address() {
    let range = "port: \"32768-65535\"}";
    let of = |flows: &[_]| text(&learned(None, flows));
    let talk = [
        flow("127.0.0.1", 41000),
        heard("127.0.0.1", 6, 41000, 52000),
    ];
    let own = of(&talk);
    assert!(
        own.contains(&format!(
            "{{dst: 127.0.0.1, proto: tcp, {range} # ports of its own"
        )),
        "{own}"
    );
    assert!(own.contains("inbound: allow"), "{own}");
    // Its own address is itself too; another address, a low port and nobody listening are not.
    let lan = [flow("10.1.2.3", 41000), heard("10.1.2.3", 6, 41000, 52000)];
    assert!(of(&lan).contains(range));
    let mut from_outside = heard("10.1.2.3", 6, 41000, 52000);
    from_outside.peer = Some(("10.9.9.9".parse().unwrap(), 52000));
    for exact in [
        [flow("10.1.2.3", 41000), from_outside],
        [flow("127.0.0.1", 8080), heard("127.0.0.1", 6, 8080, 52000)],
        [
            flow("127.0.0.1", 41000),
            heard("127.0.0.1", 6, 41001, 52000),
        ],
        [
            flow("127.0.0.1", 41000),
            heard("127.0.0.1", 17, 41000, 52000),
        ],
    ] {
        let text = of(&exact);
        let port = exact[0].port;
        assert!(
            text.contains(&format!("proto: tcp, port: {port}}}")),
            "{text}"
        );
    }
    // Something in the range was denied: only what was seen is allowed.
    let denied = Observation {
        outcome: Outcome::Denied,
        ..flow("127.0.0.1", 50000)
    };
    assert!(of(&[talk[0], talk[1], denied]).contains("port: 41000}"));
}

#[test]
fn a_datagram_from_this_host_needs_the_way_back() {
    let query = Observation {
        proto: Some(17),
        ..flow("127.0.0.1", 5353)
    };
    let text = text(&learned(
        None,
        &[query, heard("127.0.0.1", 17, 5353, 40000)],
    ));
    assert!(
        text.contains("{dst: 127.0.0.1, proto: udp, port: [5353, \"32768-65535\"]}"),
        "{text}"
    );
}

#[test]
fn only_what_was_written_is_read() {
    let kept = learned(None, &[flow("203.0.113.9", 80)]);
    let source = kept.render(Form::Kept).unwrap();
    assert!(Learned::read(&source).is_some());
    let printed = kept.render(Form::Printed).unwrap();
    for other in [
        printed,
        String::new(),
        "rules: []\n".to_owned(),
        source.replace("80", "81").replace("http", "http "),
        source.replace("\n  - ", "\n  -  "),
        format!("{source}  - {{dst: 203.0.113.9, proto: http}}\n"),
        source.replace("inbound: deny", "inbound: deny\nmode: audit"),
        format!("{source}agents: {{a: {{domains: [evil.example]}}}}\n"),
        format!("{source}tests: [{{to: \"a.b:1\", expect: deny}}]\n"),
    ] {
        assert!(Learned::read(&other).is_none(), "{other}");
    }
}
