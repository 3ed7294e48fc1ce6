//! `run --learn`: what a command reached becomes a policy under which it runs as before, whatever the
//! command does to that end.

use kernel_tests::{
    dns::{RESOLVER, Resolver, address},
    net, own_mounts,
    run::{Bench, Outcome},
    server::Place,
};
use nix::mount::{MsFlags, mount};
use std::{fs, net::UdpSocket, path::Path};

const OBSERVE: &str = "mode: observe\nresolvers: [192.0.2.53]\n";

/// The rules of a learned policy, without their comments.
fn rules(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let rules = text.lines().filter_map(|line| line.strip_prefix("  - "));
    rules
        .map(|rule| rule.split(" # ").next().unwrap().to_owned())
        .collect()
}

/// Everything that rules can be about: names with one and two addresses, of both families, shared and
/// private; addresses; UDP and ICMP; a refused port; the command talking to itself.
const EVERYTHING: &str = r"
for n, t in [('api.example', 1), ('api.example', 28), ('two.example', 1), ('also.example', 1), ('dev.example', 1)]: ask(n, t)
said = [tcp('203.0.113.9', 443, b'x'), tcp('2001:db8::2', 443, b'x'), tcp('198.51.100.7', 8443, b'x'),
        tcp('10.1.2.3', 443, b'x'), tcp('192.0.2.2', 9), tcp('192.0.2.2', 7001, b'x'), tcp('192.0.2.2', 7002, b'x')]
said += [udp(b'hello', '192.0.2.2', 123), udp(b'hello', '203.0.113.9', 123)]
for f, to, ping in [(2, '192.0.2.1', b'\x08\0\xf7\xff\0\0\0\0'), (10, '2001:db8::1', b'\x80\0\0\0\0\0\0\0')]:
    with socket.socket(f, socket.SOCK_DGRAM, 1 if f == 2 else 58) as s:
        s.settimeout(10); s.sendto(ping, (to, 0)); said.append(len(s.recv(100)))
for ip in ['127.0.0.1', '::1']:
    with socket.create_server((ip, 0), family=family(ip)) as s:
        said.append(tcp(ip, s.getsockname()[1], b'x')); s.accept()[0].recv(1)
    with socket.socket(family(ip), 2) as s, socket.socket(family(ip), 2) as c:
        s.bind((ip, 0)); c.connect(s.getsockname()); c.send(b'x')
        s.sendto(b'y', s.recvfrom(9)[1]); said.append(c.recv(9))
print(said)
";

/// Answers every datagram on an address of the namespace.
fn echo(addr: &str) {
    let socket = UdpSocket::bind(addr).unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 100];
        while let Ok((n, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..n], from);
        }
    });
}

fn world() -> (Bench, Resolver) {
    let bench = Bench::new();
    net::ip(&["addr", "add", "10.1.2.3/32", "dev", "lo"]);
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
    let resolver = Resolver::start(RESOLVER);
    resolver.set(
        "api.example",
        vec![address("203.0.113.9", 300), address("2001:db8::2", 300)],
    );
    for name in ["two.example", "also.example"] {
        resolver.set(name, vec![address("198.51.100.7", 300)]);
    }
    resolver.set("dev.example", vec![address("10.1.2.3", 300)]);
    for place in [
        "203.0.113.9:443",
        "[2001:db8::2]:443",
        "198.51.100.7:8443",
        "10.1.2.3:443",
        "192.0.2.2:7001",
        "192.0.2.2:7002",
    ] {
        let _serves_on = Place::open(place);
    }
    echo("192.0.2.2:123");
    echo("203.0.113.9:123");
    (bench, resolver)
}

/// Runs a program under what was learned; nothing is denied to it.
#[track_caller]
fn passes(bench: &Bench, learned: &String, program: &str) -> Outcome {
    let out = bench.agent(learned, program);
    assert!(out.denied(&[]).is_empty(), "{:#?}", out.records);
    out
}

#[test]
fn the_same_command_passes_under_what_it_taught() {
    let (bench, _resolver) = world();
    let file = bench.path("egress.yaml");
    let first = bench.learn(OBSERVE, &file, EVERYTHING);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let learned = fs::read_to_string(&file).unwrap();
    let expected = [
        "{dst: also.example, proto: tcp, port: 8443}",
        "{dst: api.example, proto: https}",
        "{dst: api.example, proto: udp, port: 123}",
        "{dst: dev.example, proto: https, private: true}",
        "{dst: two.example, proto: tcp, port: 8443}",
        "{dst: 127.0.0.1, proto: tcp, port: \"32768-65535\"}",
        "{dst: 127.0.0.1, proto: udp, port: \"32768-65535\"}",
        "{dst: 192.0.2.1, proto: icmp}",
        "{dst: 192.0.2.2, proto: tcp, port: [9, \"7001-7002\"]}",
        "{dst: 192.0.2.2, proto: udp, port: 123}",
        "{dst: \"::1\", proto: tcp, port: \"32768-65535\"}",
        "{dst: \"::1\", proto: udp, port: \"32768-65535\"}",
        "{dst: \"2001:db8::1\", proto: icmp}",
    ];
    assert_eq!(rules(&file), expected, "{learned}");
    assert!(
        learned.contains("\nresolvers: [\"192.0.2.53\"]\ninbound: allow\n"),
        "{learned}"
    );
    // Again, and once more: nothing is left to learn.
    for _ in 0..2 {
        let again = bench.learn(OBSERVE, &file, EVERYTHING);
        assert_eq!(
            (again.code, &again.stdout),
            (0, &first.stdout),
            "{}",
            again.stderr
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), learned);
        assert!(
            again.stderr.contains("13 rules learned, 0 of them new"),
            "{}",
            again.stderr
        );
    }
    let enforced = passes(&bench, &learned, EVERYTHING);
    assert_eq!(enforced.stdout, first.stdout);
    // And nothing else does.
    let other = "print(tcp('203.0.113.9', 80), tcp('192.0.2.2', 7003), tcp('127.0.0.1', 80), udp(query('x.example')))";
    let denied = bench.agent(&learned, other);
    assert_eq!(
        denied.stdout, "EPERM EPERM EPERM EPERM\n",
        "{}",
        denied.stderr
    );
}

#[test]
fn without_a_policy_names_come_from_the_systems_resolver() {
    let (bench, _resolver) = world();
    // What the C library and the loader read, for this test and what it starts alone.
    own_mounts();
    let conf = bench.path("resolv.conf");
    fs::write(&conf, "nameserver 192.0.2.53\n").unwrap();
    mount(
        Some(&conf),
        "/etc/resolv.conf",
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    let file = bench.path("egress.yaml");
    let program = "for n, p in [('api.example', 443), ('two.example', 8443)]: socket.create_connection((n, p)).close()";
    let out = bench.learn(None, &file, program);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let name = file.display();
    assert!(
        out.stderr
            .contains(&format!("observing only: learning into {name}")),
        "{}",
        out.stderr
    );
    let expected = [
        "{dst: api.example, proto: https}",
        "{dst: two.example, proto: tcp, port: 8443}",
    ];
    assert_eq!(rules(&file), expected);
    let learned = fs::read_to_string(&file).unwrap();
    assert!(!learned.contains("resolvers"), "{learned}");
    passes(&bench, &learned, program);
}

#[test]
fn a_run_that_learns_nothing_says_how_to() {
    let bench = Bench::new();
    let out = bench.run(None, &[], &["true"]);
    let first = out.stderr.lines().next();
    assert_eq!(
        first,
        Some("observing only: no policy (try --learn egress.yaml)")
    );
}

#[test]
fn what_a_policy_would_deny_is_not_learned() {
    let (bench, _resolver) = world();
    let policy = "mode: audit\nresolvers: [192.0.2.53]\nrules:\n\
        \x20 - { dst: 192.0.2.2, proto: tcp, port: 7001-7002 }\n\
        \x20 - { dst: 198.51.100.0/24, proto: any, action: deny, name: not there }\n";
    let program = "print(tcp('192.0.2.2', 7001), tcp('192.0.2.2', 9), tcp('198.51.100.7', 8443))";
    let file = bench.path("egress.yaml");
    let audited = bench.learn(policy, &file, program);
    assert_eq!(audited.stdout, "ok ECONNREFUSED ok\n");
    assert_eq!(rules(&file), ["{dst: 192.0.2.2, proto: tcp, port: 7001}"]);
    // Observing, nothing would be denied by default; what a rule denies stays out all the same.
    let observe = policy.replace("audit", "observe");
    let out = bench.learn(&observe, &file, program);
    assert_eq!(
        rules(&file),
        ["{dst: 192.0.2.2, proto: tcp, port: [9, 7001]}"]
    );
    let note = "not learned: 1 flow that the rule `not there` of";
    assert!(out.stderr.contains(note), "{}", out.stderr);
}

#[test]
fn runs_teach_together() {
    let (bench, _resolver) = world();
    let file = bench.path("egress.yaml");
    for (program, new) in [
        ("tcp('192.0.2.2', 7001)", "1 rule learned, 1 of them new"),
        ("tcp('192.0.2.2', 7002)", "1 rule learned, 0 of them new"),
        (
            "ask('api.example'); tcp('203.0.113.9', 443)",
            "2 rules learned, 1 of them new",
        ),
    ] {
        let out = bench.learn(OBSERVE, &file, program);
        assert!(out.stderr.contains(new), "{}", out.stderr);
    }
    let expected = [
        "{dst: api.example, proto: https}",
        "{dst: 192.0.2.2, proto: tcp, port: \"7001-7002\"}",
    ];
    assert_eq!(rules(&file), expected);
}

#[test]
fn a_process_that_is_called_like_a_rule_writes_none() {
    let (bench, _resolver) = world();
    let file = bench.path("egress.yaml");
    let program = r"
for name in [b'\ndefault: allow', b'x # y; \xc2\x85a: b', b'\n- {dst: a.b}']:
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
    tcp('192.0.2.2', 7001)
";
    let out = bench.learn(None, &file, program);
    assert_eq!(out.code, 0, "{}", out.stderr);
    let names: Vec<&str> = out
        .records
        .iter()
        .filter_map(|r| r["comm"].as_str())
        .collect();
    assert!(names.contains(&"\ndefault: allow"), "{names:?}");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 6, "{text}");
    let policy = policy::Policy::parse(&text).policy.unwrap();
    let selected = policy.select(None, None);
    assert_eq!(
        (selected.default, selected.rules().len()),
        (policy::Action::Deny, 1)
    );
}
