//! The engine's own resolver: on loopback of the container's own, behind NAT to a port of its choice.

use kernel_tests::{
    check::fields,
    container::FRAMES,
    dns::{Resolver, address, wire_name},
    fleet::Yard,
};
use serde_json::json;
use std::{
    fs,
    net::UdpSocket,
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

const POLICY: &str = "resolvers: [127.0.0.11]\n\
    rules: [{ name: api, dst: api.example, proto: tcp, port: 80 }]\n";

/// What the engine does in a container's namespace: a server at some port, and NAT from 53 to it.
fn engine() -> (u16, Arc<Mutex<Vec<Vec<u8>>>>) {
    let socket = UdpSocket::bind("127.0.0.11:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buf = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut buf) {
            log.lock().unwrap().push(buf[..n].to_vec());
            let mut answer = buf[..n].to_vec();
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[7] = 1;
            answer.extend(address("203.0.113.9", 300));
            let _ = socket.send_to(&answer, from);
        }
    });
    for rule in [
        format!(
            "-A OUTPUT -d 127.0.0.11/32 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:{port}"
        ),
        format!("-A POSTROUTING -s 127.0.0.11/32 -p udp --sport {port} -j SNAT --to-source :53"),
    ] {
        let args = ["-t", "nat"].into_iter().chain(rule.split(' '));
        let out = Command::new("iptables").args(args).output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
    (port, asked)
}

#[test]
fn it_is_asked_by_its_back_door_only_where_it_is_trusted() {
    let mut yard = Yard::new(Some("resolvers: [192.0.2.53]\ndomains: [api.example]\n"), 2);
    let (port, asked) = engine();
    let program = format!(
        "E = '127.0.0.11'; q = query('api.example')\n\
         say(udp(q, E, 53, 1), udp(q, E, {port}, 1), tcp(E, {port}, framed(q)), udp(q, '::ffff:' + E, {port}, 1)); hear()"
    );
    let mut pod = yard.pod("c1", ("web", "shop"), &program);
    yard.start(&pod);
    assert_eq!(pod.agent.go(), "EPERM EPERM EPERM EPERM");
    assert_eq!(asked.lock().unwrap().len(), 0);
    pod.agent.say("");
    yard.stop(pod);
    yard.is_empty();
    let refused = yard.bench.records();
    let refused = refused.iter().filter(|r| r["verdict"] == "DENIED");
    assert_eq!(refused.clone().count(), 4);
    for r in refused {
        fields(
            r,
            &json!({"reason": "resolver", "dst_ip": "127.0.0.11", "dst_port": 53}),
        );
    }
}

#[test]
fn an_answer_that_the_agent_puts_on_its_own_loopback_teaches_nothing() {
    // As if the resolver were beyond a link: the kernel takes packets of its address from loopback.
    const FOREIGN: &str = "/proc/sys/net/ipv4/conf/lo/accept_local";
    let policy = "resolvers: [192.0.2.53]\n\
                  rules: [{ name: api, dst: api.example, proto: tcp, port: 80 }]\n";
    let mut yard = Yard::new(Some(policy), 2);
    fs::write(FOREIGN, "1").unwrap();
    let _resolver = Resolver::naming(&[("api.example", "203.0.113.9")]);
    let program = format!(
        "{FRAMES}\n\
         s = dgram(); s.bind(('192.0.2.1', 0)); s.connect((R, 53)); q = query('api.example')\n\
         s.send(q); s.recv(512)\n\
         forged = four(R, '192.0.2.1', 17, datagram(53, s.getsockname()[1], answer(q, '198.51.100.7')))\n\
         packets('lo').send(bytes(12) + struct.pack('>H', 0x800) + forged)\n\
         say(s.recv(512)[-4:] == socket.inet_aton('198.51.100.7'), tcp('198.51.100.7', 80))\n\
         ask('api.example'); say(tcp('203.0.113.9', 80)); hear()"
    );
    let mut pod = yard.pod("c1", ("web", "shop"), &program);
    yard.start(&pod);
    assert_eq!(pod.agent.go(), "True EPERM", "it arrives and opens nothing");
    assert_eq!(pod.agent.hear(), "ECONNREFUSED", "the resolver's own does");
    pod.agent.say("");
    yard.stop(pod);
    yard.is_empty();
}

#[test]
fn lookups_through_the_engine_are_filtered_and_teach() {
    let mut yard = Yard::new(Some(POLICY), 2);
    let (port, asked) = engine();
    let program = format!(
        "E = '127.0.0.11'\n\
         say(tcp('203.0.113.9', 80))\n\
         say(udp(query('no.example'), E, 53, 1), udp(query('no.example'), E, {port}, 1))\n\
         ask('api.example', 1, E); say(tcp('203.0.113.9', 80))\n\
         f = dgram(); f.bind((E, 999)); s = dgram(); s.bind(('127.0.0.1', 0)); s.connect((E, 999))\n\
         s.send(query('api.example'))\n\
         say(tried(lambda: f.sendto(answer(query('api.example'), '198.51.100.7'), s.getsockname())))\n\
         say(tcp('198.51.100.7', 80)); hear()"
    );
    let mut pod = yard.pod("c1", ("web", "shop"), &program);
    yard.start(&pod);
    assert_eq!(pod.agent.go(), "EPERM", "not known yet");
    assert_eq!(
        pod.agent.hear(),
        "EPERM EPERM",
        "by the front door and the back door"
    );
    assert_eq!(pod.agent.hear(), "ECONNREFUSED", "learned through the NAT");
    assert_eq!(
        pod.agent.hear(),
        "EPERM",
        "nobody inside speaks for the resolver"
    );
    assert_eq!(pod.agent.hear(), "EPERM");
    let names: Vec<_> = asked.lock().unwrap().clone();
    assert_eq!(names.len(), 1);
    let name = wire_name("api.example");
    assert!(names[0][12..].starts_with(&name));
    pod.agent.say("");
    yard.stop(pod);
    yard.is_empty();
    let records = yard.bench.records();
    let refused = records.iter().filter(|r| r["reason"] == "name");
    assert!(refused.clone().count() >= 2, "{records:#?}");
    for r in refused {
        fields(
            r,
            &json!({"qname": "no.example", "dst_ip": "127.0.0.11", "dst_port": 53}),
        );
    }
    let dns = records
        .iter()
        .find(|r| r["reason"] == "resolver" && r["verdict"] == "ALLOWED");
    fields(
        dns.unwrap(),
        &json!({"dst_port": 53, "l4_proto": "udp", "agent": "web"}),
    );
}
