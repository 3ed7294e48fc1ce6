//! A cgroup full of traffic, some refused and some allowed, that goes on while something is done to its
//! firewall; and what must be true of it afterwards.

mod far;

use crate::{
    agent::code, cgroup_root, check::flows, clear, engine::compile, run::Bench, talk::Talk,
};
use abi::{SlotConfig, SlotInfo};
use ebpf_manager::{
    cgroup::Cgroup,
    enrol::{self, Identity},
    instance::Root,
    kernel::{Engine, Rings},
    record::{Lookup, Owner, Record},
    resolvers::Place,
    session,
};
use far::Far;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What may be reached.
pub const POLICY: &str = "rules:\n- { name: ok, dst: 192.0.2.1, proto: any }\n";
/// What may not.
const FORBIDDEN: &str = "203.0.113.9";
/// Rates that keep every allowed flow a record of its own: how it ended is asked.
pub const SIZES: ebpf_manager::kernel::Sizes = ebpf_manager::kernel::Sizes {
    ring_bytes: 1 << 22,
    slots: 2,
    names: 64,
    addrs: 64,
    folds: 64,
    rate: 100_000_000,
};

/// The last flow has ended by then: a connection whose other end is slow to close lives on for the kernel's
/// `tcp_fin_timeout`, a minute.
pub const LAST_FLOW: Duration = Duration::from_secs(90);

/// Every thread does one thing until it is told to stop, and counts. A conversation that is not answered
/// in ten seconds is broken, and ends the program with an error.
const CLIENT: &str = r"
import collections, traceback
n = collections.Counter(); over = threading.Event(); broken = []
def forever(f):
    def body():
        try:
            while not over.is_set(): f()
        except BaseException: broken.append(traceback.format_exc())
    t = threading.Thread(target=body); t.start(); return t
def refused():
    with socket.socket() as s:
        e = s.connect_ex(('203.0.113.9', 80)); assert e == errno.EPERM, e
    n['refused'] += 1
def unsent(s=dgram()):
    e = tried(lambda: s.sendto(b'x', ('203.0.113.9', 81))); assert e == 'EPERM', e
    n['refused'] += 1
def no_socket():
    e = tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)); assert e == 'EPERM', e
    n['refused'] += 1; time.sleep(0.001)
def connection():
    with dial('192.0.2.1', 82) as s: s.settimeout(10); s.sendall(b'0123456789'); assert s.recv(9) == b''
    n['connections'] += 1; time.sleep(0.002)
def datagram():
    with dgram() as s: s.sendto(b'12345', ('192.0.2.1', 83))
    n['datagrams'] += 1; time.sleep(0.002)
def talk(s, name, size):
    s.settimeout(10)
    def turn():
        s.sendall(b'q' * size); need(s, size); n[name] += size; time.sleep(0.0005)
    return turn
def pour(s):
    def turn():
        s.sendall(b'p' * 65536); n['poured'] += 65536; time.sleep(0.001)
    return turn
def answers(port): s = dgram(); s.bind(('192.0.2.2', port)); s.settimeout(0.05); return s
def asked(s, name):
    def turn():
        try: m, who = s.recvfrom(99)
        except TimeoutError: return
        n[name] += 1; s.sendto(m, who)
    return turn
def served(l):
    def turn():
        m = l.recv(100)
        if m: l.sendall(m); n['served'] += len(m)
        else: time.sleep(0.01)
    return turn
listener = socket.create_server(('192.0.2.2', 90)); answerer = answers(91); host = answers(92)
a, b, u = dial('192.0.2.1', 80), dial('192.0.2.1', 84), dgram(); u.connect(('192.0.2.1', 81))
say('open'); guest = listener.accept()[0]; listener.close()
for s in b, guest: s.settimeout(20)
quiet = dial('192.0.2.1', 80); quiet.sendall(b'q'); need(quiet, 1)
threads = [forever(f) for f in (refused, unsent, no_socket, connection, datagram, talk(a, 'tcp', 1000), talk(u, 'udp', 100), pour(b), served(guest), asked(answerer, 'asked'), asked(host, 'strangers'))]
say('up'); hear(); over.set()
for t in threads: t.join()
quiet.sendall(b'q'); need(quiet, 1)
for s in (a, b, u, guest, answerer, host, quiet): s.close()
say(f'broken: {broken}' if broken else ' '.join(['ended', *(f'{k}={v}' for k, v in n.items())])); hear()
";

/// The traffic, and every record of it.
pub struct Traffic {
    /// Files and pins.
    pub bench: Bench,
    /// Where the client lives.
    pub cgroup: Cgroup,
    client: Talk,
    far: Far,
    answers: Option<Arc<AtomicU64>>,
    /// Records so far, of every loader and every set of programs.
    pub records: Vec<Value>,
}

/// Names are not asked here.
pub struct NoNames;

impl Lookup for NoNames {
    fn name(&mut self, _: u32, _: u64) -> Option<String> {
        None
    }
    fn rule(&mut self, _: u32, rule: u32) -> Option<String> {
        Some(rule.to_string())
    }
}

impl Traffic {
    /// A client in a cgroup, which waits.
    #[must_use]
    pub fn prepare() -> Self {
        let bench = Bench::new();
        let far = Far::start();
        let name = format!("clawker-test-{}-upgrade", std::process::id());
        let cgroup = Cgroup::create(cgroup_root().join(name)).expect("a cgroup");
        let code = code(&format!("step('here')\n{CLIENT}"));
        let mut client = Talk::start(Command::new("python3").args(["-c", &code]));
        assert_eq!(client.hear(), "here");
        let procs = cgroup.path().join("cgroup.procs");
        std::fs::write(procs, client.pid().to_string()).expect("the process lives");
        Self {
            bench,
            cgroup,
            client,
            far,
            answers: None,
            records: Vec::new(),
        }
    }

    /// Lets the traffic begin.
    pub fn begin(&mut self) {
        assert_eq!(self.client.go(), "open");
        self.answers = Some(self.far.call());
        assert_eq!(self.client.hear(), "up");
    }

    /// Waits until everything has gone on for a while: a number of inbound requests were answered.
    pub fn go_on(&self) {
        let answers = self.answers.as_ref().expect("it has begun");
        let before = answers.load(Ordering::Relaxed);
        crate::eventually("the traffic to go on", || {
            (answers.load(Ordering::Relaxed) > before + 40).then_some(())
        });
    }

    /// Identity and configuration of the client's cgroup under [`POLICY`], written as this policy.
    pub fn seat(&self, engine: &Engine, index: u32, policy: u32) -> (SlotInfo, SlotConfig) {
        let compiled = compile(POLICY, policy);
        let mut rules = engine.pins().policy().expect("the maps of a policy");
        rules.write(&compiled).expect("room for the policy");
        let slot = Root::new(&self.bench.pins).draw_slot().expect("a number");
        let config = enrol::config((slot, index), policy, &compiled, &[], Place::Host);
        let below = self.cgroup.path().strip_prefix(cgroup_root());
        let identity = Identity {
            cgroup: below.expect("below the root").display().to_string(),
            cgroup_id: self.cgroup.id().expect("it is there"),
            ..Identity::default()
        };
        (identity.info(slot, session::boot_now()), config)
    }

    /// Takes a record.
    pub fn note(&mut self, record: &Record) -> bool {
        let value = serde_json::to_value(record).expect("a record is JSON");
        self.records.push(value);
        true
    }

    /// Reads whatever a set of programs has to tell.
    pub fn drain(&mut self, rings: &mut Rings) {
        let context = session::context(Owner::default());
        rings.drain(|e| self.note(&context.ended(e, &mut NoNames)));
        for (key, row) in rings.folds().expect("the folded rows") {
            self.note(&context.folded(&key, &row, &mut NoNames));
            let index = rings.books().row_of(key.slot).unwrap_or(0);
            rings.recorded(index, key.slot, key.verdict, row.count);
        }
    }

    /// Ends the traffic and says what it was.
    pub fn end(&mut self) -> Ended {
        let said = self.client.go();
        let mut words = said.split(' ');
        assert_eq!(words.next(), Some("ended"), "a conversation broke: {said}");
        let counts = words.map(|w| {
            let (name, n) = w.split_once('=').expect("name=number");
            (name.to_owned(), n.parse().expect("a number"))
        });
        Ended(counts.collect())
    }

    /// Nothing that is forbidden has left.
    #[track_caller]
    pub fn nothing_escaped(&self) {
        let escaped = self.far.escaped.load(Ordering::Relaxed);
        assert_eq!(escaped, 0, "packets or connections reached {FORBIDDEN}");
    }

    /// Everything that must be true once the traffic has ended and every record was read.
    #[track_caller]
    pub fn must_be_whole(&self, ended: &Ended) {
        self.nothing_escaped();
        let of = |verdict: &str, port: Option<u16>| {
            let fits = move |r: &&Value| {
                r["verdict"] == verdict && (port.is_none() || r["dst_port"] == port.unwrap_or(0))
            };
            self.records.iter().filter(fits).collect::<Vec<_>>()
        };
        assert_eq!(
            flows(of("DENIED", None)),
            ended.get("refused"),
            "refusals: {:?}",
            self.kinds()
        );
        // One that goes on in another set has a record there as well.
        let told = |port, upgraded| {
            flows(
                of("ALLOWED", Some(port))
                    .into_iter()
                    .filter(|r| (r["close_reason"] == "upgraded") == upgraded),
            )
        };
        let done = |port| told(port, false);
        // One whose socket is closed in the very moment does not go on: it has the first record alone. The bytes below
        // say that nothing is missing, and nothing there twice.
        for (port, n) in [(82, ended.get("connections")), (83, ended.get("datagrams"))] {
            let (done, upgraded) = (done(port), told(port, true));
            assert!(
                (done..=done + upgraded).contains(&n),
                "{n} flows of port {port}: {:?}",
                self.kinds()
            );
        }
        let all = [(80, 2), (84, 1), (81, 1), (90, 1), (91, 1)];
        for (port, n) in all {
            assert_eq!(done(port), n, "flows of port {port}: {:?}", self.kinds());
        }
        // Each comes from a port of its own, and does not come again. The last may have come too late to be heard.
        // Nobody reads while a loader is away, and the ring may be full by then: rows have no port, only counts.
        let (rows, singles): (Vec<_>, Vec<_>) = of("ALLOWED", Some(92))
            .into_iter()
            .partition(|r| r["src_port"].is_null());
        let ports: BTreeSet<_> = singles
            .into_iter()
            .map(|r| r["src_port"].as_u64().expect("a number"))
            .collect();
        let strangers = ports.len() as u64 + flows(rows);
        let heard = ended.get("strangers");
        let unheard = strangers.checked_sub(heard).unwrap_or_else(|| {
            panic!(
                "{strangers} flows of port 92, {heard} were heard: {:?}",
                self.kinds()
            )
        });
        assert!(unheard <= 1, "{unheard} flows of port 92 nobody began");
        let carried = |port, field: &str| {
            of("ALLOWED", Some(port))
                .iter()
                .map(|r| r[field].as_u64().expect("a number"))
                .sum::<u64>()
        };
        let poured = self.far.poured.load(Ordering::Relaxed);
        let bytes = [
            (82, "bytes_out", 10 * ended.get("connections")),
            (83, "bytes_out", 5 * ended.get("datagrams")),
            (80, "bytes_out", ended.get("tcp") + 2),
            (80, "bytes_in", ended.get("tcp") + 2),
            (81, "bytes_out", ended.get("udp")),
            (81, "bytes_in", ended.get("udp")),
            (90, "bytes_out", ended.get("served")),
            (84, "bytes_out", ended.get("poured")),
            (84, "bytes_out", poured),
        ];
        for (port, field, n) in bytes {
            let on: Vec<_> = of("ALLOWED", Some(port))
                .into_iter()
                .filter(|r| r["reason"] == "mid_stream" || r["close_reason"] == "upgraded")
                .collect();
            assert_eq!(carried(port, field), n, "{field} of port {port}: {on:#?}");
        }
    }

    /// What records there are, for a message.
    fn kinds(&self) -> BTreeMap<String, u64> {
        let mut kinds = BTreeMap::new();
        for r in &self.records {
            let text = |f: &str| r[f].to_string();
            let kind = format!(
                "{} {} {} {} {}",
                text("verdict"),
                text("direction"),
                text("dst_port"),
                text("reason"),
                text("close_reason")
            );
            *kinds.entry(kind).or_default() += r["count"].as_u64().unwrap_or(1);
        }
        kinds
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.far.over.store(true, Ordering::Relaxed);
        for thread in self.far.threads.drain(..) {
            // A test that failed may have ended it.
            let _ = thread.join();
        }
        clear(&self.cgroup);
        for version in std::fs::read_dir(&self.bench.pins)
            .into_iter()
            .flatten()
            .flatten()
        {
            for instance in std::fs::read_dir(version.path())
                .into_iter()
                .flatten()
                .flatten()
            {
                let _ = ebpf_manager::instance::remove_pins(&instance.path());
            }
        }
        let _ = self.cgroup.remove();
    }
}

/// What the client has counted.
#[derive(Debug)]
pub struct Ended(BTreeMap<String, u64>);

impl Ended {
    /// One of its counts; none is nothing.
    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}
