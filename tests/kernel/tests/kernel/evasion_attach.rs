//! Sockets that are older than the firewall, and a firewall that is lifted for a time, both through
//! the engine itself.

use abi::{LearnedNameKey, SlotConfig};
use ebpf_manager::{
    cgroup::Cgroup,
    instance::{Instance, Root, remove_pins},
    kernel::{Engine, Rings},
    record::{Lookup, Owner},
    session,
};
use kernel_tests::{
    agent::code,
    cgroup_root, clear, eventually,
    run::Bench,
    sniff::{Seen, Sniffer},
    talk::Talk,
};
use std::{
    io::Read as _,
    net::{IpAddr, TcpListener, UdpSocket},
    process::Command,
    time::Duration,
};

const POLICY: &str = "rules:\n- { name: ok, dst: 192.0.2.1, proto: any }\n";

struct NoNames;

impl Lookup for NoNames {
    fn name(&mut self, _: u32, hash: u64) -> Option<String> {
        let _: Option<LearnedNameKey> = None;
        Some(format!("{hash:x}"))
    }
    fn rule(&mut self, _: u32, rule: u32) -> Option<String> {
        Some(rule.to_string())
    }
}

/// What these tests ask of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    verdict: &'static str,
    reason: &'static str,
    close: &'static str,
    dst: Option<IpAddr>,
    bytes: u64,
}

fn row(
    verdict: &'static str,
    reason: &'static str,
    close: &'static str,
    dst: &str,
    bytes: u64,
) -> Row {
    Row {
        verdict,
        reason,
        close,
        dst: Some(dst.parse().unwrap()),
        bytes,
    }
}

/// A process that lives in a cgroup before the firewall does, and the firewall.
struct World {
    bench: Bench,
    cgroup: Cgroup,
    agent: Talk,
    engine: Option<Engine>,
    instance: Option<Instance>,
    rings: Option<Rings>,
    config: Option<SlotConfig>,
    records: Vec<Row>,
}

impl World {
    /// Starts a Python program, in which `step` talks, in a fresh cgroup without a firewall.
    fn new(program: &str) -> Self {
        let world = Self::beside(program);
        world.move_to(&world.cgroup);
        world
    }

    /// Starts a Python program, in which `step` talks, beside a fresh cgroup without a firewall.
    fn beside(program: &str) -> Self {
        let bench = Bench::new();
        let name = format!("clawker-test-{}-old", std::process::id());
        let cgroup = Cgroup::create(cgroup_root().join(name)).unwrap();
        let code = code(&format!("step('here')\n{program}"));
        let mut agent = Talk::start(Command::new("python3").args(["-c", &code]));
        assert_eq!(agent.hear(), "here");
        Self {
            bench,
            cgroup,
            agent,
            engine: None,
            instance: None,
            rings: None,
            config: None,
            records: Vec::new(),
        }
    }

    /// Moves the program.
    fn move_to(&self, cgroup: &Cgroup) {
        let procs = cgroup.path().join("cgroup.procs");
        std::fs::write(procs, self.agent.pid().to_string()).unwrap();
    }

    /// Removes the firewall, as the end of a run does.
    fn detach(&mut self) {
        drop((self.rings.take(), self.engine.take(), self.instance.take()));
        let pins = Root::new(&self.bench.pins);
        for found in pins.list().unwrap() {
            remove_pins(found.pins.dir()).unwrap();
        }
    }

    /// Attaches the firewall; without `open` its slot stays zero.
    fn attach(&mut self, open: bool) {
        let (instance, mut engine) = self.bench.attach(&self.cgroup);
        self.rings = Some(engine.rings().unwrap());
        if open {
            let both = (&instance, &mut engine);
            self.config = Some(self.bench.open(both, &self.cgroup, POLICY, &[]));
        }
        self.engine = Some(engine);
        self.instance = Some(instance);
    }

    /// Lifts the firewall for a time.
    fn lift(&mut self, time: Duration) {
        let config = self.config.as_mut().unwrap();
        config.bypass_until = session::boot_now() + time.as_nanos() as u64;
        config.generation += 1;
        let id = self.cgroup.id().unwrap();
        self.instance
            .as_ref()
            .unwrap()
            .pins
            .configure(id, config)
            .unwrap();
        assert_eq!(
            self.instance.as_ref().unwrap().pins.config(id).unwrap(),
            Some(*config)
        );
    }

    /// Reads the rings; returns every record so far.
    fn records(&mut self) -> Vec<Row> {
        let context = session::context(Owner::default());
        let records = &mut self.records;
        let rings = self.rings.as_mut().unwrap();
        let malformed = rings.drain(|e| {
            let r = context.ended(e, &mut NoNames);
            records.push(Row {
                verdict: r.verdict,
                reason: r.reason,
                close: r.close_reason.unwrap_or_default(),
                dst: r.dst_ip,
                bytes: r.bytes_out,
            });
            true
        });
        assert_eq!(malformed, 0);
        self.records.clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop((self.engine.take(), self.instance.take()));
        let _ = self.bench.operate(&["detach", "--all", "--force"]);
        clear(&self.cgroup);
        let _ = self.cgroup.remove();
    }
}

/// Whether a packet carries what must not leave.
fn secret(p: &Seen) -> bool {
    p.rest.windows(6).any(|w| w == b"SECRET")
}

const OLD: &str = "\
    a = socket.create_connection(('192.0.2.1', 80)); b = socket.create_connection(('203.0.113.9', 80))\n\
    u = dgram(); u.connect(('192.0.2.1', 81)); u.send(b'1')\n\
    v = dgram(); v.connect(('203.0.113.9', 81)); v.send(b'1')\n\
    w = dgram(); w.sendto(b'1', ('203.0.113.9', 81))\n\
    a.sendall(b'12345'); b.sendall(b'12345')\n\
    step('old')\n\
    step(tried(lambda: a.sendall(b'xyz')), tried(lambda: b.sendall(b'SECRET')), tried(lambda: u.send(b'xyzw')), tried(lambda: v.send(b'SECRET')), tried(lambda: w.sendto(b'SECRET', ('203.0.113.9', 81))))\n\
    a.close(); u.close(); v.close(); w.close(); step('closed')\n";

#[test]
fn cases_05_and_06_sockets_older_than_the_firewall() {
    let mut world = World::new(OLD);
    let listeners = ["192.0.2.1:80", "203.0.113.9:80"].map(|a| TcpListener::bind(a).unwrap());
    let _udp = ["192.0.2.1:81", "203.0.113.9:81"].map(|a| UdpSocket::bind(a).unwrap());
    assert_eq!(world.agent.go(), "old");
    let mut streams = listeners.map(|l| l.accept().unwrap().0);
    world.attach(true);
    let wire = Sniffer::start();
    // TCP takes the bytes and cannot send them; UDP is told.
    assert_eq!(world.agent.go(), "sent sent sent EPERM EPERM");
    let mut got = [0; 8];
    streams[0].read_exact(&mut got).unwrap();
    assert_eq!(&got, b"12345xyz");
    assert!(!wire.packets().iter().any(secret));
    assert_eq!(world.agent.go(), "closed");
    let expected = [
        row("ALLOWED", "mid_stream", "fin", "192.0.2.1", 3),
        row("ALLOWED", "mid_stream", "fin", "192.0.2.1", 4),
        row("DENIED", "mid_stream", "denied", "203.0.113.9", 0),
        row("DENIED", "mid_stream", "denied", "203.0.113.9", 0),
        // `sendto` is judged as any.
        row("DENIED", "default", "denied", "203.0.113.9", 0),
    ];
    let mut expected = expected.to_vec();
    expected.sort();
    let mut last = Vec::new();
    eventually("the records", || {
        last = world.records();
        last.sort();
        (last.len() >= expected.len()).then_some(())
    });
    assert_eq!(last, expected);
    assert!(!wire.packets().iter().any(secret));
}

#[test]
fn case_08_a_socket_is_judged_where_it_was_made_whoever_holds_it_where() {
    let mut world = World::beside(
        "out = lambda s: tried(lambda: s.sendto(b'x', ('203.0.113.9', 81)))\n\
         before = dgram(); step('made'); inside = dgram(); step(out(before), out(inside))\n\
         after = dgram(); step(out(inside), out(after), out(before))\n",
    );
    let heard = UdpSocket::bind("203.0.113.9:81").unwrap();
    heard.set_nonblocking(true).unwrap();
    assert_eq!(world.agent.go(), "made");
    world.attach(true);
    world.move_to(&world.cgroup);
    // What was made outside is nobody's here: no hook of this cgroup fires on it.
    assert_eq!(world.agent.go(), "sent EPERM");
    world.move_to(&Cgroup::at(cgroup_root()));
    assert_eq!(world.agent.go(), "EPERM sent sent");
    let denied = row("DENIED", "default", "denied", "203.0.113.9", 0);
    assert_eq!(world.records(), [denied.clone(), denied]);
    let mut got = 0;
    while heard.recv(&mut [0; 9]).is_ok() {
        got += 1;
    }
    assert_eq!(got, 3);
}

#[test]
fn case_10_a_cgroup_that_is_used_again_inherits_nothing() {
    let mut world = World::new(
        "step(tcp('192.0.2.1', 81), tcp('203.0.113.9', 81))\n\
         step(tried(socket.socket))\n\
         step(tcp('192.0.2.1', 81), tcp('203.0.113.9', 81))\n",
    );
    world.attach(true);
    let first = world.config.unwrap().slot;
    assert_eq!(world.agent.go(), "ECONNREFUSED EPERM");
    assert_eq!(world.records().len(), 2);
    world.detach();
    // The same cgroup, with the same id. Its slot is empty until it is written again.
    world.attach(false);
    assert_eq!(world.agent.go(), "EPERM");
    let nobody = world.records().pop().unwrap();
    assert_eq!((nobody.verdict, nobody.reason), ("DENIED", "not_enrolled"));
    world.detach();
    world.attach(true);
    assert!(
        world.config.unwrap().slot > first,
        "slot numbers are not used twice"
    );
    assert_eq!(world.agent.go(), "ECONNREFUSED EPERM");
    let books = world.instance.as_ref().unwrap().pins.books().unwrap();
    let ended: u64 = books.iter().flat_map(|b| b.ended).sum();
    assert_eq!(ended, 2, "the books begin at nothing");
}

#[test]
fn case_49_an_attached_cgroup_without_a_slot_is_closed() {
    let mut world = World::new(
        "l = dgram(); l.connect(('192.0.2.1', 81)); l.send(b'1'); step('old')\n\
         step(tried(lambda: l.send(b'2')), tried(socket.socket), tried(lambda: l.sendto(b'2', ('192.0.2.1', 81))), tried(lambda: l.connect(('192.0.2.1', 82))))\n",
    );
    let heard = UdpSocket::bind("192.0.2.1:81").unwrap();
    assert_eq!(world.agent.go(), "old");
    heard.recv(&mut [0; 9]).unwrap();
    world.attach(false);
    assert_eq!(world.agent.go(), "EPERM EPERM EPERM EPERM");
    heard.set_nonblocking(true).unwrap();
    assert!(heard.recv(&mut [0; 9]).is_err());
    let records = world.records();
    assert_eq!(records.len(), 4);
    for r in records {
        assert_eq!((r.verdict, r.reason), ("DENIED", "not_enrolled"), "{r:?}");
    }
}

#[test]
fn cases_54_and_55_a_bypass_ends_by_itself_on_the_boot_clock() {
    let mut world = World::new(
        "step(tcp('203.0.113.9', 80))\n\
         s = socket.create_connection(('203.0.113.9', 80)); s.sendall(b'12345')\n\
         u = dgram(); u.connect(('203.0.113.9', 81)); u.send(b'123')\n\
         step('lifted', tcp('169.254.169.254', 80))\n\
         until('EPERM', lambda: tried(lambda: u.send(b'4'))); s.sendall(b'SECRET')\n\
         step(tcp('203.0.113.9', 80))\n",
    );
    let listener = TcpListener::bind("203.0.113.9:80").unwrap();
    let _udp = UdpSocket::bind("203.0.113.9:81").unwrap();
    world.attach(true);
    assert_eq!(world.agent.go(), "EPERM");
    world.lift(Duration::from_secs(2));
    assert_eq!(world.agent.go(), "lifted EPERM");
    let (_stream, _) = listener.accept().unwrap();
    let wire = Sniffer::start();
    assert_eq!(world.agent.go(), "EPERM");
    assert!(
        !wire.packets().iter().any(secret),
        "bytes left after the bypass had ended"
    );
    let records = world.records();
    let lifted: Vec<_> = records.iter().filter(|r| r.verdict == "BYPASSED").collect();
    assert_eq!(lifted.len(), 2, "{records:#?}");
    for r in &lifted {
        assert_eq!(
            **r,
            row("BYPASSED", "bypass", "policy", "203.0.113.9", r.bytes)
        );
    }
    assert!(lifted.iter().any(|r| r.bytes >= 5), "{lifted:?}");
    assert!(records.contains(&row("DENIED", "builtin", "denied", "169.254.169.254", 0)));
    let denied = row("DENIED", "default", "denied", "203.0.113.9", 0);
    assert!(records.iter().filter(|r| **r == denied).count() >= 2);
}
