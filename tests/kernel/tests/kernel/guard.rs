//! A guarded parent cgroup: what is made below it and is not enrolled sends nothing.

use abi::{SLOT_LOOPBACK_IS_EGRESS, VERDICT_DENIED, reason};
use kernel_tests::{
    eventually,
    parent::{Parent, Told, into},
    peer::Far,
    server::Place,
    sniff::Sniffer,
};
use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
};

const POLICY: &str = "rules:\n- { name: ok, dst: 192.0.2.1, proto: any, port: \"1-65535\" }\n\
    - { name: six, dst: \"2001:db8::1\", proto: any, port: \"1-65535\" }\n";

fn not_enrolled(t: &Told) -> bool {
    (t.slot, t.verdict, t.reason) == (0, VERDICT_DENIED, reason::NOT_ENROLLED)
}

/// Sockets that are older than any guard, and what anybody can make.
const ATTEMPTS: &str = "\
    old = socket.create_connection(('192.0.2.1', 80)); older = dgram(); older.connect(('192.0.2.1', 81)); older.send(b'1')\n\
    step('old')\n\
    def late(ip):\n  \
        s = socket.socket(family(ip)); s.settimeout(0.3)\n  \
        return tried(lambda: s.connect((ip, 80)))\n\
    def kind(f, t, p, to):\n  \
        with socket.socket(f, t, p) as s: return tried(lambda: s.sendto(b'\\x08\\0\\0\\0\\0\\0\\0\\0SECRET', to))\n\
    say(tried(lambda: older.send(b'SECRET')), late('192.0.2.1'), late('2001:db8::1'), udp(b'SECRET', '192.0.2.1', 81, 0),\n\
        udp(b'SECRET', '2001:db8::1', 81, 0), told(b'SECRET', '192.0.2.1', 81),\n\
        kind(2, 3, 1, ('192.0.2.1', 0)), kind(2, 3, 253, ('192.0.2.1', 0)), kind(10, 3, 253, ('2001:db8::1', 0)))\n\
    old.sendall(b'SECRET'); step('sent')\n";

const REFUSED: &str = "EPERM timeout timeout EPERM EPERM EPERM EPERM EPERM EPERM";

#[test]
fn nothing_leaves_that_is_not_enrolled() {
    let mut parent = Parent::new();
    let place = Place::open("192.0.2.1:80");
    let far = Far::start("192.0.2.1:81", false);
    // In a child, in a child of that, and in the parent itself.
    let child = parent.child("child");
    let nested = parent.child("child/nested");
    for cgroup in [child, nested, parent.cgroup.clone()] {
        let mut agent = parent.agent(&cgroup, ATTEMPTS);
        assert_eq!(agent.go(), "old");
        let before = parent.denied(0, reason::NOT_ENROLLED);
        parent.guard();
        let wire = Sniffer::start();
        assert_eq!(agent.go(), REFUSED);
        assert_eq!(agent.hear(), "sent");
        assert_eq!(wire.packets(), [], "something left");
        // Each datagram once, each connection by its SYN, the old one by its data.
        let counted = parent.denied(0, reason::NOT_ENROLLED) - before;
        assert!(counted >= 9, "{counted}");
        parent.instance.pins.unguard("agents").unwrap();
        drop(agent);
    }
    let told = parent.told();
    assert!(told.iter().all(not_enrolled), "{told:#?}");
    assert_eq!(
        told.len() as u64,
        parent.denied(0, reason::NOT_ENROLLED),
        "what is counted is told"
    );
    eventually("the bytes that an open parent lets pass", || {
        (place.bytes() == 3 * 6).then_some(())
    });
    assert_eq!(place.calls(), 3);
    let (packets, _) = far.end();
    assert_eq!(packets, 3);
}

/// Traffic of every kind of socket that has a flow, and of those that have none.
const LIVELY: &str = "\
    l = socket.socket(); l.bind(('192.0.2.2', 90)); l.listen()\n\
    step('listens')\n\
    s, _ = l.accept(); s.sendall(b'hello'); s.close()\n\
    t = dial('192.0.2.1', 80); t.sendall(bytes(200000)); t.close()\n\
    d = dgram(); w = dgram(socket.AF_INET6)\n\
    for i in range(50): d.sendto(b'12345', ('192.0.2.1', 81)); w.sendto(b'12345', ('2001:db8::1', 81))\n\
    m = dgram(socket.AF_INET6); m.sendto(b'12345', ('::ffff:192.0.2.1', 81))\n\
    i = dgram(); i.bind(('127.0.0.1', 0)); i.sendto(b'me', i.getsockname()); i.settimeout(10)\n\
    a = socket.socket(); a.bind(('127.0.0.1', 0)); a.listen(); b = socket.create_connection(a.getsockname())\n\
    c, _ = a.accept(); b.sendall(b'inside'); c.settimeout(10)\n\
    step(i.recv(9).decode(), c.recv(9).decode())\n\
    step(tcp('203.0.113.9', 80), udp(b'x', '203.0.113.9', 81, 0), told(b'x', '203.0.113.9', 81))\n";

#[test]
fn what_is_enrolled_goes_on_beside_what_is_not() {
    let mut parent = Parent::new();
    let place = Place::open("192.0.2.1:80");
    let far = [
        Far::start("192.0.2.1:81", false),
        Far::start("[2001:db8::1]:81", false),
    ];
    let (one, other) = (parent.child("one"), parent.child("other"));
    parent.guard();
    parent.attach(&one, 1);
    let config = parent.open_as(&one, 1, POLICY, |c| c.flags &= !SLOT_LOOPBACK_IS_EGRESS);
    let mut agent = parent.agent(&one, LIVELY);
    assert_eq!(agent.go(), "listens");
    let mut caller = TcpStream::connect("192.0.2.2:90").unwrap();
    agent.say("go");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut caller, &mut said).unwrap();
    assert_eq!(said, "hello");
    assert_eq!(agent.hear(), "me inside");
    let mut stranger = parent.agent(&other, "step(udp(b'x', '192.0.2.1', 81, 0))\n");
    assert_eq!(stranger.go(), "EPERM");
    assert_eq!(agent.go(), "EPERM EPERM EPERM");
    eventually("every byte", || (place.bytes() == 200_000).then_some(()));
    let [four, six] = far.map(Far::end);
    assert_eq!((four, six), ((51, 255), (50, 250)));
    // What a child refuses is told once, as the child's; the stranger's datagram is nobody's.
    let denied = parent.eventually(4, |t| t.verdict == VERDICT_DENIED);
    assert!(not_enrolled(&denied[0]));
    for t in &denied[1..] {
        assert_eq!((t.slot, t.reason), (config.slot, reason::DEFAULT), "{t:?}");
    }
}

/// Sends numbers without end.
const RESTLESS: &str = "\
    d = dgram(); n = 0; d.settimeout(1)\n\
    t = socket.socket(); t.setblocking(False); tried(lambda: t.connect(('192.0.2.1', 80)))\n\
    def send():\n  \
        global n\n  \
        while not over: tried(lambda: d.sendto(b'%08d' % n, ('192.0.2.1', 81))); n += 1; time.sleep(0.0005)\n\
    over = False; worker = threading.Thread(target=send); worker.start()\n\
    step('runs'); step(n); over = True; worker.join(); step('ended')\n";

#[test]
fn enrolment_opens_a_cgroup_while_it_sends() {
    let mut parent = Parent::new();
    let place = Place::open("192.0.2.1:80");
    let heard = UdpSocket::bind("192.0.2.1:81").unwrap();
    let child = parent.child("child");
    parent.guard();
    let mut agent = parent.agent(&child, RESTLESS);
    assert_eq!(agent.go(), "runs");
    let wire = Sniffer::start();
    let refused = |parent: &Parent| parent.denied(0, reason::NOT_ENROLLED);
    eventually("refusals of the guard", || {
        (refused(&parent) > 20).then_some(())
    });
    // Attached, not enrolled: the child refuses, and the guard does not count it again.
    parent.attach(&child, 1);
    let before = refused(&parent);
    eventually("refusals of the child", || {
        (refused(&parent) > before + 20).then_some(())
    });
    assert_eq!(wire.packets(), [], "something left before the enrolment");
    let tried: u64 = agent.go().parse().unwrap();
    // One SYN or two besides.
    assert!(
        refused(&parent) <= tried + 5,
        "{} refusals of {tried} attempts",
        refused(&parent)
    );
    let config = parent.open(&child, 1, POLICY);
    let mut buf = [0; 9];
    heard.recv(&mut buf).unwrap();
    // The connection that was begun before goes on as soon as its SYN is tried again.
    eventually("the connection", || (place.calls() == 1).then_some(()));
    assert_eq!(agent.go(), "ended");
    drop(agent);
    let books = parent.engine.books().row(1).unwrap();
    assert_eq!(books.denied, [0; reason::COUNT]);
    parent.eventually(1, |t| t.slot == config.slot && t.proto == 17);
}

#[test]
fn a_guard_that_comes_late_costs_the_enrolled_nothing() {
    let mut parent = Parent::new();
    let far = Far::start("192.0.2.1:81", false);
    let child = parent.child("child");
    parent.enrol(&child, 1, POLICY);
    let mut agent = parent.agent(
        &child,
        "d = dgram(); d.connect(('192.0.2.1', 81)); over = False; n = 0\n\
         def send():\n  \
             global n\n  \
             while not over: d.send(b'x'); n += 1; time.sleep(0.0002)\n\
         w = threading.Thread(target=send); w.start(); step('runs'); over = True; w.join(); step(n)\n",
    );
    assert_eq!(agent.go(), "runs");
    for _ in 0..10 {
        parent.guard();
        parent.instance.pins.unguard("agents").unwrap();
    }
    parent.guard();
    let sent: u64 = agent.go().parse().unwrap();
    assert_eq!(far.end(), (sent, sent));
    assert_eq!(parent.denied(0, reason::NOT_ENROLLED), 0);
}

#[test]
fn a_socket_is_guarded_where_it_was_made_whoever_uses_it() {
    let mut parent = Parent::new();
    let far = Far::start("192.0.2.1:81", false);
    let (enrolled, stranger) = (parent.child("enrolled"), parent.child("stranger"));
    parent.enrol(&enrolled, 1, POLICY);
    parent.guard();
    let mut agent = parent.agent(
        &stranger,
        "out = lambda s: tried(lambda: s.sendto(b'x', ('192.0.2.1', 81)))\n\
         s = dgram(); s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1); step(out(s))\n\
         # Made by a stranger, used by an agent; made by the agent, used by a stranger.\n\
         t = dgram(); step(out(s), out(t)); step(out(t), out(dgram()))\n",
    );
    assert_eq!(agent.go(), "EPERM");
    into(&enrolled, &agent);
    assert_eq!(agent.go(), "EPERM sent");
    into(&stranger, &agent);
    assert_eq!(agent.go(), "sent EPERM");
    drop(agent);
    assert_eq!(far.end(), (2, 2));
    parent.eventually(3, not_enrolled);
}

#[test]
fn what_judged_a_socket_must_still_be_there() {
    let mut parent = Parent::new();
    let listener = TcpListener::bind("192.0.2.1:80").unwrap();
    let far = Far::start("192.0.2.1:81", false);
    let child = parent.child("child");
    parent.enrol(&child, 1, POLICY);
    parent.guard();
    let mut agent = parent.agent(
        &child,
        "t = dial('192.0.2.1', 80); d = dgram(); d.connect(('192.0.2.1', 81)); d.send(b'x')\n\
         step('marked'); t.sendall(b'SECRET')\n\
         while True: step(tried(lambda: d.send(b'SECRET')))\n",
    );
    assert_eq!(agent.go(), "marked");
    let _stream = listener.accept().unwrap();
    let wire = Sniffer::start();
    // The programs go, as at the end of a container; its sockets do not.
    parent.instance.pins.retire(1).unwrap();
    fs::remove_dir_all(parent.instance.pins.dir().join("links/1")).unwrap();
    eventually("the end of the programs", || {
        (agent.go() == "EPERM").then_some(())
    });
    let packets = wire.packets();
    assert!(
        !packets
            .iter()
            .any(|p| p.rest.windows(6).any(|w| w == b"SECRET")),
        "{packets:#?}"
    );
    drop(agent);
    assert_eq!(far.end(), (1, 1));
    let told = parent.told();
    assert!(told.iter().any(not_enrolled), "{told:#?}");
}

/// Sockets that talk to themselves in a cgroup where that is no egress: they have no flow, so the mark
/// is all there is.
#[test]
fn a_socket_without_memory_for_its_mark_sends_nothing() {
    const OPTMEM: &str = "/proc/sys/net/core/optmem_max";
    let mut parent = Parent::new();
    let child = parent.child("child");
    parent.attach(&child, 1);
    parent.open_as(&child, 1, POLICY, |c| c.flags &= !SLOT_LOOPBACK_IS_EGRESS);
    parent.guard();
    // From room for nothing to room for the mark; what arrives takes room of its own, on the other socket.
    let limits: Vec<u32> = (16..400).step_by(16).collect();
    let program = format!(
        "for _ in range({}): step(tried(lambda: dgram().sendto(b'x', ('127.0.0.1', 81))))\n",
        limits.len()
    );
    let mut agent = parent.agent(&child, &program);
    let mut said = Vec::new();
    for limit in &limits {
        fs::write(OPTMEM, limit.to_string()).unwrap();
        said.push(agent.go());
    }
    let refused = said.iter().take_while(|w| *w == "EPERM").count();
    assert!(refused > 0 && refused < limits.len(), "{said:?}");
    assert!(said[refused..].iter().all(|w| w == "sent"), "{said:?}");
    let row = parent.engine.books().row(1).unwrap();
    assert_eq!(row.trouble[abi::trouble::NO_STATE], refused as u64);
    assert_eq!(parent.denied(0, reason::NOT_ENROLLED), refused as u64);
}
