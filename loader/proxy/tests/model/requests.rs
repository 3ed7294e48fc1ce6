//! Requests through the rendered routes against `policy explain`.

use crate::random::{host, source};
use crate::walk::{Asked, walk};
use policy::{Action, Explanation, Mode, Policy, Proto, Question, Request};
use proptest::prelude::*;
use proptest::sample::select;
use proxy::{Agent, Fleet, Settings, envoy};
use std::net::IpAddr;

fn fleet() -> Fleet {
    let agents = ["p/a@10.9.0.2,fd00::2", "p/b@10.9.0.3", "c@10.9.0.4"];
    Fleet::new(agents.map(|text| Agent::parse(text).unwrap()).to_vec()).unwrap()
}

fn settings() -> Settings {
    Settings {
        intercept: true,
        ..Settings::default()
    }
}

const WHO: [(&str, Option<&str>, Option<&str>); 4] = [
    ("10.9.0.2", Some("a"), Some("p")),
    ("fd00::2", Some("a"), Some("p")),
    ("10.9.0.3", Some("b"), Some("p")),
    ("10.9.0.4", Some("c"), None),
];

#[derive(Clone, Debug)]
struct Drawn {
    who: usize,
    port: u16,
    tls: bool,
    host: String,
    method: &'static str,
    path: &'static str,
    query: &'static str,
    upgrade: bool,
}

fn request() -> impl Strategy<Value = Drawn> {
    let to = select(vec![
        (80, false),
        (80, true),
        (81, false),
        (443, true),
        (443, false),
        (8443, true),
    ]);
    let host = prop_oneof![8 => host(), 1 => select(vec!["192.0.2.7", "192.0.2.8", "10.1.2.3"]).prop_map(ToOwned::to_owned)];
    let method = select(vec!["GET", "HEAD", "POST", "PUT"]);
    let path = select(vec![
        "/", "/a", "/ab", "/a/", "/a/b", "/a/b/c", "/A", "/b", "/c",
    ]);
    let query = select(vec!["", "?", "?x", "?/a/b", "?x#"]);
    (0..WHO.len(), to, host, (method, path, query), any::<bool>()).prop_map(
        |(who, (port, tls), host, (method, path, query), upgrade)| Drawn {
            who,
            port,
            tls,
            host,
            method,
            path,
            query,
            upgrade,
        },
    )
}

/// Whether a rule is about this layer; those about TCP are about both.
fn in_layer(proto: Proto, tls: bool) -> bool {
    match proto {
        Proto::Https | Proto::Wss => tls,
        Proto::Http | Proto::Ws => !tls,
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_routes_decide_as_the_policy_does(
        source in source(),
        requests in prop::collection::vec(request(), 40),
    ) {
        let Some(policy) = Policy::parse(&source).policy else { return Ok(()) };
        let rendered = envoy::render(&policy, &fleet(), &settings());
        for drawn in &requests {
            check(&policy, &rendered.listeners, drawn, &source)?;
        }
    }

    /// While one policy takes the place of another, nothing but the new one decides, and what both allow has a way in.
    #[test]
    fn between_two_policies_the_new_one_decides(
        source in source(),
        before in source(),
        requests in prop::collection::vec(request(), 40),
    ) {
        let policies = (Policy::parse(&source).policy, Policy::parse(&before).policy);
        let (Some(policy), Some(before)) = policies else { return Ok(()) };
        let rendered = envoy::between(&policy, &before, &fleet(), &settings());
        let old = envoy::render(&before, &fleet(), &settings());
        for drawn in &requests {
            check(&policy, &rendered.listeners, drawn, &source)?;
            let (address, ..) = WHO[drawn.who];
            let host = format!("{}:{}", drawn.host, drawn.port);
            let ask = |listeners| walk(listeners, &asked(drawn, address, &host, drawn.path));
            let who = (WHO[drawn.who].1, WHO[drawn.who].2);
            // The kernel leads what a rule about requests allows, not what passes in another mode.
            let rule = told(&before, drawn, who).decider();
            let leads = rule.is_some_and(|r| r.action == Action::Allow && r.is_proxied(before.intercept()));
            let led = leads && ask(&old.listeners).is_some_and(|answer| answer.cluster.is_some());
            if led && allows(&policy, drawn, who) {
                prop_assert!(ask(&rendered.listeners).is_some(), "{:?}\n{}", drawn, source);
            }
        }
    }

    /// However a host is spelled, it is answered as that name or not at all.
    #[test]
    fn a_host_that_is_spelled_oddly_passes_no_rule_by(
        source in source(),
        drawn in request(),
        odd in select(vec![".", ":", ":0", ":22", ":99999", "@x.example", "/", "%2e", "..", " ", "\u{e9}", ":443:443"]),
        in_front in any::<bool>(),
    ) {
        let Some(policy) = Policy::parse(&source).policy else { return Ok(()) };
        let rendered = envoy::render(&policy, &fleet(), &settings());
        let (source, agent, project) = WHO[drawn.who];
        let enforced = policy.select(agent, project).mode == Mode::Enforce;
        let host = if in_front { format!("{odd}{}", drawn.host) } else { format!("{}{odd}", drawn.host) };
        let answer = walk(&rendered.listeners, &asked(&drawn, source, &host, drawn.path));
        if let (Some(answer), true) = (answer, enforced) {
            prop_assert_eq!(answer.cluster, None, "{}", host);
        }
    }
}

/// What a policy says of a request.
fn told<'p>(
    policy: &'p Policy,
    drawn: &Drawn,
    (agent, project): (Option<&str>, Option<&str>),
) -> Explanation<'p> {
    let literal = drawn.host.parse().ok();
    let hosts = [drawn.host.as_str()];
    let question = Question {
        hosts: if literal.is_some() { &[] } else { &hosts },
        addr: literal,
        proto: 6,
        port: drawn.port,
        resolver: false,
    };
    let request = Request::new(drawn.method, drawn.path).unwrap();
    policy.explain(agent, project, &question, Some(&request))
}

/// Whether a policy allows a request on its layer.
fn allows(policy: &Policy, drawn: &Drawn, who: (Option<&str>, Option<&str>)) -> bool {
    let told = told(policy, drawn, who);
    let layer = told
        .decider()
        .is_none_or(|rule| in_layer(rule.proto, drawn.tls));
    told.action() == Action::Allow && layer
}

fn asked<'a>(drawn: &'a Drawn, source: &'a str, host: &'a str, path: &'a str) -> Asked<'a> {
    Asked {
        source,
        port: drawn.port,
        tls: drawn.tls,
        host,
        method: drawn.method,
        path,
        upgrade: drawn.upgrade,
    }
}

fn check(
    policy: &Policy,
    listeners: &serde_json::Value,
    drawn: &Drawn,
    source: &str,
) -> Result<(), TestCaseError> {
    let (address, agent, project) = WHO[drawn.who];
    let literal: Option<IpAddr> = drawn.host.parse().ok();
    let told = told(policy, drawn, (agent, project));
    let decider = told.decider();
    let elsewhere = decider
        .is_some_and(|rule| rule.action == Action::Allow && !in_layer(rule.proto, drawn.tls));
    let enforced = told.selected.mode == Mode::Enforce;
    let built_in = told.decided_by() == "builtin";
    // Envoy has no domain for a network: an address that only a wider one is about is nobody's host. It
    // is one where another rule names it.
    let wide = literal.is_some() && decider.is_some_and(|rule| rule.dst.to_string().contains('/'));
    let allowed = told.action() == Action::Allow && !elsewhere;

    let host = format!("{}:{}", drawn.host, drawn.port);
    let path = format!("{}{}", drawn.path, drawn.query.trim_end_matches('#'));
    let Some(answer) = walk(listeners, &asked(drawn, address, &host, &path)) else {
        // There is a way in for whatever a rule about requests allows.
        let wanted = allowed && !wide && decider.is_some_and(|rule| rule.proto.is_http());
        prop_assert!(!wanted, "no chain for {:?}\n{}", drawn, source);
        return Ok(());
    };
    let passes = allowed || (!enforced && !built_in);
    if wide {
        prop_assert!(
            answer.cluster.is_none() || allowed || !enforced || policy_default_allows(policy),
            "{:?}\n{}",
            drawn,
            source
        );
        return Ok(());
    }
    prop_assert_eq!(
        answer.cluster.is_some(),
        passes,
        "{:?} {:?}\n{}",
        drawn,
        answer,
        source
    );
    prop_assert_eq!(&answer.verdict, if passes { "ALLOWED" } else { "DENIED" });
    if let Some(rule) = decider {
        prop_assert_eq!(
            answer.rule.as_deref(),
            Some(rule.title()),
            "{:?}\n{}",
            drawn,
            source
        );
    } else {
        prop_assert_eq!(&answer.reason, told.decided_by());
    }
    let Some(cluster) = answer.cluster else {
        return Ok(());
    };
    prop_assert_eq!(cluster.starts_with("tls"), drawn.tls);
    let unverified = told.verdict.action == Action::Allow
        && decider.is_some_and(|rule| rule.insecure_skip_tls_verify);
    prop_assert_eq!(
        cluster.contains("unverified"),
        drawn.tls && unverified && !elsewhere,
        "{}\n{}",
        cluster,
        source
    );
    prop_assert_eq!(cluster.ends_with("http1"), drawn.tls && drawn.upgrade);
    Ok(())
}

fn policy_default_allows(policy: &Policy) -> bool {
    let nobody = Question {
        hosts: &["nobody.example"],
        addr: None,
        proto: 6,
        port: 1,
        resolver: false,
    };
    policy.select(None, None).decide(&nobody).action == Action::Allow
}
