//! The backstop at a container's interface: what it must not touch.

use abi::{VERDICT_DENIED, reason};
use kernel_tests::{
    container::Container,
    eventually,
    net::ip,
    parent::Parent,
    peer::{self, Far},
};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

const POLICY: &str = "rules:\n\
    - { name: four, dst: 192.0.2.1, proto: any, port: \"1-65535\" }\n\
    - { name: six, dst: \"2001:db8::1\", proto: any, port: \"1-65535\" }\n";

/// Answers as many bytes as came, connection by connection.
fn echo(addr: &str) {
    let listener = TcpListener::bind(addr).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let n = peer::drain(&mut stream);
                // The caller may have gone with a reset.
                let _ = stream.write_all(&vec![b'y'; n as usize]);
            });
        }
    });
}

/// Both ends of the link have to find each other again.
fn forget(container: &Container) {
    for family in ["-4", "-6"] {
        ip(&[family, "neigh", "flush", "dev", "veth1"]);
        container.inside(&[family, "neigh", "flush", "dev", "eth1"]);
    }
}

/// Everything that a well-behaved program does, in both families.
const WORKLOAD: &str = "\
    def talk(ip, n):\n  \
        with dial(ip, 80) as s:\n    \
            w = threading.Thread(target=lambda: (s.sendall(bytes(n)), s.shutdown(1))); w.start()\n    \
            got = read(s); w.join()\n    \
            assert got == n, (ip, got, n)\n\
    for ip in ('192.0.2.1', '2001:db8::1'):\n  \
        talk(ip, 10_000_000)\n  \
        for i in range(100): talk(ip, i)\n  \
        for i in range(50):\n    \
            s = dial(ip, 80); s.setsockopt(1, 13, struct.pack('ii', 1, 0)); s.sendall(b'gone'); s.close()\n  \
        # We close first: TIME_WAIT is ours, and the peer's FIN is answered from there.\n  \
        for i in range(50): s = dial(ip, 80); s.close()\n  \
        assert tcp(ip, 82) == 'ECONNREFUSED'\n  \
        d = dgram(family(ip)); d.connect((ip, 81)); d.settimeout(10)\n  \
        for i in range(500): d.send(bytes(100)); assert len(d.recv(999)) == 50\n  \
        # In fragments, and many at a time.\n  \
        d.send(bytes(20000)); assert len(d.recv(20000)) == 10000\n  \
        e = dgram(family(ip)); e.setsockopt(17, 103, 1000); e.connect((ip, 81)); e.send(bytes(9000))\n\
    m = dgram(); m.setsockopt(0, 35, struct.pack('4s4si', socket.inet_aton('224.0.0.99'), bytes(4), 0))\n\
    m = dgram(10); m.setsockopt(41, 20, socket.inet_pton(10, 'ff02::99') + struct.pack('i', 0))\n\
    step('busy')\n\
    for f, ip in ((2, '0.0.0.0'), (10, '::')):\n  \
        l = socket.socket(f); l.bind((ip, 90 + f)); l.listen(); say('listens'); s, _ = l.accept(); s.sendall(bytes(read(s))); s.close()\n\
    step('served')\n";

#[test]
fn an_allowed_workload_sees_no_loss() {
    let mut parent = Parent::new();
    for addr in ["192.0.2.1:80", "[2001:db8::1]:80"] {
        echo(addr);
    }
    let far = ["192.0.2.1:81", "[2001:db8::1]:81"].map(|a| Far::start(a, true));
    let mut container = Container::start(&parent, 1, "", WORKLOAD);
    parent.stop(&container, POLICY);
    forget(&container);
    assert_eq!(container.talk.go(), "busy");
    forget(&container);
    container.talk.say("go");
    for addr in ["198.18.1.2:92", "[fd00:1::2]:100"] {
        assert_eq!(container.talk.hear(), "listens");
        let mut caller = TcpStream::connect(addr).unwrap();
        caller.write_all(&[1; 100_000]).unwrap();
        caller.shutdown(std::net::Shutdown::Write).unwrap();
        let mut got = Vec::new();
        caller.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), 100_000);
    }
    assert_eq!(container.talk.hear(), "served");
    // 500 small ones, one of twenty kilobytes, nine of one.
    assert_eq!(far.map(Far::end), [(510, 50_000 + 20_000 + 9_000); 2]);
    drop(container);
    let told = parent.told();
    assert!(
        told.iter().all(|t| t.verdict != VERDICT_DENIED),
        "{:#?}",
        told.iter()
            .filter(|t| t.verdict == VERDICT_DENIED)
            .collect::<Vec<_>>()
    );
    let row = parent.engine.books().row(1).unwrap();
    assert_eq!(row.denied, [0; reason::COUNT]);
    let mut trouble = row.trouble;
    // Whom a reset has ended may get an answer on its way, and the kernel says so without a socket.
    let resets = std::mem::take(&mut trouble[abi::trouble::NO_SOCKET]);
    assert!(resets <= 100, "{resets}");
    assert_eq!(trouble, [0; abi::trouble::COUNT]);
}

#[test]
fn every_network_has_a_backstop_that_goes_with_it() {
    let mut parent = Parent::new();
    let mut container = Container::start(&parent, 1, "", "step('ready')\n");
    container.network(2);
    let both = container.interfaces();
    assert_eq!(both.len(), 2);
    let config = parent.stop(&container, POLICY);
    let pins = parent.instance.pins.clone();
    let seen = |n: usize| {
        let all = pins.backstops("1").unwrap();
        assert_eq!(all.len(), n, "{all:?}");
        all.iter().filter(|b| b.attached).count()
    };
    assert_eq!(seen(2), 2);
    // Once more is no second one.
    parent.back(&container, &config, both[0]);
    assert_eq!(seen(2), 2);
    // The network is disconnected.
    ip(&["link", "del", "veth2"]);
    assert_eq!(seen(2), 1);
    assert_eq!(container.interfaces(), both[..1]);
    pins.lift("1", both[1]).unwrap();
    assert_eq!(seen(1), 1);
    pins.lift("1", both[0]).unwrap();
    pins.lift("1", both[0]).unwrap();
    assert_eq!(seen(0), 0);
    let gone = parent.engine.backstop("1", &config, both[1], &[]);
    assert!(gone.unwrap_err().to_string().contains("interface"));
    assert_eq!(seen(0), 0);
    assert_eq!(container.talk.go(), "ready");
    drop(container);
    // Our own namespace is at the other end of nothing.
    let own = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    eventually("the end of the link", || {
        let found = ebpf_manager::kernel::host_sides(&own).unwrap();
        found.is_empty().then_some(())
    });
}
