//! Evasion of what happens in cgroups: frames made by hand, sockets from elsewhere, and packets that
//! the kernel is made to send. The backstop sees them at the container's interface.

use abi::{VERDICT_ALLOWED, VERDICT_DENIED, reason};
use kernel_tests::{
    container::Container,
    eventually,
    parent::{Parent, Told},
    sniff::Sniffer,
};
use std::{
    fs,
    net::{TcpListener, UdpSocket},
};

const POLICY: &str = "rules:\n- { name: ok, dst: 198.18.1.1, proto: any, port: \"1-65535\" }\n\
    - { name: six, dst: \"fd00:1::1\", proto: any, port: \"1-65535\" }\n";

/// A place for datagrams that can be asked what has come.
struct Heard(UdpSocket);

impl Heard {
    fn at(addr: &str) -> Self {
        let socket = UdpSocket::bind(addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(socket)
    }

    /// Everything that has come so far.
    fn all(&self) -> Vec<String> {
        let mut got = Vec::new();
        let mut buf = [0; 2000];
        while let Ok(n) = self.0.recv(&mut buf) {
            got.push(String::from_utf8_lossy(&buf[..n]).into_owned());
        }
        got
    }

    #[track_caller]
    fn eventually(&self, wanted: &[&str]) {
        let mut got = Vec::new();
        eventually("datagrams", || {
            got.extend(self.all());
            (got.len() >= wanted.len()).then_some(())
        });
        assert_eq!(got, wanted);
    }
}

fn unjudged(slot: u32) -> impl Fn(&Told) -> bool {
    move |t| (t.slot, t.verdict, t.reason) == (slot, VERDICT_DENIED, reason::UNJUDGED)
}

/// A frame of every kind: `send` writes one of them, `kinds` is how many there are.
const EVERY: &str = "\
    f = packets('eth1'); fast = packets('eth1', 1)\n\
    q = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)\n\
    udp4 = four('198.18.1.2', '198.18.1.1', 17, datagram(5, 81, b'frame'))\n\
    udp6 = six('fd00:1::2', 'fd00:1::1', 17, struct.pack('>HHH', 5, 81, 13) + b'\\0\\0frame')\n\
    frames = [ether(0x800, udp4), ether(0x86dd, udp6), ether(0x8100, struct.pack('>HH', 5, 0x800) + udp4),\n\
        ether(0x800, four('198.18.1.2', '198.18.1.1', 6, segment(5, 80, 2))), ether(0x800, four('198.18.1.2', '198.18.1.1', 6, segment(5, 80, 16, b'frame'))),\n\
        ether(0x800, four('198.18.1.2', '198.18.1.1', 47, bytes(4) + udp4)), ether(0x800, four('198.18.1.2', '224.0.0.1', 2, bytes(8), 1, b'\\x94\\4\\0\\0')),\n\
        ether(0x86dd, six('fe80::2', 'ff02::1:ff00:1', 58, b'\\x87' + bytes(23), 255)), ether(0x806, struct.pack('>HHBBH', 1, 0x800, 6, 4, 1) + bytes(20)),\n\
        ether(0x88b5, b'frame'), ether(0x800, udp4[:19]), ether(0x800, b'')]\n";

#[test]
fn case_15_frames_made_by_hand_do_not_leave() {
    let mut parent = Parent::new();
    let mut container = Container::start(
        &parent,
        1,
        "",
        &format!(
            "{EVERY}\
             fast.send(frames[0]); q.sendto(udp4, ('eth1', 0x800, 0, 0, b'\\xff' * 6)); f.send(frames[0]); step('control')\n\
             for x in frames: f.send(x); fast.send(x)\n\
             q.sendto(udp4, ('eth1', 0x800, 0, 0, b'\\xff' * 6)); step(2 * len(frames) + 1)\n\
             d = dgram(); d.sendto(b'socket', ('198.18.1.1', 81)); step('last')\n"
        ),
    );
    let heard = Heard::at("198.18.1.1:81");
    let heard6 = Heard::at("[fd00:1::1]:81");
    assert_eq!(container.talk.go(), "control");
    heard.eventually(&["frame"; 3]);
    let config = parent.stop(&container, POLICY);
    let sent: usize = container.talk.go().parse().unwrap();
    let told = parent.eventually(sent, unjudged(config.slot));
    assert_eq!(container.talk.go(), "last");
    heard.eventually(&["socket"]);
    assert_eq!(heard6.all(), [""; 0]);
    assert_eq!(parent.denied(1, reason::UNJUDGED), sent as u64);
    let of = |proto: u8, dst: &str, port| {
        let dst: std::net::IpAddr = dst.parse().unwrap();
        told.iter()
            .filter(|t| (t.proto, t.dst, t.port) == (proto, dst, port))
            .count()
    };
    // The kernel has taken the VLAN's tag off before anybody looks.
    assert_eq!(of(17, "198.18.1.1", 81), 5);
    assert_eq!(of(17, "fd00:1::1", 81), 2);
    assert_eq!(of(6, "198.18.1.1", 80), 4);
    assert_eq!(of(47, "198.18.1.1", 0), 2);
}

#[test]
fn a_socket_has_no_address_but_its_own() {
    let mut parent = Parent::new();
    for (n, mode) in [(1, "enforce"), (2, "observe")] {
        // IP_TRANSPARENT asks for CAP_NET_RAW, IPV6_FREEBIND for nothing.
        let mut container = Container::start(
            &parent,
            n,
            "",
            &format!(
                "def out(what, src, dst, *option):\n\
                 \x20   s = dgram(family(src))\n\
                 \x20   if option: s.setsockopt(*option, 1)\n\
                 \x20   s.bind((src, 0))\n\
                 \x20   return tried(lambda: s.sendto(what, (dst, 81)))\n\
                 step(out(b'made up', '198.18.{n}.7', '198.18.{n}.1', 0, 19), out(b'made up', 'fd00:{n}::7', 'fd00:{n}::1', 41, 78),\n\
                 \x20   out(b'own', '198.18.{n}.2', '198.18.{n}.1'), out(b'own', 'fd00:{n}::2', 'fd00:{n}::1'))\n"
            ),
        );
        let heard = Heard::at(&format!("198.18.{n}.1:81"));
        let heard6 = Heard::at(&format!("[fd00:{n}::1]:81"));
        let config = parent.stop(&container, &format!("mode: {mode}\n{POLICY}"));
        assert_eq!(container.talk.go(), "sent sent sent sent");
        // Whatever the mode: it is about who somebody is.
        heard.eventually(&["own"]);
        heard6.eventually(&["own"]);
        let told = parent.eventually(2, |t| {
            (t.slot, t.verdict, t.reason) == (config.slot, VERDICT_DENIED, reason::HEADERS)
        });
        assert!(told.iter().all(|t| t.port == 81), "{told:?}");
        assert_eq!(parent.denied(u32::from(n), reason::HEADERS), 2);
    }
}

/// Sockets made before the program came into its cgroup.
const FOREIGN: &str = "\
    u = dgram(); t = dial('198.18.1.1', 80)\n\
    l = socket.socket(); l.bind(('198.18.1.2', 90)); l.listen()\n";

#[test]
fn case_07_sockets_made_in_another_cgroup_send_nothing() {
    let mut parent = Parent::new();
    let heard = Heard::at("0.0.0.0:81");
    let listener = TcpListener::bind("0.0.0.0:80").unwrap();
    let mut container = Container::start(
        &parent,
        1,
        FOREIGN,
        "def out(): return tried(lambda: u.sendto(b'foreign', ('198.18.1.1', 81)))\n\
         step(out(), tried(lambda: t.sendall(b'foreign')))\n\
         own = dgram(); step(out(), tried(lambda: own.sendto(b'own', ('198.18.1.1', 81))))\n\
         step(out())\n",
    );
    let config = parent.stop(&container, POLICY);
    let (mut stream, _) = listener.accept().unwrap();
    // The calls succeed: nothing of this cgroup has seen them.
    assert_eq!(container.talk.go(), "sent sent");
    parent.eventually(1, |t| unjudged(config.slot)(t) && t.proto == 17);
    eventually("the refusal of a segment", || {
        parent
            .told()
            .iter()
            .any(|t| unjudged(config.slot)(t) && t.proto == 6)
            .then_some(())
    });
    assert_eq!(heard.all(), [""; 0]);
    // The cgroup it was made in is trusted: that of the test.
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|l| l.strip_prefix("0::/")).unwrap();
    let own = kernel_tests::cgroup_root().join(own);
    let id = ebpf_manager::cgroup::Cgroup::at(own).id().unwrap();
    parent.instance.pins.exempt(&[id, 77]).unwrap();
    assert_eq!(container.talk.go(), "sent sent");
    heard.eventually(&["foreign", "own"]);
    let mut got = [0; 7];
    std::io::Read::read_exact(&mut stream, &mut got).unwrap();
    assert_eq!(&got, b"foreign");
    parent.instance.pins.exempt(&[77]).unwrap();
    assert_eq!(container.talk.go(), "sent");
    parent.eventually(2, |t| unjudged(config.slot)(t) && t.proto == 17);
    assert_eq!(heard.all(), [""; 0]);
}

#[test]
fn what_the_kernel_is_made_to_send_goes_by_policy() {
    let mut parent = Parent::new();
    let heard = Heard::at("0.0.0.0:81");
    // Answers to addresses that the agent made up and sent to itself: an echo, a reset of a port where
    // nobody listens and of one where somebody does. And a datagram that its own namespace hands on.
    let mut container = Container::start(
        &parent,
        1,
        "",
        "open('/proc/sys/net/ipv4/ip_forward', 'w').write('1')\n\
         for k in ('all', 'lo', 'eth1'): open(f'/proc/sys/net/ipv4/conf/{k}/rp_filter', 'w').write('0')\n\
         lo = packets('lo'); l = socket.socket(); l.bind(('198.18.1.2', 98)); l.listen()\n\
         inject = lambda *p: lo.send(bytes(12) + b'\\x08\\0' + four(*p))\n\
         ping = lambda src: inject(src, '198.18.1.2', 1, (lambda h: h[:2] + ones(h) + h[4:])(b'\\x08\\0\\0\\0\\0\\1\\0\\1SECRET'))\n\
         ack = lambda src, port: inject(src, '198.18.1.2', 6, summed(src, '198.18.1.2', segment(7, port, 16)))\n\
         via = lambda dst: inject('198.18.1.9', dst, 17, datagram(5, 81, b'handed'))\n\
         def all(dst): ping(dst); ack(dst, 97); ack(dst, 98); via(dst)\n\
         all('203.0.113.9'); step('control'); all('203.0.113.9'); step('forbidden'); via('198.18.1.1'); step('allowed')\n",
    );
    let wire = Sniffer::start();
    assert_eq!(container.talk.go(), "control");
    let mut arrived = Vec::new();
    eventually("what leaves without a backstop", || {
        arrived.extend(wire.to("203.0.113.9").iter().map(|p| p.proto));
        (arrived.len() >= 4).then_some(())
    });
    arrived.sort_unstable();
    assert_eq!(arrived, [1, 6, 6, 17]);
    heard.eventually(&["handed"]);
    let config = parent.stop(&container, POLICY);
    assert_eq!(container.talk.go(), "forbidden");
    let told = parent.eventually(4, unjudged(config.slot));
    let forbidden: std::net::IpAddr = "203.0.113.9".parse().unwrap();
    assert!(told.iter().all(|t| t.dst == forbidden), "{told:#?}");
    let protos: Vec<_> = told.iter().map(|t| t.proto).collect();
    assert_eq!(protos, [1, 6, 6, 17]);
    assert_eq!(container.talk.go(), "allowed");
    heard.eventually(&["handed"]);
    let row = parent.engine.books().row(1).unwrap();
    assert_eq!(row.trouble[abi::trouble::NO_SOCKET], 1);
}

#[test]
fn a_mode_that_lets_pass_tells_of_it() {
    let mut parent = Parent::new();
    let program = "\
        f = packets('eth1')\n\
        udp4 = four('198.18.1.2', '198.18.1.1', 17, datagram(5, 81, b'frame'))\n\
        f.send(ether(0x800, udp4)); step('sent')\n";
    let mut container = Container::start(&parent, 1, "", program);
    let heard = Heard::at("198.18.1.1:81");
    let config = parent.enrol(&container.cgroup, 1, "mode: observe\n");
    let interfaces = container.interfaces();
    parent.back(&container, &config, interfaces[0]);
    assert_eq!(container.talk.go(), "sent");
    heard.eventually(&["frame"]);
    let told = parent.eventually(1, |t| t.slot == config.slot);
    assert_eq!((told[0].verdict, told[0].proto), (VERDICT_ALLOWED, 17));
}
