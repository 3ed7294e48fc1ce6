//! Connections that are led to the proxy: what the proxy gets, what the agent sees, what is recorded, and what happens when
//! there is no way.

use kernel_tests::{
    check::fields,
    peer::{drain, once, take},
    run::Bench,
    sniff::Sniffer,
};
use serde_json::json;
use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    thread::JoinHandle,
};

/// One host for the proxy, two for the kernel alone.
const POLICY: &str = "version: 1\nrules:\n\
    - { name: web, dst: 198.51.100.7, proto: http }\n\
    - { name: web six, dst: '2001:db8::1', proto: http }\n\
    - { name: far port, dst: 198.51.100.7, proto: http, port: 60000 }\n\
    - { name: plain, dst: 192.0.2.1, proto: tcp, port: 80 }\n";
const PROXIES: [&str; 4] = ["--proxy", "192.0.2.53", "--proxy", "2001:db8::53"];

/// A proxy that takes ten bytes and answers five.
fn proxy(addr: &str) -> JoinHandle<(SocketAddr, u64)> {
    once(addr, |mut s: TcpStream| {
        take(&mut s, 10);
        s.write_all(b"hello").unwrap();
        drain(&mut s)
    })
}

#[test]
fn a_connection_reaches_the_proxy_and_the_agent_sees_whom_it_asked_for() {
    for (family, to, seen, at, v6) in [
        (
            "AF_INET",
            "198.51.100.7",
            "198.51.100.7",
            "192.0.2.53",
            false,
        ),
        (
            "AF_INET6",
            "::ffff:198.51.100.7",
            "::ffff:198.51.100.7",
            "192.0.2.53",
            false,
        ),
        (
            "AF_INET6",
            "2001:db8::1",
            "2001:db8::1",
            "2001:db8::53",
            true,
        ),
    ] {
        let bench = Bench::new();
        let address: SocketAddr = format!(
            "{}:10080",
            if v6 { format!("[{at}]") } else { at.to_owned() }
        )
        .parse()
        .unwrap();
        let served = proxy(&address.to_string());
        let sniffer = Sniffer::start();
        let mut agent = bench.talk(
            POLICY,
            &PROXIES,
            &format!(
                "s = socket.socket(socket.{family}); s.connect(('{to}', 80)); s.sendall(bytes(10)); need(s, 5)\n\
                 say(*s.getpeername()[:2], s.getsockname()[1]); s.close()"
            ),
        );
        let said = agent.hear();
        let own: u16 = said.rsplit(' ').next().unwrap().parse().unwrap();
        assert_eq!(said, format!("{seen} 80 {own}"));
        let out = agent.end(&bench);
        assert_eq!(out.code, 0, "{}", out.stderr);
        let (from, rest) = served.join().unwrap();
        assert_eq!((from.port(), rest), (own, 0));
        out.is_one(&json!({
            "verdict": "ALLOWED", "reason": "rule", "rule": if v6 { "web six" } else { "web" },
            "dst_ip": seen.trim_start_matches("::ffff:"), "dst_port": 80, "proxy_ip": at, "proxy_port": 10080, "src_port": own,
            "bytes_out": 10, "bytes_in": 5, "close_reason": "fin",
        }));
        assert_eq!(
            sniffer.payload(seen.trim_start_matches("::ffff:")),
            0,
            "not a byte goes past the proxy"
        );
    }
}

#[test]
fn nobody_gets_to_the_proxy_by_himself_and_what_needs_none_goes_on() {
    let bench = Bench::new();
    let plain = once("192.0.2.1:80", |mut s: TcpStream| drain(&mut s));
    // There is no listener at the proxy: what needs it fails.
    let mut agent = bench.talk(
        POLICY,
        &PROXIES,
        "code = lambda to, port: say(errno.errorcode[socket.socket().connect_ex((to, port))])\n\
         code('192.0.2.53', 10080); code('198.51.100.7', 80); code('198.51.100.7', 60000)\n\
         s = dial('192.0.2.1', 80); s.sendall(bytes(7)); say(*s.getpeername()); s.close()",
    );
    let said = [agent.hear(), agent.hear(), agent.hear(), agent.hear()];
    assert_eq!(said, ["EPERM", "ECONNREFUSED", "EPERM", "192.0.2.1 80"]);
    let out = agent.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    assert_eq!(plain.join().unwrap().1, 7);
    let at = |ip: &str, port: u16| out.only(&[("dst_ip", json!(ip)), ("dst_port", json!(port))]);
    fields(
        at("192.0.2.53", 10080),
        &json!({"verdict": "DENIED", "reason": "default"}),
    );
    fields(
        at("198.51.100.7", 80),
        &json!({"verdict": "ALLOWED", "close_reason": "refused", "proxy_ip": "192.0.2.53", "proxy_port": 10080}),
    );
    fields(
        at("198.51.100.7", 60000),
        &json!({"verdict": "DENIED", "reason": "no_proxy_path", "rule": "far port"}),
    );
    let direct = at("192.0.2.1", 80);
    fields(direct, &json!({"verdict": "ALLOWED", "bytes_out": 7}));
    assert!(direct.get("proxy_ip").is_none(), "{direct}");
}

#[test]
fn without_a_way_to_the_proxy_nothing_passes_that_needs_it() {
    let bench = Bench::new();
    let mut agent = bench.talk(
        POLICY,
        &PROXIES[2..],
        "s = dgram(); c = socket.socket()\n\
         say(tried(lambda: c.connect(('198.51.100.7', 80))), tried(lambda: s.sendto(b'x', ('198.51.100.7', 80))))",
    );
    assert_eq!(agent.hear(), "EPERM EPERM");
    let out = agent.end(&bench);
    let tcp = out.only(&[("l4_proto", json!("tcp"))]);
    fields(
        tcp,
        &json!({"verdict": "DENIED", "reason": "no_proxy_path", "rule": "web", "dst_ip": "198.51.100.7"}),
    );
    fields(
        out.only(&[("l4_proto", json!("udp"))]),
        &json!({"verdict": "DENIED", "reason": "default"}),
    );
}

#[test]
fn a_changed_policy_cuts_what_went_past_the_proxy_and_leaves_what_went_through_it() {
    const DIRECT: &str = "rules:\n- { name: before, dst: 198.51.100.7, proto: tcp, port: 80 }\n- { name: web, dst: 203.0.113.9, proto: http }\n";
    const PROXIED: &str = "rules:\n- { name: after, dst: 198.51.100.7, proto: http }\n- { name: web, dst: 203.0.113.9, proto: http }\n";
    let bench = Bench::new();
    let direct = once("198.51.100.7:80", |mut s: TcpStream| drain(&mut s));
    let led = once("192.0.2.53:10080", |mut s: TcpStream| drain(&mut s));
    let mut agent = bench.talk(
        DIRECT,
        &PROXIES,
        "a, b = dial('198.51.100.7', 80), dial('203.0.113.9', 80)\n\
         a.sendall(bytes(10)); b.sendall(bytes(20)); step('up')\n\
         a.sendall(bytes(5)); b.sendall(bytes(7)); b.close(); step('sent')",
    );
    assert_eq!(agent.hear(), "up");
    bench.acknowledged(30);
    bench.apply(PROXIED);
    assert_eq!(agent.go(), "sent");
    assert_eq!(led.join().unwrap().1, 27);
    agent.say("go");
    let out = agent.end(&bench);
    assert_eq!(out.code, 0, "{}", out.stderr);
    fields(
        out.only(&[("dst_ip", json!("198.51.100.7"))]),
        &json!({"verdict": "ALLOWED", "close_reason": "policy", "rule": "after", "bytes_out": 10}),
    );
    fields(
        out.only(&[("dst_ip", json!("203.0.113.9"))]),
        &json!({"verdict": "ALLOWED", "close_reason": "fin", "bytes_out": 27, "proxy_ip": "192.0.2.53"}),
    );
    drop(direct);
}
