//! What the keys of a policy mean.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use policy::{Action, Mode, Policy, Question, Reason, Request, Resolver, Selected};
use std::net::IpAddr;
use std::time::Duration;

fn read(source: &str) -> Policy {
    let parsed = Policy::parse(source);
    parsed
        .policy
        .unwrap_or_else(|| panic!("{source}\n{:#?}", parsed.diagnostics))
}

fn golden(name: &str) -> Policy {
    let path = format!("{}/tests/golden/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
    read(&std::fs::read_to_string(path).unwrap())
}

fn decide(selected: &Selected<'_>, to: &str, proto: u8, port: u16) -> (Action, Reason) {
    let addr: Option<IpAddr> = to.parse().ok();
    let host = addr.is_none().then_some(to);
    let verdict = selected.decide(&Question {
        hosts: host.as_slice(),
        addr,
        proto,
        port,
        resolver: false,
    });
    (verdict.action, verdict.reason)
}

fn request(method: &str, path: &str) -> Request {
    Request::new(method, path).unwrap()
}

fn texts(selected: &Selected<'_>) -> Vec<String> {
    selected
        .rules()
        .iter()
        .map(|rule| format!("{}: {rule}", rule.title()))
        .collect()
}

#[test]
fn a_file_with_everything_is_read_as_written() {
    let policy = golden("full");
    let resolvers = [
        Resolver::System,
        Resolver::Address("192.0.2.53".parse().unwrap()),
        Resolver::Address("2001:db8::53".parse().unwrap()),
        Resolver::CoreDns,
    ];
    assert_eq!(policy.resolvers(), resolvers);
    let selected = policy.select(None, None);
    assert_eq!(
        (selected.mode, selected.default),
        (Mode::Enforce, Action::Deny)
    );
    assert_eq!(selected.udp_idle, Duration::from_secs(30));
    let expected = [
        "github api, read only: allow https api.github.com:443 with path rules",
        "rules[1]: allow https *.pkg.example.net:443",
        "rules[2]: allow tcp 203.0.113.0/24:5432-5439",
        "rules[3]: deny any 2001:db8::/32",
        "rules[4]: allow https dev.internal:443",
        "rules[5]: allow http xn--bcher-kva.example:80-81,8080",
        "rules[6]: allow udp ntp.example.net:123",
        "rules[7]: allow icmp 198.51.100.7",
        "domains[0]: allow https api.anthropic.com:443",
        "domains[1]: allow https .datadoghq.com:443",
    ];
    assert_eq!(texts(&selected), expected);
    let with_paths: Vec<_> = selected
        .rules_with_paths()
        .map(|rule| (rule.title(), rule.line))
        .collect();
    assert_eq!(with_paths, [("github api, read only", 10)]);
}

#[test]
fn selection_adds_project_and_agent() {
    let policy = golden("full");
    let extra = |agent, project| {
        let selected = policy.select(agent, project);
        (selected.mode, texts(&selected).split_off(10))
    };
    let project = [
        "projects.acme.rules[0]: allow ssh git.acme.example:22",
        "projects.acme.domains[0]: allow https acme.example:443",
    ];
    let own = "agents.acme/reviewer.rules[0]: allow wss review.acme.example:443";
    let plain = "agents.reviewer.domains[0]: allow https plain.example:443";
    assert_eq!(
        extra(None, Some("acme")),
        (Mode::Enforce, project.map(String::from).to_vec())
    );
    assert_eq!(
        extra(Some("reviewer"), None),
        (Mode::Observe, vec![plain.to_owned()])
    );
    let all = [project[0], project[1], own, plain]
        .map(String::from)
        .to_vec();
    assert_eq!(extra(Some("reviewer"), Some("acme")), (Mode::Audit, all));
    assert_eq!(extra(Some("other"), Some("other")), (Mode::Enforce, vec![]));
}

#[test]
fn a_mode_from_outside_is_that_of_everybody() {
    let mut policy = golden("full");
    policy.put_mode(Mode::Audit);
    for who in [None, Some("reviewer"), Some("other")] {
        for project in [None, Some("acme")] {
            assert_eq!(policy.select(who, project).mode, Mode::Audit);
        }
    }
}

#[test]
fn a_label_with_a_slash_is_nobody_else() {
    let policy = golden("full");
    assert_eq!(policy.select(Some("acme/reviewer"), None).rules().len(), 10);
    assert_eq!(
        policy.select(Some("reviewer"), Some("x/acme")).mode,
        Mode::Observe
    );
}

#[test]
fn the_file_of_the_ancestor_is_a_policy() {
    let policy = golden("ancestor");
    let selected = policy.select(Some("any"), None);
    let expected = [
        "rules[0]: allow https api.anthropic.com:443",
        "rules[1]: allow https .githubusercontent.com:443 with path rules",
        "rules[2]: allow ssh github.com:22",
        "rules[3]: allow tcp db.internal:5432-5439",
        "rules[4]: allow https self-signed.example.com:8443",
    ];
    assert_eq!(texts(&selected), expected);
    assert!(selected.rules()[4].insecure_skip_tls_verify);
    let raw = selected.rules()[1];
    assert_eq!(
        raw.judge_request(&request("GET", "/acme/x")),
        (Action::Allow, Some(0))
    );
    assert_eq!(
        raw.judge_request(&request("POST", "/acme/x")),
        (Action::Deny, Some(1))
    );
}

#[test]
fn path_rules_are_an_ordered_list_with_a_default() {
    let policy = golden("full");
    let selected = policy.select(None, None);
    let rule = selected.rules()[0];
    assert_eq!(
        rule.judge_request(&request("GET", "/repos/acme/x")),
        (Action::Allow, Some(0))
    );
    assert_eq!(
        rule.judge_request(&request("POST", "/repos/acme/x")),
        (Action::Deny, None)
    );
    assert_eq!(
        rule.judge_request(&request("POST", "/users/bob/")),
        (Action::Allow, Some(1))
    );
    assert_eq!(
        rule.judge_request(&request("GET", "/users/bob/x")),
        (Action::Deny, None)
    );
    assert_eq!(
        rule.judge_request(&request("GET", "/x/users/bob")),
        (Action::Deny, None)
    );
}

#[test]
fn protocols_stand_for_what_they_are_without_a_proxy() {
    let policy = read(
        "rules:\n  - {dst: a.example, proto: https}\n  - {dst: b.example, proto: udp, port: 123}\n  \
         - {dst: c.example, proto: icmp}\n  - {dst: d.example, proto: any}\n  \
         - {dst: 192.0.2.1, proto: icmp}\n  - {dst: '2001:db8::1', proto: icmp}\n  \
         - {dst: e.example, proto: any, port: 443}\n",
    );
    let selected = policy.select(None, None);
    let allowed = |to, proto, port| decide(&selected, to, proto, port).0 == Action::Allow;
    assert!(allowed("a.example", 6, 443));
    assert!(!allowed("a.example", 17, 443) && !allowed("a.example", 6, 80));
    assert!(allowed("b.example", 17, 123) && !allowed("b.example", 6, 123));
    assert!(allowed("c.example", 1, 0) && allowed("c.example", 58, 0));
    assert!(!allowed("c.example", 6, 80));
    assert!(allowed("d.example", 132, 5000) && allowed("d.example", 1, 0));
    assert!(allowed("192.0.2.1", 1, 0) && !allowed("192.0.2.1", 58, 0));
    assert!(allowed("2001:db8::1", 58, 0) && !allowed("2001:db8::1", 1, 0));
    assert!(allowed("e.example", 17, 443) && !allowed("e.example", 1, 0));
    assert!(selected.compile(1).unwrap().allows_icmp);
    assert!(
        !read("domains: [a.example]")
            .select(None, None)
            .compile(1)
            .unwrap()
            .allows_icmp
    );
}

#[test]
fn deny_beats_allow_and_the_losers_are_named() {
    let policy = read(
        "rules:\n  - {dst: .example.com}\n  - {dst: bad.example.com, proto: any, action: deny}\n  \
         - {dst: '*.example.com', proto: tcp, port: 1-1000}\n",
    );
    let selected = policy.select(None, None);
    let question = Question {
        hosts: &["Bad.Example.COM."],
        addr: None,
        proto: 6,
        port: 443,
        resolver: false,
    };
    let verdict = selected.decide(&question);
    assert_eq!(
        (verdict.action, verdict.reason),
        (Action::Deny, Reason::Rule(1))
    );
    assert_eq!(verdict.losers, [0, 2]);
    let good = decide(&selected, "good.example.com", 6, 443);
    assert_eq!(good, (Action::Allow, Reason::Rule(0)));
    assert_eq!(
        decide(&selected, "notexample.com", 6, 443),
        (Action::Deny, Reason::Default)
    );
}

#[test]
fn private_answers_need_a_rule_that_says_so() {
    let policy = read(
        "rules:\n  - {dst: a.example}\n  - {dst: b.example, private: true}\n  - {dst: 10.0.0.1}\n",
    );
    let selected = policy.select(None, None);
    let ask = |host, addr: &str| {
        let addr = Some(addr.parse().unwrap());
        selected
            .decide(&Question {
                hosts: &[host],
                addr,
                proto: 6,
                port: 443,
                resolver: false,
            })
            .reason
    };
    assert_eq!(ask("a.example", "192.168.0.1"), Reason::Default);
    assert_eq!(ask("a.example", "198.51.100.1"), Reason::Rule(0));
    assert_eq!(ask("b.example", "192.168.0.1"), Reason::Rule(1));
    assert_eq!(ask("a.example", "10.0.0.1"), Reason::Rule(2));
    assert!(matches!(
        ask("b.example", "169.254.169.254"),
        Reason::Builtin(_)
    ));
}

#[test]
fn dns_goes_to_the_resolvers_and_nowhere_else() {
    let policy = read("default: allow\nrules: []\n");
    let selected = policy.select(None, None);
    for (proto, port) in [(17, 53), (6, 53), (6, 853), (17, 853)] {
        assert_eq!(
            decide(&selected, "8.8.8.8", proto, port),
            (Action::Deny, Reason::Resolver)
        );
    }
    let ask = |addr: &str, port| {
        let addr = Some(addr.parse().unwrap());
        let question = Question {
            hosts: &[],
            addr,
            proto: 17,
            port,
            resolver: true,
        };
        selected.decide(&question).action
    };
    assert_eq!(
        (ask("169.254.1.1", 53), ask("8.8.8.8", 853)),
        (Action::Allow, Action::Deny)
    );
    let strict = read("domains: [.a.example]");
    assert!(strict.select(None, None).may_resolve("x.A.example."));
    assert!(!strict.select(None, None).may_resolve("b.example"));
}

#[test]
fn without_a_file_everything_but_the_built_in_set_passes() {
    let policy = Policy::observe();
    let selected = policy.select(Some("a"), None);
    assert_eq!(
        decide(&selected, "198.51.100.1", 6, 80),
        (Action::Allow, Reason::Default)
    );
    let metadata = decide(&selected, "169.254.169.254", 6, 80);
    assert_eq!(
        metadata,
        (
            Action::Deny,
            Reason::Builtin("link-local and cloud metadata")
        )
    );
    let compiled = selected.compile(3).unwrap();
    assert_eq!(
        (compiled.mode, compiled.default_allow),
        (abi::MODE_OBSERVE, true)
    );
    assert_eq!(
        (
            compiled.addrs.len(),
            compiled.names.len(),
            compiled.texts.len()
        ),
        (8, 0, 0)
    );
    assert_eq!(compiled.resolvers, [Resolver::System]);
}

#[test]
fn a_case_knows_whom_it_asks_for() {
    let policy = golden("full");
    let [case, other] = policy.tests() else {
        panic!("two cases")
    };
    let identity = (case.agent.as_deref(), case.project.as_deref());
    assert_eq!(identity, (Some("reviewer"), Some("acme")));
    assert_eq!(
        case.target.host.as_ref().unwrap().as_str(),
        "api.github.com"
    );
    assert_eq!(
        (case.target.port, case.expect, case.line),
        (443, Action::Deny, 43)
    );
    assert_eq!(other.target.addr, Some("2001:db8::1".parse().unwrap()));
    assert_eq!((&other.agent, &other.project), (&None, &None));
}
