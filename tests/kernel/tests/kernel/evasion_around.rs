//! Evasion with the help of others: descriptors from elsewhere, relays, neighbours, siblings. The number
//! is that of the case in the list of abuses; an escape is judged on the wire.

use kernel_tests::{
    check::{fields, sum},
    evasion::POLICY,
    eventually,
    net::{HERE, THERE, black_hole, ip},
    peer::in_turn,
    run::{Bench, Outcome},
    server::Place,
    sniff::{Seen, Sniffer},
    talk::Talk,
};
use nix::{
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg},
};
use serde_json::json;
use std::{
    io::{ErrorKind, IoSliceMut, Write as _},
    net::{TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
};

#[test]
fn case_07_an_inherited_socket_is_closed_before_the_command_starts() {
    let bench = Bench::new();
    let place = Place::open("203.0.113.9:80");
    let made_outside = TcpStream::connect("203.0.113.9:80").unwrap();
    // SAFETY: a duplicate that children inherit, closed below.
    let fd = unsafe { libc::fcntl(made_outside.as_raw_fd(), libc::F_DUPFD, 60) };
    assert!(fd >= 60);
    let program = format!("print(tried(lambda: os.write({fd}, b'SECRET')))");
    let out = bench.agent(POLICY, &program);
    assert_eq!((out.stdout.trim(), out.records.len()), ("EBADF", 0));
    assert_eq!(place.bytes(), 0);
    // No hook of ours fires on it: whoever leaves it open has opened the firewall there.
    let out = bench.agent_with(POLICY, &["--keep-fds"], &program);
    assert_eq!((out.stdout.trim(), out.records.len()), ("sent", 0));
    eventually("six bytes", || (place.bytes() == 6).then_some(()));
    // SAFETY: ours.
    unsafe { libc::close(fd) };
}

/// Takes the descriptors that come over a socket of the file system.
fn passed(listener: &UnixListener, n: usize) -> Vec<OwnedFd> {
    let (stream, _) = listener.accept().unwrap();
    let mut byte = [0];
    let mut iov = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 8]);
    let from = stream.as_raw_fd();
    let message =
        recvmsg::<SockaddrStorage>(from, &mut iov, Some(&mut space), MsgFlags::empty()).unwrap();
    let fds: Vec<_> = message
        .cmsgs()
        .unwrap()
        .filter_map(|c| match c {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        // SAFETY: the kernel made these descriptors for us.
        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
        .collect();
    assert_eq!(fds.len(), n);
    fds
}

#[test]
fn case_07_a_socket_from_inside_is_judged_whoever_uses_it() {
    let bench = Bench::new();
    let place = Place::open("192.0.2.1:80");
    let heard = UdpSocket::bind("192.0.2.1:80").unwrap();
    let path = bench.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut agent = bench.talk(
        POLICY,
        &[],
        &format!(
            "t = dial('192.0.2.1', 80); u = dgram()\n\
             x = socket.socket(socket.AF_UNIX); x.connect('{}')\n\
             socket.send_fds(x, [b'x'], [t.fileno(), u.fileno()]); t.close(); u.close(); step('passed')",
            path.display()
        ),
    );
    assert_eq!(agent.hear(), "passed");
    let [tcp, udp]: [OwnedFd; 2] = passed(&listener, 2).try_into().unwrap();
    let (mut tcp, udp) = (TcpStream::from(tcp), UdpSocket::from(udp));
    let wire = Sniffer::start();
    let refused = udp.send_to(b"SECRET", "203.0.113.9:80").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    udp.send_to(b"four", "192.0.2.1:80").unwrap();
    tcp.write_all(b"eleven char").unwrap();
    drop((tcp, udp));
    assert_eq!(heard.recv(&mut [0; 9]).unwrap(), 4);
    eventually("all bytes", || (place.bytes() == 11).then_some(()));
    assert_eq!(wire.to("203.0.113.9"), []);
    let out = agent.end(&bench);
    assert_eq!(out.records.len(), 3, "{:#?}", out.records);
    fields(
        out.only(&[("rule", json!("four"))]),
        &json!({"bytes_out": 11, "close_reason": "fin", "comm": "python3"}),
    );
    fields(
        out.only(&[("rule", json!("datagrams"))]),
        &json!({"bytes_out": 4, "pid": std::process::id()}),
    );
    fields(
        out.only_denied(&[("dst_ip", json!("203.0.113.9"))]),
        &json!({"reason": "default", "pid": std::process::id()}),
    );
}

#[test]
fn case_38_a_relay_inside_reaches_what_its_command_may_reach() {
    let bench = Bench::new();
    let (near, far) = (Place::open("192.0.2.1:80"), Place::open("203.0.113.9:80"));
    let wire = Sniffer::start();
    let policy = format!("{POLICY}- {{ name: relay, dst: 127.0.0.1, proto: tcp, port: 1080 }}\n");
    let out = bench.agent(
        &policy,
        "l = socket.create_server(('127.0.0.1', 1080))\n\
         def relay():\n  \
         while True:\n    \
         c, _ = l.accept(); to = c.recv(99).decode(); c.sendall(tcp(to, 80, b'relayed').encode()); c.close()\n\
         threading.Thread(target=relay, daemon=True).start()\n\
         for ip in ('192.0.2.1', '203.0.113.9'):\n  \
         s = dial('127.0.0.1', 1080); s.sendall(ip.encode()); print(s.recv(99).decode()); s.close()",
    );
    assert_eq!(out.words(), ["ok", "EPERM"]);
    assert_eq!(wire.to("203.0.113.9"), []);
    assert_eq!((near.calls(), far.calls()), (1, 0));
    fields(
        out.only(&[("rule", json!("four"))]),
        &json!({"dst_ip": "192.0.2.1", "bytes_out": 7}),
    );
    fields(
        out.only_denied(&[("dst_ip", json!("203.0.113.9"))]),
        &json!({"reason": "default", "dst_port": 80}),
    );
    assert_eq!(out.matching(&[("rule", json!("relay"))]).len(), 2);
}

#[test]
fn case_40_a_flow_that_goes_on_shows_what_it_has_sent() {
    let bench = Bench::new();
    let server = in_turn("192.0.2.1:80", 1);
    let mut agent = bench.talk(
        POLICY,
        &[],
        "s = dial('192.0.2.1', 80)\n\
         for i in range(3): s.sendall(bytes(100_000)); step('sent')",
    );
    for i in 1..=3 {
        assert_eq!(agent.hear(), "sent");
        let live = eventually("its bytes", || {
            let live = bench.dump(&["--flows"]);
            (sum(&live, "bytes_out") == i * 100_000).then_some(live)
        });
        assert_eq!(live.len(), 1);
        fields(
            &live[0],
            &json!({"dst_ip": "192.0.2.1", "rule": "four", "close_reason": null}),
        );
        agent.say("go");
    }
    let out = agent.end(&bench);
    assert_eq!(server.join().unwrap(), 300_000);
    out.is_one(&json!({"bytes_out": 300_000, "close_reason": "fin"}));
}

#[test]
fn case_42_the_gateway_and_everybody_on_the_link() {
    let bench = Bench::new();
    black_hole();
    ip(&[
        "addr",
        "add",
        &format!("{HERE}/24"),
        "broadcast",
        "198.18.0.255",
        "dev",
        "bh0",
    ]);
    ip(&[
        "route", "add", "default", "via", THERE, "dev", "bh0", "onlink",
    ]);
    ip(&["route", "add", "224.0.0.0/4", "dev", "bh0"]);
    let nobody = [
        "lladdr",
        "02:00:00:00:00:98",
        "dev",
        "bh0",
        "nud",
        "permanent",
    ];
    ip(&[&["neigh", "add", THERE][..], &nobody].concat());
    let wire = Sniffer::start();
    // The gateway, the network, its broadcast, multicast (mDNS among it), this host itself.
    let all = [
        THERE,
        "198.18.0.77",
        "198.18.0.255",
        "255.255.255.255",
        "224.0.0.251",
        HERE,
    ];
    let out = bench.agent(
        POLICY,
        &format!(
            "for ip in {}:\n  \
             s = dgram(); s.setsockopt(1, 6, 1)\n  \
             print(tried(lambda: s.sendto(b'x', (ip, 5353))), told(b'x', ip, 80), tcp(ip, 80))",
            json!(all)
        ),
    );
    for (ip, words) in all.iter().zip(out.words().chunks(3)) {
        assert_eq!(words[0], "EPERM", "{ip}");
        // The kernel itself refuses some of these, before any hook or after.
        assert!(
            !words[1..].contains(&"sent") && !words[1..].contains(&"ok"),
            "{ip}: {words:?}"
        );
        let denied = out.denied(&[("dst_ip", json!(ip)), ("dst_port", json!(5353))]);
        assert_eq!(denied.len(), 1, "{ip}");
        fields(denied[0], &json!({"reason": "default", "bytes_out": 0}));
    }
    let left = wire.packets();
    let there = |p: &Seen| all.contains(&p.dst.to_string().as_str());
    assert!(!left.iter().any(there), "{left:?}");
}

#[test]
fn case_43_a_sibling_is_a_destination_like_any_other() {
    let bench = Bench::new();
    let other = bench.beside();
    let mut server = bench.talk(
        "rules: []\n",
        &[],
        "l = socket.create_server(('192.0.2.1', 80)); step('up'); s, _ = l.accept(); print(read(s))",
    );
    assert_eq!(server.hear(), "up");
    let out = other.agent("rules: []\n", "print(tcp('192.0.2.1', 80, b'hello'))");
    assert_eq!(out.words(), ["EPERM"]);
    out.only_denied(&[("dst_ip", json!("192.0.2.1"))]);
    let out = other.agent(POLICY, "print(tcp('192.0.2.1', 80, b'hello'))");
    assert_eq!(out.words(), ["ok"]);
    server.say("go");
    let served = server.end(&bench);
    assert_eq!(served.words(), ["5"]);
    out.is_one(
        &json!({"verdict": "ALLOWED", "direction": "egress", "rule": "four", "bytes_out": 5}),
    );
    served.is_one(&json!({
        "verdict": "ALLOWED", "direction": "ingress", "reason": "inbound", "bytes_in": 5,
        "src_port": out.records[0]["src_port"],
    }));
}

/// Policies about the same addresses that do not agree, and what each says of [`TARGETS`].
const OVERLAPPING: [(&str, [(&str, &str); 3]); 3] = [
    (
        "rules:\n- { name: net, dst: 192.0.2.0/24, proto: tcp, port: 80 }\n",
        [("ok", "net"), ("ok", "net"), ("EPERM", "")],
    ),
    (
        "rules:\n- { name: one, dst: 192.0.2.1, proto: any }\n- { name: not two, dst: 192.0.2.2, proto: any, action: deny }\n",
        [("ok", "one"), ("EPERM", "not two"), ("EPERM", "")],
    ),
    (
        "default: allow\nrules:\n- { name: not one, dst: 192.0.2.1, proto: any, action: deny }\n",
        [("EPERM", "not one"), ("ok", ""), ("ok", "")],
    ),
];
const TARGETS: [&str; 3] = ["192.0.2.1", "192.0.2.2", "198.51.100.7"];

#[test]
fn case_45_instances_in_one_network_namespace_keep_to_their_own_policies() {
    let bench = Bench::new();
    let places = TARGETS.map(|ip| Place::open(&format!("{ip}:80")));
    let program = format!(
        "step('up')\n\
         for i in range(20): got = [tcp(ip, 80, b'x') for ip in {}]\n\
         print(*got)",
        json!(TARGETS)
    );
    let rooms = [bench.beside(), bench.beside(), bench.beside()];
    let mut agents: Vec<Talk> = rooms
        .iter()
        .zip(OVERLAPPING)
        .map(|(room, (policy, _))| room.talk(policy, &[], &program))
        .collect();
    assert!(agents.iter_mut().all(|a| a.hear() == "up"));
    assert_eq!(bench.dump(&[]).len(), 3);
    for agent in &mut agents {
        agent.say("go");
    }
    let outs: Vec<Outcome> = agents
        .into_iter()
        .zip(&rooms)
        .map(|(agent, room)| agent.end(room))
        .collect();
    for (out, (policy, expected)) in outs.iter().zip(OVERLAPPING) {
        assert_eq!(out.words(), expected.map(|(word, _)| word), "{policy}");
        assert_eq!(out.records.len(), 60, "{policy}");
        for (ip, (word, rule)) in TARGETS.iter().zip(expected) {
            let of = out.matching(&[("dst_ip", json!(ip))]);
            assert_eq!(of.len(), 20, "{policy}: {ip}");
            let verdict = if word == "ok" { "ALLOWED" } else { "DENIED" };
            let rule = if rule.is_empty() {
                json!(null)
            } else {
                json!(rule)
            };
            let bytes = u32::from(word == "ok");
            for r in of {
                fields(
                    r,
                    &json!({"verdict": verdict, "rule": rule, "bytes_out": bytes}),
                );
            }
        }
    }
    // Two of them let their command to the first, two to the second, one to the third.
    assert_eq!(places.map(|p| p.calls()), [40, 40, 20]);
    bench.nothing_left(&[]);
}
