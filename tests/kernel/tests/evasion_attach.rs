//! Sockets that are older than the firewall, and a firewall that is lifted for a time, both through
//! the engine itself.

use abi::{LearnedNameKey, SlotConfig};
use ebpf_manager::{
    cgroup::Cgroup,
    enrol::{self, Identity},
    instance::{Instance, Root},
    kernel::{Engine, Rings, Sizes},
    policy_file,
    record::{Lookup, Record},
    session,
};
use kernel_tests::{cgroup_root, eventually, run::Bench, sniff::Sniffer};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
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

/// A process that lives in a cgroup before the firewall does, and the firewall.
struct World {
    bench: Bench,
    cgroup: Cgroup,
    child: Child,
    said: BufReader<ChildStdout>,
    to: ChildStdin,
    engine: Option<Engine>,
    instance: Option<Instance>,
    rings: Option<Rings>,
    config: Option<SlotConfig>,
    records: Vec<Record>,
}

impl World {
    /// Starts a Python program, in which `step` talks, in a fresh cgroup without a firewall.
    fn new(program: &str) -> Self {
        let bench = Bench::new();
        let name = format!(
            "clawker-test-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let cgroup = Cgroup::create(cgroup_root().join(name.replace(['(', ')'], ""))).unwrap();
        let code = format!("{}\nstep('here')\n{program}", kernel_tests::agent::PRELUDE);
        let mut child = Command::new("python3")
            .args(["-c", &code])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let to = child.stdin.take().unwrap();
        let mut world = Self {
            bench,
            cgroup,
            child,
            said,
            to,
            engine: None,
            instance: None,
            rings: None,
            config: None,
            records: Vec::new(),
        };
        assert_eq!(world.hear(), "here");
        let procs = world.cgroup.path().join("cgroup.procs");
        std::fs::write(procs, world.child.id().to_string()).unwrap();
        world
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Lets the program go on and returns what it says next.
    fn next(&mut self) -> String {
        writeln!(self.to, "go").unwrap();
        self.hear()
    }

    /// Attaches the firewall; without `open` its slot stays zero.
    fn attach(&mut self, open: bool) {
        let root = Root::new(&self.bench.pins);
        root.prepare().unwrap();
        let instance = root.create("run").unwrap();
        let mut engine = Engine::load(instance.pins.dir(), Sizes::default()).unwrap();
        engine.attach(&self.cgroup.open().unwrap(), "1").unwrap();
        self.rings = Some(engine.rings().unwrap());
        if open {
            let path = self.bench.policy(POLICY);
            let file = policy_file::load(&path, false).unwrap();
            let compiled = file.policy.select(None, None).compile(1).unwrap();
            instance.pins.policy().unwrap().write(&compiled).unwrap();
            let slot = root.draw_slot().unwrap();
            let below = self.cgroup.path().strip_prefix(cgroup_root()).unwrap();
            let identity = Identity {
                cgroup: below.display().to_string(),
                cgroup_id: self.cgroup.id().unwrap(),
                ..Identity::default()
            };
            let config = enrol::config(slot, 1, 1, &compiled, &[]);
            engine
                .enrol(&identity.info(slot, session::boot_now()), &config)
                .unwrap();
            self.config = Some(config);
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

    /// Reads the rings; returns every record so far, as verdict, reason, close reason, destination
    /// and bytes out.
    fn records(&mut self) -> Vec<(String, String, String, String, u64)> {
        let context = session::context(None, None);
        let records = &mut self.records;
        let rings = self.rings.as_mut().unwrap();
        let malformed = rings.drain(|e| {
            records.push(context.ended(e, &mut NoNames));
            true
        });
        assert_eq!(malformed, 0);
        let s = |o: Option<std::net::IpAddr>| o.map(|i| i.to_string()).unwrap_or_default();
        self.records
            .iter()
            .map(|r| {
                let close = r.close_reason.unwrap_or_default().to_owned();
                (
                    r.verdict.to_owned(),
                    r.reason.to_owned(),
                    close,
                    s(r.dst_ip),
                    r.bytes_out,
                )
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.cgroup.kill();
        let _ = self.child.wait();
        drop((self.engine.take(), self.instance.take()));
        let _ = self
            .bench
            .manager()
            .args(["detach", "--all", "--force"])
            .output();
        let _ = self.cgroup.remove();
    }
}

fn row(
    verdict: &str,
    reason: &str,
    close: &str,
    dst: &str,
    bytes: u64,
) -> (String, String, String, String, u64) {
    (
        verdict.into(),
        reason.into(),
        close.into(),
        dst.into(),
        bytes,
    )
}

const OLD: &str = "\
    a = socket.create_connection(('192.0.2.1', 80)); b = socket.create_connection(('203.0.113.9', 80))\n\
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('192.0.2.1', 81)); u.send(b'1')\n\
    v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.connect(('203.0.113.9', 81)); v.send(b'1')\n\
    w = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); w.sendto(b'1', ('203.0.113.9', 81))\n\
    a.sendall(b'12345'); b.sendall(b'12345')\n\
    def t(f):\n  \
    try: f(); return 'sent'\n  \
    except OSError as e: return errno.errorcode[e.errno]\n\
    step('old')\n\
    step(t(lambda: a.sendall(b'xyz')), t(lambda: b.sendall(b'SECRET')), t(lambda: u.send(b'xyzw')), t(lambda: v.send(b'SECRET')), t(lambda: w.sendto(b'SECRET', ('203.0.113.9', 81))))\n\
    a.close(); u.close(); v.close(); w.close(); step('closed')\n";

#[test]
fn cases_05_and_06_sockets_older_than_the_firewall() {
    let mut world = World::new(OLD);
    let listeners = ["192.0.2.1:80", "203.0.113.9:80"].map(|a| TcpListener::bind(a).unwrap());
    let _udp = ["192.0.2.1:81", "203.0.113.9:81"].map(|a| UdpSocket::bind(a).unwrap());
    assert_eq!(world.next(), "old");
    let mut streams = listeners.map(|l| l.accept().unwrap().0);
    world.attach(true);
    let wire = Sniffer::start();
    // TCP takes the bytes and cannot send them; UDP is told.
    assert_eq!(world.next(), "sent sent sent EPERM EPERM");
    let mut got = [0; 8];
    streams[0].read_exact(&mut got).unwrap();
    assert_eq!(&got, b"12345xyz");
    let secret = |p: &kernel_tests::sniff::Seen| p.rest.windows(6).any(|w| w == b"SECRET");
    assert!(!wire.packets().iter().any(secret));
    assert_eq!(world.next(), "closed");
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
fn case_49_an_attached_cgroup_without_a_slot_is_closed() {
    let mut world = World::new(
        "l = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); l.connect(('192.0.2.1', 81)); l.send(b'1'); step('old')\n\
         def t(f):\n  try: f(); return 'sent'\n  except OSError as e: return errno.errorcode[e.errno]\n\
         step(t(lambda: l.send(b'2')), t(socket.socket), t(lambda: l.sendto(b'2', ('192.0.2.1', 81))), t(lambda: l.connect(('192.0.2.1', 82))))\n",
    );
    let heard = UdpSocket::bind("192.0.2.1:81").unwrap();
    assert_eq!(world.next(), "old");
    heard.recv(&mut [0; 9]).unwrap();
    world.attach(false);
    assert_eq!(world.next(), "EPERM EPERM EPERM EPERM");
    heard.set_nonblocking(true).unwrap();
    assert!(heard.recv(&mut [0; 9]).is_err());
    let got: Vec<_> = world
        .records()
        .iter()
        .map(|r| (r.0.clone(), r.1.clone()))
        .collect();
    assert_eq!(
        got,
        vec![("DENIED".to_owned(), "not_enrolled".to_owned()); 4]
    );
}

#[test]
fn cases_54_and_55_a_bypass_ends_by_itself_on_the_boot_clock() {
    let mut world = World::new(
        "def t(f):\n  try: f(); return 'sent'\n  except OSError as e: return errno.errorcode[e.errno]\n\
         step(tcp('203.0.113.9', 80))\n\
         s = socket.create_connection(('203.0.113.9', 80)); s.sendall(b'12345')\n\
         u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.connect(('203.0.113.9', 81)); u.send(b'123')\n\
         step('lifted', tcp('169.254.169.254', 80))\n\
         until('EPERM', lambda: t(lambda: u.send(b'4'))); s.sendall(b'SECRET')\n\
         step(tcp('203.0.113.9', 80)); time.sleep(0)\n\
         step('end')\n",
    );
    let listener = TcpListener::bind("203.0.113.9:80").unwrap();
    let _udp = UdpSocket::bind("203.0.113.9:81").unwrap();
    world.attach(true);
    assert_eq!(world.next(), "EPERM");
    world.lift(Duration::from_secs(2));
    assert_eq!(world.next(), "lifted EPERM");
    let (_stream, _) = listener.accept().unwrap();
    let wire = Sniffer::start();
    assert_eq!(world.next(), "EPERM");
    let secret = |p: &kernel_tests::sniff::Seen| p.rest.windows(6).any(|w| w == b"SECRET");
    assert!(
        !wire.packets().iter().any(secret),
        "bytes left after the bypass had ended"
    );
    let records = world.records();
    let udp: Vec<_> = records.iter().filter(|r| r.0 == "BYPASSED").collect();
    assert_eq!(udp.len(), 2, "{records:#?}");
    assert!(
        udp.iter()
            .any(|r| r.2 == "policy" && r.1 == "bypass" && r.4 >= 5),
        "{udp:?}"
    );
    assert!(
        udp.iter().all(|r| r.2 == "policy" && r.3 == "203.0.113.9"),
        "{udp:?}"
    );
    assert!(records.contains(&row("DENIED", "builtin", "denied", "169.254.169.254", 0)));
    let denied = row("DENIED", "default", "denied", "203.0.113.9", 0);
    assert!(records.iter().filter(|r| **r == denied).count() >= 2);
}
